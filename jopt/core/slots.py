"""Slots: the arrays that an algorithm keeps for every leaf, declared as data."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jopt import tree
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.arguments import text_of


# From a leaf's shape, the axes along which a slot keeps one number: ``(-1,)`` keeps one
# number per row. None means that this leaf has no slot.
Over = Callable[[tuple[int, ...]], tuple[int, ...] | None]
Each = Callable[
    [tuple[int, ...]], list[tuple[int, ...]]
]  # for a slot of several arrays


class Slot(NamedTuple):
    """The array kept for every leaf, of the parameter's shape or smaller."""

    fill: float | None  # the initial value; None means a copy of the parameter
    dtype: str | None
    real: bool
    over: Over | None = None
    each: Each | None = None
    divides: bool = False

    def check(self, name: str) -> None:
        """Raise if the storage dtype cannot hold what the slot declares to hold."""
        if not self.divides or self.dtype is None:
            return
        smallest = float(jnp.finfo(self.dtype).tiny)
        if smallest > float(jnp.finfo(jnp.float32).tiny):
            raise ValueError(
                f"updates are divided by the slot {name!r}, so its storage dtype must "
                f"have the range of float32: squares of small gradients are 0 in "
                f"{self.dtype}, whose smallest normal number is {smallest:.0e}. Use "
                f"'bfloat16' or 'float32', got {text_of(self.dtype)}"
            )

    def init(self, param: Any) -> Any:
        dtype = tree.compute_dtype(jnp.result_type(param))
        if self.real:
            dtype = jnp.finfo(dtype).dtype
        if self.dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating):
            dtype = jnp.dtype(self.dtype)
        fill = self.fill
        if fill is None:
            if isinstance(param, jax.ShapeDtypeStruct):  # without values to copy
                return param.update(dtype=dtype, weak_type=False)
            return _copied(param, dtype)
        return self._for_each(
            jnp.shape(param), lambda axes: filled(param, fill, dtype, axes)
        )

    def shapes(self, shape: tuple[int, ...]) -> Any:
        """The slot's shape for a leaf of this shape, or a tuple of several shapes."""
        if self.over is None and self.each is None:
            return shape

        def reduced(axes):
            reduced_axes = {axis % len(shape) for axis in axes}
            return tuple(1 if i in reduced_axes else n for i, n in enumerate(shape))

        return self._for_each(shape, reduced)

    def _for_each(self, shape: tuple[int, ...], make: Callable[..., Any]) -> Any:
        if self.each:
            return tuple(map(make, self.each(shape)))
        axes = self.over(shape) if self.over else ()
        return None if axes is None else make(axes)

    # Several arrays of a leaf are kept as several trees like the parameters, because
    # not every container of parameters accepts a tuple in place of an array.

    def stored(self, treedef: Any, values: list[Any]) -> Any:
        """The field of the state, from the values of all leaves."""
        if not self.each:
            return treedef.unflatten(values)
        most = max((len(x) for x in values if x is not None), default=0)
        padded = [(*(x or ()), *[None] * most) for x in values]
        return tuple(treedef.unflatten(x[k] for x in padded) for k in range(most))

    def loaded(self, kept: Any, shapes: list[Any], aligned: Callable[..., Any]) -> list:
        """The values of all leaves, of these shapes, from the field of the state."""
        if not self.each:
            return aligned(kept, self.shapes)

        def nth(k):
            return lambda shape: dict(enumerate(self.shapes(shape))).get(k)

        columns = [aligned(tree, nth(k)) for k, tree in enumerate(kept)]
        rows = zip(*columns, strict=True) if columns else [()] * len(shapes)
        return [
            row if shape is None else row[: len(self.shapes(shape))]
            for row, shape in zip(rows, shapes, strict=True)
        ]


def filled(param: Any, fill: float, dtype: Any, axes: tuple[int, ...]) -> jax.Array:
    """Return an array like a parameter, with length 1 along some axes.

    >>> filled(jnp.ones((2, 3)), 0.5, jnp.float32, (1,))
    Array([[0.5],
           [0.5]], dtype=float32)
    """
    if isinstance(param, jax.ShapeDtypeStruct):
        param = _zeros(param)
    return _filled(param, fill, dtype, axes)


