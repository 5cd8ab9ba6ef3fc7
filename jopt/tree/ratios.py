"""Division that is right at zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def ratio(x: Any, y: Any, *added: Any) -> jax.Array:
    """Return ``x / y``, and 0 where ``y`` is 0.

    Args:
      x: An array or a number.
      y: An array or a number, >= 0.
      *added: Terms of ``y``, such as an eps, none of them negative. If one is a
        constant, ``y`` is never 0 and the result is the plain quotient.

    >>> ratio(jnp.array([6.0, 0.0, 6.0]), jnp.array([3.0, 0.0, 0.0]))
    Array([2., 0., 0.], dtype=float32)
    """
    if any(map(_stays_positive, added)):
        return x / y
    nonzero = jnp.asarray(y != 0)
    # The inner where keeps the derivative finite.
    quotient = x / jnp.where(nonzero, y, 1)
    return jnp.where(nonzero, quotient, jnp.zeros_like(quotient))


def _stays_positive(added: Any) -> bool:
    """Whether a number is a constant, and positive in float32 too."""
    # With room for the small weight that an average gives to it.
    smallest = 1e7 * float(np.finfo(np.float32).tiny)
    return isinstance(added, float) and added > smallest
