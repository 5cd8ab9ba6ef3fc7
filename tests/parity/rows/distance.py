"""Without a learning rate: it follows from the distance."""

from .row import optax, torch_like


def dog(name, oracle, jopt, **options):
    return torch_like("dog", name, oracle, jopt, package="dog-optimizer", **options)


def dadapt(name, oracle, jopt, **options):
    return torch_like("dadaptation", name, oracle, jopt, **options)


def prodigy(name, oracle, jopt, **options):
    return torch_like("prodigyopt", name, oracle, jopt, **options)


def mechanic(name, base, options, jopt, **row):
    # The first call of a text is given the parameters; mechanize takes a class.
    leaves = "is_mechanized.args[0]"
    oracle = f"is_mechanized() or mechanize({base[0]}{options})({leaves}, {base[1]})"
    return torch_like("mechanic_pytorch", name, oracle, jopt, **row)


OPTAX_RATE = "lambda t: 1 / (1 + 0.25 * t)"  # its own schedules are in float32
RATE = "inverse_time_decay(1.0, 2, 0.5)"
ROWS = (
    dog("dog", "DoG()", "dog()"),
    dog(
        "dog-decay",
        "DoG(reps_rel=0.1, weight_decay=0.1, eps=1e-3)",
        'dog(init_step=("heuristic", 0.1), weight_decay=0.1, eps=1e-3)',
    ),
    dog(
        "dog-first-rate",
        "DoG(init_eta=0.05)",
        'dog(init_step=("learning_rate", 0.05))',
    ),
    dog("dog-schedule", "DoG(reps_rel=0.1, lr=0.05)", 'dog(DECAY, ("heuristic", 0.1))'),
    dog("ldog", "LDoG()", "ldog()"),
    dog(
        "ldog-decay",
        "LDoG(reps_rel=0.1, lr=0.5, weight_decay=0.1)",
        "ldog(0.5, 0.1, weight_decay=0.1)",
    ),
    dadapt("dadapt", "DAdaptAdam(decouple=True)", "dadapt_adamw()"),
    dadapt(
        "dadapt-decay-growth",
        "DAdaptAdam(d0=1e-3, betas=(0.8, 0.99), weight_decay=0.1, decouple=True, "
        "growth_rate=1.1)",
        "dadapt_adamw(1.0, (0.8, 0.99), 1e-8, 1e-3, 0.1, growth_rate=1.1)",
    ),
    dadapt(
        "dadapt-l2-correction-schedule",
        "DAdaptAdam(lr=0.05, d0=0.1, weight_decay=0.1, use_bias_correction=True)",
        "chain(add_decayed_weights(0.1), "
        "dadapt_adamw(DECAY, estim_lr0=0.1, use_bias_correction=True))",
    ),
    prodigy("prodigy", "Prodigy()", "prodigy()"),
    prodigy(
        "prodigy-decay-growth",
        "Prodigy(d0=1e-3, betas=(0.8, 0.99), beta3=0.9, weight_decay=0.1, d_coef=2.0, "
        "growth_rate=1.1)",
        "prodigy(1.0, (0.8, 0.99), 0.9, 1e-8, 1e-3, 2.0, 0.1, growth_rate=1.1)",
    ),
    prodigy(
        "prodigy-correction-schedule",
        "Prodigy(lr=0.05, d0=0.1, use_bias_correction=True, safeguard_warmup=True)",
        "prodigy(DECAY, estim_lr0=0.1, use_bias_correction=True, "
        "safeguard_warmup=True)",
    ),
    prodigy(
        "prodigy-l2-schedule",
        "Prodigy(lr=0.05, d0=0.1, weight_decay=0.1, decouple=False)",
        "chain(add_decayed_weights(0.1), prodigy(DECAY, estim_lr0=0.1))",
    ),
    mechanic(
        "mechanic",
        ("torch.optim.SGD", "lr=1.0, momentum=0.9"),
        ", s_decay=0.0",
        "mechanize(sgd(1.0, 0.9), 0.0)",
    ),
    mechanic(
        "mechanic-large",
        ("torch.optim.Adam", "lr=1.0"),
        ", s_decay=0.0, s_init=1e-3, eps=1e-7, betas=(0.9, 0.99)",
        "mechanize(adam(1.0), 0.0, 1e-7, 1e-3, 2)",
    ),
    mechanic(
        "mechanic-stored",
        ("torch.optim.SGD", "lr=0.5"),
        ", s_decay=0.0, s_init=1e-3, store_delta=True",
        "mechanize(sgd(0.5), 0.0, s_init=1e-3, store_delta=True)",
    ),
    mechanic(
        "mechanic-decay",
        ("torch.optim.SGD", "lr=1.0"),
        "",
        "mechanize(sgd(1.0))",
    ),
    optax("dog", "dog()"),
    optax(
        "dog-schedule-decay",
        f'dog({OPTAX_RATE}, ("learning_rate", 0.1), 1e-4, 0.1, '
        '{"kernel": True, "bias": False})',
        f'dog({RATE}, ("learning_rate", 0.1), 1e-4, 0.1, "kernel")',
    ),
    optax("dog-distance", 'dog(0.5, ("distance", 0.1))'),
    optax("dowg", "dowg()"),
    optax("dowg-decay", "dowg(0.5, 0.01, 1e-3, 0.1)"),
    optax("dowg-schedule", f"dowg({OPTAX_RATE}, 0.1)", f"dowg({RATE}, 0.1)"),
    optax(
        "distance-over-gradients",
        "scale_by_distance_over_gradients(0.1, global_scale=-1.0)",
        tol64=1e-7,  # optax keeps the initial parameters in float32
    ),
    optax(
        "dadapt",
        "dadapt_adamw(weight_decay=0.1)",
        "dadapt_adamw(weight_decay=0.1, use_bias_correction=True)",
    ),
    optax(
        "prodigy",
        f"prodigy({OPTAX_RATE}, estim_lr0=0.01, weight_decay=0.1)",
        f"prodigy({RATE}, estim_lr0=0.01, weight_decay=0.1, use_bias_correction=True)",
    ),
    optax("cocob", "cocob()"),
    optax("cocob-decay", "cocob(0.5, 2.0, 1e-6, 0.1)"),
)
