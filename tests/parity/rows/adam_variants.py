"""Relatives of Adam; and L2, decoupled decay and ascent in torch."""

from .row import optax, torch, torch_like


def _po(name, oracle, jopt, **options):
    return torch_like("pytorch_optimizer", name, oracle, jopt, **options)


def _adopt(name, oracle, jopt, **options):
    return torch_like("adopt", name, oracle, jopt, package="torch-adopt", **options)


# torch's weight_decay is L2 regularization, a part of the gradient, unless it says that
# it is decoupled; maximize turns the gradient around before that.
TORCH = (
    torch("radam", "RAdam(lr=0.01)", "radam(0.01, eps_mode='before')"),
    torch(
        "radam-betas",
        "RAdam(lr=0.01, betas=(0.8, 0.9), eps=1e-5)",
        "radam(0.01, 0.8, 0.9, 1e-5, eps_mode='before')",
    ),
    torch(
        "radam-never-rectified",
        "RAdam(lr=0.01, betas=(0.8, 0.5))",
        "radam(0.01, 0.8, 0.5, eps_mode='before')",
    ),
    torch("radam-schedule", "RAdam(lr=0.05)", "radam(DECAY, eps_mode='before')"),
    torch(
        "radam-l2",
        "RAdam(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), radam(0.01, eps_mode='before'))",
    ),
    torch(
        "radam-decoupled",
        "RAdam(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)",
        "radam(DECAY, weight_decay=0.1, eps_mode='before')",
    ),
    torch(
        "radam-maximize",
        "RAdam(lr=0.01, maximize=True)",
        "chain(scale(-1.0), radam(0.01, eps_mode='before'))",
    ),
    torch(
        "nadam-l2",
        "NAdam(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), nadam(0.01, momentum_decay=0.004))",
    ),
    torch(
        "nadam-decoupled",
        "NAdam(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)",
        "nadamw(DECAY, weight_decay=0.1, momentum_decay=0.004)",
    ),
    torch(
        "nadam-maximize",
        "NAdam(lr=0.01, maximize=True)",
        "chain(scale(-1.0), nadam(0.01, momentum_decay=0.004))",
    ),
    torch(
        "adamax-l2",
        "Adamax(lr=0.05, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adamax(DECAY))",
    ),
    torch(
        "adamax-maximize",
        "Adamax(lr=0.01, maximize=True)",
        "chain(scale(-1.0), adamax(0.01))",
    ),
    torch(
        "sgd-maximize-l2",
        "SGD(lr=0.05, momentum=0.9, weight_decay=0.1, maximize=True)",
        "chain(scale(-1.0), add_decayed_weights(0.1), sgd(0.05, 0.9))",
    ),
    torch(
        "adam-decoupled",
        "Adam(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)",
        "adamw(DECAY, weight_decay=0.1)",
    ),
    torch(
        "adam-maximize-l2",
        "Adam(lr=0.01, weight_decay=0.1, maximize=True)",
        "chain(scale(-1.0), add_decayed_weights(0.1), adam(0.01))",
    ),
    torch(
        "amsgrad-l2",
        "Adam(lr=0.01, betas=(0.9, 0.8), weight_decay=0.1, amsgrad=True)",
        "chain(add_decayed_weights(0.1), amsgrad(0.01, b2=0.8, maximum='raw'))",
    ),
    torch(
        "adamw-amsgrad",
        "AdamW(lr=0.01, betas=(0.9, 0.8), weight_decay=0.1, amsgrad=True)",
        "chain(scale_by_amsgrad(b2=0.8, maximum='raw'), add_decayed_weights(0.1),"
        " scale_by_learning_rate(0.01))",
    ),
    torch(
        "adamw-maximize",
        "AdamW(lr=0.01, weight_decay=0.1, maximize=True)",
        "chain(scale(-1.0), adamw(0.01, weight_decay=0.1))",
    ),
    torch(
        "adagrad-l2",
        "Adagrad(lr=0.05, lr_decay=0.1, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adagrad(inverse_time_decay(0.05, 1, 0.1), 0.0,"
        " 1e-10, eps_in_sqrt=False))",
    ),
    torch(
        "adagrad-maximize",
        "Adagrad(lr=0.05, maximize=True)",
        "chain(scale(-1.0), adagrad(0.05, 0.0, 1e-10, eps_in_sqrt=False))",
    ),
    torch(
        "adadelta-maximize",
        "Adadelta(lr=1.0, maximize=True)",
        "chain(scale(-1.0), adadelta(1.0))",
    ),
    torch(
        "rmsprop-l2",
        "RMSprop(lr=0.01, momentum=0.9, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), rmsprop(0.01, 0.99, eps_in_sqrt=False,"
        " momentum=0.9, lr_in_momentum=False))",
    ),
    torch(
        "rmsprop-maximize",
        "RMSprop(lr=0.01, maximize=True)",
        "chain(scale(-1.0), rmsprop(0.01, 0.99, eps_in_sqrt=False,"
        " lr_in_momentum=False))",
    ),
)

