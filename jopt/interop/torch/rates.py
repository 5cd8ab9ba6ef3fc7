"""Learning rates, between torch's parameter groups and a state."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from jopt.interop.shared.state_view import View


def _by_group(view: View, groups: Sequence[Any]) -> list[set[str]]:
    """The places of the learning rates of each group's parameters."""
    paths = iter(parameter.path for parameter in view.parameters)
    own = [{next(paths) for _ in group["params"]} for group in groups]
    governed = view.governed().items()
    return [{place for place, ps in governed if ps & mine} for mine in own]


def taken_rates(view: View, groups: Sequence[Any]) -> dict[str, Any]:
    """The values of the places in a state that the groups' rates go to."""
    rates = [float(group["lr"]) for group in groups]
    if len(rates) == 1:
        return view.rate_values(rates[0])
    found: dict[str, set[float]] = {}
    for places, rate in zip(_by_group(view, groups), rates, strict=True):
        for place in places:
            found.setdefault(place, set()).add(rate)
    if all(len(values) == 1 for values in found.values()):
        return {place: values.pop() for place, values in found.items()}
    kept = {place: float(view.flat[place]) for place in view.free_rates()}
    warnings.warn(
        f"the parameter groups have the learning rates {rates}; those of the recipe, "
        f"which has other groups, are kept: {kept}",
        UserWarning,
        stacklevel=3,
    )
    return {}


def give_rates(view: View, groups: Sequence[dict[str, Any]]) -> None:
    """Put the rates of a state into groups, where each has one."""
    own = _by_group(view, groups)
    shared = len(set().union(*own)) < sum(map(len, own))
    if shared and len({float(group["lr"]) for group in groups}) > 1:
        return
    for i, (group, places) in enumerate(zip(groups, own, strict=True)):
        rates = sorted({float(view.flat[place]) for place in places})
        if len(rates) == 1:
            group["lr"] = rates[0]
        elif rates:
            warnings.warn(
                f"the parameters of torch's group {i} have the learning rates {rates} "
                f"here; that of like is kept: {group['lr']}",
                UserWarning,
                stacklevel=3,
            )
