"""The ``state_dict`` of an optimizer of torch, into a state and from one.

    {"state": {0: {"step": 6.0, "exp_avg": …, "exp_avg_sq": …}, 1: …},
     "param_groups": [{"lr": 0.001, …, "params": [0, 1]}]}

torch numbers the parameters in the order in which the optimizer got them, which is the
order of ``model.parameters()``. The state dict has no other names for them, unless the
optimizer got ``model.named_parameters()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jopt import tree
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.shared.parameter_order import Parameter, Permuted, in_order
from jopt.interop.shared.state_view import View
from jopt.interop.torch import lbfgs_state
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
    """Return the state that continues an optimizer of torch.

    The step goes into every count of the state, and ``lr`` into every learning rate
    without a schedule; several keep their ratios to the first. With parameter groups,
    the ``lr`` of each goes to the group of the recipe that has the same parameters. If
    the recipe has other groups and the rates differ, it keeps its own rates and warns.

    Args:
      tx: The optimizer: the recipe that gives torch's numbers.
      params: The parameters.
      state_dict: The result of ``optimizer.state_dict()``; its tensors may be NumPy
        arrays.
      order: The paths of the parameters in the order of ``model.parameters()``. For an
        optimizer that got ``model.named_parameters()``, a dict by torch's names is
        possible: ``{"fc.weight": Permuted("fc/kernel", (1, 0)), …}``. Axes are never
        guessed: give a `Permuted` where their order differs. None is possible if
        ``params`` is a list of arrays or one array.
      count: The number of steps so far, for SGD, Muon and LBFGS, which do not keep it.

    Returns:
      A state of ``tx``.

    Raises:
      ValueError: Parameters, keys or shapes do not fit, or the parameters have made
        different numbers of steps.

    Warns:
      UserWarning: The groups have different rates, and the recipe has other groups.

    >>> import jopt, jax.numpy as jnp
    >>> params = {"w": jnp.ones(2)}
    >>> moments = {"step": 6.0, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
    >>> theirs = {"state": {0: moments}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    >>> state = load_state_dict(jopt.adam(1e-3), params, theirs)
    >>> state["scale_by_adam"].count, jopt.hyperparams(state)
    (Array(6, dtype=int32), {'learning_rate': Array(0.1, dtype=float32)})
    """
    _check_complete("state_dict", state_dict, {"state", "param_groups"})
    groups = state_dict["param_groups"]
    numbers = [i for group in groups for i in group["params"]]
    order = _listed(groups, order)
    first = tx.init(params)
    if lbfgs_state.is_lbfgs(first):
        count = _agreed(None, count, "the state_dict", "torch's LBFGS")
        entry = state_dict["state"].get(numbers[0], {})
        rate, parameters = groups[0]["lr"], in_order(params, order)
        return lbfgs_state.read(first, params, parameters, entry, rate, count)
    view = View(tx, first, params, order)
    row = row_of(view)
    _check_number(numbers, view)
    _check_pairs(view, row, params)
    entries = [state_dict["state"].get(i, {}) for i in numbers]
    pairs = list(zip(view.parameters, entries, strict=True))
    for parameter, entry in pairs:
        _check_keys(view, row, parameter, entry)
    # torch keeps no state for frozen parameters.
    pairs = [pair for pair in pairs if pair[1]]
    step = arguments.whole("step", float(_same("step", pairs))) if row.counts else None
    count = _agreed(step, count, "the state_dict", f"torch's {row.classes[0]}")
    values: dict[str, Any] = dict.fromkeys(view.named("count"), count)
    # The units of a momentum depend on the learning rate, so that goes in first.
    view = View(tx, view.replaced(values | taken_rates(view, groups)), params, order)
    values = {}
    for key, source in row.kept(view).items():
        by_place: dict[str, list[Any]] = {}
        for pair in pairs:
            by_place.setdefault(view.scalar(source, pair[0].path)[0], []).append(pair)
        values |= {place: _same(key, pairs) for place, pairs in by_place.items()}
    for parameter, entry in pairs:
        for key, place in _places(view, row, parameter).items():
            value = parameter.to_jopt(_array(entry[key]))
            values[place] = value / row.slots[key].factor(view, place)
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
    """Convert a state to the ``state_dict`` of the same optimizer of torch.

    Args:
      tx: The optimizer.
      state: Its state.
      params: The parameters.
      like: ``optimizer.state_dict()`` of the optimizer that will load the result. Its
        parameter groups supply what the state does not have, such as betas.
      order: The paths of the parameters in torch's order, or a dict by torch's names,
        as in `load_state_dict`.
      count: The number of steps so far, for states that do not keep it, as in `rprop`.
      tensor: Converts an array to a tensor, such as ``torch.tensor``.

    Returns:
      A dict for ``optimizer.load_state_dict``. A group has its learning rate in the
      state. The rate of ``like`` stays if the group's parameters have several rates in
      the state, or if groups with different rates in ``like`` share one.

    Raises:
      ValueError: torch has no such optimizer, or the parameters do not fit.

    Warns:
      UserWarning: The parameters of a group have several rates in the state.

    >>> import jopt, jax.numpy as jnp
    >>> params, tx = jnp.ones(2), jopt.adam(1e-3)
    >>> like = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    >>> theirs = state_dict(tx, tx.init(params), params, like)
    >>> list(theirs["state"][0])
    ['step', 'exp_avg', 'exp_avg_sq']
    """
    _check_complete("like", like, {"param_groups"})
    groups = [dict(group) for group in like["param_groups"]]
    numbers = [i for group in groups for i in group["params"]]
    order = _listed(groups, order)
    if lbfgs_state.is_lbfgs(state):
        groups[0]["lr"] = float(state.learning_rate)
        parameters = in_order(params, order)
        entry = lbfgs_state.written(state, params, parameters, tensor)
        return {"state": {numbers[0]: entry}, "param_groups": groups}
    view = View(tx, state, params, order)
    row = row_of(view)
    _check_number(numbers, view)
    _check_pairs(view, row, params)
    count = _agreed(view.count(), count, "the state", abbreviated(tx))
    give_rates(view, groups)
    entries = {}
    for i, parameter in zip(numbers, view.parameters, strict=True):
        places, path = _places(view, row, parameter), parameter.path
        if not places:  # it is frozen, or the optimizer keeps no arrays
            continue
        # As in torch, where scalars are float64 if that is the default dtype.
        arrays: dict[str, Any] = {"step": count} if row.counts else {}
        arrays |= {key: f(view, count, path) for key, f in row.derived.items()}
        arrays = {k: np.asarray(x, tree.scalar_dtype()) for k, x in arrays.items()}
        for key, source in row.kept(view).items():
            arrays[key] = np.asarray(view.flat[view.scalar(source, path)[0]])
        for key, place in places.items():
            value = np.asarray(view.flat[place])
            factor = row.slots[key].factor(view, place)
            arrays[key] = parameter.to_other((value * factor).astype(value.dtype))
        entries[i] = {key: tensor(np.asarray(x)) for key, x in arrays.items()}
    return {"state": entries, "param_groups": groups}


def _check_complete(name: str, value: Any, needed: set[str]) -> None:
    if not isinstance(value, Mapping) or not needed <= set(value):
        raise ValueError(
            f"{name} must be the result of optimizer.state_dict(), with 'state' and "
            f"'param_groups', got {abbreviated(value)}"
        )


def _listed(groups: Sequence[Any], order: Order) -> Sequence[str | Permuted] | None:
    """Return the order as a list; a dict goes by the names in the groups."""
    if not isinstance(order, Mapping):
        return order
    names = [name for group in groups for name in group.get("param_names", ())]
    if not names:
        raise ValueError(
            "this state_dict has no names of parameters, so order cannot be by name: "
            "give a list in the order of model.parameters(), or make the optimizer "
            "with model.named_parameters()"
        )
    if mismatched := sorted(set(names) ^ set(order)):
        raise ValueError(
            "order and the state_dict must name the same parameters, but only one of "
            f"them has {mismatched}"
        )
    return [order[name] for name in names]


def _check_number(numbers: Sequence[Any], view: View) -> None:
    if len(numbers) != len(view.parameters):
        raise ValueError(
            f"the state_dict has {len(numbers)} parameters, but params has "
            f"{len(view.parameters)}: {[p.path for p in view.parameters]}"
        )


def _check_pairs(view: View, row: Row, params: Params) -> None:
    """Raise if a slot of a complex parameter is that of its magnitude."""
    leaves = dict(tree.leaves_with_names(params))
    for parameter in view.parameters:
        if not np.iscomplexobj(leaves[parameter.path]):
            continue
        for key, place in _places(view, row, parameter).items():
            if not np.iscomplexobj(view.flat[place]):
                raise ValueError(
                    f"{parameter.path!r} is complex, and torch's {row.classes[0]} "
                    f"keeps {key} for its real and imaginary parts, but {place} is "
                    "that of the magnitude. Use the optimizer of jopt.interop.torch, "
                    "or jopt.split_real_and_imaginary(…)"
                )


def _places(view: View, row: Row, parameter: Parameter) -> dict[str, str]:
    """Return the place in the state of every slot of a parameter, by torch's key."""
    places = {k: view.place(s.sources, parameter.path) for k, s in row.slots.items()}
    return {key: place for key, place in places.items() if place is not None}


def _check_keys(
    view: View, row: Row, parameter: Parameter, entry: Mapping[str, Any]
) -> None:
    places = _places(view, row, parameter)
    expected = {*places, *row.scalars, *row.derived}
    expected |= {"step"} if row.counts else set()
    # An unused momentum has a key in torch, with the value None.
    keys = {key for key, value in entry.items() if value is not None}
    if not places and not keys:
        return
    if expected != keys:
        frozen = "" if keys else ". Is it frozen there? Then give it jopt.set_to_zero"
        raise ValueError(
            f"torch's {row.classes[0]} with these settings keeps {sorted(expected)} "
            f"for {parameter.path!r}, but the state_dict has {sorted(keys)}: it comes "
            "from another optimizer, from other settings, or from before the first "
            f"step{frozen}"
        )
    for key, place in places.items():
        shape = parameter.to_jopt(_array(entry[key])).shape
        if shape != view.flat[place].shape:
            swapped = " as Permuted" if parameter.axes else ""
            raise ValueError(
                f"{key} of {parameter.path!r} has the shape {shape}{swapped} in the "
                f"state_dict, but {view.flat[place].shape} in jopt's state. If torch "
                "has the axes in another order, give "
                f"Permuted({parameter.path!r}, axes)"
            )


def _agreed(step: int | None, count: int | None, where: str, optimizer: str) -> int:
    """Return the number of steps, from the state or from the argument ``count``."""
    if step is None and count is None:
        raise ValueError(f"{optimizer} does not keep the number of steps: give count=")
    if None not in (step, count) and step != count:
        raise ValueError(f"{where} is at step {step}, got count={count}")
    count = step if count is None else count
    assert count is not None
    arguments.at_least(0, count=count)
    return count


def _same(key: str, pairs: Sequence[Any]) -> Any:
    values = {p.path: _array(entry[key]).item() for p, entry in pairs}
    if len(set(values.values())) > 1:
        raise ValueError(
            f"{key} differs between the parameters: {values}. A jopt state has one for "
            "all: give the parameters of each value a transformation of their own in "
            "jopt.partition, and load each"
        )
    return next(iter(values.values()))


def _array(value: Any) -> np.ndarray:
    """Convert a tensor or array to NumPy."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    try:
        return value.numpy()
    except TypeError:  # NumPy has no bfloat16
        return value.float().numpy()
