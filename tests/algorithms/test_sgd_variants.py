"""What laws and parity do not say of the relatives of gradient descent."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt


# Misuse.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jopt.sgd(0.1, dampening=0.5), "dampening=0.5 needs a momentum"),
        (lambda: jopt.sgd(0.1, 0.9, dampening=1.5), r"in \[0, 1\], got dampening=1.5"),
        (lambda: jopt.sgd(0.1, 0.9, True, dampening=0.1), "only without dampening"),
        (lambda: jopt.noisy_sgd(0.1), "needs a key of jax.random or a seed"),
        (lambda: jopt.rprop(0.0), "> 0 and finite, got learning_rate=0.0"),
        (lambda: jopt.rprop(0.1, eta_plus=0.9), ">= 1, got eta_plus=0.9"),
        (lambda: jopt.asgd(0.1, t0=-1), "t0=-1.0"),
        (lambda: jopt.lion(0.1, mode="soft"), "must be one of 'hard', 'smooth'"),
        (lambda: jopt.lion(0.1, mode="smooth", smooth_beta=0), "smooth_beta=0.0"),
        (lambda: jopt.lars(0.1, norm="both"), "one of 'separate', 'together'"),
        (lambda: jopt.lamb(0.1, decay="after"), "one of 'in_ratio', 'before_step'"),
        (
            lambda: jopt.lamb(0.1, mask="kernel", decay="before_step"),
            "takes no mask, got mask='kernel'.*jopt.partition",
        ),
        (lambda: jopt.polyak_sgd(variant="sps++"), r"one of 'sps', 'sps\+'"),
        (lambda: jopt.polyak_sgd(max_learning_rate=0), "max_learning_rate=0.0"),
        (lambda: jopt.optimistic_adam(0.0, 0.1), "> 0 and finite"),
        (lambda: jopt.momo_adam(eps=0.0), "> 0 and finite, got eps=0.0"),
        (lambda: jopt.novograd(0.1, eps=0.0), "cannot all be zero"),
        (lambda: jopt.apply_every(0), ">= 1, got k=0"),
        (lambda: jopt.normalize_by_update_norm(eps=-1.0), "eps=-1.0"),
    ],
)
def test_wrong_numbers_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jopt.rprop(lambda t: 0.1), "learning_rate must be a number"),
        (lambda: jopt.momo(lower_bound=jopt.tunable(0.0)), "lower_bound must be a"),
        (
            lambda: jopt.optimistic_adam(jopt.tunable(0.1), 0.1),
            "learning_rate must be a number if optimism.*optimistic_adam_v2",
        ),
        (lambda: jopt.stateless_with_tree_map(3), "function of a leaf"),
    ],
)
def test_what_is_no_number_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


# Any magnitude.


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_norms_of_any_magnitude_are_exact(size: float) -> None:
    params = jnp.array([3.0, 4.0])
    grads = size * jnp.array([0.6, 0.8])
    for tx, expected in [
        (jopt.normalize(), [0.6, 0.8]),
        (jopt.normalize_by_update_norm(2.0, eps=0.0), [1.2, 1.6]),
        (jopt.scale_by_lars(0.0, 1.0), [3.0, 4.0]),
        (
            jopt.fromage(1.0, 0.0),
            np.array([-3.0, -4.0]) / 2**0.5 + [-0.87867966, -1.1715729],
        ),
        (jopt.sign_sgd(1.0), [-1.0, -1.0]),
        (jopt.rprop(1.0), [-1.0, -1.0]),
    ]:
        updates, _ = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(updates, expected, rtol=1e-6, err_msg=repr(tx))
