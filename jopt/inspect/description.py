"""``describe``: what an optimizer does to which leaf, before anything runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import tree_checks
from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation, Params
from jopt.inspect import formulas, tables
from jopt.inspect.device_bytes import MemoryUse, is_spread, memory
from jopt.inspect.facts import (
    Facts,
    Number,
    facts,
    hyperparameters,
    nbytes,
    parts_of,
    states,
)
from jopt.inspect.folding import folded
from jopt.tree.variables import sees_arrays
from jopt.values import registry


class Stage(NamedTuple):
    """One transformation inside an optimizer."""

    name: str
    path: str  # of its state
    group: str
    depth: int  # how many wrappers it is in
    formula: str | None
    summary: str
    hyperparameters: dict[str, Number | str]
    leaves: int  # how many it acts on
    state_bytes: int


class Leaf(NamedTuple):
    """One leaf of the parameters, and what is done to it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    group: str  # its labels in every `partition`
    learning_rate: Number | None
    rate_multiple: float | None  # what multiplies the learning rate of this leaf
    weight_decay: Number | None  # multiple of the parameter
    # The fraction of the parameter that the first step takes off if the gradient is
    # zero; None if the rule of an optimizer decides.
    decay_per_step: float | None
    decay_enters: str | None  # the rule that a decay goes through, as an L2 penalty
    frozen: bool
    untouched: bool  # nothing changes its gradient, which is then its update
    branch: str | None  # what sees it as a matrix, such as `scale_by_muon`
    axes: str | None  # "i" for inputs, "o" for outputs, "b" for a batch of matrices
    stages: tuple[int, ...]  # positions in the description's stages
    param_bytes: int
    state_bytes: int
    state: dict[str, str]  # the arrays of the state by path: "float32[768,3072]"


