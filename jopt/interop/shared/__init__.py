"""What the doors share: states by parameter, and units of momentum."""
