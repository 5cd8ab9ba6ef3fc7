"""What an argument may be, and calls that are remembered, written down and read."""
