"""Leaves as matrices: which leaves qualify, and which axes are inputs and outputs.

Orientation matters: JAX multiplies a row of inputs by a kernel (inputs, outputs), while
torch's weights are (outputs, inputs).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms import layers
from jopt.core import masks
from jopt.core.leaves import Leaves
from jopt.values.arguments import text_of
from jopt.values.registry import config_function


# The layout of a leaf, one letter for each axis: "i" for inputs, "o" for outputs, "b"
# for a batch of matrices. JAX's dense kernels are "io", torch's weights "oi",
# convolutions "iio" and "iiio". In attention, queries (model, head, size) are "ioo" and
# the output projection is "iio". A scan over layers puts "b" in front. "auto" is the
# layout of Flax's or Equinox's layer, see `layers.layouts`, and "io" for every other
# leaf of two axes.
# Either one layout for all leaves, a tree of layouts (or a prefix of one), a function
# (path, leaf) -> layout, or one of params -> tree of layouts, such as `jopt.rules`.
# None is "auto" for all leaves.
Axes: TypeAlias = str | Callable[..., Any] | Any

ShapeScale: TypeAlias = Literal["kj", "match_rms_adamw", "spectral"]


def letters(axes: Axes, params: Any) -> list[Any]:
    """Return the layout of each leaf of ``params``; None for a None.

    Args:
      axes: The layouts, in any of the forms of `Axes`.
      params: A tree whose paths and shapes are read.

    Returns:
      One layout per leaf, Nones included, in the tree's order.

    Raises:
      ValueError: A leaf has fewer than two axes, its layout does not match them, or it
        has three or more and its layer is not known.

    >>> letters(None, {"conv": {"kernel": np.ones((3, 3, 8, 4))}, "w": np.ones((8, 4))})
    ['iiio', 'io']
    """
    named = tree.leaves_with_names(params, none=True)
    given = masks.labels("auto" if axes is None else axes, params)
    known = layers.layouts(params) if "auto" in given else given
    layouts = [
        auto if layout == "auto" else layout
        for layout, auto in zip(given, known, strict=True)
    ]
    unknown = []
    for (path, leaf), layout in zip(named, layouts, strict=True):
        if leaf is None:
            continue
        shape = np.shape(leaf)
        if len(shape) < 2:
            raise ValueError(
                f"leaf {path!r} has shape {shape}, but a matrix needs two or more "
                "axes. jopt.muon gives all other leaves to AdamW"
            )
        if layout is None:
            unknown.append((path, leaf))
        elif len(layout) != len(shape) or not {*"io"} <= {*layout} <= {*"bio"}:
            raise ValueError(
                f"axes must have a letter 'b', 'i' or 'o' for each axis, and both 'i' "
                f"and 'o', got {text_of(layout)} for leaf {path!r} of shape {shape}"
            )
    if unknown:
        has_more = len(unknown) < sum(leaf is not None for _, leaf in named)
        raise ValueError(_ambiguous(unknown, has_more))
    return layouts


def layouts_of(axes: Axes, leaves: Leaves) -> list[str | None]:
    """Return the layout of each leaf; None for those with fewer than two axes."""
    matrices = leaves.each(lambda x: x if np.ndim(x) > 1 else None)
    return letters(axes, leaves.tree(matrices))


def _ambiguous(unknown: list[tuple[str, Any]], has_more: bool) -> str:
    """Return the error about leaves of three or more axes whose layers are not known.

    Args:
      unknown: The paths and leaves.
      has_more: Whether the tree has other leaves.
    """
    path, leaf = unknown[0]
    shape = np.shape(leaf)
    n = len(shape)
    stack, inputs, outputs = (
        "b" * (n - 2) + "io",
        "i" * (n - 1) + "o",
        "i" + "o" * (n - 1),
    )
    pairs = [
        (f"^{re.escape(p)}$", "b" * (np.ndim(x) - 2) + "io") for p, x in unknown[:3]
    ]
    if has_more or len(unknown) > 3:
        pairs.append(("", "auto"))
    # One array has no path to choose it by.
    axes = f"jopt.rules({', '.join(map(str, pairs))})" if path else repr(stack)
    more = f" (and {len(unknown) - 3} more such leaves)" if len(unknown) > 3 else ""
    return (
        f"leaf {path!r} of shape {shape} may be {math.prod(shape[:-2])} matrices "
        f"{shape[-2:]}, one matrix {(math.prod(shape[:-1]), shape[-1])}, or one matrix "
        f"{(shape[0], math.prod(shape[1:]))}, and its layer is not known. For a stack "
        f"of matrices write axes={axes}{more}; {inputs!r} in place of {stack!r} is the "
        f"second choice, {outputs!r} the third. For weights of (outputs, inputs), swap "
        "the letters"
    )


def positions(axes: str, which: str) -> tuple[int, ...]:
    """Return the positions of the axes with one of the letters, in the letters' order.

    >>> positions("bioo", "o"), positions("oi", "io")
    ((2, 3), (1, 0))
    """
    return tuple(i for letter in which for i, x in enumerate(axes) if x == letter)


def sizes(axes: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return how many matrices a leaf holds, and their numbers of inputs and outputs.

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
    """Return the factor of an orthogonal update for a matrix of this shape.

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


