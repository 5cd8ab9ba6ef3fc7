"""The laws, by subject; `LAWS` has all of them in the order of a report."""

from __future__ import annotations

from jopt.testing.law import Law
from jopt.testing.laws import (
    buffers,
    checkpoints,
    composition,
    descent,
    devices,
    errors,
    rates,
    running,
    schedules,
    sizes,
    trees,
    twins,
    types,
    values,
    wrappers,
)


LAWS: list[Law] = [
    law
    for module in (
        schedules,
        wrappers,
        values,
        running,
        types,
        sizes,
        buffers,
        trees,
        errors,
        rates,
        twins,
        composition,
        checkpoints,
        devices,
        descent,
    )
    for law in vars(module).values()
    if isinstance(law, Law)
]
