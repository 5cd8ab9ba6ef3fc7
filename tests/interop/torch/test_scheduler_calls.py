"""Schedulers' calls that torch allows and refuses: the same here, with its numbers.

The recorded rates are those of torch 2.13, before some of its steps. Where torch is
installed, it is asked again.
"""

import functools
import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch
from jopt.interop.torch import lr_scheduler
from tests.parity import torch_front_door


STEPS = np.array([0, 1, 4, 8, 13, 39])
NAMES = set(torch_front_door.SCHEDULERS) - {"ReduceLROnPlateau"}
# The rates by call, where torch has the optimizer in front; its rate is 0.1.
ALLOWED = json.loads(Path(__file__).with_name("scheduler_calls.json").read_text())


def own(text, width=np.float64):
    """The rates that a call gives here."""
    known = {n: functools.partial(getattr(lr_scheduler, n), 0.1) for n in NAMES}
    known |= {n: getattr(lr_scheduler, n) for n in ("CyclicLR", "OneCycleLR")}
    known["ChainedScheduler"] = functools.partial(lr_scheduler.ChainedScheduler, lr=0.1)
    x64 = jax.enable_x64(width == np.float64)
    with x64, jax.numpy_dtype_promotion("standard"):
        schedule = eval(text, known)
        rates = np.asarray(jax.jit(schedule)(jnp.asarray(STEPS)))
        # One at a time, and not compiled, they are the same.
        last = schedule(jnp.asarray(STEPS[-1]))
    np.testing.assert_allclose(last, rates[-1], 1e-6, 1e-15)
    return rates


def theirs(text):
    """The rates that it gives in torch."""
    library = pytest.importorskip("torch")
    optimizer = library.optim.SGD([library.ones(1, requires_grad=True)], lr=0.1)
    known = vars(library.optim.lr_scheduler) | vars(library.optim.swa_utils)
    known = {n: functools.partial(known[n], optimizer) for n in NAMES}
    for n in ("CyclicLR", "OneCycleLR"):
        known[n] = functools.partial(known[n], cycle_momentum=False)
    known["ChainedScheduler"] = library.optim.lr_scheduler.ChainedScheduler
    scheduler, rates = eval(text, known), []
    for _ in range(STEPS[-1] + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)[STEPS]


@pytest.mark.parametrize("text", ALLOWED)
def test_a_call_that_torch_allows_has_its_rates(text):
    np.testing.assert_allclose(own(text), ALLOWED[text], 1e-13, 2e-15)
    np.testing.assert_allclose(own(text, np.float32), ALLOWED[text], 3e-6, 1e-8)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.parametrize("text", ALLOWED)
def test_the_recorded_rates_are_those_of_the_installed_torch(text):
    np.testing.assert_allclose(theirs(text), ALLOWED[text], 1e-13, 2e-15)


REFUSED = [
    ("LinearLR(start_factor=0.0)", "start_factor must be > 0"),
    ("LinearLR(start_factor=1.5)", "start_factor must be in"),
    ("ConstantLR(factor=1.5)", r"factor must be in \[0, 1\], got factor=1.5"),
    ("SWALR(swa_lr=0.05, anneal_epochs=-1)", "anneal_epochs must be >= 0"),
    ("SWALR(swa_lr=0.05, anneal_epochs=0, anneal_strategy='no')", "anneal_strategy"),
    ("CyclicLR(base_lr=0.1, max_lr=0.2, mode='no')", "mode must be one of"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_torch_refuses_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        own(text)


@pytest.mark.parametrize("text", [text for text, _ in REFUSED])
def test_torch_refuses_it(text):
    with pytest.raises(ValueError):
        theirs(text)


def test_a_chain_with_a_cosine_is_a_value():
    chained = lr_scheduler.ChainedScheduler(
        [lr_scheduler.CosineAnnealingLR(0.1, 7), lr_scheduler.ExponentialLR(0.1, 0.9)],
        0.1,
    )
    assert pickle.loads(pickle.dumps(chained)) == chained
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(chained)))) == chained
    tx = torch.SGD(lr=chained)
    state = tx.init(jnp.ones(1))
    _, state = tx.update(jnp.ones(1), state)
    np.testing.assert_allclose(jopt.hyperparams(state)["learning_rate"], 0.1, 1e-6)


