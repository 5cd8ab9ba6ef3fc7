"""DoWG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Scalar, Tree, as_vector, at, double


def dowg(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    init_estim_sq_dist: float | None = None,
    eps: float = 1e-4,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Tree]:
    """Khaled, Mishchenko & Jin, 2023, "DoWG unleashed", algorithm 1."""
    x0 = x = {n: double(p) for n, p in params.items()}
    r2 = eps if init_estim_sq_dist is None else init_estim_sq_dist
    v = 0.0
    for t, g in enumerate(grads, start=1):
        g = {n: double(g[n]) + weight_decay * x[n] for n in x}
        r2 = max(r2, np.linalg.norm(as_vector(x) - as_vector(x0)) ** 2)
        v += r2 * np.linalg.norm(as_vector(g)) ** 2
        eta = at(learning_rate, t) * r2 / (np.sqrt(v) + eps)
        new = {n: x[n] - eta * g[n] for n in x}
        x = new if moves else x
        yield new


def scale_by_dowg(
    params: Tree, grads: Iterable[Tree], **options: Any
) -> Iterator[Tree]:
    """At rate -1, and parameters that stay where they are."""
    for new in dowg(params, grads, learning_rate=-1.0, moves=False, **options):
        yield {n: new[n] - double(params[n]) for n in new}


whole = partial(Case, looks_at_all_leaves=True, learning_rate=1.0, rate_for_descent=1.0)
whole_transform = partial(Case, looks_at_all_leaves=True, learning_rate=None)
# Larger first steps than the default: 1e-6 does not move a parameter of size 1 in
# bfloat16.
CASES = [
    whole("dowg", {"init_estim_sq_dist": 0.1}),
    whole_transform("scale_by_dowg"),
]

OPTAX_RATE = "lambda t: 1 / (1 + 0.25 * t)"  # its own schedules are in float32
RATE = "inverse_time_decay(1.0, 2, 0.5)"
ROWS = (
    optax("dowg", "dowg()"),
    optax("dowg-decay", "dowg(0.5, 0.01, 1e-3, 0.1)"),
    optax("dowg-schedule", f"dowg({OPTAX_RATE}, 0.1)", f"dowg({RATE}, 0.1)"),
)
