"""torch's optimizers, groups and schedulers by its own names; its numbers recorded."""

import functools
import importlib.util
import json
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch
from jopt.interop.torch import lr_scheduler
from jopt.interop.torch.groups import HOW_TO_RUN
from tests.catalogue import rows_of
from tests.parity import schedules, torch_front_door
from tests.parity.numbers import assert_same, recorded, trajectory
from tests.parity.problem import GRADS, PARAMS, STEPS, flat
from tests.parity.torch_front_door import (
    CALLS,
    GOLDEN,
    HALF,
    METRICS,
    OPTIMIZERS,
    ROWS,
)
from tests.public import public


DECAY = jopt.inverse_time_decay(0.05, 2, 0.5)


@functools.cache
def golden():
    """What the real torch computed."""
    with np.load(GOLDEN) as file:
        return dict(file)


def test_the_golden_values_are_what_the_installed_torch_says():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    known = json.loads(CALLS.read_text())
    del known["version"]
    assert torch_front_door.calls() == known
    for name, x in torch_front_door.oracle().items():
        np.testing.assert_allclose(x, golden()[name], 1e-12, 1e-15, err_msg=name)


@pytest.mark.parametrize("name", [*OPTIMIZERS, *torch_front_door.SCHEDULERS])
def test_arguments_and_defaults_are_those_of_torch(name):
    theirs = json.loads(CALLS.read_text())[name]
    own = getattr(torch, name, None) or getattr(lr_scheduler, name)
    # What has no counterpart: how to run a step, where a schedule is, and functions.
    gone = {*HOW_TO_RUN, "last_epoch", "cycle_momentum"}
    cycles = {"base_momentum", "max_momentum"}  # of CyclicMomentum, OneCycleMomentum
    wanted = [(n, x) for n, x in theirs if n not in gone | cycles]
    ours = [[n, list(x) if isinstance(x, tuple) else x] for n, x in own_calls(own)]
    # The learning rate has the optimizer's place, where it is not told in another way.
    wanted = [(n, x) for n, x in wanted if n != "optimizer"]
    extra = {"axes", "ns_dtype", "total_steps", "steps_per_epoch", "lr", "optimizer"}
    extra -= {n for n, _ in wanted}
    ours = [(n, x) for n, x in ours if n not in extra]
    assert ours == wanted
    for n, x in json.loads(CALLS.read_text()).get(name, []):
        if n in cycles:
            momentum = getattr(lr_scheduler, name.replace("LR", "Momentum"))
            assert dict(own_calls(momentum))[n] == x


def own_calls(function):
    """Names and defaults."""
    return [tuple(pair) for pair in torch_front_door.signature(function)]


def test_a_factory_is_the_recipe_of_the_parity_rows_or_has_their_numbers():
    others = []
    for row in rows_of("torch"):
        tx = made(row)
        if tx.recipe.name == "split_real_and_imaginary":
            tx = tx.recipe.arguments["inner"]
        if tx != eval(row.jopt, public(jopt)):
            others.append((row, tx))
    # Weight decay in front, rates that act one step late, and matrices only.
    assert {row.name for row, _ in others} == {
        *("adadelta-l2", "asgd", "asgd-decay", "asgd-schedule"),
        *("muon", "muon-match-rms", "muon-no-nesterov"),
    }
    for row, tx in others:
        expected = recorded(row, "float32")
        assert_same(trajectory(tx, "float32", row.leaves), expected, row, "float32")


def made(row):
    """What a row's text, which is one for torch, makes here."""
    text, known = row.oracle, {n: getattr(torch, n) for n in OPTIMIZERS}
    known = {n: functools.partial(x, None) for n, x in known.items()}
    if row.name.startswith("muon"):  # whose iteration torch has to be kept in float32
        text = f"{text[: text.index('(set')]}0.05{text[text.index('0.05)') + 5 :]}"
        known["Muon"] = functools.partial(known["Muon"], axes="oi")
    if row.scheduler:
        text = text.replace("(0.05", "(DECAY").replace("lr=0.05", "lr=DECAY")
    return eval(text, known | {"DECAY": DECAY})


