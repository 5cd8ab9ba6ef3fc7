"""The warning of slots that start when their rule has long been counting."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import Reset
from jopt.checkpoint import restore, save
from jopt.interop import torch


PARAMS = {"body": jnp.ones(2), "head": jnp.ones(2)}
HEAD = [Reset("/head$")]
STEPS = 1000


def trained(tx, steps=STEPS):
    """The entries of a state after many steps, of which only the counts matter."""
    return jopt.state_dict(jopt.set_counts(tx.init(PARAMS), steps))


def load(tx, rules=(), steps=STEPS, **options):
    flat = trained(tx, steps)
    return jopt.load_state_dict(tx, PARAMS, flat, migrate=rules, **options)


NAMED = (
    "'scale_by_adam/count' is 1000: 'scale_by_adam/mu/head', 'scale_by_adam/nu/head'"
)


def test_leaves_that_start_late_are_named_and_step_too_far():
    tx = jopt.adam(1.0)
    flat = {name: np.asarray(x) for name, x in trained(tx).items()}
    with pytest.warns(UserWarning, match=f"(?s)start from zero.*{NAMED}.*a group of"):
        jopt.load_state_dict(tx, PARAMS, flat, migrate=HEAD)
    with pytest.warns(UserWarning, match=NAMED):
        state = load(tx, HEAD)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["head"], -2.5, 0.01)


def test_the_group_of_its_own_that_the_warning_asks_for_is_right_and_quiet():
    tx = jopt.partition(
        {"body": jopt.adam(1.0), "head": jopt.adam(1.0)},
        jopt.rules(("head", "head"), ("", "body")),
    )
    state = load(tx, [Reset("^head/")])
    assert int(state["body"]["scale_by_adam"].count) == STEPS
    updates, _ = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["head"], -1.0, 1e-5)


def test_a_leaf_that_the_checkpoint_lacks_is_named_too():
    tx, old = jopt.adam(1.0), trained(jopt.masked(jopt.adam(1.0), "body"))
    with (
        pytest.warns(UserWarning, match="starts from init: 'scale_by_adam/mu/head'"),
        pytest.warns(UserWarning, match=NAMED),
    ):
        flat = {n.removeprefix("inner_state/"): x for n, x in old.items()}
        jopt.load_state_dict(tx, PARAMS, flat, strict=False)


def test_restoring_a_checkpoint_with_a_new_head_warns(tmp_path):
    tx, path = jopt.adam(1.0), tmp_path / "backbone.npz"
    save(path, params=PARAMS, opt_state=jopt.set_counts(tx.init(PARAMS), STEPS), tx=tx)
    new = {**PARAMS, "head": jnp.zeros(3)}
    with pytest.warns(UserWarning, match=NAMED):
        restore(path, params=new, tx=tx, migrate=[Reset("/head$")])


LATE = {
    "one slot of all leaves": (jopt.adam(1.0), "^scale_by_adam/nu/"),
    "inside wrappers": (
        jopt.accumulate(jopt.skip_nonfinite(jopt.adamw(1.0)), 2),
        "/head$",
    ),
    "of torch's names": (torch.Adam(lr=1.0, amsgrad=True), "/head$"),
    "SGD, which damps all gradients but the first": (
        torch.SGD(lr=1.0, momentum=0.9, dampening=0.5),
        "/head$",
    ),
    "NAdam": (jopt.nadam(1.0), "/head$"),
    "Adafactor": (jopt.adafactor(1.0), "/head$"),
    "bias-corrected RMSprop": (
        jopt.rmsprop(1.0, bias_correction=True),
        "/head$",
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_every_rule_that_corrects_by_its_count_warns(name):
    tx, pattern = LATE[name]
    with pytest.warns(UserWarning, match=r"count' is 1000: .*/head'"):
        load(tx, [Reset(pattern)])


QUIET = {
    "the count starts again too": (jopt.adam(1.0), "^scale_by_adam/"),
    "no count": (jopt.sgd(1.0, momentum=0.9), "/head$"),
    "a count of a schedule only": (
        jopt.sgd(1.0, momentum=jopt.linear_schedule(0.5, 0.9, 100)),
        "/head$",
    ),
    "no correction": (jopt.rmsprop(1.0), "/head$"),
    "no correction by a tunable decay": (
        jopt.rmsprop(1.0, decay=jopt.tunable(0.9)),
        "/head$",
    ),
    "copies of the parameters": (torch.ASGD(lr=1.0), "/head$"),
    "an average": (jopt.chain(jopt.sgd(1.0), jopt.params_ema(0.9)), "/head$"),
}


@pytest.mark.parametrize("name", QUIET)
def test_slots_that_start_right_are_quiet(name):
    tx, pattern = QUIET[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tx, [Reset(pattern)])


def test_at_the_first_step_nothing_is_late():
    load(jopt.adam(1.0), HEAD, steps=0)


def test_many_slots_are_counted_after_the_first_ones():
    params = {f"w{i}": jnp.ones(1) for i in range(20)}
    tx = jopt.adam(1.0)
    flat = jopt.state_dict(jopt.set_counts(tx.init(params), 7))
    with pytest.warns(UserWarning, match=r"'scale_by_adam/mu/w13' and 34 more"):
        jopt.load_state_dict(tx, params, flat, migrate=[Reset("/[mn]u/")])
