"""What all twins need: double precision, counted steps, numbers that may change."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


Array = npt.NDArray[Any]
Tree = Mapping[str, Array]
Scalar = float | Callable[[int], Any]
EpsMode = Literal["after", "before"]


def double(x: Array) -> Array:
    """``x`` in double precision, real or complex."""
    dtype = np.promote_types(np.asarray(x).dtype, np.float64)
    return np.asarray(x, dtype)


def steps(grads: Iterable[Array]) -> Iterator[tuple[int, Array]]:
    """Yields the pairs ``(t, g_t)``, from ``t = 1``."""
    for t, g in enumerate(grads, start=1):
        yield t, double(g)


def at(scalar: Scalar, t: int) -> float:
    """The value of a hyperparameter in step ``t``."""
    return float(scalar(t - 1) if callable(scalar) else scalar)


def denominator(
    v_hat: Array, correction: float, eps: float, eps_root: float, eps_mode: EpsMode
) -> Array:
    """Adam's ``sqrt(v_hat + eps_root) + eps``, where ``v_hat = v / correction``.

    "before" adds both constants before that division, to ``v`` and to ``sqrt(v)``.
    """
    if eps_mode == "before":
        eps_root = eps_root / correction
        eps = eps / np.sqrt(correction)
    return np.sqrt(v_hat + eps_root) + eps


def as_vector(tree: Tree) -> Array:
    """All leaves as one vector, whose norm and products are those of the tree."""
    return np.concatenate([x.ravel() for x in tree.values()])


def as_tree(vector: Array, like: Tree) -> Tree:
    """The inverse of `as_vector`."""
    tree, start = {}, 0
    for name, x in like.items():
        tree[name] = vector[start : start + x.size].reshape(x.shape)
        start += x.size
    return tree


def rms(x: Array) -> float:
    """The root mean square of all elements."""
    return float(np.sqrt(np.mean(np.abs(x) ** 2))) if x.size else 0.0


class Factored:
    """An average of squares, of which only the means of rows and columns are kept."""

    def __init__(self, ndim: int):
        self.ndim = ndim
        self.rows = self.columns = self.all = np.zeros(())

    def average(self, beta: float, squares: Array) -> Array:
        """The average with these squares, from its rows and columns if it has any."""
        if self.ndim < 2:
            self.all = beta * self.all + (1 - beta) * squares
            return self.all
        new_rows = squares.mean(-1, keepdims=True)
        new_columns = squares.mean(-2, keepdims=True)
        self.rows = beta * self.rows + (1 - beta) * new_rows
        self.columns = beta * self.columns + (1 - beta) * new_columns
        return self.rows * self.columns / self.rows.mean(-2, keepdims=True)


def phase(x: Array) -> Array:
    """The sign of a real number, ``x / |x|`` of a complex one, 0 of 0."""
    size = np.abs(x)
    return x / np.where(size > 0, size, 1.0)


def l2_norm(x: Array) -> Any:
    """The L2 norm of all elements."""
    return np.sqrt(np.sum(np.abs(x) ** 2))


def inner_product(x: Tree, y: Tree) -> Any:
    """The inner product of two dicts of real arrays."""
    return sum(np.sum(x[name] * y[name]) for name in x)


def norm_ratio(p: Array, g: Array, denominator: Any, min_norm: float = 0.0) -> Any:
    """``|p| / denominator``, or 1 where ``|p|`` or ``|g|`` is zero."""
    p_norm, g_norm = max(l2_norm(p), min_norm), max(l2_norm(g), min_norm)
    return p_norm / denominator if p_norm > 0 and g_norm > 0 else 1.0
