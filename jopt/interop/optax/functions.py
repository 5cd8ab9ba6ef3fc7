"""Functions of optax: most of them are those of jopt."""

from typing import Any

import jax
import jax.numpy as jnp

from jopt.algorithms import dpsgd
from jopt.core import apply
from jopt.interop.optax.base import inexact


def per_example_global_norm_clip(grads: Any, l2_norm_clip: float) -> tuple[Any, Any]:
    """Clip each example's gradient, see `jopt.per_example_global_norm_clip`."""
    return dpsgd.per_example_global_norm_clip(inexact(grads), l2_norm_clip)


def per_example_layer_norm_clip(
    grads: Any, global_l2_norm_clip: float, uniform: bool = True
) -> tuple[Any, Any]:
    """Clip each example's layers, see `jopt.per_example_layer_norm_clip`."""
    grads = inexact(grads)
    return dpsgd.per_example_layer_norm_clip(grads, global_l2_norm_clip, uniform)


def apply_updates(params: Any, updates: Any) -> Any:
    """Add updates to the parameters, see `jopt.apply_updates`, which checks more.

    Args:
      params: The parameters.
      updates: What to add, a tree of the same structure; None leaves a leaf as it is.

    Returns:
      The new parameters, in the dtypes of the old ones.
    """

    def add(p, u):
        if p is None or u is None:
            return p
        return jnp.asarray(p + u).astype(jnp.asarray(p).dtype)

    return jax.tree.map(add, params, updates, is_leaf=lambda x: x is None)


def incremental_update(new_tensors: Any, old_tensors: Any, step_size: Any) -> Any:
    """Go a share of the way to new values, see `jopt.incremental_update`."""
    return apply.incremental_update(new_tensors, old_tensors, step_size)


def periodic_update(
    new_tensors: Any, old_tensors: Any, steps: Any, update_period: int
) -> Any:
    """Take new values every few steps, see `jopt.periodic_update`."""
    return apply.periodic_update(new_tensors, old_tensors, steps, update_period)
