"""ReduceLROnPlateau: the libraries' learning rates, and what is better than theirs."""

import contextlib
import functools
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import Case
from tests.parity.plateau import (
    GOLDEN,
    LIBRARIES,
    METRICS,
    ROWS,
    by_row,
    oracle,
    rows_of,
)
from tests.public import public
from tests.twins.base import Scalar, at, double


def reduce_on_plateau(
    params: dict[str, Any],
    grads: Iterable[dict[str, Any]],
    *,
    value: Callable[[Any], Any],
    factor: Scalar = 0.1,
    patience: int = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: Scalar = 0.0,
    rule: str = "optax",
    mode: str = "min",
    eps: Scalar = 0.0,
) -> Iterator[dict[str, Any]]:
    """Each rule as the loop of the library that it is called after; of whole trees."""
    sign = 1 if mode == "min" else -1
    scale, best, bad, resting, seen = 1.0, sign * math.inf, 0, 0, []
    for t, tree in enumerate(grads, start=1):
        seen.append(float(value({n: double(p) for n, p in params.items()})))
        if len(seen) == accumulation_size:
            current = sum(seen) / len(seen)
            seen = []
            bound = best * (1 - sign * at(rtol, t)) - sign * at(atol, t)
            better = sign * current < sign * bound
            if better:
                best, bad = current, 0
            lower = max(scale * at(factor, t), at(min_scale, t))
            lower = lower if scale - lower > at(eps, t) else scale
            if rule == "keras":
                if resting > 0:
                    resting, bad = resting - 1, 0
                if not better and resting == 0:
                    bad += 1
                    if bad >= patience:
                        scale, resting, bad = lower, cooldown, 0
            else:
                bad += not better
                if resting > 0:
                    resting, bad = resting - 1, 0
                if bad > patience if rule == "torch" else bad == patience > 0:
                    scale, resting, bad = lower, cooldown, 0
        yield {name: scale * double(g) for name, g in tree.items()}


CASES = [
    Case(
        "reduce_on_plateau",
        options,
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    )
    for options in (
        {"factor": 0.5, "patience": 3, "cooldown": 2},
        {
            "factor": 0.3,
            "patience": 2,
            "rtol": 0.0,
            "atol": 0.01,
            "cooldown": 2,
            "accumulation_size": 2,
            "min_scale": 0.01,
            "rule": "keras",
            "mode": "max",
        },
    )
]

# After up to 60 roundings of the scale.
RTOL = {"float32": 60 * 2.0**-23, "float64": 60 * 2.0**-52}


def scales(tx, values, dtype=jnp.float32):
    """The scale after each value, which is what becomes of an update of 1."""
    one = {"w": jnp.ones((), dtype)}

    def step(state, value):
        updates, state = tx.update(one, state, value=value)
        return state, (state.scale, updates["w"])

    def run(values):
        return jax.lax.scan(step, tx.init(one), values)[1]

    values = jnp.asarray(values)
    scale, update = jax.jit(run if values.ndim == 1 else jax.vmap(run))(values)
    np.testing.assert_array_equal(update, scale.astype(dtype))
    return np.asarray(scale)


@functools.cache
def golden(library):
    """The learning rates that each of a library's rows sets."""
    with np.load(GOLDEN) as file:
        recipes = [row.recipe for row in rows_of(library)]
        again = "run python -m tests.parity.plateau"
        assert file[f"{library}.rows"].tolist() == recipes, again
        return by_row(library, file[library])


@pytest.mark.parametrize("width", RTOL)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.library}-{row.jopt}")
def test_every_learning_rate_equals_the_library(row, width):
    x64 = width == "float64"
    with jax.enable_x64(True) if x64 else contextlib.nullcontext():
        tx = eval(f"reduce_on_plateau({row.jopt})", public(jopt))
        found = scales(tx, [METRICS[name] for name in row.of])
    assert found.dtype == width
    for name, rates in zip(row.of, found, strict=True):
        expected = golden(row.library)[row][name]
        np.testing.assert_allclose(rates, expected, RTOL[width], err_msg=name)


