"""Conversion between states of optax and jopt.

The states have the same names: ``ScaleByAdamState`` has ``count``, ``mu`` and ``nu`` in
both. Their surroundings differ: optax numbers the members of a chain, masks with nodes
of its own, and keeps neither a count nor a learning rate if the rate is constant.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.optax.fields import Key, by_name, hyperparam_paths, leaves
from jopt.interop.shared.state_view import Member, View, joined
from jopt.tree.variables import sees_arrays, without_variables
from jopt.values import arguments
from jopt.wrappers.accumulation import AccumulateState


# jopt's state classes that have other names in optax, in lower case.
OTHER_NAMES = {
    "scalebystddevstate": {"scalebyrstddevstate"},
    "scalebyrmsstate": {"scalebyrmswithcountstate"},
    "scalebyadamaxstate": {"scalebyadamstate"},
    "scalebylearningratestate": {"scalebyschedulestate"},
    "accumulatestate": {"multistepsstate"},
}
# Fields of optax that are converted separately, or that jopt does not need.
BY_HAND = {"count", "hyperparams", "hyperparams_states", "skip_state"}
# Fields of jopt that are converted separately, or that optax keeps in another form.
OURS_ONLY = {"count", "total_weight", "skipped", "total_skipped"}


def from_optax_state(
    tx: GradientTransformation,
    params: Params,
    optax_state: Any,
    *,
    count: int | None = None,
) -> OptState:
    """Return the state that continues a run with optax.

    Args:
      tx: The optimizer, the same recipe as optax's. The state cannot confirm that: it
        does not show on which side of a momentum the learning rate is, and Adamax
        looks like Adam.
      params: The parameters.
      optax_state: The state of optax's optimizer: ``adam``, ``sgd`` or another with a
        counterpart in jopt, also in a chain, ``masked``, ``partition``, ``MultiSteps``
        or ``inject_hyperparams``. Injected hyperparameters go to those that jopt's
        state holds.
      count: The number of steps so far, where optax does not keep it, as in ``sgd``.

    Returns:
      A state of ``tx``.

    Raises:
      ValueError: A slot is in only one of the states, or has different shapes.

    Warns:
      UserWarning: jopt's state has no place for an injected hyperparameter.

    >>> import jopt, optax
    >>> params = {"w": jnp.ones(2)}
    >>> theirs = optax.adam(1e-3).init(params)
    >>> list(from_optax_state(jopt.adamw(1e-3), params, theirs))
    ['scale_by_adam', 'scale_by_learning_rate']
    """
    view = View(tx, tx.init(params), params, _any_order(params))
    optax_state = without_variables(optax_state)
    optax_paths, optax_values = by_name(optax_state), dict(leaves(optax_state))
    values: dict[str, Any] = {}
    for place, path in _pairs(view, optax_paths).items():
        values[place] = optax_values[path]
    values |= _counts(view, optax_paths, optax_values, count)
    values |= _hyperparams(view, optax_state)
    for m, is_mean in _accumulations(view):
        mini_step = int(values[joined(m.path, "mini_step")])
        values[joined(m.path, "total_weight")] = float(mini_step)
        for name in values:
            # jopt keeps the sum of the gradients, optax their mean.
            if is_mean and name.startswith(joined(m.path, "acc_grads")):
                values[name] = np.asarray(values[name]) * mini_step
    return view.replaced(values)


@sees_arrays("like")
def to_optax_state(
    tx: GradientTransformation, state: OptState, params: Params, like: Any
) -> Any:
    """Return a state as a state of the same optimizer of optax.

    Args:
      tx: The optimizer.
      state: Its state.
      params: The parameters.
      like: A state of optax's optimizer to fill, ``optax_tx.init(params)``.

    Returns:
      A state with the structure and dtypes of ``like``.

    Raises:
      ValueError: A slot is in only one of the states.

    >>> import jopt, optax
    >>> params, tx = jnp.ones(2), jopt.adam(1e-3)
    >>> like = optax.adam(1e-3).init(params)
    >>> to_optax_state(tx, tx.init(params), params, like)[0].count
    Array(0, dtype=int32)
    """
    view = View(tx, state, params, _any_order(params))
    optax_paths = by_name(like)
    new = {path: view.flat[place] for place, path in _pairs(view, optax_paths).items()}
    for m, is_mean in _accumulations(view):
        mini_step = int(view.flat[joined(m.path, "mini_step")])
        for place, path in _pairs(view, optax_paths).items():
            if is_mean and place.startswith(joined(m.path, "acc_grads")):
                new[path] = view.flat[place] / max(mini_step, 1)
    counts = {path: place for place, path in _paired_counts(view, optax_paths).items()}
    for path in _count_paths(optax_paths):
        place = counts.get(path)
        new[path] = view.count() if place is None else view.flat[place]
    for path, name in hyperparam_paths(like):
        if places := list(view.named(name)):
            new[path] = view.flat[places[0]]
    return jax.tree_util.tree_map_with_path(
        lambda path, old: jnp.array(new[path], old.dtype) if path in new else old, like
    )


def _any_order(params: Params) -> list[str]:
    return [name for name, _ in tree.leaves_with_names(params)]


def _places(view: View) -> dict[Key, list[str]]:
    """Return the places of all slots and numbers in jopt's state by their `Key`."""
    places = defaultdict(list)
    for m in view.members:
        fields = getattr(m.state, "_fields", ())
        for field in set(fields) - {*m.tx.children, *OURS_ONLY, *_numbers(m)}:
            for path in ("", *(p.path for p in view.parameters)):
                place = joined(m.path, field, path)
                if place in view.flat and place not in places[_kind(m), field, path]:
                    places[_kind(m), field, path].append(place)
    return places


