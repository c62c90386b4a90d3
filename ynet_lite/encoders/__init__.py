"""Encoders: image in, feature maps C2 to C5 out."""
