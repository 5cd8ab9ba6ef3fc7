"""More transformations of a gradient."""
