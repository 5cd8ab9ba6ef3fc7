"""Second moments that take little memory, against the authors' code and others."""

from .row import keras, optax, torch, torch_like


KERAS_LIKE = "min_dim_size_to_factor=1, factored_axes='last', relative_step=True"
TORCH_LIKE = f"{KERAS_LIKE}, eps_mode='clamp'"
# optax computes the decay of Adafactor in float32 in any case.
OPTAX = {"tol64": 1e-7}
# Keras computes every mean in float32 in any case; and in float32 its default epsilon
# gives NaN for a column of zeros, so these have another.
KERAS = {"tol64": 5e-7}
ADAFACTOR = (
    optax("adafactor", "adafactor(0.05, 1)", **OPTAX),
    optax("adafactor-unfactored", "adafactor(0.05)", **OPTAX),
    optax("adafactor-decay-rate", "adafactor(0.05, 1, 0.5)", **OPTAX),
    # It also takes 1 - b from b, at the price of digits.
    optax(
        "adafactor-absolute",
        "adafactor(0.005, 1, 0.8, 0, False, None)",
        tol32=1e-5,
        tol64=1e-6,
    ),
    optax("adafactor-momentum", "adafactor(0.05, 1, momentum=0.9)", **OPTAX),
    optax(
        "adafactor-weight-decay", "adafactor(0.05, 1, weight_decay_rate=0.01)", **OPTAX
    ),
    optax(
        "adafactor-schedule",
        "adafactor(linear_schedule(0.05, 0.0, 30), 1, eps=1e-8)",
        **OPTAX,
    ),
    optax(
        "factored-rms",
        "chain(scale_by_factored_rms(True, 0.7, 0, 2), scale(-0.01))",
        tol32=1e-5,
        tol64=1e-6,
    ),
    torch("adafactor", "Adafactor(0.05)", f"adafactor(0.05, {TORCH_LIKE}, eps=None)"),
    torch(
        "adafactor-relative-step",
        "Adafactor(0.5)",
        f"adafactor(0.5, {TORCH_LIKE}, eps=None)",
    ),
    torch(
        "adafactor-options",
        "Adafactor(0.05, -0.6, (1e-6, 1e-2), 2.0, weight_decay=0.1)",
        f"adafactor(0.05, {TORCH_LIKE}, decay_rate=0.6, eps=1e-6, min_scale=1e-2, "
        "clipping_threshold=2.0, weight_decay_rate=0.05 * 0.1)",
    ),
    torch(
        "adafactor-schedule",
        "Adafactor(0.05)",
        f"adafactor(DECAY, {TORCH_LIKE}, eps=None)",
    ),
    keras(
        "adafactor",
        "Adafactor(0.05, epsilon_1=1e-8)",
        f"adafactor(0.05, {KERAS_LIKE}, eps=1e-8)",
        **KERAS,
    ),
    keras(
        "adafactor-schedule",
        "Adafactor(DECAY, epsilon_1=1e-8)",
        f"adafactor(DECAY, {KERAS_LIKE}, eps=1e-8)",
        **KERAS,
    ),
    keras(
        "adafactor-options",
        "Adafactor(0.3, -0.6, 1e-8, 1e-2, 2.0)",
        f"adafactor(0.3, {KERAS_LIKE}, decay_rate=0.6, eps=1e-8, min_scale=1e-2, "
        "clipping_threshold=2.0)",
        **KERAS,
    ),
    # Keras scales by the decayed parameter, p (1 - 0.05 * 0.1).
    keras(
        "adafactor-weight-decay",
        "Adafactor(0.05, epsilon_1=1e-8, weight_decay=0.1)",
        f"adafactor(0.05 * 0.995, {KERAS_LIKE}, eps=1e-8, min_scale=1e-3 / 0.995, "
        "weight_decay_rate=0.005)",
        **KERAS,
    ),
)

