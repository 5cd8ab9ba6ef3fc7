"""torch's ASGD, whose step size is part of its state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch


# With lambd 0.5, t0 1, the rate 0.1, and 0.02 from the third step on: the parameters
# of torch 2.13 in float64, and its eta at the end.
PARAMS = np.array(
    [
        [0.85, 1.9],
        [0.712620196756059, 1.85661690423876],
        [0.586346038720385, 1.86329147656386],
        [0.56104963917736, 1.8744093364876],
        [0.53618151703828, 1.89504909583834],
    ]
)
ETA = 0.0192813758938865


def gradient(step):
    return np.array([1.0, -0.5 * step])


def own(tx, state, params, steps):
    """The parameters after each of these steps, and the state."""
    found = []
    for step in steps:
        if step == 2:
            state = jopt.set_hyperparams(tx, state, learning_rate=0.02)
        grads = jnp.asarray(gradient(step), params.dtype)
        params, state = jopt.step(tx, grads, state, params)
        found.append(np.asarray(params))
    return found, state


def theirs(library, optimizer, params, steps):
    found = []
    for step in steps:
        if step == 2:
            optimizer.param_groups[0]["lr"] = 0.02
        params.grad = library.tensor(gradient(step))
        optimizer.step()
        found.append(params.detach().numpy().copy())
    return found


@pytest.fixture
def library():
    """torch, with float64 as its default dtype."""
    library = pytest.importorskip("torch")
    before = library.get_default_dtype()
    library.set_default_dtype(library.float64)
    yield library
    library.set_default_dtype(before)


TX = torch.ASGD(lr=0.1, lambd=0.5, t0=1)


def test_a_rate_that_is_set_acts_one_step_late():
    with jax.enable_x64(True):
        params = jnp.array([1.0, 2.0])
        found, state = own(TX, TX.init(params), params, range(5))
    np.testing.assert_allclose(found, PARAMS, 1e-13)
    np.testing.assert_allclose(state["asgd"].eta, ETA, 1e-13)


def test_the_recorded_numbers_are_those_of_the_installed_torch(library):
    params = library.tensor([1.0, 2.0], requires_grad=True)
    optimizer = library.optim.ASGD([params], lr=0.1, lambd=0.5, t0=1)
    found = theirs(library, optimizer, params, range(5))
    np.testing.assert_allclose(found, PARAMS, 1e-13)
    (state,) = optimizer.state.values()
    np.testing.assert_allclose(state["eta"], ETA, 1e-13)


@pytest.mark.parametrize("width", ["float32", "float64"])
def test_the_step_size_is_in_state_dicts_in_full_width(width):
    with jax.enable_x64(width == "float64"):
        params = jnp.array([1.0, 2.0])
        _, state = own(TX, TX.init(params), params, range(3))
        like = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        there = torch.state_dict(TX, state, params, like)
        entry = there["state"][0]
        assert {str(entry[key].dtype) for key in ("eta", "mu", "step")} == {width}
        assert entry["eta"] == state["asgd"].eta and entry["mu"] == 0.5
        back = torch.load_state_dict(TX, params, there)
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), back, state))
        # Without late_rate, the step size is that of the rate.
        plain = jopt.asgd(0.1, 0.5, t0=1)
        _, state = own(plain, plain.init(params), params, range(3))
        entry = torch.state_dict(plain, state, params, like)["state"][0]
        assert str(entry["eta"].dtype) == width
        np.testing.assert_allclose(entry["eta"], 0.02 / (1 + 0.03) ** 0.75, 1e-6)


def test_a_checkpoint_from_before_the_step_size_was_in_the_state_goes_on():
    """That of version 0.1.0; without late_rate, the state still is what it was."""
    before = jopt.asgd(0.1, lambd=0.5, t0=1)
    params, grads = jnp.array([1.0, 2.0]), jnp.array([1.0, -0.5])
    state = before.init(params)
    for _ in range(3):
        params, state = jopt.step(before, grads, state, params)
    flat, go_on = jopt.state_dict(state), jopt.step(before, grads, state, params)
    with pytest.raises(ValueError, match="missing: 'asgd/eta'"):
        jopt.load_state_dict(TX, params, flat)
    # With the step size, at a rate that does not change, nothing is different.
    eta = {"asgd/eta": 0.1 / (1 + 0.5 * 0.1 * 3) ** 0.75}
    exact = jopt.load_state_dict(TX, params, flat | eta)
    np.testing.assert_allclose(
        jopt.step(TX, grads, exact, params)[0], go_on[0], rtol=1e-6
    )
    # From init it is 0: one update stands still, and computes the next step size.
    state = jopt.load_state_dict(TX, params, flat, migrate=[jopt.Reset("eta$")])
    updates, state = TX.update(grads, state, params)
    assert not updates.any()
    np.testing.assert_allclose(state["asgd"].eta, 0.1 / (1 + 0.5 * 0.1 * 4) ** 0.75)


@pytest.mark.parametrize("numbers", [{"lambd": -0.5}, {"alpha": -1.0}, {"t0": -2.0}])
def test_the_state_of_numbers_that_only_torch_allows_is_converted(library, numbers):
    tx = torch.ASGD(lr=0.1, **numbers)
    with jax.enable_x64(True):
        params = jnp.array([1.0, 2.0])
        found, state = own(tx, tx.init(params), params, range(2))
        there = library.tensor([1.0, 2.0], requires_grad=True)
        optimizer = library.optim.ASGD([there], lr=0.1, **numbers)
        np.testing.assert_allclose(
            found, theirs(library, optimizer, there, range(2)), 1e-13
        )
        theirs_now = optimizer.state_dict()
        entry = torch.state_dict(tx, state, found[-1], theirs_now)["state"][0]
        for key, value in theirs_now["state"][0].items():
            np.testing.assert_allclose(entry[key], value, 1e-13)
        back = torch.load_state_dict(tx, params, theirs_now)
        assert jax.tree.all(
            jax.tree.map(lambda a, b: jnp.allclose(a, b, 1e-13), back, state)
        )


def test_a_run_goes_on_there_and_back(library):
    with jax.enable_x64(True):
        params = jnp.array([1.0, 2.0])
        found, state = own(TX, TX.init(params), params, range(3))
        there = library.tensor(found[-1], requires_grad=True)
        optimizer = library.optim.ASGD([there], lr=0.1, lambd=0.5, t0=1)
        like, tensor = optimizer.state_dict(), library.tensor
        optimizer.load_state_dict(
            torch.state_dict(TX, state, params, like, tensor=tensor)
        )
        more = theirs(library, optimizer, there, range(3, 4))
        np.testing.assert_allclose(more, PARAMS[3:4], 1e-13)
        params = jnp.asarray(there.detach().numpy())
        state = torch.load_state_dict(TX, params, optimizer.state_dict())
        found, _ = own(TX, state, params, range(4, 5))
    np.testing.assert_allclose(found, PARAMS[4:], 1e-13)
