"""Keras's decay before the step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

import jopt
import jopt.interop.keras.decay  # which registers its factory
from tests.laws.case import transform
from tests.twins.base import Array, double


def decayed_first_sgd(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Momentum 0.9 at rate 0.1, and a tenth of the parameter off at every step."""
    b = np.zeros_like(double(p))
    for g in grads:
        b = 0.9 * b + double(g)
        yield -0.1 * b - 0.1 * double(p)


SGD = jopt.sgd(0.1, 0.9)
CASES = [
    transform(
        "decayed_first",
        decayed_first_sgd,
        inner=SGD,
        decay=jopt.chain(jopt.add_decayed_weights(0.1), jopt.scale(-1.0)),
    ),
]
