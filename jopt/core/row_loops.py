"""Kernels on one CPU for slots in blocks: some rows at a time.

XLA for the CPU makes a loop for each array that it computes, and writes to memory what
several of them need: the codes of a slot need the new value, its scale, and bits. For
all of a leaf that is four times the memory that the codes save, and it leaves the cache
between the loops. In some rows at a time it stays there. The numbers are the same but
for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jopt.core.row_kernels import ELEMENTWISE
from jopt.storage.blocks import Tile, on_tile
from jopt.storage.formats import Encoded, is_encoded


# The elements of some rows. What is computed of them stays in the cache of a core.
_ELEMENTS = 2**15
_KNOWN = ELEMENTWISE | {"broadcast_in_dim", "copy"}


class Output(NamedTuple):
    """What a kernel returns for an array of the leaf."""

    place: int | None  # what it replaces, as the number of an input; None: an update
    dtype: Any


def form(
    kernel: Callable[..., Any],
    inputs: Sequence[Any],
    treedef: Any,
    outputs: Sequence[Output],
) -> Callable[..., list[jax.Array]] | None:
    """The kernel of a leaf as a loop over its rows, if it can be.

    Args:
      kernel: ``kernel(g, old, rest, take)`` returns the update or the new parameter,
        and the new slots.
      inputs: The leaves of its arguments.
      treedef: Their structure.
      outputs: What it returns.

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
        return _looped(kernel, leaves, treedef, outputs)

    return call


def _looped(
    kernel: Callable[..., Any],
    leaves: Sequence[jax.Array],
    treedef: Any,
    outputs: Sequence[Output],
) -> list[jax.Array]:
    places = [output.place for output in outputs]
    shapes = [leaves[i or 0].shape for i in places]
    dtypes = [x.dtype for x in leaves]
    leaves = [_in_bytes(x.reshape(-1, x.shape[-1])) if x.ndim else x for x in leaves]
    height, width = leaves[0].shape
    some = min(height, max(1, _ELEMENTS // width))

    def start(k):
        """The last rows may be among those before them, too."""
        return jnp.minimum(k * some, height - some)

    read = {i: x for i, x in enumerate(leaves) if x.ndim and i not in places}

    def rows(k, arrays):
        return jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(x, start(k), some), arrays
        )

    def part(k, carry):
        results, old, others = carry
        values = dict(enumerate(leaves)) | others | dict(zip(places, old, strict=True))
        values = [_from_bytes(values[i], dtype) for i, dtype in enumerate(dtypes)]
        with on_tile(Tile(start(k))):
            new = jax.tree.leaves(kernel(*treedef.unflatten(values)))
        new = [_in_bytes(x) for x in new]
        if height % some:
            repeated = k * some - start(k)
            is_new = lax.broadcasted_iota(jnp.int32, (some, 1), 0) >= repeated
            new = [jnp.where(is_new, x, y) for x, y in zip(new, old, strict=True)]
        results = [
            lax.dynamic_update_slice_in_dim(x, y, start(k), 0)
            for x, y in zip(results, new, strict=True)
        ]
        # What the next round needs is read here, and of the old arrays from those that
        # this one writes: XLA would copy an array that one loop reads and another one
        # writes. The barrier keeps it from converting whole arrays before the rounds.
        in_round, _ = lax.optimization_barrier((read, k))
        return results, rows(k + 1, results), rows(k + 1, in_round)

    results = [
        _in_bytes(jnp.zeros_like(leaves[0], dtype)) if i is None else leaves[i]
        for i, dtype in outputs
    ]
    carry = results, rows(0, results), rows(0, read)
    results, *_ = lax.fori_loop(0, -(-height // some), part, carry)
    return [
        _from_bytes(x, output.dtype).reshape(shape)
        for x, output, shape in zip(results, outputs, shapes, strict=True)
    ]


def _in_bytes(x: jax.Array) -> jax.Array:
    """As numbers of which XLA slices some rows; others it converts in each round."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        bits = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
        return x if bits.itemsize > 2 else lax.bitcast_convert_type(x, bits)
    return x.astype({"int4": jnp.int8, "uint4": jnp.uint8}.get(x.dtype.name, x.dtype))


def _from_bytes(x: jax.Array, dtype: Any) -> jax.Array:
    if x.dtype == dtype:
        return x
    if jnp.issubdtype(dtype, jnp.floating):
        return lax.bitcast_convert_type(x, dtype)
    return x.astype(dtype)


def by_element(
    kernel: Callable[..., Any],
    arguments: Any,
    known: Collection[str],
    *,
    in_pallas: bool = False,
) -> bool:
    """Whether the rules, without the codes, treat every element by itself.

    Args:
      kernel: The kernel of a leaf.
      arguments: Its arguments, the gradient first.
      known: The primitives that it may be made of.
      in_pallas: Whether it is for a Pallas kernel.
    """

    def traced(rows, times):
        def like(x):
            if is_encoded(x):
                return Encoded(like(x.codes.astype(jnp.float32)), None)
            if not x.ndim:
                return jax.ShapeDtypeStruct((), x.dtype)
            columns = x.shape[-1] * (1 if x.shape[-1] == 1 else times)
            return jax.ShapeDtypeStruct((*rows, columns), x.dtype)

        plain = jax.tree.map(like, arguments, is_leaf=is_encoded)
        with on_tile(Tile(in_pallas=in_pallas, is_trial=True)):
            # A function of its own: JAX keeps what it has traced.
            return jax.make_jaxpr(lambda *arguments: kernel(*arguments))(*plain)

    jaxprs = [traced(arguments[0].shape[:-1], 1), traced((2,), 2)]
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
    """An operation and its constants, which must not depend on the shape."""
    return (eqn.primitive.name, *(str(v.val) for v in eqn.invars if hasattr(v, "val")))
