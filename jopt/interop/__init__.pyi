"""The doors to other libraries."""

from . import flax as flax, keras as keras, optax as optax, torch as torch
