"""The first optimizers against Keras, torch and optax."""

from .row import keras, optax, torch


KERAS = (
    keras("sgd", "SGD(0.05)", "sgd(0.05)"),
    keras("sgd-schedule", "SGD(DECAY)", "sgd(DECAY)"),
    keras("sgd-momentum", "SGD(0.05, momentum=0.9)", "sgd(0.05, 0.9)"),
    keras(
        "sgd-momentum-schedule",
        "SGD(DECAY, momentum=0.9)",
        "sgd(DECAY, 0.9, lr_in_momentum=True)",
    ),
    keras(
        "sgd-nesterov",
        "SGD(0.05, momentum=0.9, nesterov=True)",
        "sgd(0.05, 0.9, nesterov=True, lr_in_momentum=True)",
    ),
    keras(
        "sgd-nesterov-schedule",
        "SGD(DECAY, momentum=0.9, nesterov=True)",
        "sgd(DECAY, 0.9, nesterov=True, lr_in_momentum=True)",
    ),
    # Keras decays before the update, outside of momentum and of every denominator.
    keras(
        "sgd-weight-decay",
        "SGD(0.05, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), scale_by_learning_rate(0.05))",
    ),
    keras(
        "sgd-momentum-weight-decay",
        "SGD(0.05, momentum=0.9, weight_decay=0.1)",
        "chain(trace(0.9), add_decayed_weights(0.1), scale_by_learning_rate(0.05))",
    ),
    keras(
        "sgd-clipnorm",
        "SGD(0.05, clipnorm=0.5)",
        "chain(clip_by_norm(0.5), sgd(0.05))",
    ),
    keras(
        "sgd-global-clipnorm",
        "SGD(0.05, global_clipnorm=0.5)",
        "chain(clip_by_global_norm(0.5), sgd(0.05))",
    ),
    keras(
        "sgd-clipvalue",
        "SGD(0.05, clipvalue=0.5)",
        "chain(clip(0.5), sgd(0.05))",
    ),
    keras(
        "sgd-exponential-decay",
        "SGD(ExponentialDecay(0.05, 3, 0.5))",
        "sgd(exponential_decay(0.05, 3, 0.5))",
    ),
    keras(
        "sgd-exponential-decay-staircase",
        "SGD(ExponentialDecay(0.05, 3, 0.5, staircase=True))",
        "sgd(exponential_decay(0.05, 3, 0.5, staircase=True))",
    ),
    keras(
        "sgd-inverse-time-decay-staircase",
        "SGD(InverseTimeDecay(0.05, 4, 0.5, staircase=True))",
        "sgd(inverse_time_decay(0.05, 4, 0.5, staircase=True))",
    ),
    keras(
        "sgd-polynomial-decay",
        "SGD(PolynomialDecay(0.05, 9, 0.001, power=2.0))",
        "sgd(polynomial_schedule(0.05, 0.001, 2.0, 9))",
    ),
    keras(
        "sgd-polynomial-decay-cycle",
        "SGD(PolynomialDecay(0.05, 3, 0.001, power=2.0, cycle=True))",
        "sgd(polynomial_schedule(0.05, 0.001, 2.0, 3, cycle=True))",
    ),
    keras(
        "sgd-cosine-decay",
        "SGD(CosineDecay(0.05, 8, alpha=0.1))",
        "sgd(cosine_decay_schedule(0.05, 8, 0.1))",
        tol64=5e-8,  # Keras's cosine is float32 in any case
    ),
    keras("rmsprop", "RMSprop(0.01)", "rmsprop(0.01, eps=1e-7)"),
    keras(
        "rmsprop-momentum",
        "RMSprop(0.01, rho=0.8, momentum=0.9)",
        "rmsprop(0.01, 0.8, 1e-7, momentum=0.9)",
    ),
    keras(
        "rmsprop-momentum-schedule",
        "RMSprop(DECAY, momentum=0.9)",
        "rmsprop(DECAY, eps=1e-7, momentum=0.9)",
    ),
    keras(
        "rmsprop-centered",
        "RMSprop(0.01, centered=True)",
        "rmsprop(0.01, eps=1e-7, centered=True)",
    ),
    keras(
        "rmsprop-centered-momentum",
        "RMSprop(0.01, momentum=0.9, centered=True)",
        "rmsprop(0.01, eps=1e-7, centered=True, momentum=0.9)",
    ),
    keras("adam", "Adam(0.01)", "adam(0.01, eps=1e-7, eps_mode='before')"),
    keras(
        "adam-betas",
        "Adam(0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-5)",
        "adam(0.01, 0.8, 0.95, 1e-5, eps_mode='before')",
    ),
    keras("adam-schedule", "Adam(DECAY)", "adam(DECAY, eps=1e-7, eps_mode='before')"),
    keras(
        "adam-clipnorm",
        "Adam(0.01, clipnorm=1e-4)",
        "chain(clip_by_norm(1e-4), adam(0.01, eps=1e-7, eps_mode='before'))",
    ),
    keras(
        "adam-global-clipnorm",
        "Adam(0.01, global_clipnorm=1e-4)",
        "chain(clip_by_global_norm(1e-4), adam(0.01, eps=1e-7, eps_mode='before'))",
    ),
    keras(
        "amsgrad",
        "Adam(0.01, beta_2=0.8, amsgrad=True)",
        "amsgrad(0.01, b2=0.8, eps=1e-7, maximum='raw', eps_mode='before')",
    ),
    keras(
        "amsgrad-schedule",
        "Adam(DECAY, amsgrad=True)",
        "amsgrad(DECAY, eps=1e-7, maximum='raw', eps_mode='before')",
    ),
    keras(
        "adamw",
        "AdamW(0.01, weight_decay=0.1)",
        "adamw(0.01, eps=1e-7, weight_decay=0.1, eps_mode='before')",
    ),
    keras(
        "adamw-schedule",
        "AdamW(DECAY, weight_decay=0.1)",
        "adamw(DECAY, eps=1e-7, weight_decay=0.1, eps_mode='before')",
    ),
    keras("adadelta", "Adadelta(1.0)", "adadelta(1.0, 0.95, 1e-7)"),
    keras("adadelta-schedule", "Adadelta(DECAY)", "adadelta(DECAY, 0.95, 1e-7)"),
    keras("adagrad", "Adagrad(0.05)", "adagrad(0.05)"),
    keras("adagrad-schedule", "Adagrad(DECAY)", "adagrad(DECAY)"),
    keras(
        "adagrad-from-zero",
        "Adagrad(0.05, initial_accumulator_value=0.0)",
        "adagrad(0.05, 0.0)",
    ),
    keras("adamax", "Adamax(0.01)", "adamax(0.01, eps=1e-7, eps_in_max=False)"),
    keras(
        "adamax-schedule",
        "Adamax(DECAY, beta_2=0.9)",
        "adamax(DECAY, b2=0.9, eps=1e-7, eps_in_max=False)",
    ),
    keras("nadam", "Nadam(0.01)", "nadam(0.01, eps=1e-7, momentum_decay=1.0)"),
    keras(
        "nadam-schedule", "Nadam(DECAY)", "nadam(DECAY, eps=1e-7, momentum_decay=1.0)"
    ),
    keras("ftrl", "Ftrl(0.05)", "ftrl(0.05)"),
    keras("ftrl-schedule", "Ftrl(DECAY)", "ftrl(DECAY)"),
    keras(
        "ftrl-regularized",
        "Ftrl(0.05, l1_regularization_strength=0.01, l2_regularization_strength=0.1,"
        " l2_shrinkage_regularization_strength=0.05, beta=0.2)",
        "ftrl(0.05, l1=0.01, l2=0.1, l2_shrinkage=0.05, beta=0.2)",
    ),
    keras(
        "ftrl-regularized-schedule",
        "Ftrl(DECAY, l1_regularization_strength=0.01, l2_regularization_strength=0.1,"
        " l2_shrinkage_regularization_strength=0.05, beta=0.2)",
        "ftrl(DECAY, l1=0.01, l2=0.1, l2_shrinkage=0.05, beta=0.2)",
    ),
    keras(
        "ftrl-power",
        "Ftrl(0.05, learning_rate_power=-0.4, l1_regularization_strength=0.01)",
        "ftrl(0.05, -0.4, l1=0.01)",
    ),
    keras(
        "ftrl-power-zero",
        "Ftrl(0.05, learning_rate_power=0.0, initial_accumulator_value=0.5, beta=0.2)",
        "ftrl(0.05, 0.0, 0.5, beta=0.2)",
    ),
    keras("lion", "Lion(0.01)", "lion(0.01, weight_decay=0.0)"),
    keras(
        "lion-weight-decay",
        "Lion(DECAY, weight_decay=0.1)",
        "lion(DECAY, weight_decay=0.1)",
    ),
)

