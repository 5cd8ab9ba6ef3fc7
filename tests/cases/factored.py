"""Second moments that take little memory."""

from tests import twins as reference

from .case import Case, core_of, transform


def _sm3_updates(p, grads, *, b1, **options):
    return core_of(reference.sm3, momentum=b1)(p, grads, **options)


ROWS: list[Case] = [
    Case("adafactor", {"min_dim_size_to_factor": 2}),
    Case(
        "adafactor",
        {"momentum": 0.9, "weight_decay_rate": 1e-3, "decay_offset": 3, "eps": 1e-8},
    ),
    Case(
        "adafactor",
        {
            "min_dim_size_to_factor": 1,
            "eps": 1e-7,
            "eps_mode": "clamp",
            "factored_axes": "last",
            "relative_step": True,
        },
    ),
    Case(
        "adam_mini",
        {"b2": 0.95},
        looks_at_all_leaves=True,
        complex_leaves=False,
    ),
    Case("came", {"b3": 0.99, "weight_decay": 0.1}, complex_leaves=False),
    # Of three singular values 1e-2 apart, float32 knows the vectors of the first.
    Case(
        "galore",
        {"rank": 1, "update_proj_gap": 5, "scale": 0.5},
        complex_leaves=False,
    ),
    Case("sm3", complex_leaves=False, rate_for_descent=0.3),
    Case("sm3", {"momentum": None, "b2": 0.9}, complex_leaves=False),
    Case(
        "scale_by_adam_mini",
        {"b1": 0.8},
        None,
        looks_at_all_leaves=True,
        complex_leaves=False,
        part=True,
    ),
    Case(
        "scale_by_came",
        {"b2": 0.9, "b3": 0.99},
        None,
        core_of(reference.came),
        complex_leaves=False,
        part=True,
    ),
    transform("scale_by_factored_rms", min_dim_size_to_factor=3),
    Case(
        "scale_by_galore",
        {"rank": 1, "update_proj_gap": 200, "side": "longer"},
        None,
        core_of(reference.galore),
        complex_leaves=False,
        part=True,
    ),
    transform("scale_by_relative_step", learning_rate=0.3),
    Case(
        "scale_by_sm3",
        {"b1": 0.5},
        None,
        _sm3_updates,
        complex_leaves=False,
        part=True,
    ),
]
