"""Small experiments and drawings that explain the method."""
