"""Learning rates from torch's parameter groups to a state and back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from jopt.interop.shared.state_view import View


def _by_group(view: View, groups: Sequence[Any]) -> list[set[str]]:
    """Return, for each group, the places of the learning rates of its parameters."""
    all_paths = iter(parameter.path for parameter in view.parameters)
    group_paths = [{next(all_paths) for _ in group["params"]} for group in groups]
    governed = view.governed().items()
    return [{place for place, ps in governed if ps & paths} for paths in group_paths]


def taken_rates(view: View, groups: Sequence[Any]) -> dict[str, Any]:
    """Return the learning rates of the groups by their places in the state."""
    rates = [float(group["lr"]) for group in groups]
    if len(rates) == 1:
        return view.rate_values(rates[0])
    by_place: dict[str, set[float]] = {}
    for places, rate in zip(_by_group(view, groups), rates, strict=True):
        for place in places:
            by_place.setdefault(place, set()).add(rate)
    if all(len(values) == 1 for values in by_place.values()):
        return {place: values.pop() for place, values in by_place.items()}
    current = {place: float(view.flat[place]) for place in view.free_rates()}
    warnings.warn(
        f"the parameter groups have the learning rates {rates}, but the recipe has "
        f"other groups: its rates are kept: {current}",
        UserWarning,
        stacklevel=3,
    )
    return {}


def give_rates(view: View, groups: Sequence[dict[str, Any]]) -> None:
    """Set the ``lr`` of every group whose parameters have one rate in the state."""
    by_group = _by_group(view, groups)
    shared = len(set().union(*by_group)) < sum(map(len, by_group))
    # One rate of the state cannot tell the different rates of several groups.
    if shared and len({float(group["lr"]) for group in groups}) > 1:
        return
    for i, (group, places) in enumerate(zip(groups, by_group, strict=True)):
        rates = sorted({float(view.flat[place]) for place in places})
        if len(rates) == 1:
            group["lr"] = rates[0]
        elif rates:
            warnings.warn(
                f"the parameters of torch's group {i} have the learning rates {rates} "
                f"in the state: the rate of like is kept: {group['lr']}",
                UserWarning,
                stacklevel=3,
            )
