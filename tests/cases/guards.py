"""Guards, loss scales, and transformations for some of the steps."""

import jopt
from tests import twins as reference

from .case import Case, transform


MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
SOME_STEPS = jopt.piecewise_constant([2, 5], [1.0, 0.0, 1.0])
SPIKES = {
    "inner": MOMENTUM,
    "decay": 0.8,
    "warmup_steps": 3,
    "max_consecutive_skips": 2,
}
ROWS = [
    transform(
        "skip_nonfinite",
        lambda p, grads, **_: reference.accumulate_sgd(p, grads, steps=1),
        inner=MOMENTUM,
    ),
    transform("dynamic_loss_scale", inner=MOMENTUM, init_scale=16.0, growth_interval=8),
    Case(
        "skip_spikes",
        SPIKES | {"z_thresh": 0.5},
        learning_rate=None,
        looks_at_all_leaves=True,
    ),
    Case(
        "skip_spikes",
        SPIKES | {"of": "value", "z_thresh": 2.0},
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    ),
    transform(
        "conditionally_transform", inner=MOMENTUM, should_transform_fn=SOME_STEPS
    ),
]
WITHOUT_ROW = {
    "apply_if_finite": "is skip_nonfinite; test_guards.py",
    "conditionally_mask": "is conditionally_transform but for zeros; test_guards.py",
}
