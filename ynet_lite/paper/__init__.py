"""What reproduces the paper: runs, rows, tables, figures."""
