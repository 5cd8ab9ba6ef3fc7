"""The contract of a transformation, and the leaf engine."""
