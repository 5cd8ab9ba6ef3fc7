"""Conversion between Keras's one count of gradients and the counts of a state."""

from __future__ import annotations

from typing import Any

from jopt.interop.shared.momentum_units import argument
from jopt.interop.shared.state_view import View, joined
from jopt.values.arguments import abbreviated
from jopt.wrappers.accumulation import AccumulateState


def _accumulation(view: View) -> tuple[str, int] | None:
    """Return the path of `accumulate` in a recipe and its number of gradients."""
    members = view.holding(AccumulateState)
    if len(members) > 1:
        raise ValueError(
            "Keras accumulates gradients in one place, this recipe in "
            f"{[m.path for m in members]}"
        )
    return (members[0].path, int(argument(members[0], "steps"))) if members else None


def iteration(view: View) -> int:
    """Return the number of gradients so far, those waiting in `accumulate` included."""
    accumulation = _accumulation(view)
    if accumulation is None:
        count = view.count()
        if count is None:
            raise ValueError(f"{abbreviated(view.tx)} does not count its steps")
        return count
    path, steps = accumulation
    emitted = int(view.flat[joined(path, "gradient_step")])
    return emitted * steps + int(view.flat[joined(path, "mini_step")])


def counts(view: View, step: int) -> dict[str, Any]:
    """Return the value of every count in the state after a number of gradients.

    Args:
      view: A view of the state.
      step: Keras's ``iteration``.
    """
    accumulation = _accumulation(view)
    if accumulation is None:
        return dict.fromkeys(view.named("count"), step)
    path, steps = accumulation
    # Only what is inside `accumulate` counts steps; all else counts gradients.
    inside = joined(path, "inner_opt_state")
    emitted, rest = divmod(step, steps)
    return {
        name: emitted if name.startswith(inside) else step
        for name in view.named("count")
    } | {
        joined(path, "mini_step"): rest,
        joined(path, "gradient_step"): emitted,
        joined(path, "total_weight"): rest,
    }
