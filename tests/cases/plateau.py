"""Reducing the learning rate on a plateau."""

from .case import Case


ROWS: list[Case] = [
    Case(
        "reduce_on_plateau",
        options,
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    )
    for options in (
        {"factor": 0.5, "patience": 3, "cooldown": 2},
        {
            "factor": 0.3,
            "patience": 2,
            "rtol": 0.0,
            "atol": 0.01,
            "cooldown": 2,
            "accumulation_size": 2,
            "min_scale": 0.01,
            "rule": "keras",
            "mode": "max",
        },
    )
]
