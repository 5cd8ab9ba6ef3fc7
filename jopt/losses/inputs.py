"""What a loss may be given: dtypes, shapes, class labels and masks.

Everything that is known while JAX traces is checked then, and costs nothing at run
time. The values of class labels and probabilities are checked where they are known too:
outside ``jit``, and if they are constants inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.values import arguments


Axis = int | Sequence[int] | None


def floating(**arrays: Any) -> list[jax.Array]:
    """The arguments as arrays; raise unless they hold floating point numbers."""
    return [_of_kinds(name, x, [jnp.floating]) for name, x in arrays.items()]


def real(**arrays: Any) -> list[jax.Array]:
    """The arguments as arrays; raise unless they hold real numbers or bools."""
    kinds = [jnp.floating, jnp.integer, jnp.bool_]
    return [_of_kinds(name, x, kinds) for name, x in arrays.items()]


def integers(hint: str = "", **arrays: Any) -> list[jax.Array]:
    """The arguments as arrays; raise, with the hint, unless they hold integers."""
    return [_of_kinds(name, x, [jnp.integer], hint) for name, x in arrays.items()]


_KINDS = {jnp.floating: "floating point numbers", jnp.integer: "integers"}


def _of_kinds(name: str, value: Any, kinds: list[Any], hint: str = "") -> jax.Array:
    if elsewhere := arguments.elsewhere(value):
        raise TypeError(f"{name} is an array {elsewhere}")
    x = jnp.asarray(value)
    if not any(jnp.issubdtype(x.dtype, kind) for kind in kinds):
        wanted = _KINDS[kinds[0]] if len(kinds) == 1 else "real numbers"
        raise TypeError(f"{name} must be {wanted}, got {name} of {x.dtype}{hint}")
    return x


def same_shape(**arrays: jax.Array) -> None:
    """Raise unless both arrays have the same shape."""
    (a, x), (b, y) = arrays.items()
    if x.shape != y.shape:
        raise ValueError(
            f"{a} and {b} must have the same shape, got {a} of shape {x.shape} and "
            f"{b} of shape {y.shape}"
        )


def aligned(axis: Axis = (), hint: str = "", **arrays: jax.Array) -> list[jax.Array]:
    """Two arrays with equally many axes, so that they broadcast.

    An array may have size 1 where the other one is larger, and may lack the first axes.
    If it lacks some, the other array's shape must be that of both together: ``(n,)``
    and ``(n, 1)`` do broadcast, to ``(n, n)``, but nobody means that.

    Args:
      axis: Axes along which both must have the same size.
      hint: What to add to the message.
      **arrays: The arrays by name.

    Raises:
      ValueError: The shapes do not fit.
    """
    (a, x), (b, y) = arrays.items()
    longer = x if x.ndim >= y.ndim else y
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        shape = None
    if shape is None or (x.ndim != y.ndim and shape != longer.shape):
        raise ValueError(
            f"{a} and {b} must have the same shape or broadcast without a change of "
            f"{longer.shape}, got {a} of shape {x.shape} and {b} of shape "
            f"{y.shape}{hint}"
        )
    x, y = (_with_axes(z, longer.ndim) for z in (x, y))
    for i in axes(axis, longer.ndim):
        if x.shape[i] != y.shape[i]:
            raise ValueError(
                f"{a} and {b} must have the same size along axis {i}, got {a} of shape "
                f"{x.shape} and {b} of shape {y.shape}{hint}"
            )
    return [x, y]


def _with_axes(x: jax.Array, ndim: int) -> jax.Array:
    """The array with axes of size 1 in front."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes as numbers >= 0; None stands for all of them."""
    if axis is None:
        return tuple(range(ndim))
    return np.lib.array_utils.normalize_axis_tuple(axis, ndim, "axis")


def mask(
    where: Any, shape: tuple[int, ...], axis: Axis, per_example: bool = False
) -> jax.Array | None:
    """Which elements count, as bools of the given shape; None if all do.

    Args:
      where: Bools or numbers, or None.
      shape: The shape of the elements.
      axis: The axes that the loss is computed along.
      per_example: Whether ``where`` may lack these axes, and then selects examples.

    Raises:
      ValueError: The shapes do not fit.
    """
    if where is None:
        return None
    [given] = real(where=where)
    where = given
    if where.ndim != len(shape) and per_example:
        along = axes(axis, len(shape))
        if where.ndim + len(along) == len(shape):
            where = jnp.expand_dims(where, along)
    elif where.ndim < len(shape):
        where = _with_axes(where, len(shape))
    pairs = zip(where.shape, shape, strict=False)
    if where.ndim != len(shape) or any(m not in (1, n) for m, n in pairs):
        raise ValueError(
            f"where must have a shape that broadcasts to {shape}, got shape "
            f"{given.shape}"
        )
    return jnp.broadcast_to(where.astype(bool), shape)


def values(x: Any) -> np.ndarray | None:
    """The numbers of an array, if they are known now and on this machine."""
    if isinstance(x, Tracer) or not getattr(x, "is_fully_addressable", True):
        return None
    return np.asarray(x)


def in_range(labels: Any, classes: int, ignored: Any = None) -> None:
    """Raise if labels that are known now are no classes.

    Args:
      labels: Integers.
      classes: How many classes there are.
      ignored: Bools that broadcast with the labels: those that do not matter.
    """
    known, left_out = values(labels), values(False if ignored is None else ignored)
    if known is None or left_out is None or known.dtype == bool:
        return
    wrong = ((known < 0) | (known >= classes)) & ~left_out
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        label = np.broadcast_to(known, wrong.shape)[first]
        place = f" at index {first}" if first else ""
        raise ValueError(
            f"labels must be >= 0 and < {classes}, the number of classes, got label "
            f"{label}{place}"
        )


def one_per_example(name: str, scores: jax.Array, labels: jax.Array) -> None:
    """Raise unless labels have the shape of the scores without the last axis."""
    batch = scores.shape[:-1]
    pairs = zip(labels.shape, batch, strict=False)
    if labels.ndim != len(batch) or any(1 not in p and p[0] != p[1] for p in pairs):
        raise ValueError(
            f"labels must have the shape of the {name} without the axis of the "
            f"classes, {batch}, got labels of shape {labels.shape}"
        )


def scalars(**numbers: Any) -> dict[str, Any]:
    """Those arguments that are one number, and can be checked as one."""
    return {name: x for name, x in numbers.items() if np.ndim(x) == 0}