@pytest.mark.parametrize("library", LIBRARIES)
def test_golden_values_are_what_the_installed_library_gives(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    for row, metrics in by_row(library, oracle(library)).items():
        for name, values in metrics.items():
            again = golden(library)[row][name]
            np.testing.assert_allclose(values, again, 1e-12, err_msg=row.oracle)


def test_the_rules_differ_by_one_value():
    def first(rule):
        tx = jopt.reduce_on_plateau(0.5, patience=2, cooldown=2, rule=rule)
        return scales(tx, np.ones(10)).tolist()

    assert first("optax") == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    assert first("keras") == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert first("torch") == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("rule", ["optax", "keras", "torch"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_every_metric_does_what_the_twin_does(mode, rule):
    options = {"factor": 0.5, "patience": 2, "cooldown": 3, "accumulation_size": 2}
    options |= {"rule": rule, "mode": mode, "min_scale": 0.01, "atol": 0.001}
    found = scales(jopt.reduce_on_plateau(**options), list(METRICS.values()))
    grads = [{"w": np.ones(())}] * 60
    for (name, metric), rates in zip(METRICS.items(), found, strict=True):
        told = iter(metric)
        twin = reduce_on_plateau(
            {}, grads, value=lambda _, told=told: next(told), **options
        )
        expected = [updates["w"] for updates in twin]
        np.testing.assert_allclose(rates, expected, 1e-6, err_msg=name)


def test_a_value_that_is_not_a_number_is_never_the_best():
    for rule in ("optax", "keras", "torch"):
        tx = jopt.reduce_on_plateau(0.5, 3, rtol=0.0, rule=rule)
        falling = [np.nan, *np.linspace(2, 1, 20)]
        assert (scales(tx, falling) == 1).all()
        assert scales(tx, np.full(20, np.nan))[-1] < 0.1


def test_the_scale_is_a_float32_number_for_narrow_parameters():
    tx = jopt.reduce_on_plateau(0.3, patience=1)
    for dtype in (jnp.bfloat16, jnp.float16):
        found = scales(tx, np.ones(5), dtype)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, 0.3 ** np.arange(5), 1e-6)


def test_patience_is_in_epochs_if_an_epoch_is_what_counts_as_one_value():
    epochs = METRICS["noisy"]
    by_epoch = scales(jopt.reduce_on_plateau(0.5, 3, cooldown=2), epochs)
    tx = jopt.reduce_on_plateau(0.5, 3, cooldown=2, accumulation_size=7)
    by_step = scales(tx, np.repeat(epochs, 7))
    np.testing.assert_array_equal(by_step[6::7], by_epoch)
    # Within an epoch nothing happens.
    within = by_step.reshape(-1, 7)[1:, :6]
    np.testing.assert_array_equal(within.T, np.broadcast_to(by_epoch[:-1], (6, 59)))


def test_a_huge_value_does_not_overflow_a_mean():
    tx = jopt.reduce_on_plateau(0.5, 1, accumulation_size=3)
    state = tx.init(())
    for _ in range(3):
        _, state = tx.update((), state, value=3e38)
    np.testing.assert_allclose(state.best_value, 3e38, 1e-6)


def test_it_multiplies_the_learning_rate_in_a_chain_and_shows_its_scale():
    tx = jopt.chain(jopt.sgd(jopt.tunable(0.1)), jopt.reduce_on_plateau(0.5, 1))
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params, value=jnp.bfloat16(1))
    assert state["reduce_on_plateau"].scale == 0.25
    np.testing.assert_allclose(updates["w"], -0.025 * jnp.ones(2), 1e-6)
    shown = {"learning_rate": 0.1, "scale": 0.25, "effective_learning_rate": 0.025}
    for found in (jopt.hyperparams(state), jopt.metrics(state)):
        assert found.keys() == shown.keys()
        for name, value in shown.items():
            np.testing.assert_allclose(found[name], value, 1e-6, err_msg=name)


def test_its_numbers_may_change_while_it_runs():
    factor = jopt.piecewise_constant([3], [0.5, 0.1])
    tx = jopt.reduce_on_plateau(factor, 1, min_scale=jopt.tunable(0.1))
    np.testing.assert_allclose(scales(tx, np.ones(5)), [1, 0.5, 0.25, 0.1, 0.1], 1e-6)
    state = jopt.set_hyperparams(tx, tx.init(()), min_scale=0.75)
    for _ in range(2):
        _, state = tx.update((), state, value=1.0)
    assert state.scale == 0.75


def test_relative_to_a_negative_value_it_never_reduces_and_absolutely_it_does():
    # torch 2.13's ReduceLROnPlateau(patience=1) after twelve equal metrics, from rate
    # 1: threshold_mode "rel" and "abs". The twin is its loop.
    told, torch = np.full(12, -3.0), {"rel": 1.0, "abs": 1e-5}
    options = {"rel": {}, "abs": {"rtol": 0.0, "atol": 1e-4}}
    for mode, expected in torch.items():
        given = {"patience": 1, "rule": "torch"} | options[mode]
        for direction in ("min", "max"):
            tx = jopt.reduce_on_plateau(mode=direction, **given)
            np.testing.assert_allclose(scales(tx, told)[-1], expected, 1e-5)
            grads = [{"w": np.ones(())}] * len(told)
            twin = reduce_on_plateau(
                {}, grads, value=lambda _: -3.0, mode=direction, **given
            )
            np.testing.assert_allclose(list(twin)[-1]["w"], expected, 1e-12)


MISUSE = {
    "factor=1.0": "factor must be in [0, 1), got factor=1.0",
    "factor=-0.5": "factor must be in [0, 1), got factor=-0.5",
    "patience=-1": "patience must be >= 0, got patience=-1",
    "patience=2.5": "patience must be a whole number, got patience=2.5",
    "rtol=1.0": "rtol must be in [0, 1), got rtol=1.0",
    "rtol=-0.1": "rtol must be in [0, 1), got rtol=-0.1",
    "atol=-0.1": "atol must be >= 0 and finite, got atol=-0.1",
    "cooldown=-1": "cooldown must be >= 0, got cooldown=-1",
    "accumulation_size=0": "accumulation_size must be >= 1, got accumulation_size=0",
    "min_scale=1.5": "min_scale must be in [0, 1], got min_scale=1.5",
    "min_scale=float('nan')": "min_scale must be in [0, 1], got min_scale=nan",
    "eps=-1e-8": "eps must be >= 0 and finite, got eps=-1e-08",
    "rule='jax'": "rule must be one of 'optax', 'keras', 'torch', got rule='jax'",
    "mode='auto'": "mode must be one of 'min', 'max', got mode='auto'",
}


@pytest.mark.parametrize("text", MISUSE)
def test_misuse_is_an_error_that_says_what_is_allowed(text):
    with pytest.raises((ValueError, TypeError)) as error:
        eval(f"reduce_on_plateau({text})", public(jopt))
    assert str(error.value) == MISUSE[text]


def test_a_missing_value_or_one_that_is_no_number_is_an_error():
    tx = jopt.chain(jopt.sgd(0.1), jopt.reduce_on_plateau())
    params = jnp.ones(2)
    state = tx.init(params)
    with pytest.raises(TypeError, match="reduce_on_plateau needs the argument 'value'"):
        tx.update(params, state, params)
    with pytest.raises(TypeError, match=r"value must be one number, got Array"):
        tx.update(params, state, params, value=jnp.ones(2))
