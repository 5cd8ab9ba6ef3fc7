"""States of optax, into those of jopt and back.

The names are alike: a ``ScaleByAdamState`` has ``count``, ``mu`` and ``nu`` here and
there. What differs is what is around: optax numbers the members of a chain, masks with
nodes of its own, and keeps no count and no learning rate where that is a constant.
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
from jopt.values import arguments


# Where optax's class for it has another name than ours.
OTHER_NAMES = {
    "scalebystddevstate": {"scalebyrstddevstate"},
    "scalebyrmsstate": {"scalebyrmswithcountstate"},
    "scalebyadamaxstate": {"scalebyadamstate"},
    "scalebylearningratestate": {"scalebyschedulestate"},
    "accumulatestate": {"multistepsstate"},
}
# Fields of theirs that are converted by hand, or say nothing here.
BY_HAND = {"count", "hyperparams", "hyperparams_states", "skip_state"}
# Fields of ours that say what theirs does in another way.
OURS_ONLY = {"count", "total_weight", "skipped", "total_skipped"}


def from_optax_state(
    tx: GradientTransformation,
    params: Params,
    optax_state: Any,
    *,
    count: int | None = None,
) -> OptState:
    """The state that continues a run with optax.

    Args:
      tx: The optimizer, the same recipe as optax's: the state does not say on which
        side of a momentum the learning rate is, nor tells Adamax from Adam.
      params: The parameters.
      optax_state: The state of optax's optimizer, such as a chain of ``adam``, ``sgd``
        or others of which there is one here, in ``masked``, ``partition``,
        ``MultiSteps`` or ``inject_hyperparams``. Hyperparameters that were injected go
        to those that the state here holds.
      count: The steps so far, where optax does not keep them, as in ``sgd``.

    Returns:
      A state of ``tx``.

    Raises:
      ValueError: A slot is in one of the states only, or has another shape.

    >>> import jopt, optax
    >>> params = {"w": jnp.ones(2)}
    >>> theirs = optax.adam(1e-3).init(params)
    >>> list(from_optax_state(jopt.adamw(1e-3), params, theirs))
    ['scale_by_adam', 'scale_by_learning_rate']
    """
    view = View(tx, tx.init(params), params, _any_order(params))
    theirs, values = by_name(optax_state), dict(leaves(optax_state))
    found: dict[str, Any] = {}
    for place, path in _pairs(view, theirs).items():
        found[place] = values[path]
    found |= _counts(view, theirs, values, count)
    found |= _hyperparams(view, optax_state)
    for m, steps in _accumulations(view):
        mini_step = int(found[joined(m.path, "mini_step")])
        found[joined(m.path, "total_weight")] = float(mini_step)
        for name in found:
            if steps and name.startswith(joined(m.path, "acc_grads")):
                found[name] = np.asarray(found[name]) * mini_step
    return view.replaced(found)


def to_optax_state(
    tx: GradientTransformation, state: OptState, params: Params, like: Any
) -> Any:
    """A state as that of the same optimizer of optax.

    Args:
      tx: The optimizer.
      state: Its state.
      params: The parameters.
      like: The state to fill, ``optax_tx.init(params)``.

    Returns:
      A state of the structure, shapes and dtypes of ``like``.

    Raises:
      ValueError: A slot is in one of the states only, or has another shape.

    >>> import jopt, optax
    >>> params, tx = jnp.ones(2), jopt.adam(1e-3)
    >>> like = optax.adam(1e-3).init(params)
    >>> to_optax_state(tx, tx.init(params), params, like)[0].count
    Array(0, dtype=int32)
    """
    view = View(tx, state, params, _any_order(params))
    theirs = by_name(like)
    new = {path: view.flat[place] for place, path in _pairs(view, theirs).items()}
    for m, is_mean in _accumulations(view):
        mini_step = int(view.flat[joined(m.path, "mini_step")])
        for place, path in _pairs(view, theirs).items():
            if is_mean and place.startswith(joined(m.path, "acc_grads")):
                new[path] = view.flat[place] / max(mini_step, 1)
    counts = _paired_counts(view, theirs)
    for path in _count_paths(theirs):
        place = next((ours for ours, x in counts.items() if x == path), None)
        new[path] = view.count() if place is None else view.flat[place]
    for path, name in hyperparam_paths(like):
        if places := list(view.named(name)):
            new[path] = view.flat[places[0]]
    return jax.tree_util.tree_map_with_path(
        lambda path, old: jnp.array(new[path], old.dtype) if path in new else old, like
    )


def _any_order(params: Params) -> list[str]:
    return [name for name, _ in tree.leaves_with_names(params)]


def _ours(view: View) -> dict[Key, list[str]]:
    """The places of every slot and number, by what it is."""
    found = defaultdict(list)
    for m in view.members:
        fields = getattr(m.state, "_fields", ())
        for field in set(fields) - {*m.tx.children, *OURS_ONLY, *_numbers(m)}:
            for path in ("", *(p.path for p in view.parameters)):
                place = joined(m.path, field, path)
                if place in view.flat and place not in found[_kind(m), field, path]:
                    found[_kind(m), field, path].append(place)
    return found


def _numbers(m: Member) -> tuple[str, ...]:
    return getattr(type(m.state), "hyperparameters", ())


def _kind(m: Member) -> str:
    return type(m.state).__name__.lower()


def _alike(kind: str) -> set[str]:
    return {kind} | OTHER_NAMES.get(kind, set())


def _pairs(view: View, theirs: Mapping[Key, list[Any]]) -> dict[str, Any]:
    """Our place -> their path, of everything but counts and hyperparameters."""
    pairs, missing, used = {}, [], set()
    for (kind, field, name), places in _ours(view).items():
        keys = [key for x in _alike(kind) if (key := (x, field, name)) in theirs]
        paths = [path for key in keys for path in theirs[key]]
        if len(paths) == len(places):
            pairs |= zip(places, paths, strict=True)
        else:
            missing += places
        used |= set(keys)
    surplus = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for key, paths in theirs.items()
        if key not in used and key[1] not in BY_HAND
        for path in paths
    ]
    if missing or surplus:
        raise ValueError(
            "the recipe and the state of optax do not keep the same: optax has not as "
            f"many of {missing[:4]} as the recipe, and the recipe nothing like "
            f"{surplus[:4]} of optax ({len(missing)} and {len(surplus)} in all)"
        )
    return pairs


def _count_paths(theirs: Mapping[Key, list[Any]]) -> list[Any]:
    return [
        p for (_, field, _), paths in theirs.items() if field == "count" for p in paths
    ]


def _paired_counts(view: View, theirs: Mapping[Key, list[Any]]) -> dict[str, Any]:
    """Our count -> their path, where a member has its counterpart."""
    by_kind = defaultdict(list)
    for place, m in view.named("count").items():
        by_kind[_kind(m)].append(place)
    pairs = {}
    for kind, places in by_kind.items():
        paths = [p for x in _alike(kind) for p in theirs.get((x, "count", ""), ())]
        if len(paths) == len(places):
            pairs |= zip(places, paths, strict=True)
    return pairs


def _counts(
    view: View, theirs: Mapping[Key, list[Any]], values: Any, count: int | None
) -> dict[str, Any]:
    found = {p: values[path] for p, path in _paired_counts(view, theirs).items()}
    rest = [place for place in view.named("count") if place not in found]
    if not rest:
        return found
    kept = {int(values[path]) for path in _count_paths(theirs)}
    kept = kept or {
        int(values[path])
        for (_, field, _), paths in theirs.items()
        if field == "gradient_step"
        for path in paths
    }
    if count is None and len(kept) != 1:
        many = f"has the counts {sorted(kept)}" if kept else "does not count its steps"
        raise ValueError(f"this state of optax {many}: give count=, for {rest}")
    if count is None:
        (count,) = kept
    elif kept and kept != {count}:
        raise ValueError(
            f"this state of optax has the counts {sorted(kept)}, got count={count}"
        )
    arguments.at_least(0, count=count)
    return found | dict.fromkeys(rest, count)


def _accumulations(view: View) -> Iterator[tuple[Member, bool]]:
    """Each `accumulate`, and whether optax keeps the mean where it keeps the sum."""
    for m in view.members:
        if m.name == "accumulate":
            assert m.tx.recipe is not None
            yield m, m.tx.recipe.arguments.get("use_grad_mean", True)


def _hyperparams(view: View, optax_state: Any) -> dict[str, Any]:
    """The injected numbers, for those that our state holds and no schedule gives."""
    values = dict(leaves(optax_state))
    found, unused = {}, {}
    for path, name in hyperparam_paths(optax_state):
        places = view.named(name)
        for place, m in places.items():
            changing = m.tx.changing
            if changing and name not in {**changing.schedules, **changing.arrays}:
                found[place] = values[path]
        if not places and not _is_constant(view, name, float(values[path])):
            unused[name] = float(values[path])
    if unused:
        warnings.warn(
            f"the state of optax has the hyperparameters {unused}, which the recipe "
            "does not keep in its state and has otherwise. Give it jopt.tunable "
            "numbers, or these",
            UserWarning,
            stacklevel=3,
        )
    return found


def _is_constant(view: View, name: str, value: float) -> bool:
    """Whether the recipe has this number for an argument of this name."""
    constants = [
        m.tx.recipe.arguments.get(name, m.tx.recipe.parameters[name].default)
        for m in view.members
        if m.tx.recipe and name in m.tx.recipe.parameters
    ]
    return any(
        isinstance(x, int | float) and bool(np.isclose(x, value, 1e-6))
        for x in constants
    )
