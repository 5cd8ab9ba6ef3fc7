"""Kernels on a TPU for slots in blocks of 8 bits, and for bfloat16 parameters.

XLA for the TPU writes the scale of each block to memory as often as the block has
elements, and the update of a bfloat16 parameter, which the parameter and its error
need. Here the whole kernel of a leaf, with the rules in it, runs on some rows at a time
in the memory of the chip, as one Pallas kernel that moves every array once. It is for
rules that treat every element by itself; otherwise XLA has the kernel as it is. The
numbers are the same but for the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt.core.row_loops import Output, by_element
from jopt.storage.blocks import Tile, on_tile
from jopt.storage.formats import Encoded, is_encoded
from jopt.storage.rounding import wrapped


# Rows and columns of 8 bits that a TPU reads at once.
_ROWS, _COLUMNS = 32, 128
# The memory of the chip for a kernel, and a part of it for the arrays of some rows.
_MEMORY, _FOR_ROWS = 64 * 2**20, 24 * 2**20
_DTYPES = {"bfloat16", "float32", "int16", "int8", "uint8"}
# What a rule may be made of: of these it is known that Pallas has them for TPUs.
_KNOWN = {
    "abs", "add", "and", "bitcast_convert_type", "broadcast_in_dim", "clamp",
    "convert_element_type", "copy", "copy_p", "div", "eq", "ge", "gt", "integer_pow",
    "is_finite", "le", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "round",
    "rsqrt", "select_n", "shift_right_arithmetic", "shift_right_logical", "sqrt",
    "square", "stop_gradient", "sub", "xor",
}  # fmt: skip


class Part(NamedTuple):
    """Which part of a leaf some arrays are."""

    shape: tuple[int, ...]  # of the whole leaf
    start: Any  # the number of the part's first element, an int32

    @property
    def strides(self) -> tuple[int, ...]:
        """How far the next element of each axis is."""
        return tuple(math.prod(self.shape[i:]) for i in range(1, len(self.shape) + 1))


def form(
    kernel: Callable[..., Any],
    inputs: Sequence[Any],
    treedef: Any,
    outputs: Sequence[Output],
    *,
    interpret: bool = False,
) -> Callable[..., list[jax.Array]] | None:
    """The kernel of a leaf as one call, if it can be.

    Args:
      kernel: ``kernel(g, old, rest, take)`` returns the update or the new parameter,
        and the new slots.
      inputs: The leaves of its arguments.
      treedef: Their structure.
      outputs: What it returns.
      interpret: Whether to run it where there is no TPU.

    Returns:
      A function of the inputs that returns the leaves of the results, or None.
    """
    if not fits(inputs, treedef):
        return None
    arguments = treedef.unflatten(inputs)
    if not by_element(kernel, arguments, _KNOWN, in_pallas=True):
        return None

    def call(*leaves):
        return called(kernel, leaves, treedef, outputs, interpret=interpret)

    return call


def fits(inputs: Sequence[Any], treedef: Any) -> bool:
    """Whether arrays of these shapes and dtypes are tiles in the memory of the chip."""
    arguments = treedef.unflatten(inputs)
    g = arguments[0]
    if g.ndim < 2 or g.shape[-1] % _COLUMNS or (g.ndim > 2 and g.shape[-2] % _ROWS):
        return False
    encoded = encoded_of(arguments)
    large = [x for x in inputs if x.ndim]
    shapes = {g.shape, *(x.scales.shape for x in encoded[:1])}
    if any(x.codes.dtype not in (jnp.int8, jnp.uint8) for x in encoded):
        return False
    if any(x.shape not in shapes or x.dtype.name not in _DTYPES for x in large):
        return False
    row = sum(x.shape[-1] * x.dtype.itemsize for x in large)
    return 6 * row * _ROWS <= _FOR_ROWS


def encoded_of(arguments: Any) -> list[Encoded]:
    """The arrays that have scales."""
    found = filter(is_encoded, jax.tree.leaves(arguments, is_leaf=is_encoded))
    return [x for x in found if x.scales is not None]


def called(
    kernel: Callable[..., Any],
    leaves: Sequence[jax.Array],
    treedef: Any,
    outputs: Sequence[Output],
    part: Part | None = None,
    *,
    interpret: bool,
) -> list[jax.Array]:
    """The results of a kernel, computed in one call.

    Args:
      kernel: See `form`.
      leaves: The leaves of its arguments.
      treedef: Their structure.
      outputs: What it returns.
      part: Which part of the leaf they are; None for all of it.
      interpret: Whether to run it where there is no TPU.
    """
    # They are slow to import, and only TPUs need them.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    whole = [leaves[i or 0].shape for i, _ in outputs]
    leading = leaves[0].shape[:-1]
    # To the TPU, leading axes of many rows are rows too.
    leaves = [x.reshape(-1, x.shape[-1]) if x.ndim else x for x in leaves]
    shapes = [jax.ShapeDtypeStruct(leaves[i or 0].shape, d) for i, d in outputs]
    starts = [] if part is None else [part.start]

    def spec(x):
        if not x.ndim:
            return pl.BlockSpec(memory_space=pltpu.SMEM)
        return pl.BlockSpec((_ROWS, x.shape[1]), lambda i: (i, 0))

    def tile(row, start):
        """Where the rows from this one on are."""
        if part is None:
            return Tile(row, in_pallas=True)
        *strides, stride, _ = part.strides
        # Only the last of several leading axes has more than a tile's rows.
        outwards = zip(leading[:0:-1], (stride, *strides[::-1]), strict=False)
        for n, far in outwards:
            start = start + lax.rem(row, np.int32(n)) * wrapped(far)
            row = lax.div(row, np.int32(n))
        start = start + row * wrapped(part.strides[0])
        return Tile(start, (stride, 1), in_pallas=True)

    def body(*refs):
        count = len(leaves) + len(starts)
        read, written = refs[:count], refs[count:]
        values = [
            ref[...] if x.ndim else _as_scalar(ref[0], x.dtype)
            for ref, x in zip(read, (*leaves, *starts), strict=True)
        ]
        values, start = values[: len(leaves)], values[len(leaves) :]
        with on_tile(tile(pl.program_id(0) * _ROWS, *(start or [0]))):
            new = jax.tree.leaves(kernel(*treedef.unflatten(values)))
        for ref, x in zip(written, new, strict=True):
            ref[...] = x

    call = pl.pallas_call(
        body,
        grid=(pl.cdiv(leaves[0].shape[0], _ROWS),),
        in_specs=[spec(x) for x in (*leaves, *starts)],
        out_specs=[spec(x) for x in shapes],
        out_shape=shapes,
        input_output_aliases={
            i: k for k, (i, _) in enumerate(outputs) if i is not None
        },
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_MEMORY),
        interpret=interpret,
    )
    results = call(*(x if x.ndim else _as_array(x) for x in (*leaves, *starts)))
    return [x.reshape(shape) for x, shape in zip(results, whole, strict=True)]


def _as_array(x: jax.Array) -> jax.Array:
    """A scalar for the memory of scalars, which holds 32 bits."""
    if x.dtype == jnp.uint32:
        x = lax.bitcast_convert_type(x, jnp.int32)
    elif x.dtype == jnp.bool_:
        x = x.astype(jnp.int32)
    return x.reshape(1)


def _as_scalar(x: jax.Array, dtype: Any) -> jax.Array:
    return x != 0 if dtype == jnp.bool_ else x.astype(dtype)