class Totals(NamedTuple):
    """Sums over some leaves."""

    leaves: int
    parameters: int
    param_bytes: int
    state_bytes: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Description:
    """What `describe` returns: data to read, and tables to look at.

    Args:
      optimizer: The call that makes the optimizer.
      stages: Its transformations in the order in which they run.
      leaves: The leaves of the parameters.
      groups: Sums over the leaves of each label of a `partition`.
      totals: Sums over all leaves; ``state_bytes`` includes what belongs to no leaf,
        such as counts.
      memory: What each device holds, if the parameters are on several.
    """

    optimizer: str
    stages: tuple[Stage, ...]
    leaves: tuple[Leaf, ...]
    groups: dict[str, Totals]
    totals: Totals
    memory: MemoryUse | None = None

    def __str__(self) -> str:
        return tables.for_terminal(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return tables.as_html(self)

    def __rich__(self) -> Any:
        return tables.as_rich(self)

    def rows(self) -> list[tuple[str, list[Leaf]]]:
        """Leaves that are shown together: equal layers, by a path with all numbers."""
        kinds = [
            (
                *(x.shape, x.dtype, x.group, x.stages, x.frozen, x.branch, x.axes),
                *(x.learning_rate, x.rate_multiple, x.weight_decay, x.decay_per_step),
                x.state_bytes,
            )
            for x in self.leaves
        ]
        rows = folded([leaf.path for leaf in self.leaves], kinds)
        return [(row.path, [self.leaves[i] for i in row.members]) for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """The description as data for ``json.dumps``."""
        return {
            "optimizer": self.optimizer,
            "totals": self.totals._asdict(),
            "memory": self.memory and self.memory.to_dict(),
            "groups": {name: x._asdict() for name, x in self.groups.items()},
            "stages": [_plain(x) for x in self.stages],
            "leaves": [_plain(x) for x in self.leaves],
        }


def _plain(x: Any) -> Any:
    if hasattr(x, "_asdict"):
        return {name: _plain(value) for name, value in x._asdict().items()}
    if isinstance(x, Mapping):
        return {name: _plain(value) for name, value in x.items()}
    if isinstance(x, tuple):
        return [_plain(value) for value in x]
    # JSON cannot write these as numbers.
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


@sees_arrays("params")
def describe(tx: GradientTransformation, params: Params) -> Description:
    """Show what an optimizer does to which leaf, without running or allocating it.

    The result has the stages of the optimizer with their formulas and numbers, and for
    each leaf its group, learning rate, weight decay, whether it is frozen, and what the
    state keeps for it. ``print`` and notebooks show it as tables, in which equal layers
    are one row: ``h[0..11]/attn/w``.

    Args:
      tx: A transformation, or a pair ``(init, update)`` such as optax's, of which only
        the state is known.
      params: The parameters, or their shapes (``jax.ShapeDtypeStruct``). If they have
        shardings over several devices, `memory` says what each device holds.

    Returns:
      A `Description`, with ``stages``, ``leaves``, ``groups``, ``totals`` and
      ``to_dict()``. Numbers are those of the first step. What a rule does inside is in
      its formula only: a weight decay that goes through Adam's, as an L2 penalty does,
      has no ``decay_per_step``.

    Raises:
      TypeError: ``tx`` is not a transformation, or a leaf is not an array.
      ValueError: A mask or a label does not fit the parameters.

    >>> import jopt
    >>> params = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
    >>> d = jopt.describe(jopt.adamw(1e-3, weight_decay=0.1, mask="kernel"), params)
    >>> [stage.name for stage in d.stages]
    ['scale_by_adam', 'add_decayed_weights', 'scale_by_learning_rate']
    >>> for leaf in d.leaves:
    ...     print(leaf.path, leaf.learning_rate, leaf.weight_decay, leaf.state_bytes)
    bias 0.001 None 24
    kernel 0.001 0.1 48
    >>> d.totals.param_bytes, d.totals.state_bytes
    (36, 84)
    """
    text = repr(tx)
    tx = as_transformation(tx, "describe: tx")
    params = tree_checks.without_functions(params)
    parts = parts_of(tx, params)
    named = tree.leaves_with_names(params, none=True)
    # The stages of a leaf, with their multiples and layouts, decide all about it.
    acting: list[list[Any]] = [[] for _ in named]
    for k, part in enumerate(parts):
        for i, multiple in part.reached.items():
            acting[i].append((k, multiple, part.layouts.get(i)))
    keys = [
        (tuple(x), np.shape(leaf), _dtype(leaf))
        for x, (_, leaf) in zip(acting, named, strict=True)
    ]
    kept = states(tx, params, parts, keys)
    known: dict[Any, Facts] = {}
    leaves, state_bytes = [], list(kept.shared)
    for (path, leaf), key, arrays in zip(named, keys, kept.of_leaf, strict=True):
        if leaf is None:
            continue
        on_leaf = key[0]
        if on_leaf not in known:
            known[on_leaf] = facts(
                {parts[k]: multiple for k, multiple, _ in on_leaf},
                {parts[k]: layout for k, _, layout in on_leaf if layout is not None},
            )
        for x in arrays:
            state_bytes[x.owner] += x.nbytes
        leaves.append(
            Leaf(
                path,
                np.shape(leaf),
                _dtype(leaf),
                *known[on_leaf],
                tuple(k for k, _, _ in on_leaf),
                nbytes(leaf),
                sum(x.nbytes for x in arrays),
                {
                    "/".join(filter(None, (x.before, path, x.after))): _array(
                        x.dtype, x.shape
                    )
                    for x in arrays
                },
            )
        )
    stages = [
        Stage(
            part.name,
            "/".join(part.path),
            part.group,
            part.depth,
            *_documented(part.tx),
            hyperparameters(part.tx, _is_setting),
            len(part.reached),
            size,
        )
        for part, size in zip(parts, state_bytes, strict=True)
    ]
    groups = {}
    for group in dict.fromkeys(leaf.group for leaf in leaves):
        groups[group] = _totals([leaf for leaf in leaves if leaf.group == group])
    totals = _totals(leaves)._replace(state_bytes=sum(state_bytes))
    of_devices = memory(tx, params) if is_spread(params) else None
    return Description(text, tuple(stages), tuple(leaves), groups, totals, of_devices)


def _dtype(leaf: Any) -> str:
    return str(getattr(leaf, "dtype", None) or jnp.result_type(leaf))


def _array(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _documented(tx: GradientTransformation) -> tuple[str | None, str]:
    factory: Any = tx.recipe and tx.recipe.factory
    if factory is None and tx.fixed_name:  # made of the one that has this name
        factory = registry.factory(tx.fixed_name)
    if factory is None:
        return None, "Made by no factory of jopt: only its state is known."
    return formulas.formula(factory), formulas.summary(factory)


def _is_setting(value: Any) -> bool:
    """Whether an argument is not made of transformations, which are stages."""
    inside = jax.tree.leaves(value, is_leaf=lambda x: x is not value)
    return not any(isinstance(x, GradientTransformation) for x in (value, *inside))


def _totals(leaves: list[Leaf]) -> Totals:
    return Totals(
        len(leaves),
        sum(math.prod(leaf.shape) for leaf in leaves),
        sum(leaf.param_bytes for leaf in leaves),
        sum(leaf.state_bytes for leaf in leaves),
    )
