"""Curvature and privacy."""
