"""Ablations: what each loss, outline and bit is worth."""
