"""Flax: a TrainState and an nnx Optimizer that read and set the learning rate.

jopt transformations also work in ``flax.training.train_state.TrainState`` and
``flax.nnx.Optimizer`` without them.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
