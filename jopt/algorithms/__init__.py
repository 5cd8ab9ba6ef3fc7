"""One algorithm family a file."""
