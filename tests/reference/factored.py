"""Second moments that take little memory."""
