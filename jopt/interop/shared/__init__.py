"""Code shared by the doors: states by parameter, and units of momentum."""
