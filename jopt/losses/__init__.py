"""Losses: what an optimizer minimizes, with optax's names and arguments.

A loss is computed in float32 or wider and rounded once, to the promoted dtype of
predictions and targets. Where a docstring says so, only the predictions decide, or the
result stays in float32 or wider; each is as in optax.

Predictions and targets may broadcast, but an array with fewer axes than the other one
must not change its shape: ``(n,)`` against ``(n, 1)`` is an error. Class labels that
are known before the run must be in range. At infinite logits, zero probabilities, zero
vectors and empty masks, losses and gradients are the limits where those are finite.

Most losses return one number per example: reduce them with ``.mean()``.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
