"""Steps of a line search are those of optax where the rule is, and good elsewhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt


WITHOUT_ROW = {
    "scale_by_backtracking_linesearch": "takes the loss",
    "scale_by_zoom_linesearch": "takes the loss",
}


def loss(p: Any, scale: Any = 1.0) -> Any:
    return scale * jnp.sum(jnp.array([1.0, 3.0]) * p**2) + 0.1 * jnp.sum(p**4)


def run(tx: Any, library: Any, steps: int, value_and_grad: Any, **data: Any) -> Any:
    """The parameters and the states of a run."""

    def body(carry, _):
        p, state = carry
        value, grad = value_and_grad(p, state)
        u, state = tx.update(
            grad, state, p, value=value, grad=grad, value_fn=loss, **data
        )
        p = library.apply_updates(p, u)
        return (p, state), (p, state)

    p = jnp.array([2.0, -1.0])
    return jax.jit(lambda: jax.lax.scan(body, (p, tx.init(p)), length=steps)[1])()


@pytest.mark.parametrize(
    "options",
    [
        {"max_backtracking_steps": 15},
        {"max_backtracking_steps": 3, "decrease_factor": 0.3, "increase_factor": 9.0},
        {"max_backtracking_steps": 9, "store_grad": True, "increase_factor": np.inf},
    ],
)
def test_backtracking_is_that_of_optax(options):
    def chained(library):
        search = library.scale_by_backtracking_linesearch(**options)
        return library.chain(library.sgd(2.0), search)

    def value_and_grad(p, state):
        return jax.value_and_grad(loss)(p)

    ours, ours_state = run(chained(jopt), jopt, 8, value_and_grad)
    theirs, theirs_state = run(chained(optax), optax, 8, value_and_grad)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    state = ours_state["scale_by_backtracking_linesearch"]
    for name in ("learning_rate", "value", "num_linesearch_steps", "decrease_error"):
        expected = optax.tree.get(theirs_state[1], name)
        found = getattr(state, name, getattr(state.info, name, None))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if "store_grad" in options:
        np.testing.assert_allclose(state.grad[-1], jax.grad(loss)(ours[-1]), rtol=1e-5)


def test_the_loss_gets_the_arguments_that_it_takes():
    def value_and_grad(p, state):
        return jax.value_and_grad(loss)(p, 5.0)

    tx = jopt.chain(jopt.sgd(1.0), jopt.scale_by_zoom_linesearch())
    data = {"scale": jnp.array(5.0), "somebody_elses": 1.0}
    p, states = run(tx, jopt, 2, value_and_grad, **data)
    found = states["scale_by_zoom_linesearch"].value[-1]
    np.testing.assert_allclose(found, loss(p[-1], 5.0), rtol=1e-5)


def test_the_loss_is_not_evaluated_again_where_the_state_has_it():
    tx = jopt.chain(jopt.sgd(1.0), jopt.scale_by_zoom_linesearch())
    other = jopt.value_and_grad_from_state(lambda p: jnp.sum(0 * p) + 7.0)
    first = jopt.value_and_grad_from_state(loss)
    p = jnp.array([2.0, -1.0])
    state = tx.init(p)
    assert first(p, state=state)[0] == loss(p)
    value, grad = jax.value_and_grad(loss)(p)
    update = jax.jit(tx.update, static_argnames="value_fn")
    u, state = update(grad, state, p, value=value, grad=grad, value_fn=loss)
    value, grad = other(p + u, state=state)
    np.testing.assert_allclose(value, loss(p + u), rtol=1e-5)
    np.testing.assert_allclose(grad, jax.grad(loss)(p + u), rtol=1e-4)


def test_a_search_without_a_good_step_does_not_move():
    def nan_elsewhere(p):
        return jnp.where(p[0] == 1.0, jnp.sum(p), jnp.nan)

    p = jnp.ones(2)
    searches = [
        jopt.scale_by_zoom_linesearch(5),
        jopt.scale_by_backtracking_linesearch(5, store_grad=True),
    ]
    for tx in searches:
        name = tx.name
        state = tx.init(p)
        update = jax.jit(tx.update, static_argnames="value_fn")
        told = {"value": 2.0, "grad": p, "value_fn": nan_elsewhere}
        u, new = update(-p, state, p, **told)
        assert not u.any() and new.learning_rate == 0, name
        assert new.value == 2 and (new.grad == p).all(), name
        # The next step starts anew.
        told = {"value": 2.0, "grad": p, "value_fn": jnp.sum}
        u, new = update(-p, new, p, **told)
        assert new.learning_rate > 0 and u.all(), name


def test_a_wrong_loss_is_an_error():
    tx, p = jopt.scale_by_zoom_linesearch(), jnp.ones(2)
    state, told = tx.init(p), {"value": 1.0, "grad": p}
    with pytest.raises(TypeError, match="needs the argument 'value_fn'"):
        tx.update(p, state, p, **told)
    with pytest.raises(TypeError, match="value_fn must be the loss as a function"):
        tx.update(p, state, p, value_fn=3.0, **told)
    with pytest.raises(TypeError, match="value_fn must return one real number"):
        tx.update(p, state, p, value_fn=lambda p: p, **told)
    with pytest.raises(ValueError, match="grad"):
        tx.update(p, state, p, value=1.0, grad=jnp.ones(3), value_fn=jnp.sum)
    with pytest.raises(ValueError, match="has no line search"):
        jopt.value_and_grad_from_state(loss)(p, state=jopt.adam(0.1).init(p))
    two = jopt.chain(tx, tx).init(p)
    with pytest.raises(ValueError, match="has several line searches"):
        jopt.value_and_grad_from_state(loss)(p, state=two)
    state = jopt.scale_by_backtracking_linesearch().init(p)
    with pytest.raises(ValueError, match="store_grad=True"):
        jopt.value_and_grad_from_state(loss)(p, state=state)
    with pytest.raises(TypeError, match="value_fn must be the loss as a function"):
        jopt.value_and_grad_from_state(loss(p))
