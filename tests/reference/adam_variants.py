"""Relatives of Adam."""
