"""Momentum in other units: with the learning rate inside, or as a sum.

    jopt, before the rate    m <- decay m + g            p <- p - lr m
    jopt, after the rate     m <- decay m - lr g         p <- p + m
    Keras's SGD              m <- decay m - lr g         p <- p + m
    Keras's RMSprop          m <- decay m + lr g         p <- p - m
    torch                    m <- decay m + g            p <- p - lr m

They are multiples of each other while the learning rate is constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jopt.interop.shared.state_view import Member, View, joined
from jopt.values.arguments import text_of


# Called with a view and a place; returns the other library's value / jopt's value.
Factor = Callable[[View, str], float]


def one(view: View, place: str) -> float:
    """Factor of arrays that are the same in both libraries."""
    del view, place
    return 1.0


def velocity(sign: float) -> Factor:
    """Factor of a momentum that is a decayed sum of ``sign * lr * g``.

    Args:
      sign: The sign of the steps in the other library's momentum.
    """

    def factor(view, place):
        rate, after_rate = _rate(view, place)
        return -sign if after_rate else sign * _constant(view, rate, place)

    return factor


def bare(view: View, place: str) -> float:
    """Factor of a momentum that is a decayed sum of the gradients."""
    rate, after_rate = _rate(view, place)
    return -1 / _constant(view, rate, place) if after_rate else 1.0


def sum_of_average(name: str) -> Factor:
    """Factor of a momentum that is a decayed sum, where jopt's is an average.

    Args:
      name: The argument with the decay.
    """

    def factor(view, place):
        return 1 / (1 - argument(_member(view, place), name))

    return factor


def argument(member: Member, name: str) -> float:
    """Return a constant argument of a transformation.

    Args:
      member: The transformation.
      name: The name of the argument.

    Raises:
      ValueError: The argument is not a constant.
    """
    recipe = member.tx.recipe
    assert recipe is not None
    default = getattr(recipe.parameters.get(name), "default", None)
    value: Any = recipe.arguments.get(name, default)
    made = getattr(value, "recipe", None)
    if made is not None and made.name == "constant_schedule":
        value = made.arguments["value"]
    if not isinstance(value, int | float):
        raise ValueError(
            f"{name} of {member.name} must be a constant to convert its state, got "
            f"{text_of(value)}"
        )
    return value


def _member(view: View, place: str) -> Member:
    """Return the innermost member whose state contains the place."""
    enclosing = [m for m in view.members if f"{place}/".startswith(f"{m.path}/")]
    return max(enclosing or view.members[:1], key=lambda m: len(m.path))


def _rate(view: View, place: str) -> tuple[str | None, bool]:
    """Return the place of the momentum's learning rate, and whether it comes first."""
    momentum = _member(view, place)
    rates = []
    for index, m in enumerate(view.members):
        chain = m.path.rpartition("/")[0]
        rate = joined(m.path, "learning_rate")
        if rate in view.flat and (
            not chain or f"{momentum.path}/".startswith(f"{chain}/")
        ):
            rates.append((len(chain), index < view.members.index(momentum), rate))
    if not rates:
        return None, False
    # Rates of outer chains scale other members too; the innermost is the momentum's.
    _, after_rate, rate = max(rates, key=lambda x: x[0])
    return rate, after_rate


def _constant(view: View, rate: str | None, place: str) -> float:
    value = float(view.flat[rate]) if rate in view.free_rates() else 0.0
    if not value:
        problem = "is zero" if rate in view.free_rates() else "is not a constant here"
        raise ValueError(
            f"{place} and the other library's momentum differ by the learning rate, "
            f"which {problem}. Use a recipe with the rate in the same place: "
            "lr_in_momentum=True for Keras, False for torch"
        )
    return value
