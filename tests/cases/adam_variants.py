"""Relatives of Adam."""

from tests import twins as reference

from .case import Case, core_of, transform


ROWS: list[Case] = [
    Case("acprop", {"weight_decay": 0.1}),
    Case("adabelief", {"eps": 1e-8}),
    Case("adabelief", {"nesterov": True, "weight_decay": 0.1}),
    Case("adamaxw", {"weight_decay": 0.1}),
    Case("adan"),
    Case("adan", {"weight_decay": 0.1, "eps_root": 1e-8}),
    Case("ademamix", {"weight_decay": 0.1}),
    Case("ademamix", {"b3_warmup": 15, "alpha_warmup": 15}),
    Case("adopt", complex_leaves=False),
    Case("adopt", {"weight_decay": 0.1, "use_clipping": False, "b2": 0.9}),
    Case("laprop", {"weight_decay": 0.1, "eps": 1e-8}),
    Case("nadamw", {"weight_decay": 0.1, "momentum_decay": 0.004}),
    Case("radam"),
    Case("radam", {"nesterov": True, "b2": 0.9, "eps_mode": "before"}),
    Case("simplified_ademamix", {"alpha": 2.0}, rate_for_descent=1e-3),
    Case("yogi"),
    transform("proximal_decay", learning_rate=0.2, weight_decay=0.1),
    transform("scale_by_acprop", core_of(reference.acprop), eps=1e-8, eps_root=1e-8),
    transform("scale_by_adan", core_of(reference.adan)),
    transform("scale_by_ademamix", core_of(reference.ademamix)),
    Case(
        "scale_by_adopt",
        {"nesterov": True, "b2": 0.9},
        learning_rate=None,
        twin=core_of(reference.adopt),
        complex_leaves=False,
    ),
    transform("scale_by_belief", core_of(reference.adabelief)),
    transform("scale_by_laprop", core_of(reference.laprop), eps=1e-8),
    transform("scale_by_radam", core_of(reference.radam)),
    transform("scale_by_simplified_ademamix", core_of(reference.simplified_ademamix)),
    transform("scale_by_yogi", core_of(reference.yogi)),
    transform("skip_first", steps=2),
]
