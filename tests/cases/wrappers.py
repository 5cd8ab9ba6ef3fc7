"""Wrappers: a transformation inside another, and averages of the parameters."""

import jopt
from tests import reference

from .case import core_of, transform


SGD = jopt.sgd(0.1, 0.9)
ROWS = [
    transform("accumulate", reference.accumulate_sgd, inner=SGD, steps=3),
    transform(
        "masked",
        lambda p, grads, **_: core_of(reference.adam)(p, grads),
        inner=jopt.scale_by_adam(),
        mask=True,
    ),
    transform("params_ema", decay=0.9, debias=True),
    transform("params_mean", start=2),
    transform(
        "partition",
        lambda p, grads, **_: core_of(reference.adam)(p, grads),
        transforms={"all": jopt.scale_by_adam()},
        param_labels="all",
    ),
]
