"""Metrics: the numbers are right, their names stable, and unread ones cost nothing."""

from __future__ import annotations

import collections
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import as_dtype, draw


PARAMS, GRADS = as_dtype(draw(steps=4), jnp.float32)


def norm(tree: Any, names: tuple[str, ...] = ("bias", "kernel", "scalar")) -> float:
    flat = [np.asarray(tree[n], np.float64).ravel() for n in names]
    return float(np.linalg.norm(np.concatenate(flat)))


def test_a_monitor_measures_what_goes_in_and_what_comes_out() -> None:
    tx = jopt.monitor(jopt.chain(jopt.clip_by_global_norm(0.5), jopt.adamw(0.1)))

    @jax.jit
    def step(g: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(g, state, params)
        return updates, state, jopt.metrics(state)

    state = tx.init(PARAMS)
    for g in GRADS:
        updates, state, found = step(g, state, PARAMS)
        expected = {
            "learning_rate": 0.1,
            "gradient_norm": norm(g),
            "update_norm": norm(updates),
            "param_norm": norm(PARAMS),
            "update_ratio": norm(updates) / norm(PARAMS),
        }
        chex.assert_trees_all_close(dict(found), expected, rtol=1e-6)


def test_a_wrapper_with_a_tunable_number_has_its_metrics() -> None:
    plain = jopt.metrics(jopt.skip_spikes(jopt.sgd(0.1)).init(PARAMS))
    tx = jopt.skip_spikes(jopt.sgd(0.1), decay=jopt.tunable(0.9))
    found = jopt.metrics(tx.init(PARAMS))
    assert "total_skipped" in plain and plain.keys() <= found.keys()


def test_groups_are_measured_one_by_one() -> None:
    labels = jopt.rules(("kernel", "matrix"), ("", "rest"))
    tx = jopt.monitor(jopt.sgd(0.1), groups=labels)
    updates, state = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    found = jopt.metrics(state)
    for label, names in {"matrix": ("kernel",), "rest": ("bias", "scalar")}.items():
        for name, tree in {
            "gradient_norm": GRADS[0],
            "update_norm": updates,
            "param_norm": PARAMS,
        }.items():
            np.testing.assert_allclose(
                found[f"{name}/{label}"], norm(tree, names), rtol=1e-6
            )
    assert len(found) == 1 + 4 * 3


def test_a_clip_tells_its_factor_and_a_monitor_alone_what_passes() -> None:
    tx = jopt.chain(
        jopt.monitor(jopt.clip_by_global_norm(0.5)), jopt.sgd(0.1), jopt.monitor()
    )
    _, state = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    found = jopt.metrics(state)
    g = norm(GRADS[0])
    np.testing.assert_allclose(found["clip_factor"], 0.5 / g, rtol=1e-6)
    np.testing.assert_allclose(found["gradient_norm"], g, rtol=1e-6)
    np.testing.assert_allclose(found["monitor/update_norm"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found["monitor_2/update_norm"], 0.05, rtol=1e-6)


def test_wrappers_report_what_they_count() -> None:
    tx = jopt.monitor(
        jopt.dynamic_loss_scale(jopt.skip_nonfinite(jopt.adam(0.1))), keep=True
    )
    state = tx.init(PARAMS)
    names = list(jopt.metrics(state))
    for g in (GRADS[0], jax.tree.map(lambda x: x * jnp.nan, GRADS[0])):
        _, state = jax.jit(tx.update)(g, state, PARAMS)
        assert list(jopt.metrics(state)) == names
    found = jopt.metrics(state)
    path = "inner_state"
    assert found[f"{path}/total_notfinite"] == 1 and found["loss_scale"] == 2.0**14
    assert found["update_norm"] == 0 and jnp.isnan(found["gradient_norm"])


def kinds(compiled: Any) -> collections.Counter[str]:
    """What a compiled step consists of: operations with the shape of their results."""
    text = re.sub(r"%[\w.-]+", "%", compiled.as_text())
    operations = re.findall(r"= (\(?[\w\[\],{}() /*=]*?\)? [\w-]+)\(", text)
    return collections.Counter(operations)


def test_unread_metrics_are_not_computed() -> None:
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(0.1, weight_decay=0.1))
    labels = jopt.rules(("kernel", "matrix"), ("", "rest"))
    watched = jopt.chain(jopt.monitor(), jopt.monitor(tx, groups=labels))

    def compiled(tx: Any, read: bool = False) -> Any:
        def step(params: Any, state: Any, g: Any) -> Any:
            updates, state = tx.update(g, state, params)
            seen = jopt.metrics(state) if read else {}
            return jopt.apply_updates(params, updates), state, seen

        args = (PARAMS, tx.init(PARAMS), GRADS[0])
        return jax.jit(step, donate_argnums=(0, 1)).lower(*args).compile()

    assert kinds(compiled(watched)) == kinds(compiled(tx))
    assert kinds(compiled(watched, read=True)) != kinds(compiled(tx))
    leaves = jax.tree.map(jnp.shape, jax.tree.leaves(watched.init(PARAMS)))
    assert leaves == jax.tree.map(jnp.shape, jax.tree.leaves(tx.init(PARAMS)))


def test_metrics_can_be_read_in_a_scan() -> None:
    tx = jopt.monitor(jopt.sgd(0.1))

    def body(state: Any, g: Any) -> Any:
        _, state = tx.update(g, state, PARAMS)
        return state, jopt.metrics(state)["gradient_norm"]

    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *GRADS)
    _, norms = jax.lax.scan(body, tx.init(PARAMS), stacked)
    np.testing.assert_allclose(norms, [norm(g) for g in GRADS], rtol=1e-6)


