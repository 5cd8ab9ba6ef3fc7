"""Rules: ordered pairs that assign a value to each leaf.

    rules((where, value), (where, value), …)

The first rule that chooses a leaf gives it its value: the label of its optimizer in
`jopt.partition`, the factor of its learning rate in `jopt.scale_by_group`, the multiple
of its weight decay. A leaf that no rule chooses is an error, and so is a rule that
chooses no leaf.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jopt import tree
from jopt.core import masks
from jopt.core.factory import recorded
from jopt.core.masks import Mask
from jopt.core.transformation import Params
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of
from jopt.values.recipe import Recorded
from jopt.values.registry import config_function


class Predicate(Recorded):
    """A function ``(path, leaf) -> bool`` that knows the call that made it."""

    def __init__(self, function: Callable[[str, Any], bool]):
        self.function = function

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether the leaf is chosen."""
        return self.function(path, leaf)


class Optional(Recorded):
    """Leaves of a rule that need not exist; made by `optional`."""

    def __init__(self, where: Mask):
        self.where = where


class Rules(Recorded):
    """A function ``params -> tree of values``; made by `rules`."""

    def __init__(self, pairs: tuple[tuple[Any, Any], ...]):
        self.pairs = pairs

    def __call__(self, params: Params) -> Any:
        """The value of each leaf, as a tree like ``params``."""
        named = tree.leaves_with_names(params, none=True)
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        pending = [True] * len(named)
        values = [None] * len(named)
        for where, value in self.pairs:
            chosen = _chosen(where, params, named)
            first = [
                on is not False and is_pending
                for on, is_pending in zip(chosen, pending, strict=True)
            ]
            for i, on in enumerate(chosen):
                if on and pending[i]:
                    values[i], pending[i] = value, False
            if named and not any(first) and not isinstance(where, Optional):
                taken = "only leaves that earlier rules chose" if any(chosen) else ""
                raise ValueError(
                    f"the rule {text_of(where)} -> {text_of(value)} chooses "
                    f"{taken or f'no leaf; the paths are {_some(named)}'}. Correct it, "
                    "or make it jopt.optional(…)"
                )
        if rest := [
            (path, leaf)
            for (path, leaf), on in zip(named, pending, strict=True)
            if on and leaf is not None
        ]:
            raise ValueError(
                f"no rule chooses {_some(rest)}. A last rule ('', …) chooses all the "
                "others"
            )
        return treedef.unflatten(
            None if leaf is None else value
            for (_, leaf), value in zip(named, values, strict=True)
        )


def _chosen(
    where: Any, params: Params, named: list[tuple[str, Any]]
) -> list[bool | None]:
    """Whether a rule chooses each leaf; None where a leaf is masked and nobody knows.

    A leaf that is masked here still has its path, which an expression is about. So a
    rule that is about masked leaves only is no misspelling.
    """
    if isinstance(where, Optional):
        where = where.where
    if isinstance(where, str):
        pattern = masks.expression(where)
        return [pattern.search(path) is not None for path, _ in named]
    chosen = masks.select(where, params)
    return [
        None if leaf is None else on
        for on, (_, leaf) in zip(chosen, named, strict=True)
    ]


def _some(named: list[tuple[str, Any]]) -> str:
    shown = ", ".join(
        f"{path!r} {'(masked here)' if leaf is None else np.shape(leaf)}"
        for path, leaf in named[:8]
    )
    return shown + (f" and {len(named) - 8} more" if len(named) > 8 else "")


@recorded
def rules(*pairs: tuple[Mask, Any]) -> Rules:
    """Give each leaf the value of the first rule that chooses it.

    The result is a function ``params -> tree``, and may stand wherever a mask, labels
    or factors may.

    Args:
      *pairs: ``(where, value)``. ``where`` chooses leaves: a regular expression,
        searched for in the path (``""`` chooses all); `glob`; a function
        ``(path, leaf) -> bool`` such as `is_bias_or_norm`; or any other mask.
        ``value`` is a label, a bool or a number.

    Returns:
      A function. Equal rules compare equal, and have a ``repr`` and a config.

    Raises:
      TypeError: A rule is not such a pair.
      ValueError: No pairs. When the function is called: no rule chooses some leaf, or a
        rule that is not `optional` chooses none. A leaf that is masked here, because
        the rules stand inside a group, counts as one that the rule chooses.

    >>> import jopt
    >>> groups = jopt.rules((jopt.is_bias_or_norm, "vector"), ("", "matrix"))
    >>> groups({"bias": 0.0, "kernel": 0.0})
    {'bias': 'vector', 'kernel': 'matrix'}
    """
    if not pairs:
        raise ValueError("rules needs at least one pair (where, what)")
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                "a rule is a pair (where, value), such as ('bias$', 'sgd'), got "
                f"{abbreviated(pair)}"
            )
        if not isinstance(pair[1], str | bool | int | float):
            raise TypeError(
                "the value of a rule is a label, a bool or a number, got "
                f"{abbreviated(pair[1])} for {text_of(pair[0])}. Give optimizers "
                "labels: jopt.partition({'label': optimizer}, jopt.rules(…))"
            )
        if isinstance(pair[0], str):
            masks.expression(pair[0])
    return Rules(pairs)


@recorded
def optional(where: Mask) -> Optional:
    """Mark leaves of `rules` that need not exist.

    Args:
      where: The leaves; see `rules`.

    Returns:
      The first entry of a rule.

    >>> import jopt
    >>> jopt.rules((jopt.optional("embed"), "sgd"), ("", "adam"))({"kernel": 0.0})
    {'kernel': 'adam'}
    """
    return Optional(where)


