"""What goes around a transformation."""
