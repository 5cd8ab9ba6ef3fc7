"""Averages of the parameters."""

from .row import keras, optax, torch_like


def authors(name, oracle, jopt, **options):
    return torch_like("schedulefree", name, oracle, jopt, **options)


ROWS = (
    authors("adamw", "AdamWScheduleFree(lr=0.01)", "schedule_free_adamw(0.01)"),
    authors(
        "adamw-warmup-decay",
        "AdamWScheduleFree(lr=0.05, betas=(0.95, 0.99), warmup_steps=7, "
        "weight_decay=0.1, r=0.5, weight_lr_power=1.5)",
        "schedule_free_adamw(0.05, 7, 0.95, 0.99, weight_decay=0.1, r=0.5, "
        "weight_lr_power=1.5)",
    ),
    authors(
        "adamw-schedule",
        "AdamWScheduleFree(lr=0.05, weight_decay=0.1)",
        "schedule_free_adamw(DECAY, weight_decay=0.1)",
    ),
    authors(
        "sgd-warmup-decay",
        "SGDScheduleFree(lr=0.5, warmup_steps=7, weight_decay=0.1)",
        "schedule_free_sgd(0.5, 7, weight_decay=0.1)",
    ),
    authors(
        "sgd-power-of-the-step",
        "SGDScheduleFree(lr=0.5, momentum=0.98, r=2.0, weight_lr_power=0.0)",
        "schedule_free_sgd(0.5, b1=0.98, r=2.0, weight_lr_power=0.0)",
    ),
    authors(
        "radam",
        "RAdamScheduleFree(lr=0.05, weight_decay=0.1)",
        "schedule_free_adamw(0.05, weight_decay=0.1, rectify=True)",
    ),
    authors(
        "radam-short",
        "RAdamScheduleFree(lr=0.05, betas=(0.9, 0.9), r=1.0)",
        "schedule_free_adamw(0.05, b2=0.9, rectify=True, r=1.0)",
    ),
    authors(
        "wrapper",
        # The first call is the one that is given the parameters.
        "SGDScheduleFree() and ScheduleFreeWrapper("
        "torch.optim.SGD(SGDScheduleFree.args[0], 0.1, momentum=0.5), r=1.0)",
        "schedule_free(sgd(0.1, 0.5), 0.1, r=1.0)",
    ),
    keras(
        "schedule-free",
        "ScheduleFreeAdamW(0.01)",
        "schedule_free_adamw(0.01, weight_lr_power=0.0)",
    ),
    keras(
        "schedule-free-warmup",
        "ScheduleFreeAdamW(0.05, beta_1=0.95, beta_2=0.99, warmup_steps=7)",
        "schedule_free_adamw(0.05, 7, 0.95, 0.99, weight_lr_power=0.0)",
    ),
    keras(
        "schedule-free-schedule",
        "ScheduleFreeAdamW(DECAY)",
        "schedule_free_adamw(DECAY, weight_lr_power=0.0)",
    ),
    optax("schedule-free-sgd", "schedule_free_sgd(0.5, weight_decay=0.1)"),
    optax(
        "schedule-free-adamw",
        "schedule_free_adamw(0.01, b1=0.95, weight_decay=0.1)",
    ),
    optax("schedule-free", "schedule_free(lion(0.01), 0.01, 0.8, 1.0)"),
)
