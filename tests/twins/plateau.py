"""Reducing the learning rate on a plateau."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .base import Scalar, at, double


def reduce_on_plateau(
    params: dict[str, Any],
    grads: Iterable[dict[str, Any]],
    *,
    value: Callable[[Any], Any],
    factor: Scalar = 0.1,
    patience: int = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: Scalar = 0.0,
    rule: str = "optax",
    mode: str = "min",
    eps: Scalar = 0.0,
) -> Iterator[dict[str, Any]]:
    """Each rule as the loop of the library that it is called after; of whole trees."""
    sign = 1 if mode == "min" else -1
    scale, best, bad, resting, seen = 1.0, sign * math.inf, 0, 0, []
    for t, tree in enumerate(grads, start=1):
        seen.append(float(value({n: double(p) for n, p in params.items()})))
        if len(seen) == accumulation_size:
            current = sum(seen) / len(seen)
            seen = []
            bound = best * (1 - sign * at(rtol, t)) - sign * at(atol, t)
            better = sign * current < sign * bound
            if better:
                best, bad = current, 0
            lower = max(scale * at(factor, t), at(min_scale, t))
            lower = lower if scale - lower > at(eps, t) else scale
            if rule == "keras":
                if resting > 0:
                    resting, bad = resting - 1, 0
                if not better and resting == 0:
                    bad += 1
                    if bad >= patience:
                        scale, resting, bad = lower, cooldown, 0
            else:
                bad += not better
                if resting > 0:
                    resting, bad = resting - 1, 0
                if bad > patience if rule == "torch" else bad == patience > 0:
                    scale, resting, bad = lower, cooldown, 0
        yield {name: scale * double(g) for name, g in tree.items()}
