"""Row-sparse updates as dense arrays."""

from __future__ import annotations

from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves, densified
from jopt.core.transformation import GradientTransformation, Place


@transformation
def densify() -> GradientTransformation:
    """Make row-sparse updates dense, with zeros in the untouched rows.

    The rest of the chain sees an ordinary gradient: moments and weights also decay in
    untouched rows, as in Keras 3, and every row is read and written. Put it first.

    Returns:
      A transformation without state; dense updates pass unchanged.

    >>> import jopt, jax.numpy as jnp
    >>> g = jopt.RowSparse(jnp.array([1]), jnp.ones((1, 1)), num_rows=3)
    >>> jopt.densify().update({"table": g}, ())[0]["table"].ravel()
    Array([0., 1., 0.], dtype=float32)
    """

    def init(params):
        Leaves(params, "params")
        return NO_STATE

    def update(updates, state, params=None):
        if params is not None:
            Leaves(updates, row_sparse=True).aligned(params, "params")
        return densified(updates), state

    return GradientTransformation(init, update, place=Place(first=True))
