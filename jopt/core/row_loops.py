"""Kernels on one CPU for slots in blocks: some rows at a time.

XLA for the CPU makes a loop for each array that it computes, and writes to memory what
several of them need: the codes of a slot need the new value, its scale, and bits. For
all of a leaf that is four times the memory that the codes save, and it leaves the cache
between the loops. In some rows at a time it stays there. The numbers are the same but
for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jopt.core.row_kernels import ELEMENTWISE
from jopt.storage.blocks import on_tile
from jopt.storage.formats import Encoded, is_encoded


# The elements of some rows. What is computed of them stays in the cache of a core.
_ELEMENTS = 2**15
_KNOWN = ELEMENTWISE | {"broadcast_in_dim", "copy"}


def form(
    kernel: Callable[..., Any],
    inputs: Sequence[Any],
    treedef: Any,
    places: Sequence[int | None],
) -> Callable[..., list[jax.Array]] | None:
    """The kernel of a leaf as a loop over its rows, if it can be.

    Args:
      kernel: ``kernel(g, old, rest, take)`` returns the update or the new parameter,
        and the new slots.
      inputs: The leaves of its arguments.
      treedef: Their structure.
      places: What each output replaces, as the number of an input.

    Returns:
      A function of the inputs that returns the leaves of the results, or None.
    """
    arguments = treedef.unflatten(inputs)
    leading = arguments[0].shape[:-1]
    if not leading or any(x.ndim and x.shape[:-1] != leading for x in inputs):
        return None
    if not by_element(kernel, arguments, _KNOWN):
        return None

    def call(*leaves):
        return _looped(kernel, leaves, treedef, places)

    return call


def _looped(
    kernel: Callable[..., Any],
    leaves: Sequence[jax.Array],
    treedef: Any,
    places: Sequence[int | None],
) -> list[jax.Array]:
    # An output without a place is the update, and like the gradient.
    likes = [leaves[i or 0] for i in places]
    leaves = [x.reshape(-1, x.shape[-1]) if x.ndim else x for x in leaves]
    height, width = leaves[0].shape
    some = min(height, max(1, _ELEMENTS // width))

    def part(start, count, outputs):
        """The outputs with those of some rows."""
        values = list(leaves)
        for i, x in zip(places, outputs, strict=True):
            if i is not None:
                values[i] = x
        values = [
            lax.dynamic_slice_in_dim(x, start, count) if x.ndim else x for x in values
        ]
        # Beyond 2**32 elements their numbers begin again, as those of the bits do.
        before = jnp.asarray(start).astype(jnp.uint32) * jnp.uint32(width)
        before = lax.bitcast_convert_type(before, jnp.int32)
        with on_tile(before, in_pallas=False):
            new = jax.tree.leaves(kernel(*treedef.unflatten(values)))
        return [
            lax.dynamic_update_slice_in_dim(x, y, start, 0)
            for x, y in zip(outputs, new, strict=True)
        ]

    outputs = [jnp.zeros_like(leaves[0]) if i is None else leaves[i] for i in places]
    outputs = lax.fori_loop(
        0, height // some, lambda k, outputs: part(k * some, some, outputs), outputs
    )
    if rest := height % some:
        outputs = part(height - rest, rest, outputs)
    return [x.reshape(like.shape) for x, like in zip(outputs, likes, strict=True)]


def by_element(
    kernel: Callable[..., Any], arguments: Any, known: Collection[str]
) -> bool:
    """Whether the rules, without the codes, treat every element by itself.

    Args:
      kernel: The kernel of a leaf.
      arguments: Its arguments, the gradient first.
      known: The primitives that it may be made of.
    """

    def traced(rows):
        def like(x):
            if is_encoded(x):
                return Encoded(like(x.codes.astype(jnp.float32)), None)
            shape = (*rows, x.shape[-1]) if x.ndim else ()
            return jax.ShapeDtypeStruct(shape, x.dtype)

        plain = jax.tree.map(like, arguments, is_leaf=is_encoded)
        return jax.make_jaxpr(kernel)(*plain)

    jaxprs = [traced(rows) for rows in (arguments[0].shape[:-1], (2,))]
    whole, some = ([*_equations(x.jaxpr)] for x in jaxprs)
    if not all(e.primitive.name in known for e in whole):
        return False
    return list(map(_shown, whole)) == list(map(_shown, some))


def _equations(jaxpr: Any) -> Any:
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr")
        if eqn.primitive.name in ("jit", "pjit") and inner is not None:
            yield from _equations(inner.jaxpr)
        else:
            yield eqn


def _shown(eqn: Any) -> tuple[str, ...]:
    """An operation and its constants, which must not depend on the number of rows."""
    return (eqn.primitive.name, *(str(v.val) for v in eqn.invars if hasattr(v, "val")))
