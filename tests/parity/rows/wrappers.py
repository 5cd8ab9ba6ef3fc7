"""What Keras's optimizers take beside their own arguments."""

from .row import keras, optax


ADAM = 'adam(0.01, eps=1e-7, eps_mode="before")'
# Keras computes its averages in float32.
FLOAT32 = 5e-8
MEAN32 = 1e-8  # optax accumulates in float32
ROWS = (
    keras(
        "use-ema",
        "Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3)",
        f"chain({ADAM}, params_ema(0.9, overwrite_every=3))",
        tol64=FLOAT32,
    ),
    keras(
        "use-ema-sgd",
        "SGD(DECAY, momentum=0.9, use_ema=True, ema_overwrite_frequency=2)",
        "chain(sgd(DECAY, 0.9, lr_in_momentum=True), "
        "params_ema(0.99, overwrite_every=2))",
        tol64=FLOAT32,
    ),
    keras(
        "gradient-accumulation",
        "Adam(0.01, gradient_accumulation_steps=3)",
        f"accumulate({ADAM}, 3)",
    ),
    keras(
        "gradient-accumulation-clip-decay",
        "SGD(0.05, momentum=0.9, gradient_accumulation_steps=4, clipnorm=0.5, "
        "weight_decay=0.1)",
        "accumulate(chain(clip_by_norm(0.5), trace(0.9), add_decayed_weights(0.1), "
        "scale_by_learning_rate(0.05)), 4)",
    ),
    keras(
        "gradient-accumulation-schedule",
        "Adam(DECAY, gradient_accumulation_steps=3)",
        'accumulate(adam(micro_step_schedule(DECAY, 3), eps=1e-7, eps_mode="before"), '
        "3)",
    ),
    keras(
        "loss-scale-factor",
        "SGD(0.05, loss_scale_factor=1024.0, global_clipnorm=1e-3)",
        "chain(scale(1 / 1024), clip_by_global_norm(1e-3), sgd(0.05))",
    ),
    optax(
        "multi-steps",
        "MultiSteps(adam(0.01), 3).gradient_transformation()",
        "accumulate(adam(0.01), 3)",
        tol64=MEAN32,
    ),
    optax(
        "multi-steps-sum",
        "MultiSteps(adam(0.01), 3, use_grad_mean=False).gradient_transformation()",
        "accumulate(adam(0.01), 3, use_grad_mean=False)",
        tol64=MEAN32,
    ),
    optax(
        "partition",
        'partition({"a": sgd(0.1, 0.9), "b": adam(0.01)}, '
        '{"kernel": "a", "bias": "b"})',
    ),
    optax(
        "masked",
        'chain(masked(scale(2.0), {"kernel": True, "bias": False}), scale(-0.1))',
    ),
)
