"""Relatives of gradient descent."""

from tests import twins as reference

from .case import Case, core_of, transform


def of_all_leaves(name: str, **options: object) -> Case:
    return Case(name, options, learning_rate=None, looks_at_all_leaves=True)


ROWS = [
    Case("sgd", {"momentum": 0.9, "dampening": 0.5}, twin=reference.dampened_sgd),
    Case("sign_sgd", rate_for_descent=2.0**-6),
    Case("signum", rate_for_descent=2.0**-7),
    Case(
        "lion",
        {"mode": "smooth", "smooth_beta": 5.0},
        twin=reference.soft_lion,
        complex_leaves=False,
    ),
    Case("lion", {"mode": "refined"}, twin=reference.soft_lion, complex_leaves=False),
    Case("rprop", complex_leaves=False),
    Case("asgd", {"lambd": 0.1, "t0": 5.0}, moves_without_gradient=True),
    Case("optimistic_gradient_descent", {"beta": 0.5}, rate_for_descent=0.02),
    Case("optimistic_adam"),
    Case("optimistic_adam_v2", {"alpha": 0.8, "beta": 0.3, "nesterov": False}),
    Case("fromage", moves_without_gradient=True),
    Case("lars", {"trust_coefficient": 0.1}),
    Case("lars", {"trust_coefficient": 0.1, "norm": "together", "nesterov": True}),
    Case("lamb"),
    Case("lamb", {"weight_decay": 0.1, "eps": 1e-7, "decay": "before_step"}),
    Case("novograd"),
    Case("madgrad"),
    Case("madgrad", {"momentum": 0.5, "weight_decay": 0.1}),
    Case("momo", looks_at_all_leaves=True, needs_value=True, complex_leaves=False),
    Case(
        "momo",
        {"weight_decay": 0.1, "adapt_lower_bound": True},
        looks_at_all_leaves=True,
        needs_value=True,
        complex_leaves=False,
    ),
    Case(
        "momo_adam",
        {"weight_decay": 0.1},
        looks_at_all_leaves=True,
        needs_value=True,
        complex_leaves=False,
    ),
    Case(
        "polyak_sgd",
        {"scaling": 0.5, "f_min": 0.5},
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    ),
    Case(
        "scale_by_polyak",
        {"variant": "sps+", "eps": 0.1},
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    ),
    Case(
        "scale_by_rprop",
        {"learning_rate": 0.01},
        learning_rate=None,
        complex_leaves=False,
    ),
    transform(
        "scale_by_optimistic_gradient", core_of(reference.optimistic_gradient_descent)
    ),
    transform("scale_by_lars", weight_decay=0.1, trust_coefficient=0.5),
    transform("scale_by_decayed_trust_ratio", learning_rate=0.1, weight_decay=0.1),
    transform("scale_by_novograd", core_of(reference.novograd), eps=1e-6),
    transform("scale_by_madgrad", learning_rate=0.1),
    transform("apply_every", k=4),
    Case(
        "keep_params_nonnegative",
        learning_rate=None,
        complex_leaves=False,
        moves_without_gradient=True,
    ),
    of_all_leaves("normalize"),
    of_all_leaves("normalize_by_update_norm", scale_factor=-2.0),
    transform("scale_by_param_block_rms"),
]

WITHOUT_ROW = {
    "noisy_sgd": "random; test_sgd_variants.py",
    "scale_by_param_block_norm": "leaves float16; test_sgd_variants.py",
    "stateless_with_tree_map": "is what its function is; test_sgd_variants.py",
}
