"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, Scalar, at, double, steps


def rmsprop(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    lr_in_momentum: bool = True,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Tieleman & Hinton, 2012, "Lecture 6.5: RMSProp".

    ``centered``: Graves, 2013, "Generating sequences with recurrent neural networks".
    """
    p = double(p)
    a = np.zeros_like(p)  # mean of the gradient
    v = np.full(p.shape, initial_scale)  # mean of its square
    b = np.zeros_like(p)  # momentum
    for t, g in steps(grads):
        lr, rho, e = at(learning_rate, t), at(decay, t), at(eps, t)
        mu = 0.0 if momentum is None else at(momentum, t)
        correction = 1 - rho**t if bias_correction else 1.0
        v = rho * v + (1 - rho) * np.abs(g) ** 2
        a = rho * a + (1 - rho) * g
        power = v / correction
        if centered:  # a variance: below zero only by rounding
            power = np.maximum(power - np.abs(a / correction) ** 2, 0.0)
        root = np.sqrt(power + e) if eps_in_sqrt else np.sqrt(power) + e
        d = lr * g / root if lr_in_momentum else g / root
        b = mu * b + d
        step = d + mu * b if nesterov else b
        step = step if lr_in_momentum else lr * step
        p = p - step - lr * at(weight_decay, t) * p
        yield p


CASES = [
    Case("rmsprop", rate_for_descent=0.01),
    Case("rmsprop", {"centered": True, "momentum": 0.9}, rate_for_descent=0.003),
    Case("rmsprop", {"eps_in_sqrt": False, "momentum": 0.9, "lr_in_momentum": False}),
    Case("rmsprop", {"bias_correction": True, "initial_scale": 0.5}),
    Case("rmsprop", {"weight_decay": 0.1}, rate_for_descent=0.01),
    transform("scale_by_rms", core_of(rmsprop)),
    transform("scale_by_stddev", core_of(rmsprop, centered=True)),
]

ROWS = (
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