PYTORCH_OPTIMIZER = (
    _po("adabelief", "AdaBelief(lr=0.01)", "adabelief(0.01)"),
    _po(
        "adabelief-eps",
        "AdaBelief(lr=0.01, betas=(0.8, 0.95), eps=1e-6)",
        "adabelief(0.01, 0.8, 0.95, 1e-6, 1e-6)",
    ),
    _po(
        "adabelief-weight-decay-schedule",
        "AdaBelief(lr=0.05, weight_decay=0.1)",
        "adabelief(DECAY, weight_decay=0.1)",
    ),
    _po("yogi", "Yogi(lr=0.01)", "yogi(0.01, initial_mu=1e-6)"),
    _po(
        "yogi-accumulator",
        "Yogi(lr=0.01, betas=(0.8, 0.95), initial_accumulator=0.1, eps=1e-5)",
        "yogi(0.01, 0.8, 0.95, 1e-5, initial_accumulator_value=0.1, initial_mu=0.1)",
    ),
    _po(
        "yogi-weight-decay-schedule",
        "Yogi(lr=0.05, weight_decay=0.1)",
        "chain(scale_by_yogi(initial_mu=1e-6), add_decayed_weights(0.1),"
        " scale_by_learning_rate(DECAY))",
    ),
    _po("adan", "Adan(lr=0.01)", "adan(0.01)"),
    _po(
        "adan-betas",
        "Adan(lr=0.01, betas=(0.9, 0.8, 0.7), eps=1e-5)",
        "adan(0.01, 0.9, 0.8, 0.7, 1e-5)",
    ),
    _po(
        "adan-proximal-decay-schedule",
        "Adan(lr=0.05, weight_decay=0.1)",
        "adan(DECAY, weight_decay=0.1)",
    ),
    _po(
        "adan-no-prox",
        "Adan(lr=0.05, weight_decay=0.1, weight_decouple=True)",
        "adan(DECAY, weight_decay=0.1, no_prox=True)",
    ),
    _po("ademamix", "AdEMAMix(lr=0.01)", "ademamix(0.01)"),
    _po(
        "ademamix-betas",
        "AdEMAMix(lr=0.01, betas=(0.8, 0.95, 0.99), alpha=2.0, eps=1e-5)",
        "ademamix(0.01, 0.8, 0.95, 0.99, 2.0, 1e-5)",
    ),
    _po(
        "ademamix-warmups",
        "AdEMAMix(lr=0.05, t_alpha_beta3=15, weight_decay=0.1, weight_decouple=True)",
        "ademamix(DECAY, b3_warmup=15, alpha_warmup=15, weight_decay=0.1)",
    ),
    # pytorch_optimizer applies the rate before the average: the same if it is constant.
    # Its foreach path has float32 step sizes.
    _po(
        "laprop",
        "LaProp(lr=0.01, foreach=False)",
        "laprop(0.01, eps_root=1e-15, eps_mode='before')",
    ),
    _po(
        "laprop-betas",
        "LaProp(lr=0.01, betas=(0.8, 0.95), eps=1e-5, foreach=False)",
        "laprop(0.01, 0.8, 0.95, 1e-5, 1e-15, eps_mode='before')",
    ),
)

