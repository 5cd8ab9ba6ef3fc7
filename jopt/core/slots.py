"""Slots: the arrays that an algorithm keeps for every leaf, declared as data."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jopt import tree
from jopt.storage import formats
from jopt.storage.formats import Encoded, is_encoded
from jopt.storage.rounding import random_bits
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of


# From a leaf's shape, the axes along which a slot keeps one number: ``(-1,)`` keeps one
# number per row. None means that this leaf has no slot.
Over = Callable[[tuple[int, ...]], tuple[int, ...] | None]
Each = Callable[
    [tuple[int, ...]], list[tuple[int, ...]]
]  # for a slot of several arrays


class Chance(NamedTuple):
    """What decides how a leaf is rounded at random in one step."""

    step: Any
    stream: Any  # a number for the leaf
    rows: Any = None  # the places of the rows, if the leaf is row-sparse

    def bits(self, name: str, x: jax.Array) -> jax.Array:
        """Random bits for an array that belongs to the slot of this name."""
        stream = self.stream ^ np.uint32(zlib.crc32(name.encode()))
        return random_bits(x, self.step, stream, self.rows)


class Slot(NamedTuple):
    """The array kept for every leaf, of the parameter's shape or smaller."""

    fill: float | None  # the initial value; None means a copy of the parameter
    dtype: str | None  # the name of a dtype or a format; None: the compute dtype
    real: bool
    over: Over | None = None
    each: Each | None = None
    divides: bool = False
    exact: bool = False

    @property
    def format(self) -> formats.Rounded | formats.Blocks | None:
        """How the slot is kept, if not just in a dtype."""
        return (self.dtype and formats.named(self.dtype, self.divides)) or None

    @property
    def in_blocks(self) -> bool:
        """Whether an array is kept as codes and scales."""
        return isinstance(self.format, formats.Blocks)

    def check(self, name: str) -> None:
        """Raise if the storage dtype cannot hold what the slot declares to hold."""
        if self.in_blocks and (self.exact or self.fill is None):
            raise ValueError(
                f"the slot {name!r} holds parameters, or they are computed from it: "
                f"the codes of {text_of(self.dtype)} would move them by a percent of "
                "the largest in each block. Use 'bfloat16_sr', 'bfloat16' or 'float32'"
            )
        if not self.divides or self.dtype is None or self.format is not None:
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
        form = self.format
        if jnp.issubdtype(dtype, jnp.complexfloating):
            form = None
        elif form is None and self.dtype is not None:
            dtype = jnp.dtype(self.dtype)
        fill = self.fill
        if fill is None:
            dtype = dtype if form is None else jnp.dtype(jnp.bfloat16)
            if isinstance(param, jax.ShapeDtypeStruct):  # without values to copy
                return param.update(dtype=dtype, weak_type=False)
            return _copied(param, dtype)
        if isinstance(param, jax.ShapeDtypeStruct):
            param = _zeros(param)

        def start(axes):
            if form is not None:
                return _started(param, fill, dtype, axes, form)
            x = filled(param, fill, dtype, axes)
            return Encoded(x, None) if self.in_blocks else x

        return self._for_each(jnp.shape(param), start)

    def initial(self, params: Any) -> Any:
        """The field of the state for these parameters."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=_is_none)
        values = [None if x is None else self.init(x) for x in leaves]
        return self.stored(treedef, values)

    def shapes(self, shape: tuple[int, ...]) -> Any:
        """The slot's shape for a leaf of this shape, or a tuple of several shapes."""
        if self.over is None and self.each is None:
            return shape

        def reduced(axes):
            reduced_axes = {axis % len(shape) for axis in axes}
            return tuple(1 if i in reduced_axes else n for i, n in enumerate(shape))

        return self._for_each(shape, reduced)

    def stored_shapes(self, shape: tuple[int, ...]) -> Any:
        """The shapes of the arrays that are kept for a leaf of this shape.

        As `shapes`, but with an `Encoded` of two shapes in place of one for a slot that
        is kept in blocks. Every axis of an array is the axis of the leaf at the same
        place: all of it, one number for it, or the number of its blocks.
        """
        form, shapes = self.format, self.shapes(shape)
        if form is None or shapes is None:
            return shapes
        return tuple(map(form.shapes, shapes)) if self.each else form.shapes(shapes)

    def load(self, stored: Any, real: Any) -> Any:
        """The value of one leaf, or a tuple of values, as wide as ``real`` at least."""
        form = self.format

        def wide(x):
            if form is not None and _is_real(x):
                x = form.decode(x)
            elif isinstance(x, Encoded):
                x = x.codes
            x = jnp.asarray(x)
            return x.astype(np.promote_types(x.dtype, real))

        return jax.tree.map(wide, stored, is_leaf=is_encoded)

    def store(self, new: Any, stored: Any, name: str, chance: Chance | None) -> Any:
        """What to keep of a new value in place of what is stored."""
        form = self.format
        if form is None:
            return jax.tree.map(lambda x, old: x.astype(old.dtype), new, stored)

        def narrow(k, x, old):
            if not _is_real(old):
                return jax.tree.map(lambda y: x.astype(y.dtype), old)
            bits = None
            if chance is not None and _is_rounded(old):
                bits = chance.bits(f"{name}/{k}" if self.each else name, x)
            return form.encode(x, old, bits)

        if new is None:
            return None
        if not self.each:
            return narrow(0, new, stored)
        pairs = zip(new, stored, strict=True)
        return tuple(narrow(k, x, old) for k, (x, old) in enumerate(pairs))

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
            return self._field(treedef, values)
        most = max((len(x) for x in values if x is not None), default=0)
        padded = [(*(x or ()), *[None] * most) for x in values]
        return tuple(self._field(treedef, [x[k] for x in padded]) for k in range(most))

    def _field(self, treedef: Any, values: list[Any]) -> Any:
        if not self.in_blocks:
            return treedef.unflatten(values)
        pairs = [(None, None) if x is None else x for x in values]
        return Encoded(*(treedef.unflatten(x[k] for x in pairs) for k in (0, 1)))

    def loaded(
        self, name: str, kept: Any, shapes: list[Any], aligned: Callable[..., Any]
    ) -> list[Any]:
        """The values of all leaves, of these shapes, from a field of the state."""
        if not self.each:
            return self._column(name, kept, self.stored_shapes, aligned)

        def nth(k):
            return lambda shape: dict(enumerate(self.stored_shapes(shape))).get(k)

        columns = [self._column(name, x, nth(k), aligned) for k, x in enumerate(kept)]
        rows = zip(*columns, strict=True) if columns else [()] * len(shapes)
        return [
            row if shape is None else row[: len(self.shapes(shape))]
            for row, shape in zip(rows, shapes, strict=True)
        ]

    def whole(self, kept: Any) -> Any:
        """The field of the state with its codes decoded: a tree, or several."""
        if not self.in_blocks:
            return kept
        form: Any = self.format

        def decoded(codes, scales):
            if codes is None or not _is_real(codes):
                return codes
            return form.decode(Encoded(codes, scales))

        columns = tuple(
            jax.tree.map(decoded, *x, is_leaf=_is_none)
            for x in (kept if self.each else (kept,))
        )
        return columns if self.each else columns[0]

    def _column(
        self,
        name: str,
        kept: Any,
        shapes: Callable[..., Any],
        aligned: Callable[..., Any],
    ) -> list[Any]:
        if not self.in_blocks:
            return aligned(kept, shapes)
        if not is_encoded(kept):
            raise TypeError(
                f"the state's {name} must be codes and scales of {self.dtype!r}, got "
                f"{abbreviated(kept)}. Call init again, or restore a checkpoint with "
                f"jopt.Cast('{name}/', {self.dtype!r})"
            )

        def nth(k):
            return lambda shape: None if (x := shapes(shape)) is None else x[k]

        columns = [aligned(x, nth(k)) for k, x in enumerate(kept)]
        return [
            None if codes is None else Encoded(codes, scales)
            for codes, scales in zip(*columns, strict=True)
        ]


