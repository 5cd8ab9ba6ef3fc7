"""One gradient from those of all replicas.

u <- sum_r g_r   or   u <- (1 / R) sum_r g_r
"""

from __future__ import annotations

from typing import Any

import jax

from jopt import tree
from jopt.core import tree_checks
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation, Updates
from jopt.values import arguments


@transformation
def aggregate(
    axis_name: str | tuple[str, ...], op: str = "mean"
) -> GradientTransformation:
    """The mean, or the sum, of the gradients of all devices along a mapped axis.

    Where each device has a gradient of its own: in ``jax.shard_map`` and ``jax.pmap``.
    Under plain ``jax.jit`` there is one gradient of the whole batch, and XLA adds up
    what the devices have; this is an error there. It goes first in a chain, before
    anything that is not linear, such as clipping, and before `accumulate`, whose sum is
    one for all devices. To send gradients once per step, add them up in `micro_batch`.

    Args:
      axis_name: The name of the axis, or the names of several.
      op: ``"mean"``, for losses that are means over a device's examples, or ``"sum"``,
        Keras's default. Float16 and bfloat16 are added in float32 and rounded once.

    Returns:
      A transformation without state.

    Raises:
      ValueError: There is no such axis here, or the gradients are sums over it already.

    In ``shard_map``, the gradient with respect to parameters that are the same on all
    devices *is* the sum over them: JAX adds it up. To add it up here, take it with
    respect to ``jax.lax.pcast(params, axis_name, to="varying")``.

    >>> import jopt
    >>> tx = jopt.chain(jopt.aggregate("replica", op="sum"), jopt.sgd(0.1))
    >>> def update(g):
    ...     return tx.update(g, tx.init(g))[0]
    >>> jax.vmap(update, axis_name="replica")(jax.numpy.array([1.0, 3.0]))
    Array([-0.4, -0.4], dtype=float32)
    """
    several = isinstance(axis_name, tuple | list)
    names = tuple(axis_name) if several else (axis_name,)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"axis_name must be a name, or names, of mapped axes, got {axis_name!r}"
        )
    arguments.one_of(("mean", "sum"), op=op)
    reduce = jax.lax.pmean if op == "mean" else jax.lax.psum

    def init(params):
        del params
        return NO_STATE

    def update(updates, state):
        tree_checks.leaves(jax.tree.leaves(updates), updates, "updates")
        _check(updates, names)
        wide = jax.tree.map(lambda g: g.astype(tree.compute_dtype(g.dtype)), updates)
        total = reduce(wide, names)
        return jax.tree.map(lambda u, g: u.astype(g.dtype), total, updates), state

    return GradientTransformation(init, update)


def _check(updates: Updates, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            index = jax.lax.axis_index(name)
        except NameError:
            raise ValueError(
                f"aggregate: there is no mapped axis {name!r} here. Call update within "
                f"jax.shard_map over a mesh with that axis, or jax.pmap(…, axis_name="
                f"{name!r}); under jax.jit alone leave aggregate out, gradients of "
                "sharded batches are of the whole batch there"
            ) from None
        if name not in varying(jax.typeof(index)):
            continue  # not tracked here: pmap, vmap, or check_vma=False
        for path, g in tree.leaves_with_names(updates):
            if name not in varying(jax.typeof(g)):
                raise ValueError(
                    f"aggregate: the gradient {path!r} is the same on all devices "
                    f"along {name!r}. JAX has added it up already, if it is for "
                    "parameters that are the same on all devices: leave aggregate out, "
                    "or take the gradient with respect to "
                    f"jax.lax.pcast(params, {name!r}, to='varying')"
                )


def varying(typed: Any) -> frozenset[str]:
    """The mapped axes along which an array of this type differs, where JAX knows."""
    kind = getattr(typed, "manual_axis_type", None)
    return getattr(kind, "varying", frozenset())
