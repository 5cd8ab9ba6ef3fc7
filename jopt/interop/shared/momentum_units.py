"""Momentum in other units: with the learning rate inside, or as a sum.

    ours, before the rate    m <- decay m + g            p <- p - lr m
    ours, behind it          m <- decay m - lr g         p <- p + m
    Keras's SGD              m <- decay m - lr g         p <- p + m
    Keras's RMSprop          m <- decay m + lr g         p <- p - m
    torch                    m <- decay m + g            p <- p - lr m

They are multiples of each other as long as the learning rate is constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jopt.interop.shared.state_view import Member, View, joined


Factor = Callable[[View, str], float]  # of a view and a place: theirs / ours


def one(view: View, place: str) -> float:
    """Theirs is ours."""
    del view, place
    return 1.0


def velocity(sign: float) -> Factor:
    """Theirs is the sum of ``sign * lr * g``.

    Args:
      sign: Of the steps in their momentum.
    """

    def factor(view, place):
        rate, behind = _rate(view, place)
        return -sign if behind else sign * _constant(view, rate, place)

    return factor


def bare(view: View, place: str) -> float:
    """Theirs is the sum of the gradients."""
    rate, behind = _rate(view, place)
    return -1 / _constant(view, rate, place) if behind else 1.0


def sum_of_average(name: str) -> Factor:
    """Theirs is a decayed sum where ours is an average.

    Args:
      name: The argument that is the decay.
    """

    def factor(view, place):
        return 1 / (1 - argument(_member(view, place), name))

    return factor


def argument(member: Member, name: str) -> float:
    """A number of the recipe.

    Args:
      member: The transformation.
      name: Of its argument.

    Raises:
      ValueError: It is not a constant.
    """
    recipe = member.tx.recipe
    assert recipe is not None
    value: Any = recipe.arguments.get(name, recipe.parameters[name].default)
    if not isinstance(value, int | float):
        raise ValueError(
            f"{name} of {member.name} has to be a constant to convert its state, it "
            f"is {value!r}"
        )
    return value


def _member(view: View, place: str) -> Member:
    around = [m for m in view.members if f"{place}/".startswith(f"{m.path}/")]
    return max(around or view.members[:1], key=lambda m: len(m.path))


def _rate(view: View, place: str) -> tuple[str | None, bool]:
    """Where the learning rate is that goes with this, and whether it comes before."""
    own = _member(view, place)
    found = []
    for index, m in enumerate(view.members):
        around = m.path.rpartition("/")[0]
        rate = joined(m.path, "learning_rate")
        if rate in view.flat and (
            not around or f"{own.path}/".startswith(f"{around}/")
        ):
            found.append((len(around), index < view.members.index(own), rate))
    if not found:
        return None, False
    _, behind, rate = max(found, key=lambda x: x[0])  # of the innermost chain around
    return rate, behind


def _constant(view: View, rate: str | None, place: str) -> float:
    value = float(view.flat[rate]) if rate in view.free_rates() else 0.0
    if not value:
        what = "is zero" if rate in view.free_rates() else "is not a constant here"
        raise ValueError(
            f"{place} and the other library's momentum differ by the learning rate, "
            f"which {what}. Take a recipe with the rate where the other has it: "
            "lr_in_momentum=True for Keras, False for torch"
        )
    return value