def test_kept_metrics_can_be_read_anywhere_and_have_one_type() -> None:
    for inner in (jopt.sgd(0.1), jopt.accumulate(jopt.sgd(0.1), 2)):
        tx = jopt.monitor(inner, keep=True)
        state = tx.init(PARAMS)
        assert jnp.isnan(jopt.metrics(state)["gradient_norm"])
        _, new = jax.jit(tx.update)(GRADS[0], state, PARAMS)
        assert types(new) == types(state)
        np.testing.assert_allclose(
            jopt.metrics(new)["gradient_norm"], norm(GRADS[0]), rtol=1e-6
        )
    inside = jopt.accumulate(jopt.monitor(jopt.sgd(0.1), keep=True), 2)
    state = inside.init(PARAMS)
    for g in GRADS[:2]:
        _, state = jax.jit(inside.update)(g, state, PARAMS)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *GRADS[:2])
    np.testing.assert_allclose(
        jopt.metrics(state)["gradient_norm"], norm(mean), rtol=1e-6
    )


def test_kept_metrics_can_be_read_from_nnx() -> None:
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    tx = jopt.monitor(jopt.adam(1e-3), keep=True)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 3)))))(model)
    optimizer.update(model, grads)
    found = jopt.metrics(optimizer.opt_state)
    np.testing.assert_allclose(found["gradient_norm"], np.sqrt(3 * 4 + 4), rtol=1e-6)


def test_numbers_that_are_gone_are_an_error_that_says_what_to_do() -> None:
    tx = jopt.chain(jopt.monitor(jopt.sgd(0.1)))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"monitor at 'monitor'.*keep=True"):
        jopt.metrics(state)
    _, state = jax.jit(tx.update)(GRADS[0], state, PARAMS)
    with pytest.raises(ValueError, match="has no numbers here"):
        jopt.metrics(state)
    assert jopt.hyperparams(state)["learning_rate"] == np.float32(0.1)


def test_parameters_with_such_names_are_no_metrics() -> None:
    params = {
        "metrics": jnp.ones(2),
        "measured": jnp.ones(1),
        "loss_scale": jnp.ones(1),
    }
    state = jopt.adam(1e-3).init(params)
    assert list(jopt.metrics(state)) == ["learning_rate"]


def test_a_transformation_of_your_own_can_name_its_ratio() -> None:
    half = jopt.leafwise(lambda g: 0.5 * g, gain="half_factor")
    tx, g = jopt.monitor(half), jnp.array([3.0, 4.0])
    _, state = tx.update(g, tx.init(g))
    assert jopt.metrics(state)["half_factor"] == 0.5
