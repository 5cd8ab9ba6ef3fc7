"""The door's line searches and L-BFGS take optax's steps, and keep its states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jopt.interop import optax as door


def rosenbrock(p: Any) -> Any:
    x = jnp.concatenate([p["a"], p["b"].ravel()])
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def steep(p: Any) -> Any:
    """Not defined everywhere."""
    x = jnp.concatenate([p["a"], p["b"].ravel()])
    return jnp.sum(x**2) - jnp.sum(jnp.log(1.5 - x))


def run(library: Any, tx: Any, loss: Any, steps: int) -> Any:
    """The parameters and the state after each step."""
    value_and_grad = library.value_and_grad_from_state(loss)

    def body(carry, _):
        p, state = carry
        value, grad = value_and_grad(p, state=state)
        u, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=loss)
        p = library.apply_updates(p, u)
        return (p, state), (p, state)

    p = {"a": jnp.array([-1.2, 1.0]), "b": jnp.array([[0.5, -0.5]])}
    return jax.jit(lambda: jax.lax.scan(body, (p, tx.init(p)), length=steps)[1])()


SEARCHES = {
    "lbfgs": (lambda o: o.lbfgs(), rosenbrock, 15),
    "a short memory and a rate": (
        lambda o: o.lbfgs(0.5, memory_size=3, scale_init_precond=False),
        steep,
        10,
    ),
    "exact searches": (
        lambda o: o.chain(
            o.sgd(1.0),
            o.scale_by_zoom_linesearch(12, curv_rtol=0.01, approx_dec_rtol=None),
        ),
        steep,
        6,
    ),
    "too few evaluations, and a largest step": (
        lambda o: o.chain(
            o.sgd(1e-3),
            o.scale_by_zoom_linesearch(4, 5.0, curv_rtol=0.1, increase_factor=3.0),
        ),
        rosenbrock,
        6,
    ),
    "a stored gradient": (
        lambda o: o.chain(
            o.sgd(1.0), o.scale_by_backtracking_linesearch(12, store_grad=True)
        ),
        steep,
        6,
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_trajectories_and_states_are_those_of_optax(name):
    make, loss, steps = SEARCHES[name]
    # optax mixes integers of 32 and 64 bits.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        ours = run(door, make(door), loss, steps)
        theirs = run(optax, make(optax), loss, steps)
    assert len(jax.tree.leaves(ours)) == len(jax.tree.leaves(theirs))
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


def test_the_loss_takes_the_further_arguments_or_an_error_names_them():
    tx, p = door.scale_by_zoom_linesearch(5), jnp.ones(2)
    told = {"value": 2.0, "grad": p, "value_fn": lambda p, scale: scale * jnp.sum(p)}
    u, _ = tx.update(-p, tx.init(p), p, scale=1.0, **told)
    assert (u < 0).all()
    with pytest.raises(TypeError, match=r"Unexpected keyword arguments \['scal'\]"):
        tx.update(-p, tx.init(p), p, scal=1.0, **told)


def test_verbose_says_why_a_search_failed(capfd):
    tx = door.scale_by_zoom_linesearch(5, verbose=True)
    p = jnp.ones(2)
    tx.update(p, tx.init(p), p, value=2.0, grad=2 * p, value_fn=lambda p: jnp.sum(p**2))
    jax.effects_barrier()
    printed = capfd.readouterr().out
    assert "No step decreases the loss enough" in printed
    assert "do not point downhill" in printed
