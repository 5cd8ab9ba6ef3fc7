"""LBFGS takes torch's iterations and evaluations."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch
from jopt.interop.torch.lbfgs import torch_lbfgs
from tests.interop.torch.lbfgs_settings import SETTINGS, START, STEPS
from tests.tools.golden_torch_lbfgs import FILE, all_steps


WITHOUT_ROW = {torch_lbfgs.__name__: "takes the loss"}
GOLDEN = json.loads(FILE.read_text())


def rosenbrock(p: Any) -> Any:
    x = jnp.concatenate([x.ravel() for x in jax.tree.leaves(p)])
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_the_golden_steps_are_those_of_the_installed_torch():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    for name, found in all_steps().items():
        for key, x in found.items():
            np.testing.assert_allclose(x, GOLDEN[name][key], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_iterations_and_evaluations_are_those_of_torch(name):
    tx = torch.LBFGS(**SETTINGS[name])

    def step(carry, _):
        p, state = carry
        value, grads = jax.value_and_grad(rosenbrock)(p)
        u, state = tx.update(grads, state, p, value=value, value_fn=rosenbrock)
        p = jopt.apply_updates(p, u)
        return (p, state), (p, state.n_iter, state.func_evals)

    with jax.enable_x64(True):
        p = {name: jnp.array(x) for name, x in START.items()}
        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=STEPS)[1])
        found, iterations, evaluations = run(p)
    flat = np.concatenate([found[n].reshape(STEPS, -1) for n in START], axis=1)
    np.testing.assert_allclose(flat, GOLDEN[name]["params"], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(iterations, GOLDEN[name]["n_iter"])
    np.testing.assert_array_equal(evaluations, GOLDEN[name]["func_evals"])


def test_a_state_goes_to_torch_and_back():
    params = {"a": jnp.arange(2.0), "b": 1j * jnp.ones((2, 3), jnp.complex64)}
    tx = torch.LBFGS(lr=0.5, history_size=2)
    keys = iter(jax.random.split(jax.random.key(0), 99))

    def drawn(x):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jax.random.normal(next(keys), x.shape, x.dtype)

    state = jax.tree.map(drawn, tx.init(params))
    state = state._replace(n_iter=state.n_iter + 7, pairs=state.pairs + 2)
    order = [torch.Permuted("b", (1, 0)), "a"]
    like = {"state": {}, "param_groups": [{"lr": 1.0, "params": [0, 1]}]}
    theirs = torch.state_dict(tx, state, params, like, order=order)
    # The first element of torch's vectors is of b, and complex numbers are pairs.
    assert theirs["state"][0]["d"][1] == state.d["b"][0, 0].imag
    assert theirs["state"][0]["d"][2] == state.d["b"][1, 0].real
    back = torch.load_state_dict(tx, params, theirs, order=order, count=0)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_a_run_of_torch_goes_on_here():
    library = pytest.importorskip("torch")
    a, b = (
        library.tensor(x, dtype=library.float64, requires_grad=True)
        for x in START.values()
    )
    settings = {**SETTINGS["strong Wolfe"], "history_size": 3}
    theirs = library.optim.LBFGS([a, b], **settings)

    def closure():
        theirs.zero_grad()
        x = library.cat([a, b.ravel()])
        loss = library.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
        loss.backward()
        return loss

    theirs.step(closure)
    with jax.enable_x64(True):
        p = {n: jnp.asarray(x.detach().numpy()) for n, x in (("a", a), ("b", b))}
        tx = torch.LBFGS(**settings)
        told = {"order": ["a", "b"], "count": 1}
        state = torch.load_state_dict(tx, p, theirs.state_dict(), **told)
        value, grads = jax.value_and_grad(rosenbrock)(p)
        p, state = jopt.step(tx, grads, state, p, value=value, value_fn=rosenbrock)
        theirs.step(closure)
        np.testing.assert_allclose(p["a"], a.detach(), rtol=1e-9)
        np.testing.assert_allclose(p["b"], b.detach(), rtol=1e-9)
        # And on in torch.
        back = torch.state_dict(
            tx, state, p, theirs.state_dict(), order=["a", "b"], tensor=library.tensor
        )
    theirs.load_state_dict(back)
    theirs.step(closure)


def test_complex_parameters_are_pairs_of_real_ones():
    def loss(z):
        return jnp.sum((z.real - 1) ** 2 + 3 * (z.imag + 2) ** 2)

    tx = torch.LBFGS(line_search_fn="strong_wolfe", history_size=4)

    @jax.jit
    def step(z):
        value, grads = jax.value_and_grad(loss)(z)
        told = {"value": value, "value_fn": loss}
        u, _ = tx.update(jnp.conj(grads), tx.init(z), z, **told)
        return z + u

    z = step(jnp.zeros(2, jnp.complex64))
    np.testing.assert_allclose(z, 1 - 2j, rtol=1e-4)


def test_the_rate_can_be_read_and_set_and_scheduled():
    tx = torch.LBFGS(lr=0.5)
    state = tx.init(jnp.ones(2))
    assert jopt.hyperparams(state)["learning_rate"] == 0.5
    state = jopt.set_hyperparams(tx, state, learning_rate=0.25)
    assert jopt.hyperparams(state)["learning_rate"] == 0.25
    tx = torch.LBFGS(lr=torch.lr_scheduler.StepLR(1.0, step_size=1))
    assert jopt.hyperparams(tx.init(jnp.ones(2)))["learning_rate"] == 1
    assert jopt.from_config(jopt.to_config(tx)) == tx


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="LBFGS has no parameter groups"):
        torch.LBFGS([{"params": ""}])
    with pytest.raises(
        ValueError, match="line_search_fn must be one of 'strong_wolfe'"
    ):
        torch.LBFGS(line_search_fn="armijo")
    tx, p = torch.LBFGS(), jnp.ones(2)
    with pytest.raises(TypeError, match="needs the argument 'value_fn'"):
        tx.update(p, tx.init(p), p, value=1.0)