def _numbers(m: Member) -> tuple[str, ...]:
    return getattr(type(m.state), "hyperparameters", ())


def _kind(m: Member) -> str:
    return type(m.state).__name__.lower()


def _optax_kinds(kind: str) -> set[str]:
    return {kind} | OTHER_NAMES.get(kind, set())


def _pairs(view: View, optax_paths: Mapping[Key, list[Any]]) -> dict[str, Any]:
    """Map jopt's places to optax's paths, without counts and hyperparameters."""
    pairs, missing, used = {}, [], set()
    for (kind, field, name), places in _places(view).items():
        candidates = [(x, field, name) for x in _optax_kinds(kind)]
        keys = [key for key in candidates if key in optax_paths]
        paths = [path for key in keys for path in optax_paths[key]]
        # Both sides list members in their order in the chain, so they pair up.
        if len(paths) == len(places):
            pairs |= zip(places, paths, strict=True)
        else:
            missing += places
        used |= set(keys)
    surplus = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for key, paths in optax_paths.items()
        if key not in used and key[1] not in BY_HAND
        for path in paths
    ]
    if missing or surplus:
        raise ValueError(
            "the recipe and optax's state keep different arrays: optax has too few or "
            f"too many of {missing[:4]}, and the recipe has nothing like {surplus[:4]} "
            f"of optax ({len(missing)} and {len(surplus)} in all)"
        )
    return pairs


def _count_paths(optax_paths: Mapping[Key, list[Any]]) -> list[Any]:
    counts = [paths for (_, f, _), paths in optax_paths.items() if f == "count"]
    return [path for paths in counts for path in paths]


def _paired_counts(view: View, optax_paths: Mapping[Key, list[Any]]) -> dict[str, Any]:
    """Map jopt's counts to optax's paths where a member has a counterpart."""
    by_kind = defaultdict(list)
    for place, m in view.named("count").items():
        by_kind[_kind(m)].append(place)
    pairs = {}
    for kind, places in by_kind.items():
        keys = [(x, "count", "") for x in _optax_kinds(kind)]
        paths = [path for key in keys for path in optax_paths.get(key, ())]
        if len(paths) == len(places):
            pairs |= zip(places, paths, strict=True)
    return pairs


def _counts(
    view: View, optax_paths: Mapping[Key, list[Any]], values: Any, count: int | None
) -> dict[str, Any]:
    """Return the value of every count of jopt's state."""
    pairs = _paired_counts(view, optax_paths)
    counts = {place: values[path] for place, path in pairs.items()}
    rest = [place for place in view.named("count") if place not in counts]
    if not rest:
        return counts
    steps = {int(values[path]) for path in _count_paths(optax_paths)}
    steps = steps or {
        int(values[path])
        for (_, field, _), paths in optax_paths.items()
        if field == "gradient_step"
        for path in paths
    }
    if count is None and len(steps) != 1:
        what = (
            f"has the counts {sorted(steps)}" if steps else "does not count its steps"
        )
        raise ValueError(f"this state of optax {what}: give count=, for {rest}")
    if count is None:
        (count,) = steps
    elif steps and steps != {count}:
        raise ValueError(
            f"this state of optax has the counts {sorted(steps)}, got count={count}"
        )
    arguments.at_least(0, count=count)
    return counts | dict.fromkeys(rest, count)


def _accumulations(view: View) -> Iterator[tuple[Member, bool]]:
    """Yield each `accumulate`, and whether optax keeps a mean there, not a sum."""
    for m in view.holding(AccumulateState):
        assert m.tx.recipe is not None
        yield m, m.tx.recipe.arguments.get("use_grad_mean", True)


def _hyperparams(view: View, optax_state: Any) -> dict[str, Any]:
    """Return injected numbers for unscheduled hyperparameters of jopt's state."""
    optax_values = dict(leaves(optax_state))
    values, unused = {}, {}
    for path, name in hyperparam_paths(optax_state):
        places = view.named(name)
        for place, m in places.items():
            changing = m.tx.changing
            if changing and name not in {**changing.schedules, **changing.arrays}:
                values[place] = optax_values[path]
        if not places and not _is_constant(view, name, float(optax_values[path])):
            unused[name] = float(optax_values[path])
    if unused:
        warnings.warn(
            f"the state of optax has the hyperparameters {unused}, but the recipe has "
            "other numbers and does not keep them in its state. Give the recipe these "
            "numbers, or jopt.tunable ones",
            UserWarning,
            stacklevel=3,
        )
    return values


def _is_constant(view: View, name: str, value: float) -> bool:
    """Whether an argument of this name has this number in the recipe."""
    constants = [
        m.tx.recipe.arguments.get(name, m.tx.recipe.parameters[name].default)
        for m in view.members
        if m.tx.recipe and name in m.tx.recipe.parameters
    ]
    return any(
        isinstance(x, int | float) and bool(np.isclose(x, value, 1e-6))
        for x in constants
    )
