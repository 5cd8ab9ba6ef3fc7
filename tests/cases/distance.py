"""Without a learning rate: it follows from the distance.

They start with larger steps than they would by default: in bfloat16 a parameter of size
1 does not move at all by 1e-6.
"""

from functools import partial

import jopt
from tests import twins as reference

from .case import Case, transform


whole = partial(Case, looks_at_all_leaves=True, learning_rate=1.0, rate_for_descent=1.0)
whole_transform = partial(Case, looks_at_all_leaves=True, learning_rate=None)
ROWS = [
    Case(
        "cocob",
        {"eps": 1e-3},
        learning_rate=1.0,
        complex_leaves=False,
        rate_for_descent=1.0,
    ),
    whole("dadapt_adamw", {"estim_lr0": 0.01}, complex_leaves=False),
    whole("dog", {"init_step": ("distance", 0.3)}),
    whole("dowg", {"init_estim_sq_dist": 0.1}),
    Case("ldog", {"reps_rel": 0.1}, learning_rate=1.0, rate_for_descent=1.0),
    whole("prodigy", {"estim_lr0": 0.01}, complex_leaves=False),
    whole_transform(
        "mechanize",
        {
            "base_optimizer": jopt.chain(jopt.trace(0.9), jopt.scale(-1.0)),
            "store_delta": True,  # else it is computed from the parameters
        },
        twin=lambda p, grads, base_optimizer, **options: reference.mechanize_momentum(
            p, grads, moves=False, **options
        ),
    ),
    whole_transform("scale_by_dog", {"init_step": ("heuristic", 0.1)}),
    whole_transform("scale_by_dowg"),
    transform("scale_by_distance_over_gradients", reps_rel=0.1, global_scale=-1.0),
    Case("scale_by_cocob", {"eps": 1e-3}, learning_rate=None, complex_leaves=False),
]
