"""AMSGrad."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from tests.laws.case import Case, core_of, transform
from tests.parity.row import keras, optax, torch
from tests.twins.base import Array, EpsMode, Scalar, at, denominator, double, steps


def amsgrad(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    maximum: Literal["corrected", "raw"] = "corrected",
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Reddi, Kale & Kumar, 2018, "On the convergence of Adam and beyond".

    Algorithm 2, to which the corrections are added; ``maximum`` is taken after that of
    ``v``, or before ("raw").
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    v_max = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        correction_m = 1 - beta1**t if bias_correction_mu else 1.0
        correction_v = 1 - beta2**t if bias_correction_nu else 1.0
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / correction_m
        if maximum == "corrected":
            v_max = np.maximum(v_max, v / correction_v)
            v_hat = v_max
        else:
            v_max = np.maximum(v_max, v)
            v_hat = v_max / correction_v
        root = denominator(v_hat, correction_v, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * m_hat / root
        yield p


CASES = [
    Case("amsgrad"),
    Case("amsgrad", {"maximum": "raw", "eps_mode": "before"}),
    Case("amsgrad", {"bias_correction_mu": False, "bias_correction_nu": False}),
    transform("scale_by_amsgrad", core_of(amsgrad)),
]

ROWS = (
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
    optax("amsgrad", "amsgrad(0.01)"),
    optax("amsgrad-betas", "amsgrad(0.01, 0.8, 0.8, 1e-5, 1e-8)"),
    optax("amsgrad-raw-mu", "amsgrad(0.01, bias_correction_mu=False)"),
    optax("amsgrad-raw-nu", "amsgrad(0.01, b2=0.8, bias_correction_nu=False)"),
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
)
