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


def test_a_rate_of_0_goes_through_every_scheduler_that_torch_has_for_it():
    restarts = lr_scheduler.CosineAnnealingWarmRestarts(0.0, T_0=6, eta_min=0.01)
    np.testing.assert_allclose(restarts(jnp.arange(9)), RISING, 1e-6, 1e-9)
    chained = lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(0.0, 0.9), lr_scheduler.StepLR(0.0, 3)], 0.0
    )
    assert not chained(jnp.arange(9)).any()
    plateau = lr_scheduler.ReduceLROnPlateau(0.0, patience=0, min_lr=0.1)
    tx, params = jopt.chain(torch.SGD(lr=0.0), plateau), jnp.ones(1)
    state = tx.init(params)
    for value in (1.0, 2.0, 2.0):
        updates, state = tx.update(params, state, params, value=value)
        assert updates == 0
    with pytest.raises(ValueError, match="lr must be > 0"):
        lr_scheduler.ChainedScheduler([restarts], 0.0)


# What CosineAnnealingWarmRestarts(T_0=6, eta_min=0.01) makes of the rate 0 in torch.
RISING = [
    *(0.0, 0.000669872981077806, 0.0025, 0.005, 0.0075, 0.00933012701892219),
    *(0.0, 0.000669872981077806, 0.0025),
]


def test_the_recorded_rise_is_that_of_the_installed_torch():
    library = pytest.importorskip("torch")
    optimizer = library.optim.SGD([library.ones(1, requires_grad=True)], lr=0.0)
    scheduler = library.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0=6, eta_min=0.01
    )
    for expected in RISING:
        np.testing.assert_allclose(scheduler.get_last_lr(), expected, 1e-13, 1e-16)
        optimizer.step()
        scheduler.step()


def test_schedulers_of_lists_give_one_schedule_for_each_group():
    rates, f = [0.5, 0.25], lr_scheduler
    warmup, decay = f.LinearLR(rates, 0.5, total_iters=4), f.ExponentialLR(rates, 0.5)
    pairs = list(zip(warmup, decay, strict=True))
    alone = [f.SequentialLR(list(pair), [4]) for pair in pairs]
    assert f.SequentialLR([warmup, decay], [4]) == alone
    assert f.SequentialLR(rates, [warmup, decay], [4]) == alone
    assert f.SequentialLR(0.5, schedulers=[warmup, decay], milestones=[4]) == alone
    chained = [
        f.ChainedScheduler(list(pair), rate)
        for pair, rate in zip(pairs, rates, strict=True)
    ]
    assert f.ChainedScheduler([warmup, decay], rates) == chained
    assert f.ChainedScheduler((warmup, decay), lr=rates) == chained
    tx = torch.SGD([{"params": "bias"}, {"params": ""}], lr=alone)
    assert tx == torch.SGD([{"params": "bias"}, {"params": ""}], lr=tuple(alone))
    with pytest.raises(ValueError, match=r"one schedule for each .*have \[2, 1\]"):
        f.SequentialLR([warmup, decay[:1]], [4])
    with pytest.raises(ValueError, match="2 values of schedulers, 3 values of lr"):
        f.ChainedScheduler([warmup, decay], [0.5, 0.25, 0.1])


def test_each_group_has_the_rates_of_a_sequence_in_torch():
    library = pytest.importorskip("torch")
    groups = [{"params": [library.ones(1, requires_grad=True)]} for _ in range(2)]
    groups[0]["lr"] = 0.02
    optimizer = library.optim.SGD(groups, lr=0.1)
    schedulers = library.optim.lr_scheduler
    scheduler = schedulers.SequentialLR(
        optimizer,
        [schedulers.LinearLR(optimizer, 0.5), schedulers.ExponentialLR(optimizer, 0.9)],
        [3],
    )
    rates = [0.02, 0.1]
    ours = lr_scheduler.SequentialLR(
        rates,
        [lr_scheduler.LinearLR(rates, 0.5), lr_scheduler.ExponentialLR(rates, 0.9)],
        [3],
    )
    for step in range(7):
        found = [float(schedule(step)) for schedule in ours]
        expected = [group["lr"] for group in optimizer.param_groups]
        np.testing.assert_allclose(found, expected, 1e-6)
        optimizer.step()
        scheduler.step()


def test_a_chain_inside_a_chain_is_one_chain():
    f = lr_scheduler
    exponential, steps = f.ExponentialLR(0.5, 0.9), f.StepLR(0.5, 3)
    cosine = f.CosineAnnealingLR(0.5, 7)
    for outer, inner in [(exponential, [steps, steps]), (exponential, [steps, cosine])]:
        nested = f.ChainedScheduler([outer, f.ChainedScheduler(inner, 0.5)], 0.5)
        assert nested == f.ChainedScheduler([outer, *inner], 0.5)


def test_a_sequence_with_an_average_is_a_value():
    f = lr_scheduler
    parts = [f.ExponentialLR(0.5, 0.5), f.SWALR(0.5, 0.25, 4)]
    sequence = f.SequentialLR(parts, [2])
    # From the rate before the milestone, 0.25, and not from its own.
    np.testing.assert_allclose(sequence(jnp.arange(8))[1:], 0.25, 1e-6)
    assert pickle.loads(pickle.dumps(sequence)) == sequence
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(sequence)))) == (
        sequence
    )
    chained = f.ChainedScheduler([sequence, f.StepLR(0.5, 3)], 0.5)
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(chained)))) == chained
    rates = jax.vmap(lambda lr: f.SequentialLR([f.StepLR(lr, 3), parts[1]], [2])(3))
    assert rates(jnp.array([0.5, 1.0])).shape == (2,)


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
