"""Keras's one count of gradients, and the counts of a state."""

from __future__ import annotations

from typing import Any

from jopt.interop.shared.momentum_units import argument
from jopt.interop.shared.state_view import View, joined
from jopt.values.arguments import abbreviated


def _accumulation(view: View) -> tuple[str, int] | None:
    """The path of the `accumulate` in a recipe, and how many gradients make a step."""
    found = [m for m in view.members if m.name == "accumulate"]
    if len(found) > 1:
        raise ValueError("Keras accumulates gradients once, this recipe more often")
    return (found[0].path, int(argument(found[0], "steps"))) if found else None


def iteration(view: View) -> int:
    """The count of gradients: of steps, or of what is accumulated for them."""
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
    """The value of every count in the state after so many gradients.

    Args:
      view: Of the state.
      step: Keras's ``iteration``.
    """
    accumulation = _accumulation(view)
    if accumulation is None:
        return dict.fromkeys(view.named("count"), step)
    path, steps = accumulation
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