def test_muon_of_a_flax_kernel_has_the_numbers_of_torch_for_its_transpose():
    (row,) = (row for row in rows_of("torch") if row.name == "muon")
    expected = recorded(row, "float32")
    tx = torch.Muon(lr=0.05)
    params = jnp.asarray(PARAMS["kernel"].T, jnp.float32)
    state = tx.init(params)
    for step in range(STEPS):
        grads = jnp.asarray(GRADS["kernel"][step].T, jnp.float32)
        params, state = jopt.step(tx, grads, state, params)
    np.testing.assert_allclose(params.T.ravel(), expected[-1], row.tol32, row.tol32)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.recipe)
def test_groups_clipping_and_schedulers_have_the_numbers_of_torch(row):
    text = row.jopt or row.optimizer
    known = public(torch) | {"jopt": jopt, "math": math}
    groups = eval(row.groups) if row.groups != "[{'params': ''}]" else None
    with jax.enable_x64(True):
        tx = eval(text, known | {"GROUPS": groups})
        if row.clip:
            tx = jopt.chain(eval(row.clip.format(""), known), tx)
        params = {n: jnp.asarray(p) for n, p in PARAMS.items()}

        def step(carry, given):
            params, state = carry
            grads, value = given
            updates, state = tx.update(grads, state, params, value=value)
            params = jopt.apply_updates(params, updates)
            return (params, state), params

        # What torch's plateau is told after a step, ours is told with the next.
        metrics = jnp.asarray([1e9, *METRICS[:-1]])
        given = {n: jnp.asarray(g) for n, g in GRADS.items()}, metrics
        run = jax.jit(lambda p, x: jax.lax.scan(step, (p, tx.init(p)), x)[1])
        actual = flat(run(params, given))
    expected = golden()["steps"][golden()["rows"].tolist().index(row.recipe)]
    np.testing.assert_allclose(actual, expected, 1e-12, 1e-12)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))) == tx


def saved(row):
    """The state dict of torch after half of the steps, and the parameters then."""
    prefix = f"{row.recipe}: "
    kept = {n[len(prefix) :]: x for n, x in golden().items() if n.startswith(prefix)}
    groups, state = [], {0: {}, 1: {}}  # a parameter in each group
    for name, x in kept.items():
        first, second = name.split()
        if first == "lr":
            groups.append({"lr": float(x), "params": [int(second)]})
        else:
            state[int(first)][second] = x
    steps = golden()["steps"][golden()["rows"].tolist().index(row.recipe)]
    kernel, bias = np.split(steps[HALF - 1], [PARAMS["kernel"].size])
    params = {"kernel": jnp.asarray(kernel.reshape(3, 4)), "bias": jnp.asarray(bias)}
    return {"state": state, "param_groups": groups}, params, steps[HALF:]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.is_saved], ids=lambda row: row.recipe
)
def test_a_state_dict_with_groups_goes_on_here_and_back(row):
    groups = eval(row.groups)
    order = ["kernel" if "k" in g["params"] else "bias" for g in groups]
    with jax.enable_x64(True):
        tx = eval(row.jopt or row.optimizer, public(torch) | {"GROUPS": groups})
        theirs, params, expected = saved(row)
        count = None if "step" in theirs["state"][0] else HALF
        state = torch.load_state_dict(tx, params, theirs, order=order, count=count)
        back = torch.state_dict(tx, state, params, theirs, order=order)
        for i, g in enumerate(theirs["param_groups"]):
            np.testing.assert_allclose(back["param_groups"][i]["lr"], g["lr"], 1e-12)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-7)
        jax.tree.map(close, back["state"], theirs["state"])

        def step(carry, grads):
            params, state = jopt.step(tx, grads, carry[1], carry[0])
            return (params, state), params

        grads = {n: jnp.asarray(g[HALF:]) for n, g in GRADS.items()}
        run = jax.jit(lambda *carry: jax.lax.scan(step, carry, grads)[1])
        np.testing.assert_allclose(flat(run(params, state)), expected, 1e-12, 1e-12)


