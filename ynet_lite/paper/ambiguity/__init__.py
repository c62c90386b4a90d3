"""Ambiguity: errors by cause, exchanged tissue, attention."""
