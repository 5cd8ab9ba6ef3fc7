"""Averages of the parameters."""

import jopt

from .case import Case, transform


ROWS = [
    Case("schedule_free_adamw"),
    Case(
        "schedule_free_adamw",
        {"warmup_steps": 5, "weight_decay": 0.1, "r": 0.5, "b1": 0.95},
    ),
    Case("schedule_free_sgd", {"weight_lr_power": 1.0}),
    transform(
        "schedule_free",
        base_optimizer=jopt.scale(-0.1),
        learning_rate=0.1,
        r=1.0,
    ),
    transform("scale_by_schedule_free", learning_rate=0.2),
]
