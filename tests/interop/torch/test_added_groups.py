"""torch's add_param_group: a group that begins in the middle of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch


HEAD = {"params": "head", "name": "head"}
BODY = {"params": "body", "name": "body", "lr": 0.01}
PARAMS = {"body": np.array([1.0, -2.0]), "head": np.array([0.5])}
STEPS, ADDED = 8, 5


def gradients(step):
    return {n: np.sin(step + p) for n, p in PARAMS.items()}


# Optimizers with their arguments other than lr.
OPTIMIZERS = {
    "Adam": {},
    "SGD": {"momentum": 0.9},
    "SGD, damped": {"momentum": 0.9, "dampening": 0.5},
    "RMSprop": {"momentum": 0.9, "centered": True},
}


def before(name):
    """The optimizer of the head only."""
    make = getattr(torch, name.split(",")[0])
    tx = make([HEAD], lr=0.1, **OPTIMIZERS[name])
    return jopt.selective_transform(tx, freeze_mask="body")


def after(name):
    """The same with the new group."""
    make = getattr(torch, name.split(",")[0])
    tx = make([HEAD, BODY], lr=0.1, **OPTIMIZERS[name])
    return jopt.selective_transform(tx, freeze_mask=False)


def own(name="Adam"):
    """The parameters after every step, and the state in the middle, old and new."""
    tx, params, steps, states = before(name), jax.tree.map(jnp.asarray, PARAMS), [], []
    state = tx.init(params)
    for step in range(STEPS):
        if step == ADDED:
            states = [state]
            tx, flat = after(name), jopt.state_dict(state)
            new = [jopt.Reset("^train/body/")]
            state = jopt.load_state_dict(tx, params, flat, migrate=new)
            states.append(state)
        grads = jax.tree.map(jnp.asarray, gradients(step))
        params, state = jopt.step(tx, grads, state, params)
        steps.append(np.concatenate([params["body"], params["head"]]))
    return np.array(steps), states


def test_a_new_group_starts_at_its_own_step_and_keeps_the_state_of_the_others():
    with jax.enable_x64(True):
        steps, (old, new) = own()
    kept, there = jopt.state_dict(old), jopt.state_dict(new)
    assert kept.items() and all((there[n] == x).all() for n, x in kept.items())
    body, head = (new["train"][n]["scale_by_adam"] for n in ("body", "head"))
    assert (int(body.count), int(head.count)) == (0, ADDED)
    # The first step of Adam is its learning rate.
    moved = steps[ADDED] - steps[ADDED - 1]
    np.testing.assert_allclose(np.abs(moved[:2]), 0.01, 1e-5)
    np.testing.assert_array_equal(steps[ADDED - 1][:2], PARAMS["body"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_has_the_numbers_of_add_param_group(name):
    library = pytest.importorskip("torch")
    params = {n: library.tensor(p, requires_grad=True) for n, p in PARAMS.items()}
    make = getattr(library.optim, name.split(",")[0])
    optimizer, steps = make([params["head"]], lr=0.1, **OPTIMIZERS[name]), []
    for step in range(STEPS):
        if step == ADDED:
            optimizer.add_param_group({"params": [params["body"]], "lr": 0.01})
        for n, g in gradients(step).items():
            params[n].grad = library.tensor(g)
        optimizer.step()
        steps.append(np.concatenate([params[n].detach().numpy() for n in PARAMS]))
    with jax.enable_x64(True):
        found, _ = own(name)
    np.testing.assert_allclose(found, steps, 1e-12)


def test_leaves_that_join_a_group_late_have_its_count():
    """What docs/from_torch.md warns of: the size of their first step."""
    tx = torch.Adam(lr=1.0)
    state = jopt.set_counts(tx.init(jnp.ones(1)), 1000)
    updates, _ = tx.update(jnp.ones(1), state)
    np.testing.assert_allclose(updates, -2.5, 0.01)
