"""Every ratio is finite where its numerator, its denominator or both are zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.testing.problem import small, stack, update
from tests.catalogue import CASES, Case


ONCE = list({case.name: case for case in reversed(CASES)}.values())
STEPS = 4
# The size of the gradient at each step. The square of the smallest is zero in float32.
SIZES = {
    "zero": [0.0, 0.0, 0.0, 0.0],
    "one": [1.0, 1.0, 1.0, 1.0],
    "tiny": [1e-25, 1e-25, 1e-25, 1e-25],
    "zero, then one": [0.0, 0.0, 0.0, 1.0],
    "one, then zero": [1.0, 1.0, 0.0, 0.0],
}
WHEN = {"from the start": 0, "from the third step": 2}


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.id)
def test_numbers_and_norms_that_become_zero_give_finite_updates(case: Case) -> None:
    numbers = {n: jopt.tunable(x) for n, x in case.numbers.items()}
    tx = case.make(**numbers)
    params, _ = small()
    # By the names of the state, which has some numbers more than once.
    usual = jopt.hyperparams(tx.init(params)) if numbers else {}
    nothing = jax.tree.map(jnp.zeros_like, params)

    # Every number alone, and all of them together, at every time.
    alone_and_together = [*((name,) for name in usual), tuple(usual)]
    settings = {
        (", ".join(zeros), when, size, start): {
            "numbers": {
                name: jnp.where(name in zeros, 0, x) for name, x in usual.items()
            },
            "first": jnp.int32(first),
            "sizes": jnp.asarray(sizes),
            "params": p,
        }
        for zeros in alone_and_together
        for when, first in WHEN.items()
        for size, sizes in SIZES.items()
        for start, p in {"params": params, "zero params": nothing}.items()
    }

    def run(setting: Any) -> Any:
        def body(state: Any, step: Any) -> Any:
            t, size = step
            now = {
                name: jnp.where(t >= setting["first"], x, usual[name])
                for name, x in setting["numbers"].items()
            }
            state = jopt.set_hyperparams(tx, state, **now)
            grads = jax.tree.map(lambda p: jnp.full_like(p, size), params)
            updates, state = update(tx, grads, state, setting["params"])
            return state, updates

        steps = jnp.arange(STEPS), setting["sizes"]
        return jax.lax.scan(body, tx.init(setting["params"]), steps)

    state, updates = jax.jit(jax.vmap(run))(stack(list(settings.values())))
    wrong = {
        (setting, what)
        for what, tree, bad in (
            ("an update", updates, lambda x: ~np.isfinite(x)),
            # What monitor reports is NaN where it has no meaning.
            ("the state", () if case.name == "monitor" else state, np.isnan),
        )
        for x in map(np.asarray, jax.tree.leaves(tree))
        if jnp.issubdtype(x.dtype, jnp.inexact)
        for setting, one in zip(settings, bad(x), strict=True)
        if one.any()
    }
    assert not wrong


CLIPS = [
    jopt.clip,
    jopt.clip_by_global_norm,
    jopt.clip_by_norm,
    jopt.clip_by_block_rms,
    jopt.adaptive_grad_clip,
]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.__name__)
def test_a_limit_that_a_schedule_brings_to_zero_makes_updates_zero(clip: Any) -> None:
    tx = clip(jopt.linear_schedule(1.0, 0.0, 1))
    params, zero = jnp.ones(3), jnp.zeros(3)
    for grads in (zero, jnp.array([0.0, -1.0, 2.0])):
        _, state = tx.update(grads, tx.init(params), params)
        updates, _ = tx.update(grads, state, params)
        np.testing.assert_array_equal(updates, zero)


@pytest.mark.parametrize("eps", [jopt.constant_schedule(0.0), 1e-60], ids=str)
def test_without_eps_an_element_without_gradients_does_not_move(eps: Any) -> None:
    # 1e-60 is 0 in float32.
    tx, grads = jopt.scale_by_adam(eps=eps), jnp.array([0.0, 3.0, -0.1])
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates, [0.0, 1.0, -1.0], rtol=1e-6)


def test_a_constant_eps_needs_no_check_of_the_divisor() -> None:
    def kernel(eps: Any) -> str:
        tx, grads = jopt.scale_by_rms(eps=eps), jnp.ones(3)
        eqns = jax.make_jaxpr(tx.update)(grads, tx.init(grads)).jaxpr.eqns
        return str([e for e in eqns if e.params["name"] == "scale_by_rms"])

    assert "div" in kernel(1e-8) and "select_n" not in kernel(1e-8)
    assert "select_n" in kernel(jopt.tunable(1e-8))


@pytest.mark.parametrize("learning_rate", [0.1, jopt.linear_schedule(0.1, 0.0, 1)])
def test_the_average_of_schedule_free_can_be_read_without_momentum(
    learning_rate: Any,
) -> None:
    tx = jopt.schedule_free_sgd(learning_rate, b1=jopt.linear_schedule(0.9, 0.0, 1))
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
        params = jopt.apply_updates(params, updates)
    assert jnp.isfinite(jopt.eval_params(tx, state, params)).all()
