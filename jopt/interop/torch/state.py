"""The ``state_dict`` of an optimizer of torch, into a state and from one.

    {"state": {0: {"step": 6.0, "exp_avg": …, "exp_avg_sq": …}, 1: …},
     "param_groups": [{"lr": 0.001, …, "params": [0, 1]}]}

torch numbers the parameters in the order in which the optimizer got them, which is that
of ``model.parameters()``, and knows no more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.shared.parameter_order import Parameter, Permuted
from jopt.interop.shared.state_view import View
from jopt.interop.torch.rates import give_rates, taken_rates
from jopt.interop.torch.state_table import Row, row_of
from jopt.values import arguments
from jopt.values.arguments import abbreviated


Order = Sequence[str | Permuted] | Mapping[str, str | Permuted] | None


def load_state_dict(
    tx: GradientTransformation,
    params: Params,
    state_dict: Mapping[str, Any],
    *,
    order: Order = None,
    count: int | None = None,
) -> OptState:
    """The state that continues an optimizer of torch.

    The step goes into every count of the state, ``lr`` into every learning rate that is
    not scheduled; several keep their ratios to the first. Where torch has parameter
    groups, the ``lr`` of each goes to the group of the recipe that has the same
    parameters; if it has other groups, and rates differ, its own are kept, with a
    warning.

    Args:
      tx: The optimizer: the recipe that gives torch's numbers.
      params: The parameters.
      state_dict: What ``optimizer.state_dict()`` gave; its tensors may be NumPy arrays.
      order: The paths of the parameters in the order of ``model.parameters()``; or by
        torch's names, ``{"fc.weight": Permuted("fc/kernel", (1, 0)), …}``, for an
        optimizer that was given ``model.named_parameters()``. Axes are never guessed:
        where they are in another order, say so with `Permuted`. It may be None if
        ``params`` is a list of arrays or one array.
      count: The steps so far, for SGD and Muon, which do not keep it.

    Returns:
      A state of ``tx``.

    Raises:
      ValueError: Parameters, keys or shapes do not fit, or the parameters have made
        different numbers of steps.

    >>> import jopt, jax.numpy as jnp
    >>> params = {"w": jnp.ones(2)}
    >>> moments = {"step": 6.0, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
    >>> theirs = {"state": {0: moments}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    >>> state = load_state_dict(jopt.adam(1e-3), params, theirs)
    >>> state["scale_by_adam"].count, jopt.hyperparams(state)
    (Array(6, dtype=int32), {'learning_rate': Array(0.1, dtype=float32)})
    """
    _check_whole("state_dict", state_dict, {"state", "param_groups"})
    groups = state_dict["param_groups"]
    numbers = [i for group in groups for i in group["params"]]
    order = _listed(groups, order)
    view = View(tx, tx.init(params), params, order)
    row = row_of(view)
    _check_number(numbers, view)
    theirs = [state_dict["state"].get(i, {}) for i in numbers]
    pairs = list(zip(view.parameters, theirs, strict=True))
    for parameter, entry in pairs:
        _check_keys(view, row, parameter, entry)
    pairs = [pair for pair in pairs if pair[1]]  # torch keeps nothing of what is frozen
    kept = arguments.whole("step", float(_same("step", pairs))) if row.counts else None
    count = _agreed(kept, count, "the state_dict", f"torch's {row.classes[0]}")
    values: dict[str, Any] = dict.fromkeys(view.named("count"), count)
    view = View(tx, view.replaced(values | taken_rates(view, groups)), params, order)
    values = {}
    for key, source in row.scalars.items():
        by_place: dict[str, list[Any]] = {}
        for pair in pairs:
            by_place.setdefault(view.scalar(source, pair[0].path)[0], []).append(pair)
        values |= {place: _same(key, own) for place, own in by_place.items()}
    for parameter, entry in pairs:
        for key, place in _places(view, row, parameter).items():
            ours = parameter.ours(_array(entry[key]))
            values[place] = ours / row.slots[key].factor(view, place)
    return view.replaced(values)


def state_dict(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    like: Mapping[str, Any],
    *,
    order: Order = None,
    count: int | None = None,
    tensor: Callable[[np.ndarray], Any] = np.asarray,
) -> dict[str, Any]:
    """A state as the ``state_dict`` of the same optimizer of torch.

    Args:
      tx: The optimizer.
      state: Its state.
      params: The parameters.
      like: ``optimizer.state_dict()`` of the optimizer that is to load it: its
        parameter groups have what the state has not, such as betas.
      order: The parameters in torch's order; see `load_state_dict`.
      count: The steps so far, where the state does not keep them, as that of `rprop`.
      tensor: What makes a tensor of an array, ``torch.tensor``.

    Returns:
      What ``optimizer.load_state_dict`` takes. The learning rate of each group is in
      it, unless its parameters have several here, or one that groups with different
      rates in ``like`` share: then it is ``like``'s.

    Raises:
      ValueError: torch has no such optimizer, or the parameters do not fit.

    >>> import jopt, jax.numpy as jnp
    >>> params, tx = jnp.ones(2), jopt.adam(1e-3)
    >>> like = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    >>> theirs = state_dict(tx, tx.init(params), params, like)
    >>> list(theirs["state"][0])
    ['step', 'exp_avg', 'exp_avg_sq']
    """
    _check_whole("like", like, {"param_groups"})
    groups = [dict(group) for group in like["param_groups"]]
    numbers = [i for group in groups for i in group["params"]]
    view = View(tx, state, params, _listed(groups, order))
    row = row_of(view)
    _check_number(numbers, view)
    count = _agreed(view.count(), count, "the state", abbreviated(tx))
    give_rates(view, groups)
    found = {}
    for i, parameter in zip(numbers, view.parameters, strict=True):
        places, path = _places(view, row, parameter), parameter.path
        if not places:  # it is frozen, or nothing is kept of any
            continue
        arrays: dict[str, Any] = {"step": np.float32(count)} if row.counts else {}
        for key, source in row.scalars.items():
            arrays[key] = np.asarray(view.flat[view.scalar(source, path)[0]])
        for key, f in row.derived.items():
            arrays[key] = np.float32(f(view, count, path))
        for key, place in places.items():
            ours = np.asarray(view.flat[place])
            factor = row.slots[key].factor(view, place)
            arrays[key] = parameter.theirs((ours * factor).astype(ours.dtype))
        found[i] = {key: tensor(np.asarray(x)) for key, x in arrays.items()}
    return {"state": found, "param_groups": groups}


def _check_whole(name: str, given: Any, needed: set[str]) -> None:
    if not isinstance(given, Mapping) or not needed <= set(given):
        raise ValueError(
            f"{name} must be what optimizer.state_dict() gives, with 'state' and "
            f"'param_groups', got {abbreviated(given)}"
        )


def _listed(groups: Sequence[Any], order: Order) -> Sequence[str | Permuted] | None:
    """The order as a list, also if it is given by torch's names."""
    if not isinstance(order, Mapping):
        return order
    names = [name for group in groups for name in group.get("param_names", ())]
    if not names:
        raise ValueError(
            "this state_dict has no names of parameters, by which order is given: give "
            "a list in the order of model.parameters(), or the optimizer "
            "model.named_parameters()"
        )
    if unlike := sorted(set(names) ^ set(order)):
        raise ValueError(
            f"order and the state_dict do not name the same parameters: {unlike} are "
            "in one of them only"
        )
    return [order[name] for name in names]


def _check_number(numbers: Sequence[Any], view: View) -> None:
    if len(numbers) != len(view.parameters):
        raise ValueError(
            f"the state_dict has {len(numbers)} parameters, here there are "
            f"{len(view.parameters)}: {[p.path for p in view.parameters]}"
        )


def _places(view: View, row: Row, parameter: Parameter) -> dict[str, str]:
    """By torch's key, where the state has what torch keeps for a parameter."""
    found = {k: view.place(s.sources, parameter.path) for k, s in row.slots.items()}
    return {key: place for key, place in found.items() if place is not None}


def _check_keys(
    view: View, row: Row, parameter: Parameter, entry: Mapping[str, Any]
) -> None:
    places = _places(view, row, parameter)
    wanted = {*places, *row.scalars, *row.derived}
    wanted |= {"step"} if row.counts else set()
    # torch has the key of a momentum that is not used, with None.
    given = {key for key, value in entry.items() if value is not None}
    if not places and not given:
        return
    if wanted != given:
        frozen = "" if given else ". Is it frozen there? Then give it jopt.set_to_zero"
        raise ValueError(
            f"torch's {row.classes[0]} keeps {sorted(wanted)} with these settings for "
            f"{parameter.path!r}, the state_dict has {sorted(given)}: it is of another "
            f"optimizer, of other settings, or from before the first step{frozen}"
        )
    for key, place in places.items():
        ours = parameter.ours(_array(entry[key])).shape
        if ours != view.flat[place].shape:
            swapped = " as Permuted" if parameter.axes else ""
            raise ValueError(
                f"{key} of {parameter.path!r} has the shape {ours}{swapped} in the "
                f"state_dict, here it is {view.flat[place].shape}. If torch has the "
                f"axes in another order, give Permuted({parameter.path!r}, axes)"
            )


def _agreed(kept: int | None, given: int | None, where: str, who: str) -> int:
    """The number of steps, which is kept or given."""
    if kept is None and given is None:
        raise ValueError(f"{who} does not keep the number of steps: give count=")
    if None not in (kept, given) and kept != given:
        raise ValueError(f"{where} is of step {kept}, got count={given}")
    count = kept if given is None else given
    assert count is not None
    arguments.at_least(0, count=count)
    return count


def _same(key: str, pairs: Sequence[Any]) -> Any:
    values = {p.path: _array(entry[key]).item() for p, entry in pairs}
    if len(set(values.values())) > 1:
        raise ValueError(
            f"{key} differs between the parameters: {values}. Here it is one for all; "
            "give those of each value a transformation of their own in "
            "jopt.partition, and load each"
        )
    return next(iter(values.values()))


def _array(value: Any) -> np.ndarray:
    """A tensor, or what is an array already."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    try:
        return value.numpy()
    except TypeError:  # NumPy has no bfloat16
        return value.float().numpy()