@recorded
def glob(pattern: str) -> Predicate:
    """Choose the leaves whose whole path matches a pattern of the shell.

    Args:
      pattern: A pattern with ``*``, ``?`` and ``[…]``. ``*`` matches any text,
        slashes included.

    Returns:
      A function ``(path, leaf) -> bool``.

    >>> glob("decoder/*/bias")("decoder/layer_1/dense/bias", 0.0)
    True
    """
    return Predicate(lambda path, leaf: fnmatch.fnmatchcase(path, pattern))


@recorded
def ndim_at_least(ndim: int) -> Predicate:
    """Choose the leaves with at least this many axes; 2 for matrices and kernels.

    Args:
      ndim: The number of axes, >= 0.

    Returns:
      A function ``(path, leaf) -> bool``.

    >>> import jax.numpy as jnp
    >>> ndim_at_least(2)("kernel", jnp.ones((2, 3)))
    True
    """
    arguments.at_least(0, ndim=ndim)
    return Predicate(lambda path, leaf: np.ndim(leaf) >= ndim)


_BIAS_OR_NORM = re.compile(
    r"(^|[/_.])((bias|biases)(_[a-z]+)*|b|scale|gain|gamma|beta)$"
    r"|(^|[/_.])(layer|batch|group|instance|rms)?_?(norm|ln|bn)s?(_?\d+|_[a-z]+)?/[^/]*$",
    re.IGNORECASE,
)


@config_function
def is_bias_or_norm(path: str, leaf: Any) -> bool:
    """Whether a leaf is a bias or belongs to a normalization, judged by its name.

    Args:
      path: The path of the leaf.
      leaf: The leaf; only its path matters.

    Returns:
      True for a bias, a scale, or any parameter of a normalization layer.

    >>> [is_bias_or_norm(x, 0.0) for x in ("dense/bias", "ln_1/weight", "dense/kernel")]
    [True, True, False]
    """
    return _BIAS_OR_NORM.search(path) is not None


@config_function
def not_bias_or_norm(path: str, leaf: Any) -> bool:
    """Whether a leaf usually decays: the opposite of `is_bias_or_norm`.

    It goes by the name, because a number of axes does not tell: the bias of an
    attention layer has two, and so has the scale of stacked layers.

    Args:
      path: The path of the leaf.
      leaf: The leaf; only its path matters.

    Returns:
      False for a bias, a scale, or any parameter of a normalization layer.

    >>> import jopt
    >>> tx = jopt.adamw(1e-3, weight_decay=0.1, mask=jopt.not_bias_or_norm)
    """
    return not is_bias_or_norm(path, leaf)


class LayerDecay(Recorded):
    """A function ``params -> tree of factors``; made by `layer_decay`."""

    def __init__(self, decay: float, layers: tuple[str, ...]):
        self.decay, self.layers = decay, layers

    def __call__(self, params: Params) -> Any:
        """The factor of each leaf, as a tree like ``params``."""
        named = tree.leaves_with_names(params, none=True)
        found = [None if p is None else self._found(path) for path, p in named]
        start, starts = 0, []
        for i, layer in enumerate(self.layers):
            numbers = {x[1] for x in found if x is not None and x[0] == i}
            if not numbers:
                raise ValueError(
                    f"layer_decay: {layer!r} chooses no leaf; the paths are "
                    f"{_some(named)}"
                )
            # A number without leaves, such as that of a frozen block, is a layer too.
            starts.append(start - min(numbers))
            start += max(numbers) - min(numbers) + 1
        depths = [None if x is None else start - 1 - starts[x[0]] - x[1] for x in found]
        factors = [None if x is None else self.decay**x for x in depths]
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        return treedef.unflatten(factors)

    def _found(self, path: str) -> tuple[int, int]:
        """The expression that is found in a path, and the number in it."""
        for i, layer in enumerate(self.layers):
            if match := masks.expression(layer).search(path):
                return i, int(match[1]) if match.lastindex else 0
        raise ValueError(
            f"layer_decay: no layer chooses {path!r}. Add a pattern for it to layers"
        )


@recorded
def layer_decay(decay: float, layers: Sequence[str]) -> LayerDecay:
    r"""Give each layer its factor: ``decay`` to the power of its depth from the top.

    The last layer has the factor 1, the one below it ``decay``, and so on: fine-tuning
    changes the layers near the input least. It goes into `scale_by_group`.

    Args:
      decay: The factor from one layer to the one below it, in (0, 1].
      layers: Regular expressions of the paths, from the input to the output. One with
        a group of digits, such as ``r"block_(\d+)/"``, is as many layers as there are
        numbers. The first expression that is found in a path counts.

    Returns:
      A function ``params -> tree of factors``.

    Raises:
      ValueError: ``decay`` is out of range. When the function is called: an expression
        chooses no leaf, or no expression chooses some leaf.

    Clark et al., "ELECTRA", 2020; Bao et al., "BEiT", 2022. Equal to timm's
    ``layer_decay`` with one layer for the embeddings, one for each block, and one for
    the last norm and the head.

    >>> import jopt
    >>> factors = jopt.layer_decay(0.5, ["embed", r"block_(\d+)", "head"])
    >>> factors({"block_0": 0.0, "block_1": 0.0, "embed": 0.0, "head": 0.0})
    {'block_0': 0.25, 'block_1': 0.5, 'embed': 0.125, 'head': 1.0}
    >>> tx = jopt.chain(jopt.adamw(1e-3), jopt.scale_by_group(factors))
    """
    arguments.fraction(decay=decay)
    arguments.positive(decay=decay)
    if isinstance(layers, str) or not layers:
        raise ValueError(
            "layers must be a list of regular expressions, got layers="
            f"{text_of(layers)}"
        )
    for layer in layers:
        masks.expression(layer)
    return LayerDecay(decay, tuple(layers))
