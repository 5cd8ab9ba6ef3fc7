"""The parameters in another library's order, with its order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.transformation import Params
from jopt.tree.paths import by_name
from jopt.values.arguments import abbreviated


class Permuted(NamedTuple):
    """A parameter whose axes are in another order in the other library.

    torch keeps the weight of a linear layer as (outputs, inputs), most libraries for
    JAX as (inputs, outputs): ``Permuted("dense/kernel", (1, 0))``. A convolution is
    ``Permuted("conv/kernel", (2, 3, 1, 0))``.

    >>> Permuted("dense/kernel", (1, 0)).axes
    (1, 0)
    """

    path: str  # path of the parameter in jopt
    axes: tuple[int, ...]  # np.transpose(x, axes) converts the other library's array


class Parameter(NamedTuple):
    """One parameter in the other library's list."""

    path: str
    axes: tuple[int, ...] | None  # see `Permuted`
    shape: tuple[int, ...]  # in the other library

    def to_other(self, value: Any) -> np.ndarray:
        """Convert an array to the other library's order of axes."""
        value = np.asarray(value)
        return value if self.axes is None else value.transpose(np.argsort(self.axes))

    def to_jopt(self, value: Any) -> np.ndarray:
        """Convert an array to jopt's order of axes."""
        value = np.asarray(value)
        if self.axes is None or value.ndim != len(self.axes):
            return value
        return value.transpose(self.axes)


def in_order(params: Params, order: Sequence[str | Permuted] | None) -> list[Parameter]:
    """Return the parameters in the order in which another library lists them.

    Args:
      params: The parameters.
      order: Their paths in that order; a path can be a `Permuted`. None is only for
        lists and tuples of arrays and for a single array, because JAX sorts the keys of
        dicts, which rarely gives the order of another library.

    Raises:
      TypeError: ``order`` is not a sequence of paths.
      ValueError: ``order`` is missing, or does not name every parameter once; or two
        parameters have the same path.
    """
    shapes = by_name((n, jnp.shape(x)) for n, x in tree.leaves_with_names(params))
    paths = list(shapes)
    if order is None:
        plain = isinstance(params, list | tuple) and not hasattr(params, "_fields")
        if len(paths) > 1 and not (plain and jax.tree_util.all_leaves(params)):
            raise ValueError(
                "order is needed: the paths of the parameters in the order of the "
                f"other library, which JAX does not know. JAX's order is order={paths}"
            )
        order = paths
    if isinstance(order, str | Permuted) or not isinstance(order, Sequence):
        raise TypeError(
            f"order must be a list of paths, got order={abbreviated(order)}"
        )
    ordered = [x if isinstance(x, Permuted) else Permuted(x, ()) for x in order]
    names = [x.path for x in ordered]
    missing = [x for x in paths if x not in names]
    unknown = [x for x in names if x not in shapes]
    twice = sorted({x for x in names if names.count(x) > 1})
    if missing or unknown or twice:
        raise ValueError(
            f"order must name each of the {len(paths)} parameters once, but has "
            f"{len(names)} paths: missing {missing}, unknown {unknown}, twice {twice}"
        )
    return [_parameter(path, axes, shapes[path]) for path, axes in ordered]


def _parameter(path: str, axes: tuple[int, ...], shape: tuple[int, ...]) -> Parameter:
    if not axes:
        return Parameter(path, None, shape)
    if sorted(axes) != list(range(len(shape))):
        raise ValueError(
            f"the axes of Permuted({path!r}, {axes}) must be a permutation of those of "
            f"the shape {shape}"
        )
    permuted = tuple(shape[i] for i in np.argsort(axes))
    return Parameter(path, tuple(axes), permuted)
