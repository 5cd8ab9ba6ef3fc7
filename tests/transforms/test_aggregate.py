"""Replicas that aggregate their gradients make the step of the whole batch."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jopt
from jopt.testing.problem import as_dtype


WITHOUT_ROW = {
    "aggregate": "there has to be a mapped axis",
}

RNG = np.random.default_rng(0)
SIZES = np.array([1.0, 1e-4, 1e-6])
PARAMS = as_dtype({"b": RNG.normal(), "w": RNG.normal(size=3)}, jnp.float32)
BATCH = as_dtype((RNG.normal(size=(32, 3)) * SIZES, RNG.normal(size=32)), jnp.float32)


def loss(params: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def mapped(f: Any, axes: Any = "data", check_vma: bool = True) -> Any:
    types = (AxisType.Auto,) * 2
    return jax.jit(
        jax.shard_map(
            f,
            mesh=jax.make_mesh((4, 2), ("data", "model"), axis_types=types),
            in_specs=(P(), P(axes)),
            out_specs=P(),  # with check_vma, an error unless the result is one for all
            check_vma=check_vma,
        )
    )


def by_hand(factor: float) -> Any:
    """The gradient of the whole batch in float64, from the formula."""
    x, y = (np.asarray(a, np.float64) for a in BATCH)
    r = x @ np.asarray(PARAMS["w"], np.float64) + float(PARAMS["b"]) - y
    return {"b": factor * 2 * r.mean(), "w": factor * 2 * x.T @ r / len(y)}


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(("op", "factor"), [("mean", 1.0), ("sum", 4.0)])
def test_in_shard_map_it_is_the_gradient_of_the_whole_batch(
    op: str, factor: float, check_vma: bool
) -> None:
    tx = jopt.chain(jopt.aggregate("data", op), jopt.sgd(1.0))

    def update(params: Any, batch: Any) -> Any:
        own = params
        if check_vma:
            own = jax.lax.pcast(params, "data", to="varying")
        grads = jax.grad(loss)(own, batch)
        return tx.update(grads, tx.init(params), params)[0]

    found = mapped(update, check_vma=check_vma)(PARAMS, BATCH)
    chex.assert_trees_all_close(
        found, as_dtype(by_hand(-factor), jnp.float32), rtol=2e-5, atol=1e-12
    )


def test_under_pmap_and_over_two_axes_an_optimizer_steps_as_on_one_device() -> None:
    one = jopt.chain(jopt.clip_by_global_norm(0.1), jopt.adam(0.1))
    tx = jopt.chain(jopt.aggregate("data"), one)
    both = jopt.chain(jopt.aggregate(("data", "model")), one)

    def run(tx: Any, params: Any, grad: Any) -> Any:
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(grad(params), state, params)
            params = jopt.apply_updates(params, updates)
        return params

    expected = run(one, PARAMS, lambda p: jax.grad(loss)(p, BATCH))

    def in_two_axes(params: Any, batch: Any) -> Any:
        def grad(p: Any) -> Any:
            own = jax.lax.pcast(p, ("data", "model"), to="varying")
            return jax.grad(loss)(own, batch)

        return run(both, params, grad)

    close = {"rtol": 1e-5, "atol": 1e-7}
    found = mapped(in_two_axes, ("data", "model"))(PARAMS, BATCH)
    chex.assert_trees_all_close(found, expected, **close)
    parts = jax.tree.map(lambda a: a.reshape(8, 4, *a.shape[1:]), BATCH)
    found = jax.pmap(
        lambda p, b: run(tx, p, lambda p: jax.grad(loss)(p, b)),
        axis_name="data",
        in_axes=(None, 0),
    )(PARAMS, parts)
    for i in range(8):
        one_of = jax.tree.map(lambda x, i=i: x[i], found)
        chex.assert_trees_all_close(one_of, expected, **close)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_added_in_float32_and_rounded_once(dtype: str) -> None:
    # The sum overflows in float16; in bfloat16 it depends on the order.
    values = np.array([6e4, 5e4, 4e4, 1.0, 1.0, 1.0, 1.0, 1.0])
    g = jnp.asarray(values, dtype)
    tx = jopt.aggregate("data")
    found = jax.vmap(lambda g: tx.update(g, ())[0], axis_name="data")(g)
    exact = np.asarray(g, np.float64).mean()
    assert found.dtype == dtype
    assert set(found.tolist()) == {float(jnp.asarray(exact, dtype))}


def test_it_keeps_what_is_not_there() -> None:
    tx = jopt.aggregate("data")

    def update(g: Any) -> Any:
        return tx.update({"a": g, "none": None, "z": (1 + 1j) * g[:0]}, ())[0]

    g = jnp.ones((2, 3), jnp.complex64)
    found = jax.vmap(update, axis_name="data")(g)
    assert found["none"] is None and found["z"].shape == (2, 0)


def test_a_gradient_that_is_a_sum_already_is_refused() -> None:
    tx = jopt.aggregate("data")

    def update(params: Any, batch: Any) -> Any:
        return tx.update(jax.grad(loss)(params, batch), ())[0]

    with pytest.raises(
        ValueError, match=r"gradient 'b' is the same on all devices along 'data'.*pcast"
    ):
        mapped(update)(PARAMS, BATCH)


def test_where_there_is_no_such_axis_it_says_what_to_do() -> None:
    tx = jopt.aggregate("data")
    for call in (tx.update, jax.jit(tx.update)):
        with pytest.raises(
            ValueError, match=r"no mapped axis 'data' here.*shard_map.*leave aggregate"
        ):
            call(PARAMS, ())
    with pytest.raises(
        ValueError, match="op must be one of 'mean', 'sum', got op='avg"
    ):
        jopt.aggregate("data", "avg")
    for wrong in (3, (), ("data", 1)):
        with pytest.raises(TypeError, match="axis_name must be a name, or names"):
            jopt.aggregate(wrong)
    assert jopt.from_config(jopt.to_config(tx)) == tx
