"""Ambiguity: exchanged tissue, attention, appearance, the space of codes; the page made of committed rows."""
