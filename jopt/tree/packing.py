"""Many numbers as one vector, for XLA.

XLA:CPU makes a kernel of each scalar that leaves a piece of a program, with all that
leads to it. Where many scalars come of the same computation it is repeated, and
compiled, as many times. For a vector there is one kernel.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def packed(numbers: Any) -> jax.Array:
    """The scalars of a tree as one vector of their widest dtype.

    Whole numbers and bools are exact in it up to the precision of that dtype.
    """
    leaves = jax.tree.leaves(numbers)
    dtype = np.result_type(*{x.dtype for x in leaves if _is_float(x)})
    vector = jnp.zeros(len(leaves), dtype)
    # A chain of selections: a concatenation would repeat what its elements share.
    for mask, x in zip(np.eye(len(leaves), dtype=bool), leaves, strict=True):
        x = lax.broadcast(lax.convert_element_type(x, dtype), vector.shape)
        vector = lax.select(mask, x, vector)
    return lax.optimization_barrier(vector)


def unpacked(vector: jax.Array, like: Any) -> Any:
    """The scalars of a vector, with the structure and dtypes of a tree."""
    leaves, treedef = jax.tree.flatten(like)
    parts = lax.split(vector, [1] * len(leaves))
    return treedef.unflatten(
        lax.convert_element_type(lax.squeeze(part, (0,)), x.dtype)
        for part, x in zip(parts, leaves, strict=True)
    )


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