def scheduled(row):
    """What a row's text, which is one for torch, makes here."""
    names = {n: getattr(lr_scheduler, n) for n in torch_front_door.SCHEDULERS}
    known = {n: functools.partial(x, 0.1) for n, x in names.items()}
    known["ChainedScheduler"] = functools.partial(names["ChainedScheduler"], lr=0.1)
    known["MultiplicativeLR"] = functools.partial(
        names["MultiplicativeLR"], 0.1, total_steps=row.steps
    )
    for name in ("CyclicLR", "OneCycleLR"):
        known[name] = names[name]
        if row.read == "momentum":
            momentum = getattr(lr_scheduler, name.replace("LR", "Momentum"))
            gone = ("base_lr", "max_lr")
            known[name] = lambda f=momentum, gone=gone, **given: f(
                **{n: x for n, x in given.items() if n not in gone}
            )
    # What Python decides, JAX has to.
    text = row.oracle.replace(
        "0.9 if e < 5 else 1.1 if e < 17 else 0.95",
        "jnp.where(e < 5, 0.9, jnp.where(e < 17, 1.1, 0.95))",
    )
    return eval(text, known | {"jnp": jnp, "min": jnp.minimum})


@pytest.mark.parametrize(
    "row", schedules.TORCH, ids=lambda row: f"{row.oracle}-{row.read}"
)
def test_a_scheduler_has_the_rates_of_torch(row):
    with np.load(schedules.GOLDEN) as file:
        expected = schedules.by_row("torch", file["torch"])[row]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        schedule = scheduled(row)
        assert isinstance(schedule, jopt.Schedule)
        actual = np.asarray(jax.jit(schedule)(jnp.arange(row.steps)))
    np.testing.assert_allclose(actual, expected, 1e-14, row.atol)


def test_epochs_are_counted_where_torch_counts_them():
    per_epoch = jopt.epoch_schedule(lr_scheduler.StepLR(0.5, 2, gamma=0.5), 3)
    expected = [0.5] * 6 + [0.25] * 6 + [0.125] * 2
    np.testing.assert_array_equal(per_epoch(jnp.arange(14)), expected)
    signed = jopt.epoch_schedule(lambda epoch: jnp.maximum(epoch - 2, 0), 2)
    np.testing.assert_array_equal(signed(jnp.arange(-1, 8)), [0] * 7 + [1] * 2)


GROUPED = [{"params": "bias", "lr": 0.5}, {"params": "kernel", "lr": 0.25}]


def test_learning_rates_of_groups_are_in_the_state_and_in_state_dicts():
    params = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
    tx = torch.Adam(GROUPED, betas=(0.8, 0.9))
    state = tx.init(params)
    rates = {n.split("/")[0]: float(x) for n, x in jopt.hyperparams(state).items()}
    assert rates == {"group_0": 0.5, "group_1": 0.25}
    name = "group_1/scale_by_learning_rate/learning_rate"
    state = jopt.set_hyperparams(tx, state, **{name: 0.125})
    state = jopt.step(tx, params, state, params)[1]
    order, like = ["kernel", "bias"], {"state": {}}
    like["param_groups"] = [{"lr": 9.0, "params": [0]}, {"lr": 8.0, "params": [1]}]
    theirs = torch.state_dict(tx, state, params, like, order=order)
    assert [g["lr"] for g in theirs["param_groups"]] == [0.125, 0.5]
    assert theirs["state"][0]["exp_avg"].shape == (3, 4)
    back = torch.load_state_dict(tx, params, theirs, order=order)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), back, state))
    # A recipe that has other groups keeps its own.
    other = torch.Adam(lr=0.3)
    with pytest.warns(UserWarning, match="other groups: its rates are kept"):
        kept = torch.load_state_dict(other, params, theirs, order=order)
    assert float(jopt.hyperparams(kept)["learning_rate"]) == np.float32(0.3)
    once = torch.state_dict(other, kept, params, like, order=order)
    assert [g["lr"] for g in once["param_groups"]] == [9.0, 8.0]


