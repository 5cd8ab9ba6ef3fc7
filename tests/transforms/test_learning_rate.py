"""Multiplying by learning rates and other numbers."""

from __future__ import annotations

import jopt
from tests.laws.case import times, transform
from tests.parity.row import optax


CASES = [
    transform("scale", times(-0.3), step_size=-0.3),
    transform("scale_by_learning_rate", times(-0.2), learning_rate=0.2),
    transform(
        "scale_by_schedule",
        lambda p, grads, **_: ((1 - t / 10) * g for t, g in enumerate(grads)),
        step_size_fn=jopt.linear_schedule(1.0, -9.0, 100),
    ),
    transform("scale_by_group", times(0.5), multiples=0.5),
]

# Most of optax's schedules divide the count in float32, in x64 mode too. Its cosine
# does not: it serves where an optimizer under a schedule is compared.
FLOAT32_SCHEDULE = 1e-7
ROWS = (
    optax("scale", "scale(-0.05)"),
    optax(
        "scale-by-schedule",
        "scale_by_schedule(linear_schedule(-0.05, -0.01, 8))",
        tol64=FLOAT32_SCHEDULE,
    ),
)
