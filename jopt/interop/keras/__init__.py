"""Keras: weights of its optimizers as states, and back; Keras itself is not needed."""

from jopt.interop.keras.files import load
from jopt.interop.keras.weights import Layout, get_weights, set_weights
from jopt.interop.order import Permuted


__all__ = ["Layout", "Permuted", "get_weights", "load", "set_weights"]