CAME = (
    # Its first instabilities are rounding errors, in float32 different ones.
    torch_like(
        "came_pytorch",
        "came",
        "CAME(lr=0.01)",
        "came(0.01)",
        package="came-pytorch",
        tol32=1e-5,
    ),
    torch_like(
        "came_pytorch",
        "came-options",
        "CAME(lr=0.01, eps=(1e-8, 1e-4), clip_threshold=0.5, betas=(0.8, 0.9, 0.99), "
        "weight_decay=0.1)",
        "came(0.01, 0.8, 0.9, 0.99, 1e-8, 1e-4, 0.5, weight_decay=0.1)",
        package="came-pytorch",
    ),
    torch_like(
        "came_pytorch",
        "came-schedule",
        "CAME(lr=0.05)",
        "came(DECAY)",
        package="came-pytorch",
    ),
)
SM3 = (
    optax("sm3", "sm3(0.05)"),
    optax("sm3-momentum", "sm3(0.05, 0.5)"),
    optax("sm3-decay", "chain(scale_by_sm3(0.9, 0.9, 1e-6), scale(-0.05))"),
    torch_like(
        "pytorch_optimizer",
        "sm3",
        "SM3(lr=0.05)",
        "sm3(0.05, None, eps=1e-30)",
        package="pytorch-optimizer",
    ),
    torch_like(
        "pytorch_optimizer",
        "sm3-schedule",
        "SM3(lr=0.05, momentum=0.9, eps=1e-8)",
        "sm3(DECAY)",
        package="pytorch-optimizer",
    ),
)


def mini(name, options, jopt):
    """The authors tell the kinds of blocks by the parameters' names."""
    # The first call is not made: it names what is looked up in the library.
    given = "[p.requires_grad_() for p in Adam_mini.args[0]]"
    oracle = f"Adam_mini.func(zip(({name!r}, 'x.bias'), {given}), {options})"
    return torch_like(
        "adam_mini",
        f"adam-mini-{name.partition('.')[0]}",
        f"Adam_mini() if 0 else {oracle}",
        jopt,
        package="adam-mini",
    )


# Their kernels are (out, in), so what they have per output is per input here; and their
# heads are some rows, here one: dim^2 / n_heads = 4 numbers.
INPUT = "blocks=lambda path, leaf: 'input' if 'kernel' in path else 'element'"
MINI = (
    mini(
        "query.weight",
        "lr=0.05, dim=4, n_heads=4, verbose=False",
        f"adam_mini(0.05, {INPUT.replace('input', 'head')})",
    ),
    mini("mlp.weight", "lr=0.05, verbose=False", f"adam_mini(0.05, {INPUT})"),
    mini("embed.weight", "lr=0.05, verbose=False", f"adam_mini(DECAY, {INPUT})"),
    mini(
        "output.weight",
        "lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, verbose=False",
        f"adam_mini(0.05, 0.8, 0.95, 1e-6, None, 0.1, 'kernel', {INPUT})",
    ),
    mini(
        "other.weight",
        "lr=0.05, verbose=False",
        f"adam_mini(0.05, {INPUT.replace('input', 'tensor')})",
    ),
)


def galore(name, options, jopt):
    """Here the first call is made, for the class and the parameters."""
    group = (
        "'params': GaLore.args[0], 'update_proj_gap': 1000, 'projection_type': 'std'"
    )
    return torch_like(
        "pytorch_optimizer",
        name,
        f"GaLore().__class__([{{{group}, 'rank': 1, 'scale': 0.25}}], {options})",
        jopt,
        package="pytorch-optimizer",
        tol64=1e-10,
    )


# All others decompose in float32 in any case, of float64 gradients too.
SVD = {"tol64": 1e-7}
BASE = "scale_by_adam(eps=1e-6, eps_mode='before')"
GALORE = (
    galore("galore", "lr=0.05", f"galore(0.05, 1, 1000, 0.25, {BASE})"),
    galore("galore-schedule", "lr=0.05", f"galore(DECAY, 1, 1000, 0.25, {BASE})"),
    # The authors decay what the step has left.
    galore(
        "galore-weight-decay",
        "lr=0.05, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1",
        "chain(scale_by_galore(1, 1000, 0.25, scale_by_adam(0.8, 0.95, 1e-4, "
        "eps_mode='before')), scale(1 - 0.05 * 0.1), add_decayed_weights(0.1), "
        "scale_by_learning_rate(0.05))",
    ),
    optax(
        "galore",
        "galore(0.05, 1, 200, 0.5, weight_decay=0.1)",
        "galore(0.05, 1, 200, 0.5, weight_decay=0.1, side='longer')",
        **SVD,
    ),
    optax(
        "galore-base-optimizer",
        "galore(0.05, 1, 200, 0.5, scale_by_lion())",
        "galore(0.05, 1, 200, 0.5, scale_by_lion(), side='longer')",
        **SVD,
    ),
)

ROWS = ADAFACTOR + CAME + GALORE + MINI + SM3
