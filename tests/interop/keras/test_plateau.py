"""Keras's ReduceLROnPlateau against the callback of Keras."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
import jopt.interop.keras.plateau  # which registers its factory
from jopt.interop import keras
from tests.laws.case import Case
from tests.parity.plateau import METRICS, ROWS, Row
from tests.transforms.test_plateau import golden
from tests.twins.base import double


def reduced_sgd(
    params: dict[str, Any],
    grads: Iterable[dict[str, Any]],
    *,
    value: Any,
    **_: Any,
) -> Iterator[dict[str, Any]]:
    """SGD with the rate inside the momentum; every bad second value halves the rate."""
    rate, best, bad = 0.1, math.inf, 0
    steps = {name: np.zeros_like(double(p)) for name, p in params.items()}
    for g in grads:
        current = float(value({n: double(p) for n, p in params.items()}))
        if current < best - 1e-4:
            best, bad = current, 0
        else:
            bad += 1
            if bad >= 2:
                rate, bad = max(rate / 2, 0.02), 0
        steps = {n: 0.9 * x - rate * double(g[n]) for n, x in steps.items()}
        yield steps


CASES = [
    Case(
        "ReduceLROnPlateau",
        {
            "optimizer": keras.SGD(0.1, momentum=0.9),
            "factor": 0.5,
            "patience": 2,
            "min_lr": 0.02,
        },
        learning_rate=None,
        twin=reduced_sgd,
        looks_at_all_leaves=True,
        needs_value=True,
    )
]

KERAS = [row for row in ROWS if row.library == "keras"]


def options_of(row: Row) -> dict[str, Any]:
    return eval(f"dict({row.oracle})")


@pytest.mark.parametrize("row", KERAS, ids=lambda row: row.oracle)
def test_it_sets_the_rates_of_keras(row: Row) -> None:
    tx = keras.ReduceLROnPlateau(keras.SGD(1.0, momentum=0.9), **options_of(row))
    p = {"w": jnp.zeros(())}

    def step(state: Any, value: Any) -> Any:
        _, state = tx.update(p, state, p, value=value)
        return state, jopt.hyperparams(state)["learning_rate"]

    run = jax.jit(lambda values: jax.lax.scan(step, tx.init(p), values)[1])
    for name in row.of:
        found = run(jnp.asarray(METRICS[name], jnp.float32))
        np.testing.assert_allclose(found, golden("keras")[row][name], 3e-6)


LOSSES = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0]
MADE = {
    "SGD with momentum": "SGD(0.1, momentum=0.9)",
    "its decay": "SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1)",
    "RMSprop with momentum": "RMSprop(0.1, momentum=0.9, weight_decay=0.1)",
    "Adam": "AdamW(0.1, weight_decay=0.1, clipnorm=0.5)",
    "Ftrl": "Ftrl(0.1, weight_decay=0.1)",
    "Schedule-Free": "ScheduleFreeAdamW(0.1)",
    "accumulation": "SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)",
    "groups": "MultiOptimizer(OptimizerMap(SGD(0.1, momentum=0.9), {'b': Adam(0.02)}))",
    "a loss scale": "LossScaleOptimizer(SGD(0.1, momentum=0.9), initial_scale=1.0)",
}
GRADIENTS = np.random.default_rng(0).normal(size=(len(LOSSES), 2, 3)).astype("float32")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("text", MADE.values(), ids=MADE)
def test_training_goes_as_with_the_callback_of_keras(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    real = pytest.importorskip("keras")
    options = {"factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": 0.015}
    optimizer = eval(text, dict(vars(real.optimizers)))
    model = real.Sequential()
    model.optimizer = optimizer
    callback = real.callbacks.ReduceLROnPlateau("loss", mode="min", **options)
    callback.set_model(model)
    callback.on_train_begin()
    variables = [real.Variable(np.ones(3, "float32"), name=name) for name in "ab"]
    optimizer.build(variables)

    tx = keras.ReduceLROnPlateau(eval(text, dict(vars_of(keras))), **options)
    params = {name: jnp.ones(3) for name in "ab"}
    state = tx.init(params)
    for epoch, (loss, g) in enumerate(zip(LOSSES, GRADIENTS, strict=True)):
        callback.on_epoch_end(epoch, {"loss": loss})
        # Its loss scale works without state only on this backend.
        values, kept = optimizer.stateless_apply(
            [x.value for x in optimizer.variables],
            [real.ops.convert_to_tensor(x) for x in g],
            [x.value for x in variables],
        )
        for x, y in zip(variables, values, strict=True):
            x.assign(y)
        for x, y in zip(optimizer.variables, kept, strict=True):
            x.assign(y)
        grads = dict(zip("ab", jnp.asarray(g), strict=True))
        params, state = jopt.step(tx, grads, state, params, value=loss)
        for x, y in zip(variables, params.values(), strict=True):
            np.testing.assert_allclose(x, y, 2e-6, 2e-6)
        inner = getattr(optimizer, "optimizers", [optimizer])
        theirs = {float(x.learning_rate) for x in inner}
        ours = jopt.hyperparams(state)
        rates = {float(x) for n, x in ours.items() if n.endswith("learning_rate")}
        np.testing.assert_allclose(sorted(rates), sorted(theirs), 1e-6)


def vars_of(module: Any) -> Any:
    return {name: getattr(module, name) for name in module.__all__}


def test_a_momentum_keeps_the_steps_of_the_old_rate() -> None:
    tx = keras.ReduceLROnPlateau(keras.SGD(1.0, momentum=0.5), 0.1, patience=1)
    p, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    found = []
    for loss in (1.0, 1.0):
        updates, state = tx.update(jnp.ones(1), state, p, value=loss)
        found.append(float(updates[0]))
    np.testing.assert_allclose(found, [-1.0, -0.5 - 0.1], 1e-6)


def test_the_rate_may_be_set_and_does_not_rise_to_the_lowest() -> None:
    tx = keras.ReduceLROnPlateau(keras.Adam(1.0), 0.5, 1, min_lr=0.1)
    p, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    found = []
    for rate in (1.0, 0.15, 0.05):
        state = jopt.set_hyperparams(tx, state, learning_rate=rate)
        _, state = tx.update(jnp.ones(1), state, p, value=1.0)
        found.append(float(jopt.hyperparams(state)["learning_rate"]))
    np.testing.assert_allclose(found, [1.0, 0.1, 0.05], 1e-6)


def test_a_scheduled_rate_is_multiplied_inside_a_momentum() -> None:
    schedule = keras.ExponentialDecay(1.0, 1, 0.5)
    tx = keras.ReduceLROnPlateau(keras.SGD(schedule, momentum=0.5), 0.1, patience=1)
    p, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    found = []
    for _ in range(3):
        updates, state = tx.update(jnp.ones(1), state, p, value=1.0)
        found.append((float(jopt.hyperparams(state)["learning_rate"]), *updates))
    expected = [(1.0, -1.0), (0.05, -0.5 - 0.05), (0.0025, -0.275 - 0.0025)]
    np.testing.assert_allclose(found, expected, 1e-6)


def test_what_it_cannot_reduce_is_refused() -> None:
    with pytest.raises(KeyError, match="no hyperparameter"):
        keras.ReduceLROnPlateau(jopt.scale(0.1)).init(jnp.ones(1))
    tx = keras.ReduceLROnPlateau(keras.SGD())
    with pytest.raises(TypeError, match="needs the argument 'value'"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))
    for options, message in (
        ({"factor": 1.0}, "factor must be in"),
        ({"mode": "auto"}, "mode must be"),
        ({"min_lr": -1.0}, "min_lr must be >= 0"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            keras.ReduceLROnPlateau(keras.SGD(), **options)  # type: ignore[arg-type]
