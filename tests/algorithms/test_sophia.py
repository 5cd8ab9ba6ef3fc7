"""Sophia: the estimates of the Hessian, and what is made of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import as_dtype, draw
from tests.algorithms.matrix_problem import close_to_golden
from tests.parity.row import torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def sophia(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    diagonal: Array,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-15,
    weight_decay: Scalar = 1e-4,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar = 1.0,
    update_interval: int = 10,
) -> Iterator[Array]:
    """Liu et al., 2023, "Sophia", algorithm 3, for a loss with a diagonal Hessian."""
    p = double(p)
    m, h = np.zeros_like(p), np.zeros_like(p)
    for t, g in steps(grads):
        m = at(b1, t) * m + (1 - at(b1, t)) * g
        if t % update_interval == 1 % update_interval:
            h = at(b2, t) * h + (1 - at(b2, t)) * diagonal
        rho = at(clip_threshold, t)
        u = np.clip(m / np.maximum(at(gamma, t) * h, at(eps, t)), -rho, rho)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


WITHOUT_ROW = {
    "scale_by_sophia": "takes the loss",
    "sophia": "takes the loss",
    "sophia_g": "takes the loss",
}

ROWS = (
    # The estimate of each step is the same in both: the Hessian is diagonal.
    torch_like(
        "pytorch_optimizer",
        "sophia",
        "SophiaH(lr=0.05, p=0.5, eps=1e-6, weight_decay=0.1)",
        "sophia(0.05, 0.96, 0.99, 1e-6, 0.1, gamma=1.0, clip_threshold=0.5, "
        "update_interval=1)",
    ),
    torch_like(
        "pytorch_optimizer",
        "sophia-schedule",
        "SophiaH(lr=0.05, betas=(0.9, 0.95), p=1.0)",
        "sophia(DECAY, 0.9, 0.95, 1e-12, 0.0, gamma=1.0, update_interval=1)",
    ),
)

PARAMS, GRADS = draw()
DIAGONAL = {n: np.abs(p) ** 3 + 1e-4 for n, p in PARAMS.items()}


def loss(params: Any) -> Any:
    """A quadratic with the Hessian DIAGONAL."""
    terms = [
        jnp.sum(0.5 * p**2 * jnp.asarray(DIAGONAL[n], p.dtype))
        for n, p in params.items()
    ]
    return sum(terms)


def run(tx: Any, dtype: Any, obj_fn: Any = loss) -> list[Any]:
    params = as_dtype(PARAMS, dtype)
    state, found = tx.init(params), []
    traces = []

    @jax.jit
    def step(g: Any, s: Any, p: Any) -> Any:
        traces.append(g)
        return tx.update(g, s, p, obj_fn=obj_fn)

    for g in GRADS:
        updates, state = step(as_dtype(g, dtype), state, params)
        params = jopt.apply_updates(params, updates)
        found.append(params)
    assert len(traces) == 1
    return found


@pytest.mark.parametrize(
    "options",
    [{}, {"gamma": 0.5, "update_interval": 3, "b1": 0.9, "clip_threshold": 0.3}],
)
def test_twenty_steps_equal_the_numpy_twin(options: dict[str, Any]) -> None:
    twins = {
        n: sophia(
            p, [g[n] for g in GRADS], learning_rate=0.1, diagonal=DIAGONAL[n], **options
        )
        for n, p in PARAMS.items()
    }
    expected = [{n: next(twin) for n, twin in twins.items()} for _ in GRADS]
    with jax.enable_x64(True):
        found = run(jopt.sophia(0.1, **options), jnp.float64)
        chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)
    narrow = run(jopt.sophia(0.1, **options), jnp.float32)
    chex.assert_trees_all_close(
        narrow, as_dtype(expected, jnp.float32), rtol=3e-5, atol=3e-6
    )


def test_constant_tunable_and_scheduled_numbers_give_the_same() -> None:
    numbers = {"learning_rate": 0.1, "gamma": 0.5, "b1": 0.9, "b2": 0.95, "eps": 1e-12}
    expected = run(jopt.sophia(**numbers), jnp.float32)
    for how in (jopt.tunable, jopt.constant_schedule):
        tx = jopt.sophia(**{n: how(x) for n, x in numbers.items()})
        chex.assert_trees_all_close(
            run(tx, jnp.float32), expected, rtol=3e-5, atol=1e-7
        )


def test_hutchinson_is_unbiased_and_exact_for_a_diagonal_hessian() -> None:
    matrix = jnp.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 5.0]])

    def quadratic(p: Any) -> Any:
        x = jnp.concatenate([p["a"], p["b"]])
        return 0.5 * x @ matrix @ x

    params = {"a": jnp.ones(1), "b": jnp.ones(2)}
    keys = jax.random.split(jax.random.key(0), 4000)
    estimate = jopt.hutchinson_estimator_diag_hessian
    many = jax.vmap(lambda key: estimate(key, quadratic, params))(keys)
    mean = jnp.concatenate([jnp.mean(x, 0) for x in (many["a"], many["b"])])
    np.testing.assert_allclose(mean, jnp.diag(matrix), atol=0.1)
    exact = estimate(keys[0], loss, as_dtype(PARAMS, jnp.float32))
    chex.assert_trees_all_close(exact, as_dtype(DIAGONAL, jnp.float32), rtol=1e-6)


def test_gauss_newton_bartlett_estimates_the_hessian_of_a_softmax() -> None:
    logits = jnp.array([0.5, -1.0, 2.0])
    examples = 64

    def sampled(p: Any, key: Any) -> Any:
        labels = jax.random.categorical(key, jnp.broadcast_to(p, (examples, 3)))
        return -jnp.mean(jax.nn.log_softmax(p)[labels])

    keys = jax.random.split(jax.random.key(0), 4000)
    many = jax.vmap(lambda k: jopt.gauss_newton_bartlett(k, sampled, logits))(keys)
    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(examples * jnp.mean(many, 0), p * (1 - p), rtol=0.1)


def test_an_estimator_may_be_named_or_given() -> None:
    given = jopt.sophia(0.1, hessian_diagonal_fn=lambda key, f, p: DIAGONAL_32)
    chex.assert_trees_all_close(
        run(given, jnp.float32), run(jopt.sophia(0.1), jnp.float32), rtol=1e-5
    )
    tx = jopt.sophia(0.1, hessian_diagonal_fn="gauss_newton_bartlett", key=3)
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))) == tx
    assert pickle.loads(pickle.dumps(tx)) == tx
    with pytest.raises(ValueError, match="'hutchinson', 'gauss_newton_bartlett'"):
        jopt.sophia(0.1, hessian_diagonal_fn="hutchinsen")


DIAGONAL_32 = as_dtype(DIAGONAL, jnp.float32)


@pytest.mark.parametrize("param_dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("grad_dtype", ["float16", "bfloat16", "float32"])
def test_types_never_change(param_dtype: str, grad_dtype: str) -> None:
    tx = jopt.sophia(0.1)
    params, grads = as_dtype(PARAMS, param_dtype), as_dtype(GRADS[1], grad_dtype)
    state = tx.init(params)
    updates, new = jax.eval_shape(
        lambda g, s, p: tx.update(g, s, p, obj_fn=loss), grads, state, params
    )
    assert types(new) == types(state)
    assert types(updates) == types(grads)


def test_zero_tiny_and_huge_gradients_give_finite_updates() -> None:
    tx, params = jopt.sophia(0.1), as_dtype(PARAMS, jnp.float32)
    for value in (0.0, 1e-30, 1e30):
        grads = jax.tree.map(lambda p, x=value: jnp.full_like(p, x), params)
        updates, _ = tx.update(grads, tx.init(params), params, obj_fn=loss)
        chex.assert_tree_all_finite(updates)


def test_what_is_missing_or_wrong_is_said() -> None:
    tx, params = jopt.sophia(0.1), as_dtype(PARAMS, jnp.float32)
    state = tx.init(params)
    with pytest.raises(TypeError, match="scale_by_sophia needs the argument 'obj_fn'"):
        tx.update(params, state, params)
    with pytest.raises(TypeError, match="Did you mean 'obj_fn'"):
        tx.update(params, state, params, obj_fnn=loss)
    with pytest.raises(ValueError, match=r"update_interval must be >= 1"):
        jopt.sophia(0.1, update_interval=0)
    with pytest.raises(ValueError, match=r"gamma must be > 0"):
        jopt.sophia(0.1, gamma=0.0)
    with pytest.raises(TypeError, match="'kernel' has dtype complex64"):
        tx.init({"kernel": jnp.ones(2, jnp.complex64)})


def test_it_descends_a_badly_scaled_quadratic() -> None:
    scales = jnp.array([1e-2, 1.0, 1e2])

    def f(p: Any) -> Any:
        return jnp.sum(scales * p["w"] ** 2)

    tx = jopt.sophia(0.05, gamma=0.5, weight_decay=0.0, update_interval=5)
    params = {"w": jnp.ones(3)}

    def body(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(f)(params), state, params, obj_fn=f)
        return (jopt.apply_updates(params, updates), state), None

    (final, _), _ = jax.lax.scan(body, (params, tx.init(params)), length=400)
    assert float(jnp.max(jnp.abs(final["w"]))) < 1e-2


def test_the_recipe_in_the_authors_numbers_takes_their_steps() -> None:
    """Their estimate is the square of the gradient that it is given."""

    def extra(grads: Any) -> dict[str, Any]:
        def loss(params: Any, key: Any) -> Any:
            return jopt.tree.vdot(grads, params)

        return {"obj_fn": loss}

    close_to_golden("sophia_g", jopt.sophia_g(0.02, batch_size=20.0), extra=extra)
    with pytest.raises(TypeError, match="only one of rho and batch_size"):
        jopt.sophia_g(0.1, rho=jopt.tunable(0.1), batch_size=jopt.tunable(2.0))
