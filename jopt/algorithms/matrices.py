"""Leaves as matrices: which leaves are, and which of their axes are inputs and outputs.

What is done to a matrix depends on it: JAX multiplies a row of inputs by a kernel
(inputs, outputs), where torch's weights are (outputs, inputs).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from jopt import tree
from jopt.core import masks


# How leaves are matrices, one letter for each axis of a leaf: "i" for inputs, "o" for
# outputs, "b" for a batch of matrices. JAX's dense kernels are "io", torch's weights
# "oi", convolutions "iio" and "iiio". Of attention, queries (model, head, size) are
# "ioo" and the projection after it is "iio". A scan over layers puts "b" in front.
# Given as one text for all leaves, a tree of them (or a prefix of one), a function
# (path, leaf) -> text or params -> tree of texts. None takes the last axis as outputs
# and all others as inputs.
Axes: TypeAlias = str | Callable[..., Any] | Any

ShapeScale: TypeAlias = Literal["kj", "match_rms_adamw", "spectral"]


def letters(axes: Axes, params: Any) -> list[Any]:
    """For each leaf of ``params`` its letters; None for a None.

    Args:
      axes: See `Axes`.
      params: The tree, of which paths and shapes matter.

    Returns:
      One text per leaf, Nones included, in the tree's order.

    Raises:
      ValueError: A leaf has less than two axes, or other letters than axes.

    >>> letters(None, {"conv": np.ones((3, 3, 8, 16)), "dense": np.ones((8, 16))})
    ['iiio', 'io']
    """
    named = tree.leaves_with_names(params, none=True)
    found: list[Any] = (
        [None if x is None else "i" * (np.ndim(x) - 1) + "o" for _, x in named]
        if axes is None
        else masks.labels(axes, params)
    )
    for (path, leaf), own in zip(named, found, strict=True):
        if leaf is None:
            continue
        shape = np.shape(leaf)
        if len(shape) < 2:
            raise ValueError(
                f"leaf {path!r} has shape {shape}, but only an array with two or more "
                "axes is a matrix. jopt.muon gives all others to AdamW"
            )
        if len(own) != len(shape) or not {*"io"} <= {*own} <= {*"bio"}:
            raise ValueError(
                f"axes must have a letter 'b', 'i' or 'o' for each axis, and both 'i' "
                f"and 'o', got {own!r} for leaf {path!r} of shape {shape}"
            )
    return found


def positions(axes: str, which: str) -> tuple[int, ...]:
    """The positions of the axes with one of the letters, in the order of the letters.

    >>> positions("bioo", "o"), positions("oi", "io")
    ((2, 3), (1, 0))
    """
    return tuple(i for letter in which for i, x in enumerate(axes) if x == letter)


def sizes(axes: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """How many matrices a leaf holds, and their numbers of inputs and outputs.

    >>> sizes("iiio", (3, 3, 16, 32))
    (1, 144, 32)
    """
    count, inputs, outputs = (
        math.prod(shape[i] for i in positions(axes, letter)) for letter in "bio"
    )
    return count, inputs, outputs


def shape_factor(
    axes: str,
    shape: Sequence[int],
    shape_scale: ShapeScale | None,
    consistent_rms: Any = None,
) -> Any:
    """What orthogonal updates of a matrix are multiplied by, for its shape.

    >>> shape_factor("io", (8, 32), "kj"), shape_factor("oi", (8, 32), "kj")
    (2.0, 1.0)
    """
    _, inputs, outputs = sizes(axes, shape)
    if consistent_rms is not None:
        return consistent_rms * math.sqrt(max(inputs, outputs))
    if shape_scale == "match_rms_adamw":
        return 0.2 * math.sqrt(max(inputs, outputs))
    ratio = outputs / max(inputs, 1)
    return math.sqrt({"kj": max(1.0, ratio), "spectral": ratio, None: 1.0}[shape_scale])


def devices_along(mesh_axis: str | None) -> int:
    """How many devices there are along an axis of the mesh that is set."""
    if mesh_axis is None:
        return 1
    mesh = jax.sharding.get_abstract_mesh()
    if mesh_axis not in mesh.shape:
        raise ValueError(
            f"mesh_axis={mesh_axis!r} is no axis of the mesh; there are "
            f"{list(mesh.shape)}. Set the mesh with jax.set_mesh(mesh)"
        )
    return mesh.shape[mesh_axis]


# Names of the first layer, of the last, and of vectors, which a scan may have stacked.
_NOT_HIDDEN = re.compile(
    r"embed|(^|[/_.])((wte|wpe|emb|head|classifier)(s|_?\d+)?([/_.]|$)|logit)"
    r"|(^|[/_.])(bias|scale|gain|gamma|beta|norm)$",
    re.IGNORECASE,
)


def is_hidden(path: str, leaf: Any) -> bool:
    """Whether a leaf is a matrix of a hidden layer, as far as shape and name tell.

    It has two or more axes, more than one input and one output, and a path without
    ``embed`` in it, without one of the words ``wte wpe emb head logit classifier``, and
    not ending in ``bias scale gain gamma beta norm``. A last layer by another name
    looks like a hidden one.

    >>> [is_hidden(x, np.ones((2, 2))) for x in ("mlp/kernel", "lm_head/kernel")]
    [True, False]
    """
    shape = np.shape(leaf)
    is_matrix = len(shape) > 1 and shape[-1] > 1 and math.prod(shape[:-1]) > 1
    return is_matrix and not _NOT_HIDDEN.search(path)
