"""Relatives of gradient descent against torch, Keras, optax and the authors' code."""

from .row import keras, optax, torch, torch_like


KERNEL_ONLY = "{'kernel': True, 'bias': False}"
COSINE = "cosine_decay_schedule(0.05, 8)"

TORCH = (
    torch(
        "sgd-dampening",
        "SGD(lr=0.05, momentum=0.9, dampening=0.5)",
        "sgd(0.05, 0.9, dampening=0.5)",
    ),
    torch(
        "sgd-dampening-schedule",
        "SGD(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), sgd(DECAY, 0.9, dampening=0.3))",
    ),
    torch(
        "sgd-maximize",
        "SGD(lr=0.05, momentum=0.9, nesterov=True, maximize=True)",
        "chain(scale(-1.0), sgd(0.05, 0.9, nesterov=True))",
    ),
    torch("rprop", "Rprop(lr=0.01)", "rprop(0.01)"),
    torch(
        "rprop-limits",
        "Rprop(lr=0.01, etas=(0.3, 1.5), step_sizes=(2e-3, 0.02))",
        "rprop(0.01, 0.3, 1.5, 2e-3, 0.02)",
    ),
    torch("asgd", "ASGD(lr=0.05)", "asgd(0.05)"),
    torch(
        "asgd-decay",
        "ASGD(lr=0.05, lambd=0.1, alpha=0.5, t0=3, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), asgd(0.05, 0.1, 0.5, 3))",
    ),
    # torch's step size is that of the learning rate one step before.
    torch(
        "asgd-schedule",
        "ASGD(lr=0.05, lambd=0.1)",
        "asgd(join_schedules([constant_schedule(0.05), DECAY], [1]), 0.1)",
    ),
)

KERAS = (
    keras("lamb", "Lamb(0.01)", "lamb(0.01, eps=1e-7)"),
    keras(
        "lamb-weight-decay",
        "Lamb(0.01, weight_decay=0.1)",
        "lamb(0.01, eps=1e-7, weight_decay=0.1, decay='before_step')",
    ),
    keras(
        "lamb-weight-decay-schedule",
        "Lamb(DECAY, beta_1=0.8, beta_2=0.95, weight_decay=0.5)",
        "lamb(DECAY, 0.8, 0.95, 1e-7, weight_decay=0.5, decay='before_step')",
    ),
)

AUTHORS = (
    torch_like(
        "madgrad",
        "madgrad",
        "MADGRAD(lr=0.01)",
        "madgrad(0.01)",
    ),
    torch_like(
        "madgrad",
        "madgrad-schedule",
        "MADGRAD(lr=0.05, momentum=0.5, weight_decay=0.1, eps=1e-4)",
        "madgrad(DECAY, 0.5, 0.1, 1e-4)",
    ),
    torch_like(
        "madgrad",
        "madgrad-without-momentum",
        "MADGRAD(lr=0.01, momentum=0.0)",
        "madgrad(0.01, 0.0)",
    ),
)

PYTORCH_OPTIMIZER = (
    # Its lambda_2 is twice Keras's l2.
    torch_like(
        "pytorch_optimizer",
        "ftrl",
        "FTRL(lr=0.05, beta=0.2, lambda_1=0.01, lambda_2=0.2)",
        "ftrl(0.05, -0.5, 0.0, l1=0.01, l2=0.1, beta=0.2)",
    ),
    torch_like(
        "pytorch_optimizer",
        "lars",
        "LARS(lr=0.05, momentum=0.9, weight_decay=0.1, trust_coefficient=0.1)",
        "lars(0.05, 0.1, 'kernel', 0.1, trust_ratio_mask='kernel')",
    ),
    torch_like(
        "pytorch_optimizer",
        "lars-nesterov",
        "LARS(lr=0.05, momentum=0.8, weight_decay=0.0, nesterov=True)",
        "lars(0.05, trust_ratio_mask='kernel', momentum=0.8, nesterov=True)",
    ),
    torch_like(
        "pytorch_optimizer",
        "fromage-schedule",
        "Fromage(lr=0.05)",
        "fromage(DECAY, 0.0)",
    ),
    torch_like(
        "pytorch_optimizer",
        "novograd-schedule",
        "NovoGrad(lr=0.05, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.1)",
        "novograd(DECAY, 0.95, 0.98, 1e-8, weight_decay=0.1)",
    ),
)

