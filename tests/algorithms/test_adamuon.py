"""AdaMuon: signs before the iteration, a second moment of each element after it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.matrix_problem import MATRICES, close_to_golden, gradient
from tests.algorithms.test_muon import orthogonal


WITHOUT_ROW = {
    "adamuon": "a chain of parts with rows; its trajectory is tested beside a loop",
}


def test_steps_are_those_of_a_loop_by_hand() -> None:
    """Si, Zhang & Shen, 2025, "AdaMuon: adaptive Muon optimizer"."""
    tx, w = jopt.adamuon(0.01, weight_decay=0.1), MATRICES["wide"]
    m = v = np.zeros_like(w)
    with jax.enable_x64(True):
        params = {"hidden": jnp.asarray(w)}
        state = tx.init(params)
        for t in range(8):
            g = gradient(w, t)
            m = 0.95 * m + 0.05 * g
            o = orthogonal(np.sign(0.95 * m + 0.05 * g), "simple")
            v = 0.95 * v + 0.05 * o**2
            u = o / (np.sqrt(v) + 1e-8)
            u = u * 0.2 * np.sqrt(u.size) / np.linalg.norm(u)
            w = w - 0.01 * (u + 0.1 * w)
            grads = {"hidden": jnp.asarray(gradient(np.asarray(params["hidden"]), t))}
            params, state = jopt.step(tx, grads, state, params)
            np.testing.assert_allclose(params["hidden"], w, rtol=1e-9, atol=1e-12)


def test_the_second_moment_after_the_iteration_is_that_of_the_authors_library() -> None:
    """Emerging-Optimizers has neither the signs nor the common root mean square."""
    tx = jopt.chain(
        jopt.scale_by_muon("quintic", beta=0.9, nesterov=False),
        jopt.scale_by_rms(0.95, 1e-8, eps_in_sqrt=False),
        jopt.stateless_with_tree_map(lambda u, _: u * max(u.shape) ** 0.5),
        jopt.scale_by_learning_rate(0.02),
    )
    close_to_golden("adamuon_plain", tx)


def test_the_scale_of_the_gradients_does_not_matter() -> None:
    params = {"hidden": jnp.asarray(MATRICES["tall"], jnp.float32)}
    tx, found = jopt.adamuon(0.01), []
    for scale in (1e-30, 1.0, 1e30):
        grads = {"hidden": scale * jnp.cos(params["hidden"])}
        found.append(tx.update(grads, tx.init(params), params)[0]["hidden"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_allclose(found[2], found[1], rtol=1e-6)
    zero = {"hidden": jnp.zeros((6, 4))}
    np.testing.assert_array_equal(
        tx.update(zero, tx.init(params), params)[0]["hidden"], 0
    )
