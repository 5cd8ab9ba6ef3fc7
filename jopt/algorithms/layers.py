"""The layers of Flax and Equinox: which axes of their weights are inputs and outputs.

A shape does not say it. A leaf of shape (12, 64, 64) may be twelve dense kernels under
a scan, the queries of twelve heads, or a convolution. The type of an Equinox layer
does, and so do the names that Flax gives, together with the shapes beside them. What is
left open here is an error in `matrices.letters`, because a guess would be another
method.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jopt import tree


Shapes = Mapping[str, tuple[int, ...]]


def layouts(params: Any) -> list[str | None]:
    """Return the layout of each leaf, as far as its layer is known.

    Axes in front of those of a layer are a stack, as under ``nn.scan``, ``nnx.vmap``
    and ``eqx.filter_vmap``.

    Args:
      params: A tree whose paths, shapes and Equinox layers are read.

    Returns:
      One layout per leaf, Nones included, in the tree's order; None for a None, and for
      a leaf of three or more axes whose layer is not known.

    >>> layouts({"Dense_0": {"kernel": np.ones((6, 4, 8))}, "w": np.ones((6, 4, 8))})
    ['bio', None]
    """
    named = tree.leaves_with_names(params, none=True)
    shapes = {path: np.shape(x) for path, x in named if x is not None}
    of_equinox = _equinox(params)
    return [
        None
        if x is None
        else _stacked(of_equinox[path], np.ndim(x))
        if path in of_equinox
        else _flax(path, shapes)
        for path, x in named
    ]


def _stacked(layout: str, ndim: int) -> str | None:
    more = ndim - len(layout)
    return "b" * more + layout if more >= 0 else None


def _flax(path: str, shapes: Shapes) -> str | None:
    """Return the layout of a leaf that is named as Flax names the leaves of layers."""
    shape = shapes[path]
    if len(shape) <= 2:
        return "io"
    *_, module, name = ("", *path.split("/"))
    if name not in ("kernel", "w"):
        return None
    if re.fullmatch(r"Dense_\d+", module):  # a name that linen gives, never users
        return _stacked("io", len(shape))
    if re.search(r"conv(?!.*local)", module, re.IGNORECASE):
        return _convolution(module, shape)
    return _attention(path, shapes)


def _convolution(module: str, shape: tuple[int, ...]) -> str | None:
    # Four axes may also be a stack of convolutions over one axis. The name may say it,
    # and a square window is none.
    says = re.search(r"conv[a-z_]*?([123])_?d", module, re.IGNORECASE)
    if says:
        return _stacked("i" * int(says[1]) + "io", len(shape))
    is_plain = len(shape) == 3 or (len(shape) == 4 and shape[0] == shape[1])
    return "i" * (len(shape) - 1) + "o" if is_plain else None


def _attention(path: str, shapes: Shapes) -> str | None:
    """Return the layout of a kernel in an attention layer.

    Queries, keys and values are (model, head, size) and the output is (head, size,
    model) if heads have an axis of their own, as in Flax's layer. In a stack of dense
    kernels they are (layer, model, width) and (layer, width, model). The shapes of both
    sides tell which it is.
    """
    match = re.fullmatch(r"(|.*/)(query|key|value|out)/(kernel|w)", path)
    if match is None:
        return None
    module, role, name = match.groups()
    out = shapes.get(f"{module}out/{name}")
    sides = [role] if role != "out" else ["value", "key", "query"]
    inner = next((x for x in sides if f"{module}{x}/{name}" in shapes), None)
    if out is None or inner is None:
        return None
    first = shapes[f"{module}{inner}/{name}"]
    n = len(first)
    if len(out) != n:
        return None
    of_heads = first[: n - 3] == out[: n - 3] and first[n - 2 :] == out[n - 3 : n - 1]
    of_dense = first[: n - 2] == out[: n - 2] and first[n - 1] == out[n - 2]
    if of_heads == of_dense:
        return None
    return _stacked("io" if of_dense else "iio" if role == "out" else "ioo", n)


def _equinox(params: Any) -> dict[str, str]:
    """Return the layouts, without stacks, of the weights of Equinox's layers."""
    found = {}
    pairs, _ = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda x: bool(_weights(x))
    )
    for path, node in pairs:
        for name, layout in _weights(node).items():
            key = jax.tree_util.GetAttrKey(name)
            found[tree.path_name((*path, key))] = layout
    return found


def _weights(node: Any) -> dict[str, str]:
    # By name, so that Equinox is not imported; a subclass is a layer too.
    for base in type(node).__mro__:
        if base.__module__.startswith("equinox.nn"):
            if base.__name__ == "Linear":
                return {"weight": "oi"}
            if base.__name__ in ("GRUCell", "LSTMCell"):
                return {"weight_ih": "oi", "weight_hh": "oi"}
            if base.__name__ in ("Conv", "ConvTranspose"):
                return {"weight": "oi" + "i" * node.num_spatial_dims}
    return {}
