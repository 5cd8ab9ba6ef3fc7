"""Orthogonalized momentum."""

from .row import Row, keras, optax, torch, torch_like


# Keras adds its eps to the norm of a sum, which is 1 / (1 - 0.95) times our average,
# and takes that norm in float32 whatever the dtype.
KERAS = "eps=0.05e-7, adam_eps=1e-7, adam_eps_mode='before'"
SINGLE = {"tol64": 1e-7}
# torch and the author iterate in bfloat16 whatever the dtype, which leaves no digits to
# compare; here their code runs in the dtype of the parameters. Their weights are
# (outputs, inputs), "oi".
WIDE = "(setattr(torch.Tensor, 'bfloat16', torch.Tensor.clone) or 0.05)"
KERNEL = {"leaves": ("kernel",)}
# pytorch_optimizer takes groups of parameters only, and has the dtype for a default.
GROUPED = (
    "(NorMuon.args[0].__setitem__(slice(None), [{'params': [*NorMuon.args[0]], "
    "'use_muon': True}]) or setattr(optimizer.utils.matrix"
    ".zero_power_via_newton_schulz_5, '__defaults__', (5, 1e-7, 1.0, (3.4445, -4.775, "
    "2.0315), torch.get_default_dtype())) or 0.05)"
)

ROWS: tuple[Row, ...] = (
    keras(
        "muon",
        "Muon(learning_rate=0.05)",
        "muon(0.05, weight_decay=0.004, adam_weight_decay=0.004, consistent_rms=0.2, "
        f"{KERAS})",
        **SINGLE,
    ),
    keras(
        "muon-options",
        "Muon(learning_rate=DECAY, weight_decay=0.1, adam_weight_decay=0.2, "
        "rms_rate=None, nesterov=False, ns_steps=3)",
        "muon(DECAY, ns_steps=3, weight_decay=0.1, adam_weight_decay=0.2, "
        f"shape_scale=None, nesterov=False, {KERAS})",
        **SINGLE,
    ),
    # Keras decays what AdamW gets by the learning rate of the others.
    keras(
        "muon-excluded",
        "Muon(learning_rate=0.05, exclude_layers=['kernel'], adam_lr_ratio=0.5)",
        "muon(0.05, hidden=False, adam_learning_rate=0.025, adam_weight_decay=0.008, "
        f"{KERAS})",
    ),
    torch(
        "muon",
        f"Muon(lr={WIDE})",
        "muon(0.05, weight_decay=0.1, axes='oi')",
        **KERNEL,
    ),
    torch(
        "muon-match-rms",
        f"Muon(lr={WIDE}, momentum=0.8, adjust_lr_fn='match_rms_adamw')",
        "muon(DECAY, beta=0.8, weight_decay=0.1, shape_scale='match_rms_adamw')",
        **KERNEL,
    ),
    torch(
        "muon-no-nesterov",
        f"Muon(lr={WIDE}, nesterov=False, weight_decay=0.0, ns_steps=8)",
        "muon(0.05, ns_steps=8, nesterov=False, axes='oi')",
        **KERNEL,
    ),
    torch_like(
        "muon",
        "muon-of-the-author",
        f"SingleDeviceMuon(lr={WIDE}, momentum=0.9, weight_decay=0.1)",
        "muon(DECAY, beta=0.9, eps=1e-7, weight_decay=0.1, axes='oi')",
        package="muon-optimizer",
        **KERNEL,
    ),
    torch_like(
        "pytorch_optimizer",
        "normuon",
        f"NorMuon(lr={GROUPED}, ns_coeffs='quintic')",
        "muon(0.05, 'quintic', axes='oi', after=normalize_neurons(axes='oi'))",
        tol64=1e-10,  # it adds 1e-10 to the norm as well
        **KERNEL,
    ),
    # optax's momentum with nesterov is another; its AdamW has nesterov too then. It
    # adds eps to the norm of a debiased average.
    optax(
        "muon",
        "muon(0.05, nesterov=False, eps=1e-30)",
        "muon(0.05, nesterov=False)",
        **KERNEL,
    ),
    optax(
        "muon-options",
        "muon(0.05, 'dion', beta=0.9, weight_decay=0.1, nesterov=False, adam_b1=0.8, "
        "adam_b2=0.95, adam_weight_decay=0.2, adam_learning_rate=0.01, "
        "consistent_rms=0.2)",
        tol64=1e-7,
    ),
)
