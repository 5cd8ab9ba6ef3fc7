"""Small modern gains against the libraries that have them."""

from .row import torch_like


def po(name, oracle, jopt, **options):
    """A row against pytorch_optimizer."""
    return torch_like("pytorch_optimizer", name, oracle, jopt, **options)


def optimi(name, oracle, jopt, **options):
    """A row against optimi."""
    return torch_like("optimi", name, oracle, jopt, package="torch-optimi", **options)


def atan2(name, oracle, jopt, **options):
    """A row against adam_atan2_pytorch."""
    package = "adam-atan2-pytorch"
    return torch_like(
        "adam_atan2_pytorch", name, oracle, jopt, package=package, **options
    )


def grokfast(name, oracle, jopt, **options):
    """A row against grokfast_pytorch."""
    package = "grokfast-pytorch"
    return torch_like(
        "grokfast_pytorch", name, oracle, jopt, package=package, **options
    )


ATAN2 = (
    atan2("adam-atan2", "AdamAtan2(0.01)", "adam_atan2(0.01)"),
    atan2(
        "adam-atan2-schedule-weight-decay",
        "AdamAtan2(0.05, (0.8, 0.95), weight_decay=0.1, a=1.0, b=2.0)",
        "adam_atan2(DECAY, 0.8, 0.95, a=1.0, b=2.0, weight_decay=0.1)",
    ),
    # The mask of the authors' AdamW, with decay behind it.
    atan2(
        "adam-atan2-cautious",
        "AdamAtan2(0.05, weight_decay=0.1, cautious_factor=0.0)",
        "chain(cautious(scale_by_adam_atan2()), add_decayed_weights(0.1), "
        "scale_by_learning_rate(DECAY))",
    ),
    # A mask around the whole step, without decay, is the same.
    atan2(
        "adam-atan2-cautious-optimizer",
        "AdamAtan2(0.05, cautious_factor=0.0)",
        "cautious(adam_atan2(DECAY))",
    ),
)

GROKFAST = (
    grokfast(
        "grokfast-ema-adam",
        "GrokFastAdamW(0.05, eps=1e-30, normalize_lr=False)",
        "chain(grokfast_ema(), adam(DECAY, b2=0.99, eps=1e-30))",
    ),
    grokfast(
        "grokfast-ema-adam-normalized",
        "GrokFastAdamW(0.01, eps=1e-30, grokfast_alpha=0.8, grokfast_lamb=3.0)",
        "chain(grokfast_ema(0.8, 3.0), adam(0.0025, b2=0.99, eps=1e-30))",
    ),
)

OPTIMI = (
    optimi(
        "stable-adamw",
        "StableAdamW(0.01, weight_decay=0.1)",
        "stable_adamw(0.01, weight_decay=0.1)",
    ),
    optimi(
        "stable-adamw-schedule",
        "StableAdamW(0.05, (0.8, 0.95), eps=1e-8)",
        "stable_adamw(DECAY, 0.8, 0.95, 1e-8)",
    ),
    optimi(
        "adamw-independent-weight-decay",
        "AdamW(0.05, weight_decay=0.1, decouple_lr=True, max_lr=0.08)",
        "chain(scale_by_adam(b2=0.99, eps=1e-6), independent_weight_decay(0.1, 0.08), "
        "scale_by_learning_rate(DECAY))",
    ),
)

# Many of its optimizers add 1e-15 to the second moment, and eps to the root before the
# bias correction.
PO = "eps_root=1e-15, eps_mode='before'"

PYTORCH_OPTIMIZER = (
    po(
        "mars-adamw",
        "MARS(0.01, weight_decay=0.1, optimize_1d=True)",
        f"mars_adamw(0.01, weight_decay=0.1, {PO})",
    ),
    po(
        "mars-adamw-schedule",
        "MARS(0.05, (0.9, 0.95), gamma=0.1, optimize_1d=True)",
        f"mars_adamw(DECAY, 0.9, 0.95, gamma=0.1, {PO})",
    ),
    po(
        "mars-adamw-matrices-only",
        "MARS(0.01, (0.9, 0.95), lr_1d=0.01, weight_decay_1d=0.0)",
        f"mars_adamw(0.01, 0.9, 0.95, matrices_only=True, {PO})",
    ),
    po(
        "mars-lion",
        "MARS(0.01, weight_decay=0.1, mars_type='lion', optimize_1d=True)",
        "mars_lion(0.01, weight_decay=0.1)",
    ),
    po("grams", "Grams(0.01)", "grams(0.01, eps=1e-6)"),
    po(
        "grams-schedule-weight-decay",
        "Grams(0.05, (0.8, 0.95), weight_decay=0.1)",
        "grams(DECAY, 0.8, 0.95, 1e-6, weight_decay=0.1)",
    ),
    po(
        "stable-adamw",
        "StableAdamW(0.05, weight_decay=0.1)",
        "stable_adamw(DECAY, eps=1e-8, weight_decay=0.1)",
    ),
    po(
        "lion-cautious",
        "Lion(0.05, weight_decay=0.1, cautious=True)",
        "chain(cautious(scale_by_lion(), 'count'), add_decayed_weights(0.1), "
        "scale_by_learning_rate(DECAY))",
    ),
    po(
        "adamc",
        "AdamC(0.05, weight_decay=0.1, normalized=True)",
        f"chain(scale_by_adam({PO}), corrected_weight_decay(0.1, DECAY, 0.05), "
        "scale_by_learning_rate(DECAY))",
    ),
    po(
        "adam-fixed-decay",
        "AdamC(0.05, weight_decay=0.1, fixed_decay=True)",
        f"chain(scale_by_adam({PO}), scale_by_learning_rate(DECAY, flip_sign=False), "
        "add_decayed_weights(0.1), scale(-1.0))",
    ),
    po(
        "grokfast-ema-adam",
        "GrokFastAdamW(0.05, eps=1e-30, weight_decay=0.1, normalize_lr=False)",
        "chain(grokfast_ema(), adamw(DECAY, b2=0.99, eps=1e-30, weight_decay=0.1))",
    ),
)

ROWS = (*ATAN2, *GROKFAST, *OPTIMI, *PYTORCH_OPTIMIZER)
