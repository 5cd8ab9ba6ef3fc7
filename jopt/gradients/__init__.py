"""Functions of a value-and-gradient function."""