def _is_none(x: Any) -> bool:
    return x is None


def _is_real(stored: Any) -> bool:
    """Whether an array is not complex: complex ones are kept as they are."""
    return not any(map(jnp.iscomplexobj, jax.tree.leaves(stored)))


def _is_rounded(stored: Any) -> bool:
    return not is_encoded(stored) or stored.scales is not None


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
    like = _reduced(param, axes)
    return spread_like(jnp.full_like(like, fill, dtype=dtype), like)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _started(
    param: jax.Array, fill: float, dtype: Any, axes: tuple[int, ...], form: Any
) -> Any:
    return form.start(_reduced(param, axes), fill, dtype)


def _reduced(param: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sum(param, axes, keepdims=True) if axes else param


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
    exact: bool = False,
) -> Slot:
    """Declare a slot that starts at zero.

    Args:
      dtype: Storage dtype, or the name of a format: ``"bfloat16_sr"``,
        ``"float8_e4m3"``, ``"int8"`` or ``"int4"``. None means the compute dtype
        (float32 for a bfloat16 parameter, because a moving average with decay 0.999
        stands still in bfloat16).
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
      exact: Whether parameters are computed from the slot, as from an average of them.
        It is then not kept as codes of 8 or 4 bits, which would move the parameters.

    Returns:
      A slot for `leafwise`.

    >>> zeros("bfloat16")
    Slot(fill=0.0, dtype='bfloat16', real=False, over=None, each=None, divides=False, \
exact=False)
    >>> zeros(over=lambda shape: (-1,)).init(jnp.ones((2, 3))).shape
    (2, 1)
    """
    return full(
        0.0, dtype, real=real, over=over, each=each, divides=divides, exact=exact
    )


def full(
    fill: float,
    dtype: DTypeLike | None = None,
    *,
    real: bool = False,
    over: Over | None = None,
    each: Each | None = None,
    divides: bool = False,
    exact: bool = False,
) -> Slot:
    """Declare a slot that starts at ``fill``.

    Args:
      fill: The initial value of every element.
      dtype: Storage dtype; see `zeros`.
      real: Whether the slot is real even for complex parameters.
      over: The axes along which it keeps one number; see `zeros`.
      each: Such axes for a slot of several arrays; see `zeros`.
      divides: Whether updates are divided by the slot; see `zeros`.
      exact: Whether parameters are computed from the slot; see `zeros`.

    Returns:
      A slot for `leafwise`.

    >>> full(0.1).fill
    0.1
    """
    return Slot(fill, _storage(dtype), real, over, each, divides, exact)


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
