"""Transformations that wrap other transformations."""
