"""Wrappers: a transformation inside another, and averages of the parameters."""

import jopt
import jopt.interop.keras  # which has a wrapper
from tests import twins as reference

from .case import core_of, times, transform


SGD = jopt.sgd(0.1, 0.9)
ROWS = [
    transform("accumulate", reference.accumulate_sgd, inner=SGD, steps=3),
    transform(
        "accumulate",
        reference.accumulate_sgd,
        inner=SGD,
        steps=jopt.piecewise_interpolate_schedule("linear", 1.0, {4: 4.0}),
        use_grad_mean=False,
    ),
    transform(
        "catch_up",
        lambda p, grads, **_: core_of(reference.adagrad)(p, grads),
        inner=jopt.scale_by_rss(),
        tables=True,
    ),
    transform("densify", times(1.0)),
    transform(
        "masked",
        lambda p, grads, **_: core_of(reference.adam)(p, grads),
        inner=jopt.scale_by_adam(),
        mask=True,
    ),
    transform(
        "monitor",
        lambda p, grads, **_: core_of(reference.adam)(p, grads),
        inner=jopt.scale_by_adam(),
        keep=True,
    ),
    transform("params_ema", decay=0.9, debias=True),
    transform("params_mean", start=2),
    transform("params_ema_of_gradients", decay=0.9, steps=3, overwrite_every=2),
    transform(
        "partition",
        lambda p, grads, **_: core_of(reference.adam)(p, grads),
        transforms={"all": jopt.scale_by_adam()},
        param_labels="all",
    ),
    transform(
        "decayed_first",
        reference.decayed_first_sgd,
        inner=SGD,
        decay=jopt.chain(jopt.add_decayed_weights(0.1), jopt.scale(-1.0)),
    ),
    transform("freeze", times(0.0), mask=True),
    transform("scale_by_group", times(0.5), multiples=0.5),
    transform(
        "selective_transform",
        lambda p, grads, **_: core_of(reference.adam)(p, grads),
        optimizer=jopt.scale_by_adam(),
        freeze_mask=False,
    ),
]
WITHOUT_ROW = {
    "multi_transform": "is partition",
    "aggregate": "there has to be a mapped axis; test_aggregate.py",
}