def check_range(precond_dtype: str | None) -> None:
    """Raise unless a dtype of factors has the range of float32.

    Squares of small gradients are tiny, and what undoes them is large.
    """
    tiny = jnp.finfo(precond_dtype or "float32").tiny
    if tiny > jnp.finfo("float32").tiny:
        raise ValueError(
            "precond_dtype must have the range of float32, because factors are tiny "
            "or large where gradients are small. Use 'bfloat16' or 'float32', got "
            f"{text_of(precond_dtype)}"
        )


def devices_along(mesh_axis: str | None) -> int:
    """Return the number of devices along an axis of the current mesh."""
    if mesh_axis is None:
        return 1
    mesh = jax.sharding.get_abstract_mesh()
    if mesh_axis not in mesh.shape:
        raise ValueError(
            f"mesh_axis={text_of(mesh_axis)} is not an axis of the mesh, whose axes "
            f"are {list(mesh.shape)}. Set the mesh with jax.set_mesh(mesh)"
        )
    return mesh.shape[mesh_axis]


# Names of input layers, output layers, vectors, and normalizations. A scan over layers
# stacks vectors to matrices, so the number of axes is not enough.
_NOT_HIDDEN = re.compile(
    r"embed|(^|[/_.])((wte|wpe|emb|head|classifier)(s|_?\d+)?([/_.]|$)|logit)"
    r"|(^|[/_.])(bias(_\w+)?|scale|gain|gamma|beta|norm)$"
    r"|(^|[/_.])(layer|batch|group|instance|rms)?_?(norm|ln|bn)s?(_?\d+|_[a-z]+)?"
    r"/weight$",
    re.IGNORECASE,
)


@config_function
def is_hidden(path: str, leaf: Any) -> bool:
    """Return whether shape and name suggest that a leaf is a matrix of a hidden layer.

    The leaf has two or more axes, more than one input and more than one output. Its
    path contains neither ``embed`` nor ``logit``, nor one of the words ``wte``,
    ``wpe``, ``emb``, ``head`` and ``classifier``, and does not end in ``bias``,
    ``bias_…``, ``scale``, ``gain``, ``gamma``, ``beta`` or ``norm``, or in the
    ``weight`` of a norm, such as ``norm1/weight``. An output layer with another name
    counts as hidden.

    >>> [is_hidden(x, np.ones((2, 2))) for x in ("mlp/kernel", "lm_head/kernel")]
    [True, False]
    """
    shape = np.shape(leaf)
    is_matrix = len(shape) > 1 and shape[-1] > 1 and math.prod(shape[:-1]) > 1
    return is_matrix and not _NOT_HIDDEN.search(path)
