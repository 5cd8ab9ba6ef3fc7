"""The functions of Moré and Thuente's paper, on which line searches are compared."""

from __future__ import annotations

import math
from collections.abc import Callable


# phi(t) -> (value, slope), in Python's doubles.
Line = Callable[[float], tuple[float, float]]


def _rational(t: float) -> tuple[float, float]:
    beta = 2.0
    return -t / (t * t + beta), (t * t - beta) / (t * t + beta) ** 2


def _quintic(t: float) -> tuple[float, float]:
    x = t + 0.004
    return x**5 - 2 * x**4, 5 * x**4 - 8 * x**3


def _wavy(t: float) -> tuple[float, float]:
    """A kink at 1 with a parabola in it, and 39 waves on top."""
    beta, waves = 0.01, 39
    if t <= 1 - beta:
        value, slope = 1 - t, -1.0
    elif t >= 1 + beta:
        value, slope = t - 1, 1.0
    else:
        value, slope = (t - 1) ** 2 / (2 * beta) + beta / 2, (t - 1) / beta
    angle = waves * math.pi * t / 2
    value += 2 * (1 - beta) / (waves * math.pi) * math.sin(angle)
    return value, slope + (1 - beta) * math.cos(angle)


def _yanai(beta_1: float, beta_2: float) -> Line:
    def gamma(beta):
        return math.sqrt(1 + beta * beta) - beta

    def phi(t):
        left = math.hypot(1 - t, beta_2)
        right = math.hypot(t, beta_1)
        value = gamma(beta_1) * left + gamma(beta_2) * right
        return value, -gamma(beta_1) * (1 - t) / left + gamma(beta_2) * t / right

    return phi


LINES: dict[str, Line] = {
    "rational": _rational,
    "quintic": _quintic,
    "wavy": _wavy,
    "equal corners": _yanai(0.001, 0.001),
    "left corner": _yanai(0.01, 0.001),
    "right corner": _yanai(0.001, 0.01),
}
# The paper's tolerances: (ftol, gtol).
TOLERANCES: dict[str, tuple[float, float]] = {
    "rational": (1e-3, 0.1),
    "quintic": (0.1, 0.1),
    "wavy": (0.1, 0.1),
    "equal corners": (1e-3, 1e-3),
    "left corner": (1e-3, 1e-3),
    "right corner": (1e-3, 1e-3),
}
FIRST_STEPS = (1e-3, 0.1, 10.0, 1e3)