ADOPT = (
    _adopt("adopt", "ADOPT(lr=0.01)", "adopt(0.01)"),
    _adopt(
        "adopt-betas",
        "ADOPT(lr=0.01, betas=(0.8, 0.9), eps=1e-5)",
        "adopt(0.01, 0.8, 0.9, 1e-5)",
    ),
    _adopt(
        "adopt-no-clipping",
        "ADOPT(lr=0.01, betas=(0.9, 0.9), clip_lambda=None)",
        "adopt(0.01, b2=0.9, use_clipping=False)",
    ),
    _adopt(
        "adopt-own-clipping",
        "ADOPT(lr=0.01, clip_lambda=lambda step: 0.1 * step)",
        "adopt(0.01, clip_value_fn=linear_schedule(0.0, 10.0, 100))",
    ),
    _adopt(
        "adopt-decoupled-schedule",
        "ADOPT(lr=0.05, weight_decay=0.1, decouple=True)",
        "adopt(DECAY, weight_decay=0.1)",
    ),
    _adopt(
        "adopt-l2",
        "ADOPT(lr=0.01, weight_decay=0.1)",
        "chain(add_decayed_weights(0.1), adopt(0.01))",
    ),
)

COSINE = "cosine_decay_schedule(0.05, 8)"

OPTAX = (
    optax("adabelief", "adabelief(0.01)"),
    optax(
        "adabelief-nesterov",
        f"adabelief({COSINE}, 0.8, 0.95, 1e-6, 1e-8, nesterov=True)",
    ),
    # optax's residual is g - m_(t-1), which is g - m_t divided by b1; and it divides
    # the first gradient by 1 + eps.
    optax(
        "acprop-up-to-scale",
        "acprop(lambda t: 0.01 * ((t < 1) * (1 + 1e-6 / 0.9) + (t > 0) / 0.9), 0.9,"
        " 0.99, eps=1e-6 / 0.9, eps_root=1e-6 / 0.81, weight_decay=0.0)",
        "acprop(0.01, 0.9, 0.99, 1e-6, 1e-6)",
    ),
    optax("yogi", "yogi(0.01)", "yogi(0.01, initial_mu=1e-6)"),
    optax(
        "scale-by-yogi",
        "chain(scale_by_yogi(0.8, 0.95, 1e-5, 1e-8, 0.1), scale(-0.01))",
        "chain(scale_by_yogi(0.8, 0.95, 1e-5, 1e-8, 0.1, initial_mu=0.1),"
        " scale(-0.01))",
    ),
    # In float32 optax's rho_t is a difference of two numbers near 2,000: 1.4e-5 off.
    optax("radam", "radam(0.01)", tol32=3e-5),
    optax("radam-threshold", f"radam({COSINE}, 0.8, 0.9, 1e-5, 1e-8, 6.0)"),
    optax("radam-nesterov", "radam(0.01, b2=0.9, nesterov=True)"),
    optax("adopt", "adopt(0.01)"),
    optax("adopt-nesterov", f"adopt({COSINE}, 0.8, 0.9, 1e-5, nesterov=True)"),
    optax("adopt-no-clipping", "adopt(0.01, b2=0.9, use_clipping=False)"),
    optax("ademamix", "ademamix(0.01)"),
    optax(
        "ademamix-schedules",
        f"ademamix({COSINE}, 0.8, 0.95, cosine_decay_schedule(0.99, 12, 0.9),"
        " cosine_decay_schedule(3.0, 12), 1e-5, 1e-8, weight_decay=0.1)",
    ),
    optax("simplified-ademamix", "simplified_ademamix(0.001)"),
    optax(
        "simplified-ademamix-alpha",
        "simplified_ademamix(0.001, 0.9, 0.99, cosine_decay_schedule(3.0, 12), 1e-5,"
        " 1e-8, weight_decay=0.1)",
    ),
    optax("adamaxw", "adamaxw(0.01)"),
    optax("adamaxw-weight-decay", f"adamaxw({COSINE}, 0.8, 0.9, weight_decay=0.1)"),
    optax("nadamw", "nadamw(0.01)"),
    optax("nadamw-weight-decay", f"nadamw({COSINE}, 0.8, 0.95, weight_decay=0.1)"),
)

ROWS = TORCH + PYTORCH_OPTIMIZER + ADOPT + OPTAX
