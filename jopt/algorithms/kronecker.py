"""Kronecker factors: statistics of a gradient's sides, their eigenbases and roots.

    L <- beta L + (1 - beta) G G^T        statistics of the rows
    R <- beta R + (1 - beta) G^T G        and of the columns
    Q_L, Q_R                              their eigenvectors

Full-matrix Adagrad preconditions a gradient by the covariance of all its elements. For
an (m, n) matrix that has (m n)^2 numbers; L and R have m^2 + n^2, and their Kronecker
product stands for it. A side is one of the two, or one of several for a tensor whose
axes all have statistics of their own.

Everything here works on stacks ``(count, d_1, …, d_k)``, and on one matrix
``(count, d_i, d_i)`` for each side, or None for a side without statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt.algorithms.linear_algebra import matrix_inverse_pth_root
from jopt.algorithms.matrices import positions
from jopt.algorithms.stacks import one_by_one


# Which sides have statistics: all, or the smallest one of each matrix only.
Which: TypeAlias = Literal["both", "smaller"]

Squares: TypeAlias = Sequence[jax.Array | None]


class Sides(NamedTuple):
    """How a leaf becomes a stack with one axis for each side.

    >>> sides = Sides.of("iio", (2, 3, 8), max_dim=7)
    >>> sides.dims, sides.kept
    ((1, 6, 8), (True, False))
    >>> Sides.of("io", (6, 5), max_dim=7, block=3).dims  # 2 blocks of 3 by 2 of 3
    (4, 3, 3)
    """

    order: tuple[int, ...]  # of the leaf's axes: those of the batch first
    shape: tuple[int, ...]  # in that order
    starts: tuple[int, ...]  # where the axes of each side begin, in that order
    whole: tuple[int, ...]  # (count, d_1, …, d_k) before blocks
    blocks: tuple[int, ...]  # into how many blocks each side is cut
    kept: tuple[bool, ...]  # whether each side has statistics

    @staticmethod
    def of(
        axes: str | None,
        shape: Sequence[int],
        max_dim: int,
        which: Which = "both",
        *,
        merge: bool = True,
        block: int | None = None,
    ) -> Sides:
        """Return the sides of a leaf.

        Args:
          axes: Its layout, see `matrices.letters`. None is a leaf without statistics.
          shape: Its shape.
          max_dim: Longer sides have no statistics; nor have sides of length 1.
          which: Whether all other sides have some, or the shortest one only.
          merge: Whether the axes of one letter are one side; else each is its own.
          block: Longer sides are cut into blocks of one size, at most this one; the
            last is filled up with zeros.
        """
        if axes is None:
            order, whole = tuple(range(len(shape))), (1, math.prod(shape))
            return Sides(order, tuple(shape), (0,), whole, (1,), (False,))
        sides = [positions(axes, x) for x in dict.fromkeys(axes.replace("b", ""))]
        if not merge:
            sides = [(i,) for i, letter in enumerate(axes) if letter != "b"]
        batch = positions(axes, "b")
        starts = np.cumsum([len(batch), *map(len, sides)])[:-1]
        order = (*batch, *(i for side in sides for i in side))
        whole = tuple(math.prod(shape[i] for i in side) for side in (batch, *sides))
        blocks = tuple(1 if block is None else -(-d // block) for d in whole[1:])
        sizes = [-(-d // n) if d else 0 for d, n in zip(whole[1:], blocks, strict=True)]
        possible = [1 < d <= max_dim for d in sizes]
        if which == "smaller" and any(possible):
            first = min((d, i) for i, d in enumerate(sizes) if possible[i])[1]
            possible = [i == first for i in range(len(sides))]
        return Sides(
            order,
            tuple(shape[i] for i in order),
            tuple(starts.tolist()),
            whole,
            blocks,
            tuple(possible),
        )

    @property
    def is_matrix(self) -> bool:
        """Whether the leaf has two or more sides."""
        return len(self.kept) > 1

    @property
    def blocked(self) -> bool:
        """Whether a side is cut into blocks."""
        return max(self.blocks) > 1

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of the stack: (count, d_1, …, d_k)."""
        count, *lengths = self.whole
        sizes = (-(-d // n) for d, n in zip(lengths, self.blocks, strict=True))
        return (count * math.prod(self.blocks), *sizes)

    def stack(self, leaf: jax.Array) -> jax.Array:
        """The leaf as a stack."""
        x = leaf.transpose(self.order).reshape(self.whole)
        if not self.blocked:
            return x
        sizes = self.dims[1:]
        filled = [n * size for n, size in zip(self.blocks, sizes, strict=True)]
        x = jnp.pad(
            x, [(0, n - d) for n, d in zip((len(x), *filled), x.shape, strict=True)]
        )
        x = x.reshape(
            len(x), *(i for pair in zip(self.blocks, sizes, strict=True) for i in pair)
        )
        return x.transpose(self._blocks_first).reshape(self.dims)

    def leaf(self, stack: jax.Array) -> jax.Array:
        """Invert `stack`."""
        x, count = stack, self.whole[0]
        if self.blocked:
            sizes = self.dims[1:]
            x = x.reshape(count, *self.blocks, *sizes)
            x = x.transpose(np.argsort(self._blocks_first).tolist())
            x = x.reshape(
                count, *(n * d for n, d in zip(self.blocks, sizes, strict=True))
            )
            x = x[tuple(slice(d) for d in self.whole)]
        return x.reshape(self.shape).transpose(np.argsort(self.order).tolist())

    @property
    def _blocks_first(self) -> tuple[int, ...]:
        """The axes of (count, blocks, size, blocks, size, …), the blocks' first."""
        k = len(self.blocks)
        return (0, *range(1, 2 * k, 2), *range(2, 2 * k + 1, 2))


def rotated(x: jax.Array, bases: Squares, *, back: bool = False) -> jax.Array:
    """Return ``Q_L^T X Q_R``, or ``Q_L X Q_R^T`` to get back."""
    for side, q in enumerate(bases):
        if q is not None:
            x = along(x, q.mT if back else q, side)
    return x


def along(x: jax.Array, matrix: jax.Array, side: int) -> jax.Array:
    """Return ``M^T X`` for the first side, ``X M`` for the last, and so on.

    >>> along(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 2)), 0)[0, 0, 0]
    Array(2., dtype=float32)
    """
    before, d, after = _around(x, side)
    if after == 1:
        y = _dot(x.reshape(-1, before, d), matrix)
    elif before == 1:
        y = _dot(matrix.mT, x.reshape(-1, d, after))
    else:
        y = _dot(matrix.mT[:, None], x.reshape(-1, before, d, after))
    return y.reshape(x.shape)


def gram(x: jax.Array, side: int) -> jax.Array:
    """Return ``X X^T`` for the first side, ``X^T X`` for the last, and so on."""
    before, d, after = _around(x, side)
    if after == 1:
        rows = x.reshape(-1, before, d)
        return _dot(rows.mT, rows)
    rows = x.reshape(-1, before, d, after).swapaxes(1, 2).reshape(-1, d, before * after)
    return _dot(rows, rows.mT)


def _around(x: jax.Array, side: int) -> tuple[int, int, int]:
    """Return the numbers of elements before, along and after a side."""
    dims = x.shape[1:]
    return math.prod(dims[:side]), dims[side], math.prod(dims[side + 1 :])


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # The default precision rounds float32 to TF32 or bfloat16 on accelerators.
    return jnp.matmul(a, b, precision="highest")


def facing(numbers: jax.Array, side: int, x: jax.Array) -> jax.Array:
    """Return one number per row of a side, (count, d), in a shape to multiply X by."""
    shape = [1] * x.ndim
    shape[0], shape[side + 1] = numbers.shape
    return numbers.reshape(shape)


def eigenbasis(statistic: jax.Array) -> jax.Array:
    """Return eigenvectors, those of large eigenvalues first; the identity on failure.

    >>> eigenbasis(jnp.diag(jnp.array([1.0, 2.0]))[None])[0]
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    q = jnp.flip(one_by_one(jnp.linalg.eigh, statistic)[1], -1)
    return _if_finite(q, jnp.broadcast_to(jnp.eye(q.shape[-1], dtype=q.dtype), q.shape))


def refreshed_basis(statistic: jax.Array, basis: jax.Array) -> jax.Array:
    """Return the basis after one step of orthogonal iteration; the old one on failure.

    The columns stay near to what they were, so moments in their basis remain useful.
    """
    return _if_finite(one_by_one(jnp.linalg.qr, _dot(statistic, basis))[0], basis)


def descending(statistic: jax.Array, basis: jax.Array) -> jax.Array:
    """Return the order of a basis's columns by their estimated eigenvalues."""
    estimates = jnp.sum(basis * _dot(statistic, basis), axis=-2)
    return jnp.argsort(estimates, axis=-1, descending=True)


def inverse_root(
    statistic: jax.Array,
    exponent: Any,
    eps: Any,
    relative: Any,
    old: jax.Array,
    rank_rtol: float | None = None,
) -> jax.Array:
    """Return ``(S + epsilon I)^(-exponent)``; the old root on failure.

    Rounding may make eigenvalues negative, so the smallest is first raised to 0.

    Args:
      statistic: S, symmetric.
      exponent: One quarter for each side of a matrix, in Shampoo.
      eps, relative: epsilon is ``eps + relative`` times the largest eigenvalue.
      old: What to keep if the result is not finite.
      rank_rtol: If given, the root of a pseudo-inverse: directions whose eigenvalue is
        at most this multiple of the largest get 0, and none is raised.

    >>> s, old = jnp.diag(jnp.array([1.0, 16.0]))[None], jnp.zeros((1, 2, 2))
    >>> jnp.diag(inverse_root(s, 0.25, 0.0, 0.0, old)[0])
    Array([1. , 0.5], dtype=float32)
    """
    eigenvalues, q = one_by_one(jnp.linalg.eigh, statistic)
    lowest, highest = eigenvalues[:, :1], eigenvalues[:, -1:]
    shifted = eigenvalues + (eps + relative * highest)
    if rank_rtol is None:
        shifted = shifted - jnp.minimum(lowest, 0)
        has_root = shifted > 0
    else:
        has_root = eigenvalues > rank_rtol * jnp.maximum(highest, 0)
    # Nothing was seen in a direction with a zero here, so it has no effect either.
    roots = jnp.where(has_root, jnp.where(has_root, shifted, 1) ** -exponent, 0)
    return _if_finite(_dot(q * roots[:, None, :], q.mT), old)


def newton_root(
    statistic: jax.Array, p: int, eps: Any, relative: Any, old: jax.Array
) -> jax.Array:
    """Return `inverse_root` with the exponent ``1 / p`` by products of matrices.

    The old root stays if the error of the new one is above 0.1.

    >>> s, old = jnp.diag(jnp.array([1.0, 16.0]))[None], jnp.zeros((1, 2, 2))
    >>> jnp.diag(newton_root(s, 4, 0.0, 0.0, old)[0]).round(4)
    Array([1. , 0.5], dtype=float32)
    """

    def one(s, old):
        ridge = eps * jnp.eye(len(s), dtype=s.dtype)
        root, error = matrix_inverse_pth_root(s + ridge, p, ridge_epsilon=relative)
        return jnp.where(error <= 0.1, root, old)  # not if it is NaN

    # A loop until convergence has no derivative.
    statistic, eps, relative = lax.stop_gradient((statistic, eps, relative))
    return jax.vmap(one)(statistic, old)


def _if_finite(new: jax.Array, old: jax.Array) -> jax.Array:
    finite = jnp.all(jnp.isfinite(new), axis=(-2, -1), keepdims=True)
    return jnp.where(finite, new, old)


def whitened_grams(
    g: jax.Array, bases: Squares, eigenvalues: Squares
) -> tuple[list[jax.Array | None], list[jax.Array | None]]:
    """Return what KL-Shampoo averages: statistics, and eigenvalues in the basis.

    Each side's statistic is that of a gradient whose other sides are whitened: the mean
    over their elements of ``(G R^(-1/2)) (G R^(-1/2))^T``.

    Args:
      g: Gradients.
      bases: The basis of each side.
      eigenvalues: The eigenvalues of each side, (count, d).

    Returns:
      For each side, the statistic, and its diagonal in the basis.
    """
    whole = rotated(g, bases)
    scales = [None if e is None else lax.rsqrt(e) for e in eigenvalues]
    grams: list[jax.Array | None] = []
    diagonals: list[jax.Array | None] = []
    for side, q in enumerate(bases):
        if q is None:
            grams.append(None)
            diagonals.append(None)
            continue
        others = [None if i == side else b for i, b in enumerate(bases)]
        x, y = rotated(g, others), whole
        for i, s in enumerate(scales):
            if i != side and s is not None:
                x, y = x * facing(s, i, x), y * facing(s, i, y)
        grams.append(gram(x, side) * (g.shape[side + 1] / math.prod(g.shape[1:])))
        rest = [i + 1 for i in range(len(bases)) if i != side]
        diagonals.append(jnp.mean(y * y, axis=rest))
    return grams, diagonals
