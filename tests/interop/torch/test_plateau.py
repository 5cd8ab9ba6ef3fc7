"""torch's ReduceLROnPlateau around optimizers, which changes the rate itself.

Where torch is installed, it is asked again for the recorded numbers.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch
from jopt.interop.torch import lr_scheduler
from tests.interop.torch.plateau_settings import KEPT, METRICS, RUNS, TARGETS
from tests.tools import golden_torch_plateau


ReduceLROnPlateau = lr_scheduler.ReduceLROnPlateau
WITHOUT_ROW = {"reduce_torch_rate": "takes a metric"}
RECORDED = json.loads(golden_torch_plateau.FILE.read_text())


def test_the_recorded_numbers_are_those_of_the_installed_torch():
    pytest.importorskip("torch")
    for name, found in golden_torch_plateau.all_steps().items():
        for kind, numbers in found.items():
            np.testing.assert_allclose(numbers, RECORDED[name][kind], 1e-9, 1e-12)


def made(run):
    """The transformation of a run."""
    groups = [{"params": "a"}, {"params": "b"}] if run.rates else None
    rate = list(run.rates) or run.arguments["lr"]
    known = {name: getattr(lr_scheduler, name) for name in lr_scheduler.__all__}
    known["ChainedScheduler"] = functools.partial(known["ChainedScheduler"], lr=rate)
    lr = eval(run.scheduler, known | {"o": rate}) if run.scheduler else rate
    arguments = run.arguments | {"lr": lr}
    optimizer = getattr(torch, run.optimizer)(groups, **arguments)
    return ReduceLROnPlateau(optimizer, **run.plateau)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_the_rates_and_parameters_of_torch(name):
    run = RUNS[name]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        tx, params = made(run), {"a": jnp.ones(3), "b": jnp.ones(2)}

        def step(carry, given):
            params, state = carry
            target, metric = given

            def loss(params):
                x = jnp.concatenate([params["a"], params["b"]])
                return jnp.sum((x - target) ** 2 + jnp.log1p(x**2))

            value, grads = jax.value_and_grad(loss)(params)
            extra = {"value": metric}
            if run.optimizer == "LBFGS":
                extra = {"value": value, "value_fn": loss, "metric": metric}
            updates, state = tx.update(grads, state, params, **extra)
            params = jopt.apply_updates(params, updates)
            numbers = jopt.hyperparams(state)
            rates = [x for n, x in numbers.items() if n.endswith("learning_rate")]
            return (params, state), (params, rates)

        # What torch's plateau is told after a step, ours is told with the next.
        first = -1e9 if run.plateau.get("mode") == "max" else 1e9
        given = jnp.asarray(TARGETS), jnp.asarray([first, *METRICS[:-1]])
        start = params, tx.init(params)
        found, rates = jax.jit(lambda *x: jax.lax.scan(step, *x)[1])(start, given)
    expected = RECORDED[name]
    found = np.concatenate([found["a"], found["b"]], axis=1)[KEPT]
    np.testing.assert_allclose(found, expected["params"], 1e-9, 1e-12)
    if run.optimizer == "Rprop":
        assert not rates
    else:
        np.testing.assert_allclose(np.transpose(rates), expected["rates"], 1e-12, 1e-15)


def test_a_scheduled_rate_is_reduced_from_a_warmup_at_0_on_and_across_a_jump():
    schedule = jopt.linear_schedule(0.0, 1.0, 4)
    for door in (ReduceLROnPlateau, jopt.interop.keras.ReduceLROnPlateau):
        tx = door(jopt.sgd(schedule), factor=0.5, patience=1)
        p, state = jnp.zeros(1), tx.init(jnp.zeros(1))
        rates = []
        for step in range(6):
            if step == 5:
                state = jopt.set_counts(state, 2)
            _, state = tx.update(jnp.ones(1), state, p, value=1.0)
            rates.append(float(jopt.hyperparams(state)["learning_rate"]))
        torchs = [0, 0.25, 0.25, 0.375, 0.25, 0.125]
        keras = [0, 0.125, 0.125, 0.09375, 0.0625, 0.015625]
        expected = torchs if door is ReduceLROnPlateau else keras
        np.testing.assert_allclose(rates, expected, 1e-6)
        with pytest.raises(ValueError, match="'learning_rate' is scheduled by"):
            jopt.set_hyperparams(tx, state, learning_rate=0.1)


def test_a_rate_changes_once_in_the_steps_that_accumulate():
    schedule = lr_scheduler.CosineAnnealingLR(1.0, 8, 0.1)
    tx = ReduceLROnPlateau(jopt.accumulate(torch.SGD(lr=schedule), 3), patience=99)
    p, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    for step in range(7):
        _, state = tx.update(jnp.ones(1), state, p, value=1.0)
        rate = jopt.hyperparams(state)["learning_rate"]
        np.testing.assert_allclose(rate, schedule(step // 3), 1e-6)


def test_a_rate_that_is_set_goes_on_from_there():
    tx = ReduceLROnPlateau(torch.ASGD(lr=1.0), factor=0.5, patience=0)
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))) == tx
    p, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.ones(1), state, p, value=1.0)
    state = jopt.set_hyperparams(tx, state, learning_rate=0.2)
    _, state = tx.update(jnp.ones(1), state, p, value=1.0)
    np.testing.assert_allclose(jopt.hyperparams(state)["learning_rate"], 0.1, 1e-6)


def test_derived_rates_follow_their_own_schedule():
    schedule = jopt.exponential_decay(0.1, 1, 0.5)
    tx = ReduceLROnPlateau(
        jopt.muon(schedule, adam_learning_rate=2.0 * schedule), patience=0
    )
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state, params, value=1.0)
    found = {n.split("/")[1]: x for n, x in jopt.hyperparams(state).items()}
    np.testing.assert_allclose([found["adam"], found["muon"]], [0.01, 0.005], 1e-6)


@jopt.transformation
def by_another_name(peak: jopt.ScalarOrSchedule):
    return jopt.sgd(peak)


def test_what_it_cannot_reduce_is_refused():
    schedule = jopt.linear_schedule(1.0, 0.0, 4)
    with pytest.raises(ValueError, match="only a schedule that is given as learning"):
        ReduceLROnPlateau(by_another_name(schedule))
    with pytest.raises(KeyError, match="no hyperparameter"):
        ReduceLROnPlateau(jopt.scale(0.1)).init(jnp.ones(1))
    groups = [{"params": "a"}, {"params": "b"}]
    for tx, many in ((torch.SGD(groups), 2), (torch.SGD(), 1)):
        with pytest.raises(ValueError, match=f"each of the {many} parameter groups"):
            ReduceLROnPlateau(tx, min_lr=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="min_lr must be >= 0"):
        ReduceLROnPlateau(torch.SGD(), min_lr=[-0.1])
    tx = ReduceLROnPlateau(torch.SGD())
    with pytest.raises(TypeError, match="needs the argument 'value'"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))