def test_groups_have_the_names_that_they_give():
    params = {"bias": jnp.ones(4), "head": jnp.ones(4), "kernel": jnp.ones((3, 4))}
    groups = [
        {"params": "head", "lr": 0.5, "name": "head"},
        {"params": "bias", "lr": 0.25},
        {"params": "", "name": "rest"},
    ]
    tx = torch.Adam(groups, lr=0.1)
    assert list(tx.recipe.arguments["transforms"]) == ["head", "group_1", "rest"]
    state = jopt.set_hyperparams(tx, tx.init(params), **{"head/learning_rate": 0.75})
    found = jopt.hyperparams(state)
    rates = {"head": 0.75, "group_1": 0.25, "rest": 0.1}
    for name, rate in rates.items():
        np.testing.assert_allclose(found[f"{name}/learning_rate"], rate, 1e-6)
    # The names are no matter of the numbers, nor of torch's state dict.
    unnamed = [{n: x for n, x in group.items() if n != "name"} for group in groups]
    other = torch.Adam(unnamed, lr=0.1)
    fresh = tx.init(params)
    new, _ = tx.update(params, fresh, params)
    expected, _ = other.update(params, other.init(params), params)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), new, expected))
    order, like = ["head", "bias", "kernel"], {"state": {}}
    like["param_groups"] = [
        {"lr": 9.0, "params": [i], "name": name} for i, name in enumerate(rates)
    ]
    state = jopt.step(tx, params, state, params)[1]
    theirs = torch.state_dict(tx, state, params, like, order=order)
    assert [g["name"] for g in theirs["param_groups"]] == list(rates)
    np.testing.assert_allclose(
        [g["lr"] for g in theirs["param_groups"]], list(rates.values()), 1e-6
    )
    back = torch.load_state_dict(tx, params, theirs, order=order)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), back, state))


def test_equal_rates_of_groups_are_the_rates_of_those_groups():
    params = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
    tx, order = torch.SGD(GROUPED), ["kernel", "bias"]
    theirs = {"state": {}, "param_groups": [{"lr": 0.003, "params": [0]}]}
    theirs["param_groups"].append({"lr": 0.003, "params": [1]})
    state = torch.load_state_dict(tx, params, theirs, order=order, count=5)
    rates = [float(x) for x in jopt.hyperparams(state).values()]
    assert rates == [np.float32(0.003)] * 2
    one = {"state": {}, "param_groups": [{"lr": 9.0, "params": [0, 1]}]}
    with pytest.warns(
        UserWarning, match=r"group 0 have the learning rates \[0.25, 0.5"
    ):
        back = torch.state_dict(tx, tx.init(params), params, one, order=order)
    assert back["param_groups"][0]["lr"] == 9.0


def test_groups_within_groups_are_told_apart():
    params = {"a": jnp.ones(1), "b": jnp.ones(1), "c": jnp.ones(1)}
    inner = torch.NAdam([{"params": "a", "lr": 0.01}, {"params": "b", "lr": 0.02}])
    tx = jopt.partition(
        {"inner": inner, "outer": torch.NAdam(lr=0.03)},
        jopt.rules(("a|b", "inner"), ("", "outer")),
    )
    like = {"state": {}, "param_groups": [{"lr": 9.0, "params": [i]} for i in range(3)]}
    order, state = ["c", "b", "a"], tx.init(params)
    state = jopt.step(tx, params, state, params)[1]
    theirs = torch.state_dict(tx, state, params, like, order=order)
    rates = [g["lr"] for g in theirs["param_groups"]]
    np.testing.assert_allclose(rates, [0.03, 0.02, 0.01], 1e-6)
    back = torch.load_state_dict(tx, params, theirs, order=order)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), back, state))


def test_what_torch_keeps_nothing_of_is_frozen():
    params = {"head": jnp.ones(1), "body": jnp.ones(2)}
    entry = {"step": 3.0, "exp_avg": np.ones(1), "exp_avg_sq": np.ones(1)}
    theirs = {"state": {1: entry}, "param_groups": [{"lr": 0.5, "params": [0, 1]}]}
    order = ["body", "head"]
    frozen = jopt.selective_transform(torch.Adam(), freeze_mask="body")
    for tx in (frozen, jopt.masked(torch.Adam(), "head")):
        state = torch.load_state_dict(tx, params, theirs, order=order)
        back = torch.state_dict(tx, state, params, theirs, order=order)
        assert list(back["state"]) == [1] and back["state"][1]["step"] == 3
        assert back["param_groups"][0]["lr"] == 0.5
    with pytest.raises(ValueError, match="Is it frozen there"):
        torch.load_state_dict(torch.Adam(), params, theirs, order=order)


