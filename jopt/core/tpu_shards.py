"""The kernels of tpu_kernels.py on several TPUs, each of which has a part of a leaf.

To XLA's partitioner a Pallas kernel is a box that it cannot divide, and JAX cannot ask
it on a TPU (`jax.experimental.custom_partitioning` is for CPUs and GPUs). So the parts
have to be known when JAX traces: from the types of arrays on meshes with explicit axes,
else from who split the leaf (`placed`). Every device runs the kernel on its part. The
random bits follow from an element's place in the whole leaf, so the numbers are those
of one device. If parts are not whole tiles, or cut blocks in two, XLA has the kernel.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jopt import tree
from jopt.core import tpu_kernels
from jopt.core.row_loops import Output
from jopt.core.tpu_kernels import Part
from jopt.storage.blocks import block_count
from jopt.storage.rounding import wrapped


_PLACED = contextvars.ContextVar[Any]("placed", default=None)


@contextlib.contextmanager
def placed(shardings: Any) -> Iterator[None]:
    """Tell the kernels how arrays are split that are like the parameters.

    Args:
      shardings: A tree like the parameters, with a ``NamedSharding`` for each.
    """
    leaves, treedef = jax.tree.flatten(shardings, is_leaf=tree.is_leaf)
    before = _PLACED.set((treedef, leaves))
    try:
        yield
    finally:
        _PLACED.reset(before)


def shardings_of(treedef: Any) -> list[NamedSharding | None]:
    """What `placed` told of the leaves of a tree."""
    found = _PLACED.get()
    if found is None or found[0] != treedef:
        return [None] * treedef.num_leaves
    return found[1]


def form(
    kernel: Callable[..., Any],
    inputs: Sequence[Any],
    treedef: Any,
    outputs: Sequence[Output],
    sharding: NamedSharding | None = None,
    *,
    interpret: bool = False,
) -> Callable[..., list[jax.Array]] | None:
    """The kernel of a leaf, on the part of each device, if it can be.

    Args:
      kernel: See `tpu_kernels.form`.
      inputs: The leaves of its arguments, the gradient first.
      treedef: Their structure.
      outputs: What it returns.
      sharding: How the leaf is split, if that is not its type.
      interpret: Whether to run it where there is no TPU.

    Returns:
      A function of the inputs that returns the leaves of the results, or None.
    """
    types: list[Any] = [jax.typeof(x).sharding for x in inputs]
    if types[0].mesh.explicit_axes:
        sharding = types[0]
    if sharding is None or tpu_kernels.form(kernel, inputs, treedef, outputs) is None:
        return None
    shape, mesh = inputs[0].shape, sharding.mesh
    if len(set(mesh.axis_types)) > 1 or AxisType.Manual in mesh.axis_types:
        return None
    spec = PartitionSpec(*sharding.spec, *[None] * (len(shape) - len(sharding.spec)))
    specs = [spec if x.ndim else PartitionSpec() for x in inputs]
    sizes = [_parts(entry, mesh.shape) for entry in spec]
    if _cuts_blocks(treedef.unflatten(inputs), sizes[-1]):
        return None
    if any(
        n % m for x in inputs if x.ndim for n, m in zip(x.shape, sizes, strict=True)
    ):
        return None
    parts = [
        jax.ShapeDtypeStruct(
            tuple(n // m for n, m in zip(x.shape, sizes, strict=False)), x.dtype
        )
        for x in inputs
    ]
    if not tpu_kernels.fits(parts, treedef):
        return None

    def of_part(*leaves):
        part = Part(shape, _start(shape, leaves[0].shape, spec, mesh.shape))
        return tpu_kernels.called(
            kernel, leaves, treedef, outputs, part, interpret=interpret
        )

    def call(*leaves):
        explicit = mesh.are_all_axes_explicit
        if explicit:
            leaves = [
                jax.sharding.reshard(x, NamedSharding(mesh, s))
                for x, s in zip(leaves, specs, strict=True)
            ]
        new = jax.shard_map(
            of_part,
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=[spec] * len(outputs),
            check_vma=False,
        )(*leaves)
        if not explicit:
            return new
        return [
            jax.sharding.reshard(x, types[output.place or 0])
            for x, output in zip(new, outputs, strict=True)
        ]

    return call


def _names(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else (*entry,)


def _parts(entry: Any, sizes: Mapping[str, int]) -> int:
    """Into how many parts an axis is split."""
    return math.prod(sizes[name] for name in _names(entry))


def _cuts_blocks(arguments: Any, parts: int) -> bool:
    """Whether parts of rows do not have whole blocks, whose size is a power of 2."""
    encoded = tpu_kernels.encoded_of(arguments)
    if parts == 1 or not encoded:
        return False
    columns, count = encoded[0].codes.shape[-1], encoded[0].scales.shape[-1]
    size = 2 ** math.ceil(math.log2(columns / count))
    whole = count > 1 and block_count(columns, size) * size == columns
    return not whole or count % parts != 0


def _start(
    shape: tuple[int, ...],
    part: tuple[int, ...],
    spec: PartitionSpec,
    sizes: Mapping[str, int],
) -> jax.Array:
    """The number of the first element that this device has."""
    start = jnp.int32(0)
    for n, far, entry in zip(part, Part(shape, 0).strides, spec, strict=True):
        index = jnp.int32(0)
        for name in _names(entry):
            index = index * np.int32(sizes[name]) + lax.axis_index(name)
        start = start + index * wrapped(n * far)
    return start
