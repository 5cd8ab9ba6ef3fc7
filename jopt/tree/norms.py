"""Norms that are exact for numbers of any magnitude and dtype."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable
from numbers import Number
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jopt.tree.dtypes import compute_dtype, scalar_dtype
from jopt.tree.paths import leaves_with_names
from jopt.tree.platforms import per_platform, read_apart
from jopt.tree.row_sparse import is_rows, touched
from jopt.values.arguments import abbreviated, text_of


# Reading an array of this size again takes longer than a branch, which also has to be
# compiled. Smaller ones of one type are added up before they are reduced, so that many
# small leaves take few loops.
LARGE = 2**16


def abs_sq(x: jax.Array) -> jax.Array:
    """Return ``|x|^2``, real for complex ``x`` too.

    Args:
      x: An array.

    >>> float(abs_sq(jnp.complex64(3 + 4j)))
    25.0
    """
    if jnp.iscomplexobj(x):
        return jnp.real(x) ** 2 + jnp.imag(x) ** 2
    return x * x


Order = Literal[1, 2, "inf", "infinity"] | float | None


def norm(tree: Any, ord: Order = None, squared: bool = False) -> jax.Array:
    """Return the norm of all leaves together.

    It is computed in float32 (float64 if a leaf is) for any dtype of the leaves.
    Squares of numbers above 1e19 or below 1e-19 do not fit into float32: if the plain
    sum of squares leaves its safe range, and only then, the tree is read again and
    scaled. The gradient at zero is zero.

    Args:
      tree: Arrays; None counts as absent, a `RowSparse` leaf as its whole table.
      ord: None or 2 for the Euclidean norm, 1 for the sum and ``jnp.inf`` for the
        largest of the absolute values.
      squared: Whether to return the squared norm, which overflows above 1e38.

    Returns:
      A scalar.

    Raises:
      ValueError: ``ord`` is not one of these.
      TypeError: A leaf is neither an array nor a number.

    >>> float(norm({"a": jnp.full(4, 300.0, jnp.float16), "b": None}))
    600.0
    >>> float(norm(jnp.full(4, 1e30)) / 2e30)
    1.0
    >>> float(norm(jnp.array([3.0, -4.0]), ord=1))
    7.0
    """
    leaves = [touched(x) for x in jax.tree.leaves(tree, is_leaf=is_rows)]
    if not all(hasattr(x, "dtype") or isinstance(x, Number) for x in leaves):
        for path, x in leaves_with_names(tree):
            if not hasattr(x, "dtype") and not isinstance(x, Number):
                raise TypeError(f"leaf {path!r} is {abbreviated(x)}, not an array")
    return _norm(leaves, ord, squared)


def global_norm(updates: Any) -> jax.Array:
    """Return the L2 norm of all leaves together, as `clip_by_global_norm` takes it.

    Args:
      updates: Arrays; None counts as absent, a `RowSparse` leaf as its whole table.

    Returns:
      A scalar, exact for numbers of any magnitude; see `jopt.tree.norm`.

    >>> import jopt
    >>> jopt.global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
    Array(5., dtype=float32)
    """
    return norm(updates)


@functools.partial(jax.jit, static_argnames=("ord", "squared"))
def _norm(leaves: list[Any], ord: Order, squared: bool) -> jax.Array:
    leaves = [_inexact(x) for x in leaves if np.size(x)]
    if ord in (None, 2):
        result = _euclidean(leaves, squared) if leaves else jnp.zeros(())
    elif ord == 1 or ord in (math.inf, "inf", "infinity"):
        wide = [jnp.abs(x.astype(compute_dtype(x.dtype))) for x in leaves]
        of_leaf, of_all = (jnp.sum, jnp.sum) if ord == 1 else (jnp.max, jnp.max)
        width = np.result_type(scalar_dtype(), *(x.dtype for x in wide))
        each = [of_leaf(x).astype(width) for x in wide]
        result = of_all(jnp.stack(each)) if each else jnp.zeros(())
        result = abs_sq(result) if squared else result
    else:
        raise ValueError(f"ord must be None, 1, 2 or jnp.inf, got ord={text_of(ord)}")
    return result.astype(scalar_dtype())


def _inexact(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(scalar_dtype())


def _euclidean(leaves: list[jax.Array], squared: bool) -> jax.Array:
    wide = max(
        (jnp.finfo(compute_dtype(x.dtype)) for x in leaves), key=lambda f: f.bits
    )
    groups = _equal_groups(leaves)
    squares = jnp.zeros((), wide.dtype)
    for group in groups:
        squares = _add_squares(squares, group)
    if squared:
        return squares
    # Below this bound, squares that underflowed to zero could matter.
    lowest = sum(x.size for x in leaves) * float(wide.tiny) * 1e7

    def scaled():
        return _scaled_norm(groups, squares)

    safe = (squares > lowest) & (squares < jnp.inf)
    return jax.lax.cond(safe, lambda: _root(squares), scaled)


def _equal_groups(leaves: list[jax.Array], most: int = 64) -> list[list[jax.Array]]:
    """Group leaves of the same type, at most ``most`` in a group.

    A function jitted for a group is traced once for all equal groups, so a tree of many
    leaves needs few calls. The type has the sharding, if it is explicit.
    """
    by_type = collections.defaultdict(list)
    for x in leaves:
        by_type[jax.typeof(x)].append(x)
    return [
        xs[i : i + most] for xs in by_type.values() for i in range(0, len(xs), most)
    ]


def _sums(squares: list[jax.Array], most: int = 16) -> list[jax.Array]:
    """Return sums that add up to the sum of all squares.

    Small leaves are added up before they are reduced: many of them take few loops.
    """
    if squares[0].size >= LARGE:
        return [jnp.sum(x) for x in squares]
    parts = (squares[i : i + most] for i in range(0, len(squares), most))
    return [jnp.sum(functools.reduce(jnp.add, part)) for part in parts]


@jax.jit
def _add_squares(total: jax.Array, group: list[jax.Array]) -> jax.Array:
    if group[0].size >= LARGE:
        group = read_apart(group)  # Adam squares its gradient too
    wide = [x.astype(np.promote_types(x.dtype, total.dtype)) for x in group]
    return functools.reduce(jnp.add, _sums([abs_sq(x) for x in wide]), total)


def _scaled_norm(groups: list[list[jax.Array]], plain: jax.Array) -> jax.Array:
    """Return the norm if the plain sum of squares overflowed or is too small."""
    # Powers of two at which the square of the result fits, and that of half the digits
    # of every normal number. The second is not larger, because a derivative multiplies
    # 1 / scale by 1 / root.
    most = jnp.finfo(plain.dtype).maxexp
    down, up = 2.0 ** -(most // 2 + 2), 2.0 ** (most * 3 // 5)
    unit = jnp.where(plain < jnp.inf, 1 / up, 1 / down)
    total = jnp.zeros((), plain.dtype)
    for group in groups:
        total = _add_scaled_squares(total, group, 1 / unit)
    return _root(total) * unit


@jax.jit
def _add_scaled_squares(
    total: jax.Array, group: list[jax.Array], scale: jax.Array
) -> jax.Array:
    squares = []
    for x in group:
        wide = x.astype(np.promote_types(x.dtype, total.dtype))
        if x.size >= LARGE:
            # XLA:CPU writes a factor that several sums share to memory, as an array.
            scale, total = jax.lax.optimization_barrier((scale, total))
        squares.append(abs_sq(wide * scale.astype(wide.dtype)))
    return functools.reduce(jnp.add, _sums(squares), total)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def norm_along(x: jax.Array, axis: int | tuple[int, ...] | None) -> jax.Array:
    """Return the L2 norms of an array along axes, exact for any magnitude.

    The axes are kept, with length 1. The array is read once, to sum its squares at
    three scales; on CPU, where each sum is a pass of its own, at one, and at all three
    only if that sum leaves its safe range.

    Args:
      x: An array in float32 or wider.
      axis: The axes to reduce; None means all.

    >>> norm_along(jnp.array([[3e30, 4e30]]), axis=1) / 1e30
    Array([[5.]], dtype=float32)
    """
    if x.size < LARGE:
        return _at_three_scales(x, axis)
    return per_platform(
        functools.partial(_at_three_scales, axis=axis),
        functools.partial(_at_one_if_safe, axis=axis),
        x,
    )


def _plain_sum(x: jax.Array, axis: Any) -> tuple[jax.Array, Any]:
    """Return the sum of squares, and the bound of those that may have underflowed."""
    plain = jnp.sum(abs_sq(x), axis=axis, keepdims=True)
    return plain, x.size / max(plain.size, 1) * float(jnp.finfo(x.dtype).tiny) * 1e7


def _at_three_scales(x: jax.Array, axis: Any) -> jax.Array:
    real = jnp.finfo(x.dtype)
    plain, lowest = _plain_sum(x, axis)
    # The barrier keeps XLA from multiplying the scales with each other before it
    # multiplies with x. If it does so anyway, their squares are finite.
    far = jnp.asarray(2.0 ** (real.maxexp // 2 - 1), real.dtype)
    scales = jax.lax.optimization_barrier((far, 1 / far))
    small, large = (
        jnp.sum(abs_sq(x * s.astype(x.dtype)), axis=axis, keepdims=True) for s in scales
    )
    norms = jnp.where(plain > lowest, jnp.sqrt(plain), jnp.sqrt(small) / far)
    return jnp.where(plain < jnp.inf, norms, jnp.sqrt(large) * far)


def _at_one_if_safe(x: jax.Array, axis: Any) -> jax.Array:
    plain, lowest = _plain_sum(x, axis)
    return jax.lax.cond(
        jnp.all((plain > lowest) & (plain < jnp.inf)),
        lambda x: jnp.sqrt(plain),
        lambda x: _at_three_scales(x, axis),
        x,
    )


def norm_of_bounded(x: jax.Array) -> jax.Array:
    """Return the L2 norm of an array with entries of magnitude 1e-31 to 1e3, or zero.

    It takes one sum, at one scale, which compilers fuse into the computation of the
    array; they do not fuse the three sums of `norm_along`. On a CPU it is `norm_along`.

    Args:
      x: An array in float32 or wider.

    >>> norm_of_bounded(jnp.full(4, 1e-30)) / 2e-30
    Array(1., dtype=float32)
    """
    if x.size < LARGE:
        return _at_one_scale(x)
    return per_platform(
        _at_one_scale, lambda x: _at_one_if_safe(x, None).reshape(()), x
    )


def _at_one_scale(x: jax.Array) -> jax.Array:
    far = jax.lax.optimization_barrier(jnp.asarray(2.0**40, jnp.finfo(x.dtype).dtype))
    return _root(jnp.sum(abs_sq(x * far.astype(x.dtype)))) / far


def safe_norm(
    x: ArrayLike,
    min_norm: ArrayLike,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """Return ``max(norm(x), min_norm)``, with gradient zero where ``min_norm`` counts.

    The derivative of ``max(norm(x), min_norm)`` itself is NaN at zero.

    Args:
      x: An array, which may be complex.
      min_norm: The lower bound.
      ord: The kind of norm, as of ``jnp.linalg.norm``.
      axis: The axes of a vector or matrix; None means all.
      keepdims: Whether to keep these axes, with length 1.

    Returns:
      One norm, or the norms along ``axis``.

    >>> safe_norm(jnp.array([3.0, 4.0]), 1.0)
    Array(5., dtype=float32)
    >>> jax.grad(safe_norm)(jnp.zeros(2), 1.0)
    Array([0., 0.], dtype=float32)
    """

    def size(x):
        return jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=True)

    norms = _at_least(min_norm, size, x)
    return norms if keepdims else jnp.squeeze(norms, axis)


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> jax.Array:
    """Return ``max(rms(x), min_rms)``, with gradient zero where ``min_rms`` counts.

    Args:
      x: An array, which may be complex.
      min_rms: The lower bound.

    Returns:
      The root of the mean of all ``|x|^2``.

    >>> safe_root_mean_squares(jnp.array([3.0, -3.0]), 1.0)
    Array(3., dtype=float32)
    """

    def size(x):
        return jnp.sqrt(jnp.mean(abs_sq(x), keepdims=True))

    return jnp.squeeze(_at_least(min_rms, size, x))


def _at_least(least: ArrayLike, size: Callable[..., Any], x: ArrayLike) -> jax.Array:
    """Return ``max(size(x), least)`` without the gradient of ``size`` where it counts.

    Selecting the result is not enough: 0 times the NaN of the other branch is NaN. So
    ``x`` is replaced too, by ones, at which every norm is smooth.
    """
    x = _inexact(x)
    wide = x.astype(compute_dtype(x.dtype))
    least = jnp.asarray(least).astype(jnp.finfo(wide.dtype).dtype)
    low = size(jax.lax.stop_gradient(wide)) <= least
    sizes = size(jnp.where(low, jnp.ones_like(wide), wide))
    return jnp.where(low, least, sizes).astype(jnp.finfo(x.dtype).dtype)


@norm_along.defjvp
def _norm_along_jvp(axis: Any, primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    norms = norm_along(x, axis)
    direction = x / jnp.where(norms > 0, norms, 1).astype(x.dtype)
    along = jnp.sum(jnp.real(jnp.conj(direction) * dx), axis=axis, keepdims=True)
    return norms, along


def _root(squares: jax.Array) -> jax.Array:
    """Return the square root, with a finite derivative at zero."""
    positive = squares > 0
    # The inner where keeps sqrt'(0) = inf out of the gradient, in which 0 * inf is NaN.
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), squares)
