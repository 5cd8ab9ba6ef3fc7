"""Relatives of gradient descent."""
