"""Ambiguity: exchanged tissue, appearance, measures of maps and of spaces of codes; the page made of committed rows."""
