"""Slots that start anew, and counts that are set."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.testing.problem import as_dtype, draw


PARAMS, GRADS = as_dtype(draw(steps=4), jnp.float32)


def trained(tx: Any, params: Any = PARAMS) -> Any:
    state = tx.init(params)
    for g in GRADS[:3]:
        _, state = tx.update(g, state, params)
    return state


def changed(old: Any, new: Any) -> set[str]:
    chex.assert_trees_all_equal_structs(old, new)
    chex.assert_trees_all_equal_shapes_and_dtypes(old, new)
    flat, other = jopt.state_dict(old), jopt.state_dict(new)
    return {name for name, x in flat.items() if not np.array_equal(x, other[name])}


@pytest.mark.parametrize(
    "where, names",
    [
        (
            "/kernel$",
            {
                "scale_by_adam/mu/kernel",
                "scale_by_adam/nu/kernel",
                "params_ema/ema/kernel",
            },
        ),
        (
            "^scale_by_adam/nu/",
            {f"scale_by_adam/nu/{name}" for name in PARAMS},
        ),
        (lambda path, x: path == "scale_by_adam/count", {"scale_by_adam/count"}),
        (jopt.glob("params_ema/*/bias"), {"params_ema/ema/bias"}),
    ],
)
def test_what_is_reset_is_as_init_makes_it_and_the_rest_stays(
    where: Any, names: set[str]
) -> None:
    tx = jopt.chain(jopt.adam(0.1), jopt.params_ema(0.5))
    state = trained(tx)
    moved = jax.tree.map(lambda p: p + 1, PARAMS)
    new = jopt.reset(tx, state, moved, where)
    assert changed(state, new) == names
    fresh = jopt.state_dict(tx.init(moved))
    for name in names:
        np.testing.assert_array_equal(jopt.state_dict(new)[name], fresh[name])


def test_one_slot_of_a_group_is_reset_where_it_is_and_under_jit() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    params = jax.device_put(
        {"a": jnp.ones(8), "b": jnp.ones(8)}, NamedSharding(mesh, P("data"))
    )
    tx = jopt.partition(
        {"x": jopt.adam(0.1), "y": jopt.adam(0.1)}, {"a": "x", "b": "y"}
    )
    state = jax.jit(tx.init)(params)
    _, state = jax.jit(tx.update)(params, state)
    eager = jopt.reset(tx, state, params, "^x/")
    jitted = jax.jit(lambda s, p: jopt.reset(tx, s, p, "^x/"))(state, params)
    chex.assert_trees_all_equal(eager, jitted)
    assert {name.split("/")[0] for name in changed(state, eager)} == {"x"}
    for new in (eager, jopt.set_counts(state, 5)):
        pairs = zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True)
        assert all(x.sharding.is_equivalent_to(y.sharding, x.ndim) for x, y in pairs)


@pytest.mark.parametrize(
    "where, params, text",
    [
        (
            "^scale_by_adam/xi",
            PARAMS,
            "matches no leaf; the paths are 'scale_by_adam/c",
        ),
        (lambda path, x: False, PARAMS, "chooses nothing of the state"),
        ("nu", PARAMS | {"more": jnp.ones(1)}, "'scale_by_adam/mu/more'"),
        ("nu", PARAMS | {"bias": jnp.ones(5)}, r"'scale_by_adam/mu/bias' is \(\(4,\)"),
    ],
)
def test_a_reset_that_does_not_fit_is_an_error(
    where: Any, params: Any, text: str
) -> None:
    tx = jopt.adam(0.1)
    with pytest.raises(ValueError, match=text):
        jopt.reset(tx, tx.init(PARAMS), params, where)


def test_after_setting_the_counts_adam_is_where_that_of_optax_is() -> None:
    schedule = jopt.linear_schedule(0.1, 0.0, 200)
    tx = jopt.adam(schedule)
    theirs = optax.adam(optax.linear_schedule(0.1, 0.0, 200))
    state = jopt.set_counts(trained(tx), 100)
    with jax.numpy_dtype_promotion("standard"):
        (adam, rate) = trained(theirs)
        count = jnp.asarray(100, jnp.int32)
        at_100 = (adam._replace(count=count), rate._replace(count=count))
        expected, _ = theirs.update(GRADS[3], at_100)
    found, state = tx.update(GRADS[3], state)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-8)
    assert float(jopt.hyperparams(state)["learning_rate"]) == pytest.approx(0.05)


def test_all_step_counts_are_set_and_nothing_else() -> None:
    inner = jopt.conditionally_transform(jopt.adam(0.1), lambda step: step > 0)
    tx = jopt.skip_nonfinite(jopt.accumulate(inner, steps=2))
    state = trained(tx)
    where = "inner_state/inner_opt_state/"
    names = {
        "inner_state/gradient_step",
        f"{where}step",
        f"{where}inner_state/scale_by_adam/count",
        f"{where}inner_state/scale_by_learning_rate/count",
    }
    assert changed(state, jopt.set_counts(state, 50)) == names
    named = jopt.chain(count=jopt.trace(0.9), step=jopt.scale_by_adam()).init(PARAMS)
    assert changed(named, jopt.set_counts(named, 50)) == {"step/count"}
    jitted = jax.jit(jopt.set_counts)(state, jnp.asarray(50))
    chex.assert_trees_all_equal(jitted, jopt.set_counts(state, 50))


def test_rows_that_are_behind_have_missed_as_many_steps_as_before() -> None:
    params = {"table": jnp.ones((3, 2))}
    tx = jopt.catch_up(jopt.sgd(0.5, momentum=0.5), "table")
    state = tx.init(params)
    for row in (0, 1):
        g = {"table": jopt.RowSparse(jnp.array([row]), jnp.ones((1, 2)), 3)}
        updates, state = tx.update(g, state, params)
        params = jopt.apply_updates(params, updates)
    expected = jopt.eval_params(tx, state, params)
    moved = jopt.set_counts(state, 40)
    assert int(moved.count) == 40
    assert not np.array_equal(params["table"], expected["table"])
    chex.assert_trees_all_equal(jopt.eval_params(tx, moved, params), expected)


@pytest.mark.parametrize(
    "state, n, kind, text",
    [
        (jopt.adam(0.1).init(PARAMS), -1, ValueError, "n must be >= 0, got n=-1"),
        (jopt.adam(0.1).init(PARAMS), 1.5, TypeError, "n must be a whole number"),
        (jopt.trace(0.9).init(PARAMS), 1, KeyError, "the state has no step count"),
        (
            jopt.adam(0.1).init(PARAMS),
            jnp.ones(()),
            TypeError,
            "n must be one whole number",
        ),
    ],
)
def test_a_count_is_a_whole_number(state: Any, n: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        jopt.set_counts(state, n)


# The number of steps.

LABELS = {"bias": "x", "kernel": "y", "scalar": "x"}
# A transformation, and its steps after three gradients.
COUNTED = [
    (jopt.adam(0.1), 3),
    (jopt.sgd(0.1), 3),
    (jopt.sgd(jopt.linear_schedule(0.1, 0.0, 5)), 3),
    (jopt.scale_by_adam(), 3),
    (jopt.ema(0.9), 3),
    (jopt.partition({"x": jopt.adam(0.1), "y": jopt.set_to_zero()}, LABELS), 3),
    (jopt.partition({"x": jopt.adam(0.1), "y": jopt.muon(0.1)}, LABELS), 3),
    (jopt.masked(jopt.lion(0.1), "kernel"), 3),
    (jopt.monitor(jopt.dynamic_loss_scale(jopt.adam(0.1)), keep=True), 3),
    (jopt.lookahead(jopt.adam(0.1), 2), 3),
    (jopt.accumulate(jopt.adam(0.1), 2), 1),
    (jopt.accumulate(jopt.trace(0.9), 2), 1),
    (jopt.chain(jopt.accumulate(jopt.adam(0.1), 3), jopt.params_ema(0.9)), 1),
    (jopt.chain(
        jopt.ema(0.9),
        jopt.accumulate(jopt.adam(0.1), 2),
        jopt.params_ema(0.9, each_gradient=True)), 1),
    (jopt.chain(jopt.ema(0.9), jopt.accumulate(jopt.trace(0.9), 2)), 1),
    # The learning rate is after the sum, and is used for each gradient.
    (jopt.chain(jopt.accumulate(jopt.trace(0.9), 2), jopt.sgd(0.1)), 3),
    (jopt.conditionally_transform(jopt.adam(0.1), lambda step: step != 1), 2),
    (jopt.chain(jopt.trace(0.9), optax.scale_by_adam()), 3),
    (jopt.chain(jopt.accumulate(jopt.sgd(0.1), 2), optax.scale_by_adam()), 1),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "steps"), COUNTED)
def test_steps_are_counted_where_the_learning_rate_is_used(tx: Any, steps: int) -> None:
    assert jopt.iterations(tx.init(PARAMS)) == 0
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        state = trained(tx)
    for found in (jopt.iterations(state), jax.jit(jopt.iterations)(state)):
        assert found == steps
        assert found.dtype == jnp.int32
    together = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    np.testing.assert_array_equal(jopt.iterations(together), [steps] * 2)
    assert jopt.iterations(jopt.set_counts(state, 9)) == 9


class Foreign(NamedTuple):
    """A state of another library, whose step is a length."""

    step: Any


def test_a_field_that_is_called_step_and_is_not_whole_is_no_count() -> None:
    state = {"a": jopt.adam(0.1).init(PARAMS), "b": Foreign(jnp.float32(0.5))}
    after = jopt.set_counts(state, 7)
    assert after["b"].step == 0.5
    assert jopt.iterations(after) == 7
    with pytest.raises(KeyError, match="the state counts no steps"):
        jopt.iterations(state["b"])


def test_a_skipped_step_is_not_counted() -> None:
    tx = jopt.skip_nonfinite(jopt.adam(0.1))
    state = trained(tx)
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS[0])
    _, state = tx.update(bad, state, PARAMS)
    assert jopt.iterations(state) == 3


def test_the_steps_of_an_nnx_optimizer_are_counted() -> None:
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, jopt.adam(0.1), wrt=nnx.Param)
    grads = nnx.grad(lambda model: jnp.sum(model(jnp.ones((1, 2)))))(model)
    for step in range(3):
        assert jopt.iterations(optimizer.opt_state) == step
        optimizer.update(model, grads)


def test_without_one_count_of_steps_the_error_lists_what_there_is() -> None:
    for tx in (jopt.rprop(0.1), jopt.trace(0.9)):
        with pytest.raises(KeyError, match=r"the state counts no steps. It has \['"):
            jopt.iterations(trained(tx))
    rare = jopt.conditionally_transform(jopt.sgd(0.1), lambda step: step != 1)
    state = trained(jopt.partition({"x": rare, "y": jopt.sgd(0.1)}, LABELS))
    counts = (
        "x/inner_state/scale_by_learning_rate/count = 2, "
        "y/scale_by_learning_rate/count = 3"
    )
    with pytest.raises(KeyError, match=f"'iterations' is .* these differ: {counts}"):
        jopt.iterations(state)
    assert jax.jit(jopt.iterations)(state) == -1