OPTAX = (
    optax("sign-sgd", f"sign_sgd({COSINE})"),
    optax("signum", "signum(0.01)"),
    optax("signum-beta", f"signum({COSINE}, 0.6)"),
    optax(
        "lion-smooth",
        "chain(scale_by_lion(0.8, 0.95, mode='smooth', smooth_beta=5.0), scale(-0.01))",
        "lion(0.01, 0.8, 0.95, weight_decay=0.0, mode='smooth', smooth_beta=5.0)",
    ),
    optax("lion-refined", "chain(scale_by_lion(mode='refined'), scale(-0.01))"),
    optax("optimistic-gradient-descent", "optimistic_gradient_descent(0.05)"),
    optax(
        "optimistic-gradient-descent-schedule",
        f"optimistic_gradient_descent({COSINE}, 0.8, 0.3)",
    ),
    optax("optimistic-adam", "optimistic_adam(0.01)"),
    optax("optimistic-adam-optimism", "optimistic_adam(0.01, 0.003, nesterov=False)"),
    optax("optimistic-adam-v2", f"optimistic_adam_v2({COSINE}, alpha=0.8, beta=0.3)"),
    optax("fromage", "fromage(0.05)"),
    optax("fromage-min-norm", "fromage(0.05, 10.0)"),
    optax("lars", "lars(0.05)"),
    optax(
        "lars-together",
        f"lars({COSINE}, 0.1, trust_coefficient=0.1, eps=0.01, nesterov=True)",
        f"lars({COSINE}, 0.1, trust_coefficient=0.1, eps=0.01, nesterov=True,"
        " norm='together')",
    ),
    optax(
        "lars-masks",
        f"lars(0.05, 0.1, {KERNEL_ONLY}, 0.1,"
        " trust_ratio_mask={'kernel': False, 'bias': True})",
        f"lars(0.05, 0.1, {KERNEL_ONLY}, 0.1,"
        " trust_ratio_mask={'kernel': False, 'bias': True})",
    ),
    optax("lamb", "lamb(0.01)"),
    optax("lamb-decay", f"lamb({COSINE}, 0.8, 0.95, weight_decay=0.1)"),
    optax("lamb-mask", f"lamb(0.01, weight_decay=0.1, mask={KERNEL_ONLY})"),
    optax("novograd", "novograd(0.01)"),
    optax("novograd-decay", f"novograd({COSINE}, 0.95, 0.98, weight_decay=0.1)"),
    optax("polyak-sgd", "polyak_sgd()"),
    optax("polyak-sgd-f-min", "polyak_sgd(0.5, f_min=1.0, eps=0.1)"),
    optax("polyak-sgd-backwards", "polyak_sgd(f_min=1.5)"),
    optax("polyak-sgd-plus", "polyak_sgd(f_min=1.5, variant='sps+')"),
    optax("momo", "momo(0.5)"),
    optax("momo-bound", f"momo({COSINE}, 0.5, 0.5, adapt_lower_bound=True)"),
    optax("momo-adam", "momo_adam()"),
    optax(
        "momo-adam-bound",
        f"momo_adam({COSINE}, 0.8, 0.95, 1e-6, 0.5, adapt_lower_bound=True)",
    ),
    # optax takes the root of the step number in float32.
    optax("madgrad", "madgrad(0.01, weight_decay=0.1)", tol64=2e-7),
    optax("normalize", "chain(normalize(), scale(-0.05))"),
    optax("normalize-by-update-norm", "normalize_by_update_norm(-0.05, 0.01)"),
    optax("param-block-norm", "chain(scale_by_param_block_norm(), scale(-0.05))"),
    optax("param-block-rms", "chain(scale_by_param_block_rms(2.0), scale(-0.05))"),
    optax("keep-params-nonnegative", "chain(sgd(0.05), keep_params_nonnegative())"),
    optax("apply-every", "chain(apply_every(3), sgd(0.05))"),
    optax(
        "stateless-with-tree-map",
        "stateless_with_tree_map(lambda g, p: -0.05 * (g + 0.1 * p))",
    ),
)

ROWS = TORCH + KERAS + AUTHORS + PYTORCH_OPTIMIZER + OPTAX
