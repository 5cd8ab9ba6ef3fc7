"""Rectified Adam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.algorithms.radam import average_length
from tests.algorithms.runs import updates_of
from tests.laws.case import Case, core_of, transform
from tests.parity.row import optax, torch
from tests.twins.base import Array, EpsMode, Scalar, at, denominator, double, steps


def radam(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    nesterov: bool = False,
    weight_decay: Scalar = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Liu et al., 2020, "On the variance of the adaptive learning rate and beyond".

    Algorithm 2, in which the threshold is 4.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        if nesterov:
            ahead = m / (1 - beta1 ** (t + 1))
            m_hat = beta1 * ahead + (1 - beta1) * g / (1 - beta1**t)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        if length >= at(threshold, t):
            r = np.sqrt(
                ((length - 4) * (length - 2) * longest)
                / ((longest - 4) * (longest - 2) * length)
            )
            correction, e, e_root = 1 - beta2**t, at(eps, t), at(eps_root, t)
            u = r * m_hat / denominator(v_hat, correction, e, e_root, eps_mode)
        else:
            u = m_hat
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


CASES = [
    Case("radam"),
    Case("radam", {"nesterov": True, "b2": 0.9, "eps_mode": "before"}),
    transform("scale_by_radam", core_of(radam)),
]

COSINE = "cosine_decay_schedule(0.05, 8)"
ROWS = (
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
    # In float32 optax's rho_t is a difference of two numbers near 2,000: 1.4e-5 off.
    optax("radam", "radam(0.01)", tol32=3e-5),
    optax("radam-threshold", f"radam({COSINE}, 0.8, 0.9, 1e-5, 1e-8, 6.0)"),
    optax("radam-nesterov", "radam(0.01, b2=0.9, nesterov=True)"),
)


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999])
def test_radams_length_keeps_its_digits_in_float32(b2: float) -> None:
    t = np.array([1, 2, 5, 6, 7, 20, 100, 1000, 10**5, 10**7])
    with jax.enable_x64(True):
        exact = np.asarray(average_length(b2, jnp.asarray(t, jnp.float64)))
    if b2 < 0.999:  # where float64 has digits to spare, by the definition
        power = np.power(b2, t.astype(float))
        definition = 2 / (1 - b2) - 1 - 2 * t * power / (1 - power)
        np.testing.assert_allclose(exact, definition, rtol=1e-11)
    np.testing.assert_allclose(
        average_length(b2, jnp.asarray(t, jnp.float32)), exact, 2e-5
    )
    np.testing.assert_allclose(exact[0], 1.0, rtol=1e-9)


def test_radam_warms_up_with_momentum_and_ends_as_adam() -> None:
    g = jnp.array([0.01, -3.0])
    found = updates_of(jopt.scale_by_radam(), [g] * 6, g)
    for update in found[:5]:
        np.testing.assert_allclose(update, g, rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(found[5]), 0.0259, rtol=0.01)  # r_6
    late = jopt.scale_by_radam(b2=0.9)
    np.testing.assert_allclose(updates_of(late, [g] * 100, g)[-1], jnp.sign(g), 1e-3)