def test_lists_give_one_schedule_for_each_group():
    f, g = (lambda step: 1.0), (lambda step: 1 / (1 + step))
    rates = lr_scheduler.LambdaLR([0.5, 0.25], [f, g])
    alone = [lr_scheduler.LambdaLR(0.5, f), lr_scheduler.LambdaLR(0.25, g)]
    assert rates == alone
    assert lr_scheduler.LambdaLR(0.5, (f, g))[0] == alone[0]
    groups = [{"params": "bias"}, {"params": ""}]
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    tx = torch.SGD(groups, lr=rates)
    updates, state = tx.update(params, tx.init(params), params)
    updates, _ = tx.update(params, state, params)
    assert updates == {"bias": -0.5, "kernel": -0.125}
    cycles = lr_scheduler.CyclicLR([0.0, 0.5], max_lr=(1.0, 1.5), step_size_up=2)
    assert [float(cycle(1)) for cycle in cycles] == [0.5, 1.0]
    plateaus = lr_scheduler.ReduceLROnPlateau([0.5, 0.25], min_lr=[0.25, 0.0625])
    scales = [plateau.recipe.arguments["min_scale"] for plateau in plateaus]
    assert scales == [0.5, 0.25]
    with pytest.raises(ValueError, match="2 values of lr, 3 values of lr_lambda"):
        lr_scheduler.LambdaLR([0.5, 0.25], [f, f, g])


def test_each_group_has_the_rates_of_a_list_in_torch():
    library = pytest.importorskip("torch")
    groups = [{"params": [library.ones(1, requires_grad=True)]} for _ in range(2)]
    groups[0]["lr"] = 0.02
    optimizer = library.optim.SGD(groups, lr=0.1)
    scheduler = library.optim.lr_scheduler.LambdaLR(
        optimizer, [lambda e: 0.5**e, lambda e: 1 / (1 + e)]
    )
    ours = lr_scheduler.LambdaLR(
        [0.02, 0.1], [lambda step: 0.5**step, lambda step: 1 / (1 + step)]
    )
    for step in range(4):
        found = [float(schedule(step)) for schedule in ours]
        np.testing.assert_allclose(found, scheduler.get_last_lr(), 1e-6)
        optimizer.step()
        scheduler.step()


def test_products_without_an_end_go_on_beyond_their_table():
    endless = jopt.multiplicative_schedule(0.5, lambda step: 0.9999)
    long = jopt.multiplicative_schedule(0.5, lambda step: 0.9999, 12_000)
    steps = jnp.array([0, 1, 9_999, 10_000, 10_001, 12_000])
    np.testing.assert_allclose(jax.jit(endless)(steps), long(steps), 1e-4)
    np.testing.assert_allclose(endless(10_002), 0.5 * 0.9999**10_002, 1e-5)
    assert endless(jnp.zeros(0, jnp.int32)).shape == (0,)

    def factor(step):
        return 0.5 if step < 3 else 1.0

    assert float(lr_scheduler.MultiplicativeLR(0.5, factor, 9)(8)) == 0.125
    with pytest.raises(
        TypeError, match=r"needs the value of the step.*give total_steps"
    ):
        lr_scheduler.MultiplicativeLR(0.5, factor)


def test_a_plateau_with_the_factor_0_goes_to_the_lowest_rate():
    tx = jopt.chain(
        torch.SGD(lr=0.5),
        lr_scheduler.ReduceLROnPlateau(0.5, factor=0.0, patience=0, min_lr=0.125),
    )
    params = jnp.ones(1)
    state, steps = tx.init(params), []
    for value in (1.0, 2.0, 2.0):
        updates, state = tx.update(params, state, params, value=value)
        steps.append(float(updates[0]))
    assert steps == [-0.5, -0.125, -0.125]


def test_momentum_turns_by_a_function_of_the_cycle():
    momentum = lr_scheduler.CyclicMomentum(step_size_up=2, scale_fn=lambda c: 1 / c)
    found = [float(momentum(step)) for step in (0, 2, 4, 6)]
    np.testing.assert_allclose(found, [0.9, 0.8, 0.9, 0.85], 1e-6)
