"""Loops in C in place of what XLA:CPU compiles."""
