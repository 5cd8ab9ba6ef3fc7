"""Orthogonalized momentum."""
