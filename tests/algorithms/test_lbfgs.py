"""L-BFGS takes the steps of optax and as few evaluations as scipy's L-BFGS-B."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from tests.laws.case import Case
from tests.twins.base import Tree, at, double


def lbfgs(
    params: Tree,
    grads: list[Tree],
    *,
    learning_rate: Any,
    memory_size: int = 10,
    linesearch: None = None,
) -> Iterator[Tree]:
    """Nocedal & Wright, 2006, algorithm 7.4, with the first scale of optax."""
    del linesearch
    names, pairs, scale, last = list(params), [], 1.0, None
    p = np.concatenate([double(params[n]).ravel() for n in names])
    sizes = np.cumsum([np.size(params[n]) for n in names])[:-1]
    for t, tree in enumerate(grads, start=1):
        g = np.concatenate([double(tree[n]).ravel() for n in names])
        if last is not None:
            s, y = p - last[0], g - last[1]
            if s @ y > 2.2e-16 * np.linalg.norm(s) * np.linalg.norm(y):
                pairs, scale = [*pairs, (s, y)][-memory_size:], s @ y / (y @ y)
        last = p, g
        if not pairs:
            scale = 1 / max(1.0, float(np.linalg.norm(g)))
        q, alphas = g.copy(), []
        for s, y in reversed(pairs):
            alphas.append(s @ q / (s @ y))
            q = q - alphas[-1] * y
        q = scale * q
        for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
            q = q + s * (alpha - y @ q / (s @ y))
        p = p - at(learning_rate, t) * q
        parts = np.split(p, sizes)
        shapes = [np.shape(params[n]) for n in names]
        yield {n: x.reshape(s) for n, x, s in zip(names, parts, shapes, strict=True)}


class OfRandomGradients(Case):
    """Pairs of random gradients have almost no curvature, which amplifies rounding."""

    without = dict.fromkeys(
        (
            "bfloat16_updates_are_the_float32_updates_rounded_once",
            "complex_leaves_work_or_are_refused_by_name",
            "twenty_steps_equal_the_twin_in_float32",
        ),
        "random gradients make pairs of almost no curvature, which amplify rounding",
    )


CASES = [
    OfRandomGradients(
        "lbfgs",
        {"linesearch": None, "memory_size": 3},
        looks_at_all_leaves=True,
        rate_for_descent=0.3,
    ),
]
WITHOUT_ROW = {
    "scale_by_lbfgs": "keeps the parameters that it is called with; the rows of lbfgs",
}


def rosenbrock(x: Any) -> Any:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def broyden(x: Any) -> Any:
    left = jnp.pad(x[:-1], (1, 0))
    right = jnp.pad(x[1:], (0, 1))
    return jnp.sum(((3 - 2 * x) * x - left - 2 * right + 1) ** 2)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def minimized(tx: Any, loss: Any, params: Any, gtol: float = 1e-6) -> Any:
    """The result, the number of steps and of evaluations, and the last state."""
    value_and_grad = jopt.value_and_grad_from_state(loss)

    def go_on(carry):
        *_, steps, _, largest = carry
        return (largest > gtol) & (steps < 1000)

    def step(carry):
        params, state, steps, evaluations, _ = carry
        value, grad = value_and_grad(params, state=state)
        # As users have to do for complex parameters.
        u, state = tx.update(
            jopt.tree.conj(grad), state, params, value=value, grad=grad, value_fn=loss
        )
        search = state["scale_by_zoom_linesearch"]
        evaluations += search.info.num_linesearch_steps
        rest = jopt.tree.norm(search.grad, jnp.inf)
        return jopt.apply_updates(params, u), state, steps + 1, evaluations, rest

    first = (params, tx.init(params), 0, jnp.int32(1), jnp.array(jnp.inf))
    params, state, steps, evaluations, _ = jax.lax.while_loop(go_on, step, first)
    return params, steps, evaluations, state


@pytest.mark.parametrize(
    # scipy 1.17.1, L-BFGS-B with maxcor=10, gtol=1e-6, ftol=0.
    ("loss", "start", "iterations", "evaluations"),
    [
        (rosenbrock, [-1.2, 1.0], 37, 45),
        (broyden, [-1.0] * 100, 29, 30),
    ],
)
def test_it_takes_as_few_evaluations_as_scipy(loss, start, iterations, evaluations):
    with jax.enable_x64(True):
        x, steps, asked, state = minimized(jopt.lbfgs(), loss, jnp.array(start))
        assert (steps, asked) == (iterations, evaluations)
        search = state["scale_by_zoom_linesearch"]
        # What the state has for the next step is what is there.
        value, grad = jax.value_and_grad(loss)(x)
        np.testing.assert_allclose(search.value, value, rtol=1e-6)
        np.testing.assert_allclose(search.grad, grad, rtol=1e-6, atol=1e-12)


def test_the_direction_is_that_of_optax():
    def run(tx):
        def body(carry, _):
            x, state = carry
            u, state = tx.update(jax.grad(broyden)(x), state, x)
            return (x - 0.1 * u, state), u

        x = jnp.linspace(-1.0, 1.0, 6)
        return jax.jit(lambda: jax.lax.scan(body, (x, tx.init(x)), length=30)[1])()

    # optax mixes integers.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        for options in ({"memory_size": 4}, {"scale_init_precond": False}):
            ours, theirs = (
                run(library.scale_by_lbfgs(**options)) for library in (jopt, optax)
            )
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_trees_complex_numbers_and_low_precision_are_minimized():
    def loss(p):
        z, w = p["z"], p["w"].astype(jnp.float32)
        return jnp.sum(jnp.abs(z - (1 + 2j)) ** 2) + 10 * jnp.sum((w - 0.5) ** 2)

    params = {
        "w": jnp.zeros((2, 2), jnp.bfloat16),
        "z": jnp.zeros(3, jnp.complex64),
        "none": None,
    }
    new, steps, *_ = minimized(jopt.lbfgs(), loss, params, 1e-4)
    assert steps < 20 and new["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(new["z"], 1 + 2j, rtol=1e-4)
    np.testing.assert_array_equal(new["w"].astype(float), 0.5)


def test_under_vmap_it_runs_as_alone():
    tx = jopt.lbfgs()
    starts = jnp.array([[-1.2, 1.0], [0.0, 2.0]])
    together = jax.vmap(lambda x: minimized(tx, rosenbrock, x, 1e-3)[:3])(starts)
    for i, start in enumerate(starts):
        alone = minimized(tx, rosenbrock, start, 1e-3)[:3]
        assert together[1][i] == alone[1]
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-4)


def test_it_starts_again_where_the_parameters_do_not_move():
    tx, x = jopt.scale_by_lbfgs(), jnp.array([1.0, 2.0])
    update = jax.jit(tx.update)
    state, curvature = tx.init(x), jnp.array([1.0, 10.0])
    for step in (1.0, 1.0, 0.0):
        u, state = update(curvature * x, state, x)
        x = x - step * u
    assert state.pairs == 2
    g = curvature * x
    u, state = update(g, state, x)
    assert state.pairs == 0 and not state.weights_memory.any()
    np.testing.assert_allclose(u, g / jnp.maximum(1, jnp.linalg.norm(g)), rtol=1e-6)


def test_the_memory_is_checked():
    with pytest.raises(ValueError, match="memory_size must be >= 1, got memory_size=0"):
        jopt.scale_by_lbfgs(0)
    tx = jopt.lbfgs()
    assert repr(tx) == "lbfgs()" and jopt.from_config(jopt.to_config(tx)) == tx


def test_it_takes_the_variables_of_nnx():
    nnx = pytest.importorskip("flax.nnx")
    graph, params = nnx.split(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.Param)

    def loss(params):
        return jnp.sum((nnx.merge(graph, params)(jnp.eye(2)) - 3.0) ** 2)

    new, steps, *_ = minimized(jopt.lbfgs(), loss, params, 1e-4)
    assert steps < 10 and isinstance(new, nnx.State)
    np.testing.assert_allclose(nnx.merge(graph, new)(jnp.eye(2)), 3.0, rtol=1e-4)