TORCH = (
    torch("sgd", "SGD(lr=0.05)", "sgd(0.05)"),
    torch("sgd-momentum", "SGD(lr=0.05, momentum=0.9)", "sgd(0.05, 0.9)"),
    torch("sgd-momentum-schedule", "SGD(lr=0.05, momentum=0.9)", "sgd(DECAY, 0.9)"),
    torch(
        "sgd-nesterov",
        "SGD(lr=0.05, momentum=0.9, nesterov=True)",
        "sgd(0.05, 0.9, nesterov=True)",
    ),
    torch(
        "sgd-nesterov-schedule",
        "SGD(lr=0.05, momentum=0.9, nesterov=True)",
        "sgd(DECAY, 0.9, nesterov=True)",
    ),
    # torch's weight_decay is L2 regularization: part of the gradient.
    torch(
        "sgd-l2",
        "SGD(lr=0.05, momentum=0.9, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), sgd(0.05, 0.9))",
    ),
    torch("adam", "Adam(lr=0.01)", "adam(0.01)"),
    torch(
        "adam-betas",
        "Adam(lr=0.01, betas=(0.8, 0.95), eps=1e-5)",
        "adam(0.01, 0.8, 0.95, 1e-5)",
    ),
    torch("adam-schedule", "Adam(lr=0.05)", "adam(DECAY)"),
    torch(
        "adam-l2",
        "Adam(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adam(0.01))",
    ),
    torch(
        "amsgrad",
        "Adam(lr=0.01, betas=(0.9, 0.8), amsgrad=True)",
        "amsgrad(0.01, b2=0.8, maximum='raw')",
    ),
    torch(
        "amsgrad-schedule",
        "Adam(lr=0.05, amsgrad=True)",
        "amsgrad(DECAY, maximum='raw')",
    ),
    torch("adamw", "AdamW(lr=0.01)", "adamw(0.01, weight_decay=0.01)"),
    torch(
        "adamw-schedule",
        "AdamW(lr=0.05, weight_decay=0.1)",
        "adamw(DECAY, weight_decay=0.1)",
    ),
    torch("nadam", "NAdam(lr=0.01)", "nadam(0.01, momentum_decay=0.004)"),
    torch(
        "nadam-momentum-decay",
        "NAdam(lr=0.01, momentum_decay=1.0)",
        "nadam(0.01, momentum_decay=1.0)",
    ),
    torch("nadam-schedule", "NAdam(lr=0.05)", "nadam(DECAY, momentum_decay=0.004)"),
    torch("adamax", "Adamax(lr=0.01)", "adamax(0.01)"),
    torch(
        "adamax-schedule",
        "Adamax(lr=0.05, betas=(0.9, 0.9))",
        "adamax(DECAY, b2=0.9)",
    ),
    torch(
        "adagrad",
        "Adagrad(lr=0.05, initial_accumulator_value=0.1)",
        "adagrad(0.05, 0.1, 1e-10, eps_in_sqrt=False)",
    ),
    torch(
        "adagrad-from-zero",
        "Adagrad(lr=0.05)",
        "adagrad(0.05, 0.0, 1e-10, eps_in_sqrt=False)",
    ),
    torch(
        "adagrad-large-eps",
        "Adagrad(lr=0.05, eps=1e-5)",
        "adagrad(0.05, 0.0, 1e-5, eps_in_sqrt=False)",
    ),
    torch(
        "adagrad-lr-decay",
        "Adagrad(lr=0.05, lr_decay=0.1)",
        "adagrad(inverse_time_decay(0.05, 1, 0.1), 0.0, 1e-10, eps_in_sqrt=False)",
    ),
    torch("adadelta", "Adadelta(lr=1.0)", "adadelta(1.0)"),
    torch("adadelta-schedule", "Adadelta(lr=0.05, rho=0.95)", "adadelta(DECAY, 0.95)"),
    torch(
        "adadelta-l2",
        "Adadelta(lr=1.0, weight_decay=0.1)",
        "adadelta(1.0, weight_decay=0.1)",
    ),
    torch(
        "rmsprop",
        "RMSprop(lr=0.01)",
        "rmsprop(0.01, 0.99, eps_in_sqrt=False, lr_in_momentum=False)",
    ),
    torch(
        "rmsprop-momentum",
        "RMSprop(lr=0.01, alpha=0.9, momentum=0.9)",
        "rmsprop(0.01, eps_in_sqrt=False, momentum=0.9, lr_in_momentum=False)",
    ),
    torch(
        "rmsprop-momentum-schedule",
        "RMSprop(lr=0.05, alpha=0.9, momentum=0.9)",
        "rmsprop(DECAY, eps_in_sqrt=False, momentum=0.9, lr_in_momentum=False)",
    ),
    torch(
        "rmsprop-centered",
        "RMSprop(lr=0.01, alpha=0.9, centered=True)",
        "rmsprop(0.01, eps_in_sqrt=False, centered=True, lr_in_momentum=False)",
    ),
    torch(
        "rmsprop-centered-momentum",
        "RMSprop(lr=0.01, alpha=0.9, momentum=0.9, centered=True)",
        "rmsprop(0.01, eps_in_sqrt=False, centered=True, momentum=0.9,"
        " lr_in_momentum=False)",
    ),
)

