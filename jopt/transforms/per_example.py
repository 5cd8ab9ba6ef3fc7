"""Combine the gradients of all replicas.

u <- sum_r g_r   or   u <- (1 / R) sum_r g_r
"""

from __future__ import annotations

from typing import Any, Literal

import jax

from jopt import tree
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves
from jopt.core.transformation import GradientTransformation, Place, Updates
from jopt.values import arguments
from jopt.values.arguments import text_of


@transformation
def aggregate(
    axis_name: str | tuple[str, ...], op: Literal["mean", "sum"] = "mean"
) -> GradientTransformation:
    """Average or sum the gradients of all devices along a mapped axis.

    Use it where each device holds its own gradient: in ``jax.shard_map`` and
    ``jax.pmap``. Under plain ``jax.jit`` there is a single gradient of the whole batch,
    which XLA reduces itself; `aggregate` raises an error there. Put it first in a
    chain: before anything nonlinear, such as clipping, and before `accumulate`, which
    keeps one sum for all devices. To communicate only once per step, reduce in
    `micro_batch`.

    Args:
      axis_name: The name of the axis, or a tuple of names.
      op: ``"mean"`` for losses that average over a device's examples, or ``"sum"``,
        Keras's default. Float16 and bfloat16 are added in float32 and rounded once.

    Returns:
      A transformation without state.

    Raises:
      ValueError: No axis of that name is mapped, or the gradients are already summed
        over it.

    In ``shard_map``, JAX already sums the gradient with respect to parameters that are
    the same on all devices. To sum it here instead, take the gradient with respect to
    ``jax.lax.pcast(params, axis_name, to="varying")``.

    >>> import jopt
    >>> tx = jopt.chain(jopt.aggregate("replica", op="sum"), jopt.sgd(0.1))
    >>> def update(g):
    ...     return tx.update(g, tx.init(g))[0]
    >>> jax.vmap(update, axis_name="replica")(jax.numpy.array([1.0, 3.0]))
    Array([-0.4, -0.4], dtype=float32)
    """
    is_sequence = isinstance(axis_name, tuple | list)
    names = tuple(axis_name) if is_sequence else (axis_name,)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"axis_name must be a name, or names, of mapped axes, got "
            f"{text_of(axis_name)}"
        )
    arguments.one_of(("mean", "sum"), op=op)
    reduce = jax.lax.pmean if op == "mean" else jax.lax.psum

    def init(params):
        del params
        return NO_STATE

    def update(updates, state):
        leaves = Leaves(updates)
        _check_axes(updates, names)
        return leaves.rounded(reduce(leaves.widened(), names)), state

    return GradientTransformation(init, update, place=Place(first=True))


def _check_axes(updates: Updates, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            index = jax.lax.axis_index(name)
        except NameError:
            raise ValueError(
                f"aggregate: there is no mapped axis {name!r} here. Call update inside "
                f"jax.shard_map over a mesh with that axis, or inside jax.pmap(…, "
                f"axis_name={name!r}). Under jax.jit alone, leave aggregate out: the "
                "gradient of a sharded batch already covers the whole batch"
            ) from None
        if name not in varying(jax.typeof(index)):
            continue  # JAX does not track it: pmap, vmap, or check_vma=False
        for path, g in tree.leaves_with_names(updates):
            if name not in varying(jax.typeof(g)):
                raise ValueError(
                    f"aggregate: the gradient {path!r} is the same on all devices "
                    f"along {name!r}. JAX has already summed it if the parameters are "
                    "the same on all devices: leave aggregate out, or take the "
                    "gradient with respect to "
                    f"jax.lax.pcast(params, {name!r}, to='varying')"
                )


def varying(typed: Any) -> frozenset[str]:
    """Return the mapped axes along which an array of this type varies.

    The set is empty where JAX does not track this.
    """
    # Not a public attribute of JAX: a version without it counts as not tracking.
    axis_type = getattr(typed, "manual_axis_type", None)
    return getattr(axis_type, "varying", frozenset())