def test_groups_take_row_sparse_gradients_without_parameters():
    tx = torch.SparseAdam([{"params": "table", "lr": 0.5}, {"params": ""}])
    params = {"table": jnp.ones((4, 2)), "w": jnp.ones(2)}
    rows = jopt.RowSparse(jnp.array([1]), jnp.ones((1, 2)), 4)
    grads = {"table": rows, "w": jnp.ones(2)}
    alone, _ = tx.update(grads, tx.init(params))
    with_params, _ = tx.update(grads, tx.init(params), params)
    for ours, x in zip(*map(jax.tree.leaves, (alone, with_params)), strict=True):
        np.testing.assert_array_equal(ours, x)


BAD = [
    ("SGD(0.1)", TypeError, r"list of parameter groups.*SGD\(lr=…\) optimizes all"),
    ("SGD({'w': jnp.ones(2)})", TypeError, "Parameters come with init"),
    ("SGD([])", TypeError, "list of parameter groups"),
    ("SGD([jnp.ones(2)])", TypeError, "list of parameter groups"),
    ("SGD([{'lr': 0.1}])", ValueError, "group 0 has no 'params'"),
    ("SGD([{'params': '', 'name': 'a/b'}])", ValueError, "group 0 must be a word with"),
    ("SGD([{'params': '', 'name': 3}])", ValueError, "group 0 .*got name=3"),
    (
        "SGD([{'params': 'a', 'name': 'group_1'}, {'params': ''}])",
        ValueError,
        "groups 0 and 1 have the same name, 'group_1'",
    ),
    (
        "SGD([{'params': '', 'learning_rate': 0.1}])",
        TypeError,
        "SGD has no argument 'learning_rate'",
    ),
    ("SGD([{'params': '('}])", ValueError, "not a regular expression"),
    (
        "SGD([{'params': 'kernel'}]).init({'bias': jnp.ones(1)})",
        ValueError,
        "chooses no leaf",
    ),
    (
        "SGD([{'params': 'kernel'}]).init({'bias': 1.0, 'kernel': 1.0})",
        ValueError,
        "no rule chooses 'bias'",
    ),
    ("Adam(lr=-0.1)", ValueError, "lr must be >= 0.*got lr=-0.1"),
    ("Adam(lr='fast')", TypeError, "lr must be a number, a schedule or"),
    ("Adam([{'params': '', 'lr': -1.0}])", ValueError, "lr must be >= 0"),
    ("Adam(betas=0.9)", TypeError, r"betas must be two numbers, got betas=0\.9"),
    ("Adam(betas=(0.9, 1.0))", ValueError, r"betas\[1\] must be in \[0, 1\)"),
    ("Adam(betas=(0.9, '1'))", TypeError, r"betas\[1\] must be a number"),
    ("Adam(beta1=0.9)", TypeError, "has no argument 'beta1'. Did you mean 'betas'"),
    ("Adam(amsgrad=1)", TypeError, "amsgrad must be True or False"),
    ("Adam(weight_decay=-0.1)", ValueError, "weight_decay must be >= 0"),
    ("SGD(nesterov=True)", ValueError, "nesterov needs a momentum > 0"),
    ("SGD(momentum=0.9, dampening=0.1, nesterov=True)", ValueError, "no dampening"),
    ("Adagrad(jopt.tunable(0.1))", TypeError, "list of parameter groups"),
    ("Adagrad(lr=jopt.tunable(0.1), lr_decay=0.1)", TypeError, "cannot be tunable"),
    ("Adafactor(beta2_decay=0.8)", ValueError, "-0.8 is usual"),
    ("Adafactor(eps=1e-3)", TypeError, "eps must be two numbers"),
    ("Muon(adjust_lr_fn='kj')", ValueError, "adjust_lr_fn must be"),
    ("Muon().init(jnp.ones(3))", ValueError, "matri"),
    ("SparseAdam(eps=0.0)", ValueError, "eps must be > 0"),
    ("Rprop(lr=0.0, step_sizes=(0.0, 0.1))", ValueError, "no step size would leave"),
    ("Muon(eps=-1.0)", ValueError, "eps must be >= 0"),
    (
        "Adafactor(lr=jopt.tunable(0.1), weight_decay=0.1)",
        TypeError,
        "weight_decay makes a schedule of lr",
    ),
    ("lr_scheduler.ConstantLR(0.1, total_iters=-1)", ValueError, "total_iters must"),
    ("lr_scheduler.ConstantLR(0.1, factor=-1.0)", ValueError, "factor must be >= 0"),
    ("lr_scheduler.LinearLR(0.1, 1.0, 5.0)", ValueError, "end_factor must be in"),
    ("lr_scheduler.StepLR(-0.1, 3)", ValueError, "lr must be >= 0"),
    ("lr_scheduler.MultiStepLR(0.1, 3)", TypeError, "milestones must be a list"),
    ("lr_scheduler.OneCycleLR(0.1, None, -2, -5)", ValueError, "epochs must be >= 1"),
    ("lr_scheduler.CosineAnnealingLR(0.1, 0)", ValueError, "T_max must be >= 1"),
    (
        "lr_scheduler.ChainedScheduler([jopt.rex_schedule(0.1, 0.0, 9)], 0.1)",
        ValueError,
        "takes schedulers that multiply, move or set lr, got rex_schedule",
    ),
    ("lr_scheduler.ChainedScheduler([], 0.1)", ValueError, "at least one scheduler"),
    ("lr_scheduler.ReduceLROnPlateau(0.1, min_lr=1.0)", ValueError, "min_lr must be <"),
    ("jopt.epoch_schedule(0.1, 3)", TypeError, "schedule_fn must be a function of"),
    ("clip_grad_norm_(0.0)", ValueError, "max_norm must be > 0"),
    ("clip_grad_norm_(1.0, 3.0)", ValueError, "norm_type must be"),
    ("lr_scheduler.StepLR(SGD(), 30)", TypeError, "in place of the optimizer"),
    ("lr_scheduler.StepLR(optimizer=3)", TypeError, "Give it the learning rate"),
    ("lr_scheduler.StepLR(0.1, 30, last_epoch=3)", TypeError, "state counts"),
    ("lr_scheduler.StepLR(0.1, 3.5)", TypeError, "step_size must be a whole number"),
    ("lr_scheduler.StepLR(0.1)", TypeError, "missing a required argument"),
    (
        "lr_scheduler.CyclicLR(0.1, 0.2, cycle_momentum=True)",
        TypeError,
        "CyclicMomentum or OneCycleMomentum",
    ),
    ("lr_scheduler.OneCycleLR(0.1)", ValueError, "give total_steps, or epochs"),
    ("lr_scheduler.OneCycleLR(0.1, None, 2)", ValueError, "give total_steps"),
    ("lr_scheduler.LambdaLR(0.1, 0.5)", TypeError, "lr_lambda"),
    (
        "lr_scheduler.CosineAnnealingWarmRestarts(0.1, 5, 1.5)",
        TypeError,
        "T_mult must be a whole number",
    ),
    ("lr_scheduler.ChainedScheduler([], 0.0)", ValueError, "at least one scheduler"),
    (
        "lr_scheduler.ReduceLROnPlateau(0.1, threshold_mode='none')",
        ValueError,
        "threshold_mode must be",
    ),
]


@pytest.mark.parametrize(("text", "error", "message"), BAD, ids=[b[0] for b in BAD])
def test_wrong_input_says_what_is_wrong(text, error, message):
    with pytest.raises(error, match=message):
        eval(text, public(torch) | {"jopt": jopt, "jnp": jnp})


def test_the_norm_of_all_groups_is_clipped_before_they_part():
    tx = jopt.chain(torch.clip_grad_norm_(1.0), torch.SGD(GROUPED))
    params = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["bias"], -0.5 / (4 + 1e-6), 1e-6)
    np.testing.assert_allclose(updates["kernel"], -0.25 / (4 + 1e-6), 1e-6)
    broken = {**params, "bias": jnp.array([1.0, jnp.inf, 1.0, 1.0])}
    updates, _ = tx.update(broken, tx.init(params), params)
    assert all(np.isnan(x).all() for x in updates.values())
