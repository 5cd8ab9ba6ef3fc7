"""Rules: ordered pairs of leaves and what holds for them.

    rules((where, what), (where, what), …)

The first rule that chooses a leaf says what holds for it: the label of its optimizer in
`jopt.partition`, the factor of its learning rate in `jopt.scale_by_group`, the multiple
of its weight decay. Nothing is left to chance: a leaf that no rule chooses is an error,
and so is a rule that chooses no leaf.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jopt import tree
from jopt.core import masks
from jopt.core.factory import recorded
from jopt.core.masks import Mask
from jopt.core.transformation import Params
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recorded
from jopt.values.registry import named


class Predicate(Recorded):
    """A function ``(path, leaf) -> bool`` that knows the call that made it."""

    def __init__(self, function: Callable[[str, Any], bool]):
        self.function = function

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether the leaf is chosen."""
        return self.function(path, leaf)


class Optional(Recorded):
    """A ``where`` that may choose no leaf; made by `optional`."""

    def __init__(self, where: Mask):
        self.where = where


class Rules(Recorded):
    """A function ``params -> tree`` of what the rules say; made by `rules`."""

    def __init__(self, pairs: tuple[tuple[Any, Any], ...]):
        self.pairs = pairs

    def __call__(self, params: Params) -> Any:
        """What holds for each leaf, as a tree like ``params``."""
        named = tree.leaves_with_names(params, none=True)
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        open_, found = [x is not None for _, x in named], [None] * len(named)
        for where, what in self.pairs:
            chosen = _chosen(where, params)
            for i, on in enumerate(chosen):
                if on and open_[i]:
                    found[i], open_[i], chosen[i] = what, False, None
            if named and None not in chosen and not isinstance(where, Optional):
                taken = "only leaves that earlier rules chose" if any(chosen) else ""
                raise ValueError(
                    f"the rule {where!r} -> {what!r} chooses "
                    f"{taken or f'no leaf; the paths are {_some(named)}'}. Mend it, or "
                    "make it jopt.optional(…)"
                )
        if lost := [entry for entry, on in zip(named, open_, strict=True) if on]:
            raise ValueError(
                f"no rule chooses {_some(lost)}. The last rule may be for all others: "
                "('', …)"
            )
        return treedef.unflatten(found)


def _chosen(where: Any, params: Params) -> list[Any]:
    if isinstance(where, Optional):
        where = where.where
    if isinstance(where, str):
        where = functools.partial(_search, masks.expression(where))
    return list(masks.select(where, params))


def _search(pattern: re.Pattern[str], path: str, leaf: Any) -> bool:
    return pattern.search(path) is not None


def _some(named: list[tuple[str, Any]]) -> str:
    shown = ", ".join(f"{path!r} {np.shape(leaf)}" for path, leaf in named[:8])
    return shown + (f" and {len(named) - 8} more" if len(named) > 8 else "")


@recorded
def rules(*pairs: tuple[Mask, Any]) -> Rules:
    """What holds for each leaf, by the first rule that chooses it.

    It is a function ``params -> tree``, so it may stand wherever a mask, labels or
    factors may.

    Args:
      *pairs: ``(where, what)``: which leaves (a regular expression that is searched for
        in the path, so that ``""`` is all; `glob`; a function ``(path, leaf) -> bool``
        such as `is_bias_or_norm`; any `Mask`), and a label, a bool or a number.

    Returns:
      A value: equal rules are ``==``, and have a ``repr`` and a config.

    Raises:
      TypeError: A rule is no such pair.
      ValueError: When it is applied: a leaf that no rule chooses, or a rule, not marked
        `optional`, that chooses none.

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
                "a rule is a pair (where, what), such as ('bias$', 'sgd'), got "
                f"{abbreviated(pair)}"
            )
        if not isinstance(pair[1], str | bool | int | float):
            raise TypeError(
                "what a rule says is a label, a bool or a number, got "
                f"{abbreviated(pair[1])} for {pair[0]!r}. Optimizers have "
                "labels: jopt.partition({'label': optimizer}, jopt.rules(…))"
            )
        if isinstance(pair[0], str):
            masks.expression(pair[0])
    return Rules(pairs)


@recorded
def optional(where: Mask) -> Optional:
    """A ``where`` of `rules` that may choose no leaf.

    Args:
      where: The leaves.

    Returns:
      A value to stand first in a rule.

    >>> import jopt
    >>> jopt.rules((jopt.optional("embed"), "sgd"), ("", "adam"))({"kernel": 0.0})
    {'kernel': 'adam'}
    """
    return Optional(where)


@recorded
def glob(pattern: str) -> Predicate:
    """The leaves whose whole path is like a pattern with ``*``, ``?`` and ``[…]``.

    Args:
      pattern: ``*`` stands for any text, also with slashes in it.

    Returns:
      A function ``(path, leaf) -> bool``.

    >>> glob("decoder/*/bias")("decoder/layer_1/dense/bias", 0.0)
    True
    """
    return Predicate(lambda path, leaf: fnmatch.fnmatchcase(path, pattern))


@recorded
def ndim_at_least(ndim: int) -> Predicate:
    """The leaves with at least so many axes; 2 are matrices and kernels.

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
    r"(^|[/_.])(bias|biases|b|scale|gain|gamma|beta)$"
    r"|(^|[/_.])(layer|batch|group|instance|rms)?_?(norm|ln|bn)s?(_?\d+|_[a-z]+)?/[^/]*$",
    re.IGNORECASE,
)


@named
def is_bias_or_norm(path: str, leaf: Any) -> bool:
    """Whether the leaf is a bias, or belongs to a normalization, as its name tells.

    Args:
      path: The path of the leaf.
      leaf: The leaf, which is not looked at.

    Returns:
      Whether it is chosen, as a rule or mask.

    >>> [is_bias_or_norm(x, 0.0) for x in ("dense/bias", "ln_1/weight", "dense/kernel")]
    [True, True, False]
    """
    return _BIAS_OR_NORM.search(path) is not None
