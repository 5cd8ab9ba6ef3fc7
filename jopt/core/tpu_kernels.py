"""Kernels on one TPU for slots in blocks of 8 bits, which move every array once.

XLA for the TPU writes the scale of each block to memory as often as the block has
elements. Here the whole kernel of a leaf, with the rules in it, runs on some rows at a
time in the memory of the chip, as one Pallas kernel. It is for rules that treat every
element by itself, and for programs on one device; otherwise XLA has the kernel as it
is. The numbers are the same but for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jopt.core.row_loops import by_element
from jopt.storage.blocks import on_tile
from jopt.storage.formats import is_encoded


# Rows and columns of 8 bits that a TPU reads at once.
_ROWS, _COLUMNS = 32, 128
# The memory of the chip for a kernel, and a part of it for the arrays of some rows.
_MEMORY, _FOR_ROWS = 64 * 2**20, 24 * 2**20
# What a rule may be made of: of these it is known that Pallas has them for TPUs.
_KNOWN = {
    "abs", "add", "and", "broadcast_in_dim", "convert_element_type", "copy", "copy_p",
    "div", "eq", "ge", "gt", "integer_pow", "le", "lt", "max", "min", "mul", "ne",
    "neg", "not", "or", "rsqrt", "select_n", "sqrt", "square", "stop_gradient", "sub",
}  # fmt: skip


def form(
    kernel: Callable[..., Any],
    inputs: Sequence[Any],
    treedef: Any,
    places: Sequence[int | None],
    *,
    interpret: bool = False,
) -> Callable[..., list[jax.Array]] | None:
    """The kernel of a leaf as one call, if it can be.

    Args:
      kernel: ``kernel(g, old, rest, take)`` returns the update or the new parameter,
        and the new slots.
      inputs: The leaves of its arguments.
      treedef: Their structure.
      places: What each output replaces, as the number of an input.
      interpret: Whether to run it where there is no TPU.

    Returns:
      A function of the inputs that returns the leaves of the results, or None.
    """
    arguments = treedef.unflatten(inputs)
    g = arguments[0]
    encoded = [
        x
        for x in jax.tree.leaves(arguments, is_leaf=is_encoded)
        if is_encoded(x) and x.scales is not None
    ]
    if not encoded or g.ndim < 2 or g.shape[-2] % _ROWS or g.shape[-1] % _COLUMNS:
        return None
    if any(x.codes.dtype not in (jnp.int8, jnp.uint8) for x in encoded):
        return None
    shapes = {g.shape, encoded[0].scales.shape}
    large = [x for x in inputs if x.ndim]
    if any(x.shape not in shapes or x.dtype.itemsize > 4 for x in large):
        return None
    row = sum(x.shape[-1] * x.dtype.itemsize for x in large)
    if 6 * row * _ROWS > _FOR_ROWS or not by_element(kernel, arguments, _KNOWN):
        return None

    def call(*leaves):
        return _called(kernel, leaves, treedef, places, interpret)

    return call


def _called(
    kernel: Callable[..., Any],
    leaves: Sequence[jax.Array],
    treedef: Any,
    places: Sequence[int | None],
    interpret: bool,
) -> list[jax.Array]:
    # They are slow to import, and only TPUs need them.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    whole = [leaves[0] if i is None else leaves[i] for i in places]
    # To the TPU, leading axes of many rows are rows too.
    leaves = [x.reshape(-1, x.shape[-1]) if x.ndim else x for x in leaves]
    rows, columns = leaves[0].shape
    shapes = [leaves[0] if i is None else leaves[i] for i in places]

    def spec(x):
        if not x.ndim:
            return pl.BlockSpec(memory_space=pltpu.SMEM)
        return pl.BlockSpec((_ROWS, x.shape[1]), lambda i: (i, 0))

    def body(*refs):
        read, written = refs[: len(leaves)], refs[len(leaves) :]
        values = [
            ref[...] if x.ndim else _as_scalar(ref[0], x.dtype)
            for ref, x in zip(read, leaves, strict=True)
        ]
        start = pl.program_id(0) * (_ROWS * columns)
        with on_tile(start, in_pallas=True):
            new = jax.tree.leaves(kernel(*treedef.unflatten(values)))
        for ref, x in zip(written, new, strict=True):
            ref[...] = x

    call = pl.pallas_call(
        body,
        grid=(rows // _ROWS,),
        in_specs=[spec(x) for x in leaves],
        out_specs=[spec(x) for x in shapes],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes],
        input_output_aliases={i: k for k, i in enumerate(places) if i is not None},
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_MEMORY),
        interpret=interpret,
    )
    results = call(*(x if x.ndim else _as_array(x) for x in leaves))
    return [x.reshape(like.shape) for x, like in zip(results, whole, strict=True)]


def _as_array(x: jax.Array) -> jax.Array:
    """A scalar for the memory of scalars, which holds 32 bits."""
    if x.dtype == jnp.uint32:
        x = lax.bitcast_convert_type(x, jnp.int32)
    elif x.dtype == jnp.bool_:
        x = x.astype(jnp.int32)
    return x.reshape(1)


def _as_scalar(x: jax.Array, dtype: Any) -> jax.Array:
    return x != 0 if dtype == jnp.bool_ else x.astype(dtype)