KERNEL_ONLY = "{'kernel': True, 'bias': False}"

# Most of optax's schedules divide the count in float32, in x64 mode too. Its cosine
# does not: it serves where an optimizer under a schedule is compared.
FLOAT32_SCHEDULE = 1e-7

OPTAX = (
    optax("sgd", "sgd(0.05)"),
    optax("sgd-momentum", "sgd(0.05, 0.9)"),
    optax("sgd-nesterov", "sgd(0.05, 0.9, nesterov=True)"),
    optax("sgd-momentum-schedule", "sgd(cosine_decay_schedule(0.05, 8), 0.9)"),
    optax(
        "sgd-lr-in-momentum",
        "chain(scale_by_learning_rate(cosine_decay_schedule(0.05, 8)), trace(0.9))",
        "sgd(cosine_decay_schedule(0.05, 8), 0.9, lr_in_momentum=True)",
    ),
    optax("adam", "adam(0.01)"),
    optax("adam-betas", "adam(0.01, 0.8, 0.95, 1e-5)"),
    optax("adam-eps-root", "adam(0.01, eps_root=1e-8)"),
    optax("adam-nesterov", "adam(0.01, nesterov=True)"),
    optax("adam-schedule", "adam(cosine_decay_schedule(0.05, 8))"),
    optax("adamw", "adamw(0.01)"),
    optax("adamw-weight-decay", "adamw(0.01, weight_decay=0.1)"),
    optax("adamw-mask", f"adamw(0.01, weight_decay=0.1, mask={KERNEL_ONLY})"),
    optax("adamw-mask-function", f"adamw(0.01, mask=lambda p: {KERNEL_ONLY})"),
    optax("adamw-nesterov", "adamw(0.01, nesterov=True)"),
    optax(
        "adamw-schedules",
        "adamw(cosine_decay_schedule(0.05, 8),"
        " weight_decay=cosine_decay_schedule(0.1, 4))",
    ),
    optax("nadam", "nadam(0.01)"),
    optax("nadam-schedule", "nadam(cosine_decay_schedule(0.05, 8), 0.8, 0.95)"),
    optax("amsgrad", "amsgrad(0.01)"),
    optax("amsgrad-betas", "amsgrad(0.01, 0.8, 0.8, 1e-5, 1e-8)"),
    optax("amsgrad-raw-mu", "amsgrad(0.01, bias_correction_mu=False)"),
    optax("amsgrad-raw-nu", "amsgrad(0.01, b2=0.8, bias_correction_nu=False)"),
    optax("rmsprop", "rmsprop(0.01)"),
    optax("rmsprop-initial-scale", "rmsprop(0.01, 0.8, 1e-6, 0.1)"),
    optax("rmsprop-eps-outside", "rmsprop(0.01, eps_in_sqrt=False)"),
    optax("rmsprop-bias-correction", "rmsprop(0.01, bias_correction=True)"),
    optax("rmsprop-momentum", "rmsprop(0.01, momentum=0.9)"),
    optax("rmsprop-nesterov", "rmsprop(0.01, momentum=0.9, nesterov=True)"),
    optax("rmsprop-centered", "rmsprop(0.01, centered=True)"),
    # Debiased, the variance at the first step is rounding noise; this eps covers it.
    optax(
        "rmsprop-centered-bias-correction",
        "rmsprop(0.001, eps=0.01, centered=True, bias_correction=True)",
    ),
    optax(
        "rmsprop-centered-momentum",
        "rmsprop(0.01, eps_in_sqrt=False, centered=True, momentum=0.9)",
    ),
    optax(
        "rmsprop-momentum-schedule",
        "rmsprop(cosine_decay_schedule(0.05, 8), momentum=0.9)",
    ),
    optax("adagrad", "adagrad(0.05)"),
    optax("adagrad-from-zero", "adagrad(0.05, 0.0, 1e-10)"),
    optax("adadelta", "adadelta(1.0)"),
    optax("adadelta-rho", "adadelta(1.0, 0.95, 1e-7)"),
    optax("adadelta-weight-decay", "adadelta(1.0, weight_decay=0.1)"),
    optax(
        "adadelta-mask",
        f"adadelta(1.0, weight_decay=0.1, weight_decay_mask={KERNEL_ONLY})",
    ),
    optax("adamax", "adamax(0.01)"),
    optax("adamax-schedule", "adamax(cosine_decay_schedule(0.05, 8), 0.8, 0.9, 1e-6)"),
    optax("lion", "lion(0.01)"),
    optax("lion-mask", f"lion(0.01, 0.8, 0.95, weight_decay=0.1, mask={KERNEL_ONLY})"),
    optax(
        "linear-schedule",
        "sgd(linear_schedule(0.05, 0.01, 7, 2))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax(
        "polynomial-schedule",
        "sgd(polynomial_schedule(0.05, 0.01, 2.0, 7, 2))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax(
        "exponential-decay",
        "sgd(exponential_decay(0.05, 5, 0.5))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax(
        "exponential-decay-options",
        "sgd(exponential_decay(0.05, 2, 0.5, 3, staircase=True, end_value=0.01))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax("cosine-decay", "sgd(cosine_decay_schedule(0.05, 8, 0.1, 2.0))"),
    optax(
        "piecewise-constant",
        "sgd(piecewise_constant_schedule(0.05, {3: 0.5, 7: 0.1}))",
    ),
    optax(
        "inject-hyperparams",
        "inject_hyperparams(adam)(cosine_decay_schedule(0.05, 8), eps=1e-7)",
    ),
    optax(
        "scheduled-betas",
        "inject_hyperparams(adam)(0.01, b1=cosine_decay_schedule(0.9, 12, 0.5))",
        "adam(0.01, b1=cosine_decay_schedule(0.9, 12, 0.5))",
    ),
    optax("scale", "scale(-0.05)"),
    optax(
        "scale-by-schedule",
        "scale_by_schedule(linear_schedule(-0.05, -0.01, 8))",
        tol64=FLOAT32_SCHEDULE,
    ),
    optax("clip", "chain(clip(0.5), sgd(0.05))"),
    optax("clip-by-global-norm", "chain(clip_by_global_norm(0.5), sgd(0.05))"),
    optax("clip-by-global-norm-tiny", "chain(clip_by_global_norm(1e-4), adam(0.01))"),
    optax("clip-by-block-rms", "chain(clip_by_block_rms(0.1), sgd(0.05))"),
    optax("adaptive-grad-clip", "chain(adaptive_grad_clip(0.1), sgd(0.05))"),
    optax("centralize", "chain(centralize(), sgd(0.05))"),
    optax("trace", "chain(trace(0.9, nesterov=True), scale(-0.05))"),
    optax("ema", "chain(ema(0.9), scale(-0.05))"),
    optax("ema-biased", "chain(ema(0.9, debias=False), scale(-0.05))"),
    optax("sign", "chain(scale_by_sign(), scale(-0.01))"),
    optax(
        "l2-mask",
        f"chain(add_decayed_weights(0.1, {KERNEL_ONLY}), sgd(0.05, 0.9))",
    ),
    optax(
        "trust-ratio",
        "chain(scale_by_adam(), scale_by_trust_ratio(), scale(-0.01))",
    ),
    optax(
        "trust-ratio-options",
        "chain(scale_by_trust_ratio(0.01, 0.1, 1e-3), scale(-0.5))",
    ),
)

ROWS = KERAS + TORCH + OPTAX
