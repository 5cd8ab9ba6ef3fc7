"""Keras's averages where several gradients make a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jopt.interop.keras.average  # noqa: F401, which registers its factory
from tests.laws.case import transform
from tests.twins.base import Array, double


def params_ema_of_gradients(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: float,
    steps: int,
    overwrite_every: int,
) -> Iterator[Array]:
    """Keras's ``use_ema`` where ``steps`` gradients make a step, which it counts."""
    p = double(p)
    avg = p
    for i, u in enumerate(grads):
        first = i < steps
        avg = p + u if first else decay * avg + (1 - decay) * (p + u)
        done = i // steps + 1
        yield avg - p if done % overwrite_every == 0 else double(u)


CASES = [
    transform("params_ema_of_gradients", decay=0.9, steps=3, overwrite_every=2),
]
