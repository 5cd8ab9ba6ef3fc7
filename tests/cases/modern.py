"""Small modern gains."""

import jopt
from tests import twins as reference

from .case import Case, core_of, transform


def sgd_updates(p, grads):
    """What ``sgd(0.1, momentum=0.9)`` adds to parameters that stay."""
    return (-0.1 * u for u in core_of(reference.sgd, momentum=0.9)(p, grads))


def around(gate, updates, **fixed):
    """The twin of a wrapper, with the twin of what is inside."""

    def twin(p, grads, *, inner, **options):
        return gate(p, grads, inner=updates, **fixed, **options)

    return twin


ROWS: list[Case] = [
    # Small, because an update does not depend on the size of the first gradient: its
    # derivative is 0 with a noise that is a multiple of the rate.
    Case("adam_atan2", {"weight_decay": 0.1}, learning_rate=1e-5),
    Case("grams", {"b1": 0.8}),
    Case("mars_adamw"),
    Case("mars_adamw", {"matrices_only": True, "max_norm": None, "gamma": 0.1}),
    Case("mars_lion", rate_for_descent=2.0**-6),
    Case("stable_adamw", {"weight_decay": 0.01, "b2": 0.9}),
    transform(
        "cautious",
        around(reference.cautious, core_of(reference.adam)),
        inner=jopt.scale_by_adam(),
    ),
    transform(
        "cautious",
        around(reference.cautious, sgd_updates, descent=True),
        inner=jopt.sgd(0.1, momentum=0.9),
        normalizer="count",
    ),
    transform("cautious_weight_decay", weight_decay=0.1),
    transform("corrected_weight_decay", weight_decay=0.1, rate=0.01, peak_rate=0.05),
    transform(
        "gradient_sign",
        around(reference.gradient_sign, sgd_updates, descent=True),
        inner=jopt.sgd(0.1, momentum=0.9),
    ),
    transform("grokfast_ema", alpha=0.8, lamb=0.05),
    transform("grokfast_ma", window_size=3, lamb=0.05),
    transform("independent_weight_decay", weight_decay=0.1, peak_rate=0.05),
    transform("limit_norm_growth"),
    transform("mars_correction", gamma=0.1),
    transform("scale_by_adam_atan2", core_of(reference.adam_atan2), a=1e-5, b=0.5),
    transform("scale_by_mars", core_of(reference.mars_adamw)),
    transform("scale_by_mars_lion", core_of(reference.mars_lion), matrices_only=True),
    transform(
        "scale_by_stable_adamw", core_of(reference.stable_adamw, weight_decay=0.0)
    ),
    Case(
        "zclip",
        {"warmup_steps": 4, "z_thresh": 0.5, "max_norm": 2.35},
        learning_rate=None,
        looks_at_all_leaves=True,
    ),
]
