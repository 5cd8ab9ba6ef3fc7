"""Parameters that stay in a set: nonnegative, in a box, on a sphere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as optax_library
import pytest

import jopt
from jopt.projections import (
    projection_box,
    projection_l2_ball,
    projection_l2_sphere,
    projection_non_negative,
    projection_simplex,
)
from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Array, double, steps


def keep_params_nonnegative(p: Array, grads: Iterable[Array]) -> Iterator[Array]:
    """The projection onto the nonnegative numbers."""
    p = double(p)
    for _, g in steps(grads):
        yield np.maximum(p + g, 0.0) - p


def project(p: Array, grads: Iterable[Array], *, projection: Any) -> Iterator[Array]:
    """The same by its projection."""
    del projection
    return keep_params_nonnegative(p, grads)


CASES = [
    Case(
        "project",
        {"projection": projection_non_negative},
        learning_rate=None,
        complex_leaves=False,
        moves_without_gradient=True,
    ),
    Case(
        "keep_params_nonnegative",
        learning_rate=None,
        complex_leaves=False,
        moves_without_gradient=True,
    ),
]

ROWS = (
    optax("keep-params-nonnegative", "chain(sgd(0.05), keep_params_nonnegative())"),
)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("grad_dtype", ["bfloat16", "float16", "float32"])
def test_no_parameter_ends_below_zero_in_any_dtype(dtype: str, grad_dtype: str) -> None:
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.uniform(0, 1, 1000), dtype)
    grads = -params.astype(grad_dtype) * jnp.asarray(
        rng.choice([0.999, 1, 2], 1000), grad_dtype
    )
    tx = jopt.keep_params_nonnegative()
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    assert updates.dtype == grad_dtype
    after = jopt.apply_updates(params, updates)
    assert bool(jnp.all(after >= 0))
    assert bool(jnp.all(after <= 0.01))


BOX = jopt.project(projection_box, lower=-0.1, upper=0.1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("grad_dtype", ["bfloat16", "float16", "float32"])
def test_every_parameter_ends_in_the_box_in_any_dtype(
    dtype: str, grad_dtype: str
) -> None:
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.uniform(-0.1, 0.1, 1000), dtype)
    grads = jnp.asarray(rng.normal(size=1000), grad_dtype)
    low, high = jnp.asarray([-0.1, 0.1], dtype)
    for start in (params, 30 * params):  # also from outside
        updates, _ = jax.jit(BOX.update)(grads, BOX.init(start), start)
        assert updates.dtype == grad_dtype
        after = jopt.apply_updates(start, updates)
        assert bool(jnp.all((after >= low) & (after <= high)))
        aim = jnp.clip(jopt.apply_updates(start, grads), low, high)
        # As near as the dtype of the update can come; exact from inside if it is wide.
        step = jnp.abs((aim - start).astype(jnp.float32))
        unit = 2.0 * float(jnp.finfo(grad_dtype).eps)
        own = float(jnp.finfo(dtype).eps) * 0.1
        error = jnp.abs((after - aim).astype(jnp.float32))
        assert bool(jnp.all(error <= unit * step + own))


def test_a_step_that_does_not_double_a_parameter_arrives_exactly() -> None:
    params = jnp.linspace(0.6, 1.0, 1001)
    tx = jopt.chain(jopt.sgd(1.0), jopt.project(projection_box, lower=0.7, upper=0.8))
    after, _ = jopt.step(tx, jnp.sin(1e3 * params), tx.init(params), params)
    expected = jnp.clip(params - jnp.sin(1e3 * params), 0.7, 0.8)
    np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_sphere_is_left_by_no_more_than_rounding(dtype: str) -> None:
    rng = np.random.default_rng(0)
    params = {
        "a": jnp.asarray(rng.normal(size=(30, 40)), dtype),
        "b": jnp.asarray(rng.normal(size=50), dtype),
    }
    tx = jopt.chain(jopt.sgd(0.1), jopt.project(projection_l2_sphere, scale=3.0))
    params, state = projection_l2_sphere(params, 3.0), tx.init(params)
    for _ in range(5):
        grads = jax.tree.map(lambda p: jnp.sin(7 * p), params)
        params, state = jopt.step(tx, grads, state, params)
        error = abs(float(jopt.tree.norm(params)) / 3 - 1)
        assert error < (1e-3 if dtype == "bfloat16" else 3e-7)


def _runs(tx: jopt.GradientTransformation, params: Any, grads: Any) -> dict[str, Any]:
    """The parameters after one step, by the way in which it is taken."""
    updates, _ = tx.update(grads, tx.init(params), params)
    return {
        "apply_updates": jopt.apply_updates(params, updates),
        "step": jopt.step(tx, grads, tx.init(params), params)[0],
        "optax": optax_library.apply_updates(params, updates),
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: jopt.accumulate(tx, 1),
        lambda tx: jopt.partition({"x": tx}, "x"),
        jopt.skip_nonfinite,
        lambda tx: jopt.chain(tx, jopt.params_ema(0.9), jopt.monitor()),
        lambda tx: jopt.chain(jopt.masked(tx, True), jopt.keep_params_nonnegative()),
    ],
)
def test_it_holds_however_the_step_is_taken(wrap: Any) -> None:
    params = {"w": jnp.array([0.2, 0.3, 0.5]), "v": jnp.array([1.0])}
    grads = {"w": jnp.array([-1.0, 0.5, 0.1]), "v": jnp.array([-0.3])}
    tx = wrap(
        jopt.chain(jopt.sgd(1.0), jopt.masked(jopt.project(projection_simplex), "w"))
    )
    for name, found in _runs(tx, params, grads).items():
        np.testing.assert_allclose(found["v"], 1.3, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(found["w"], [0.9, 0, 0.1], atol=1e-7, err_msg=name)


def test_train_states_and_nnx_hold_it_too() -> None:
    nnx = pytest.importorskip("flax.nnx")
    from jopt.interop.flax import Optimizer, TrainState

    ball = jopt.chain(jopt.sgd(1.0), jopt.project(projection_l2_ball, scale=0.5))
    params, grads = {"w": jnp.array([0.3, 0.4])}, {"w": jnp.array([-3.0, -4.0])}
    state = TrainState.create(apply_fn=None, params=params, tx=ball)
    after = state.apply_gradients(grads=grads).params
    np.testing.assert_allclose(after["w"], [0.3, 0.4], rtol=1e-6)

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.array([0.3, 0.4]))

    model = Model()
    optimizer = Optimizer(model, ball, wrt=nnx.Param)
    optimizer.update(model, nnx.State({"w": nnx.Param(jnp.array([-3.0, -4.0]))}))
    np.testing.assert_allclose(model.w[...], [0.3, 0.4], rtol=1e-6)


def test_between_the_steps_of_an_accumulation_the_parameters_stay() -> None:
    tx = jopt.chain(jopt.accumulate(jopt.sgd(1.0), 2), BOX)
    params, state = jnp.array([0.5, 0.05]), None  # the first starts outside
    state = tx.init(params)
    first, state = jopt.step(tx, jnp.ones(2), state, params)
    np.testing.assert_array_equal(first, params)
    second, _ = jopt.step(tx, -jnp.ones(2), state, first)
    np.testing.assert_allclose(second, [0.1, 0.05], rtol=1e-6)


def test_nothing_may_change_the_updates_after_it() -> None:
    for tx in (BOX, jopt.masked(BOX, "w"), jopt.skip_nonfinite(BOX)):
        with pytest.raises(
            ValueError,
            match=r"'scale' changes the updates after .*project.*, which decides where "
            r"the parameters end\. Put project after 'scale'",
        ):
            jopt.chain(tx, jopt.scale(0.5))
    for wrap in (jopt.mechanize, jopt.cautious):
        with pytest.raises(ValueError, match="a projection inside it is not one of"):
            wrap(jopt.chain(jopt.sgd(0.1), BOX))


def test_a_projection_that_changes_shapes_is_refused_with_the_path() -> None:
    tx = jopt.project(lambda params: {"w": params["w"][:1]})
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="the result of projection"):
        tx.update(params, tx.init(params), params)