def resized(param: Any, shape: tuple[int, ...], fill: float, dtype: Any) -> jax.Array:
    """Return an array with as many dimensions as a parameter, sharded alike.

    A dimension of another length keeps the mesh axes of the parameter's if they divide
    it evenly. Under jit this holds for explicit axes only; `jopt.sharding` tells the
    compiler about the others.

    >>> resized(jnp.ones((4, 6)), (4, 2), 0.0, jnp.float32).shape
    (4, 2)
    """
    old = jnp.shape(param)
    axes = tuple(i for i, (n, m) in enumerate(zip(shape, old, strict=True)) if n != m)
    new = jnp.broadcast_to(filled(param, fill, dtype, axes), shape)
    sharding: Any = getattr(param, "sharding", None)
    if isinstance(param, Tracer):
        sharding = jax.typeof(param).sharding
    if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
        return new
    like = sharding.update(spec=resized_spec(sharding, old, shape))
    if sharding.mesh.explicit_axes:
        return jax.reshard(new, like)
    return new if isinstance(param, Tracer) else jax.device_put(new, like)


def resized_spec(
    sharding: NamedSharding, old: tuple[int, ...], new: tuple[int, ...]
) -> PartitionSpec:
    """Return the spec of `resized`, from the shapes before and after.

    Args:
      sharding: That of the array before.
      old: Its shape.
      new: The shape of the new array.
    """
    entries = [*sharding.spec, *[None] * (len(old) - len(sharding.spec))]
    for i, (n, m) in enumerate(zip(new, old, strict=True)):
        names = entries[i] if isinstance(entries[i], tuple) else (entries[i],)
        parts = math.prod(sharding.mesh.shape[name] for name in names if name)
        entries[i] = entries[i] if n == m or n % parts == 0 else None
    return PartitionSpec(*entries)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _filled(
    param: jax.Array, fill: float, dtype: Any, axes: tuple[int, ...]
) -> jax.Array:
    like = jnp.sum(param, axes, keepdims=True) if axes else param
    return spread_like(jnp.full_like(like, fill, dtype=dtype), like)


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype, device=like.sharding)


@functools.partial(jax.jit, static_argnums=1)
def _copied(param: jax.Array, dtype: Any) -> jax.Array:
    return jnp.copy(param).astype(dtype)  # its own buffer, so that both can be donated


def zeros(
    dtype: DTypeLike | None = None,
    *,
    real: bool = False,
    over: Over | None = None,
    each: Each | None = None,
    divides: bool = False,
) -> Slot:
    """Declare a slot that starts at zero.

    Args:
      dtype: Storage dtype; None means the compute dtype (float32 for a bfloat16
        parameter, because a moving average with decay 0.999 stands still in bfloat16).
      real: Whether the slot is real even for complex parameters, as squares are.
      over: A function of the leaf's shape that returns the axes along which the slot
        keeps one number only (they stay, with length 1). It may return None for a leaf
        without this slot; the rule then receives None and returns None.
      each: A function of the leaf's shape that returns a list of such axes, for a slot
        of several arrays. The rule receives and returns a tuple of them, and the state
        holds a tuple of trees.
      divides: Whether updates are divided by the slot, as by a second moment. It must
        then not become zero while gradients are not, so `leafwise` refuses a storage
        dtype with a smaller range than float32, such as float16.

    Returns:
      A slot for `leafwise`.

    >>> zeros("bfloat16")
    Slot(fill=0.0, dtype='bfloat16', real=False, over=None, each=None, divides=False)
    >>> zeros(over=lambda shape: (-1,)).init(jnp.ones((2, 3))).shape
    (2, 1)
    """
    return full(0.0, dtype, real=real, over=over, each=each, divides=divides)


def full(
    fill: float,
    dtype: DTypeLike | None = None,
    *,
    real: bool = False,
    over: Over | None = None,
    each: Each | None = None,
    divides: bool = False,
) -> Slot:
    """Declare a slot that starts at ``fill``.

    Args:
      fill: The initial value of every element.
      dtype: Storage dtype; see `zeros`.
      real: Whether the slot is real even for complex parameters.
      over: The axes along which it keeps one number; see `zeros`.
      each: Such axes for a slot of several arrays; see `zeros`.
      divides: Whether updates are divided by the slot; see `zeros`.

    Returns:
      A slot for `leafwise`.

    >>> full(0.1).fill
    0.1
    """
    return Slot(fill, _storage(dtype), real, over, each, divides)


def copied(dtype: DTypeLike | None = None) -> Slot:
    """Declare a slot that starts as a copy of the parameter.

    Args:
      dtype: Storage dtype; see `zeros`.

    Returns:
      A slot for `leafwise`. ``init`` of a ``jax.ShapeDtypeStruct`` gives another one,
      because there is nothing to copy.

    >>> copied().init(jnp.full(2, 3.0, jnp.bfloat16))
    Array([3., 3.], dtype=float32)
    """
    return Slot(None, _storage(dtype), real=False)


def _storage(dtype: DTypeLike | None) -> str | None:
    return None if dtype is None else arguments.storage_dtype("dtype", dtype)
