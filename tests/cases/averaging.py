"""Averages of the parameters."""

import jopt

from .case import Case, transform


MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
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
    transform("params_lawa", window_size=3, every=2),
    transform("lookahead", fast_optimizer=MOMENTUM, sync_period=2, slow_step_size=0.5),
    transform(
        "lookahead",
        fast_optimizer=MOMENTUM,
        sync_period=3,
        slow_step_size=0.8,
        reset_state=True,
    ),
]
