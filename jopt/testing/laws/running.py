"""JAX's transformations of an update: jit, scan, vmap, grad."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.apply import apply_updates
from jopt.testing import comparison
from jopt.testing.law import law
from jopt.testing.problem import as_dtype, stack, update
from jopt.testing.subject import Subject


PURE = (
    "init and update must be pure functions: everything that changes from step to step "
    "is an array in the state (a step count, for example), never an attribute, a "
    "global or a default value that Python code changes."
)


@law(
    "running",
    fix=f"{PURE} Do not branch on values with a Python if: use jnp.where or lax.cond.",
)
def jit_scan_and_vmap_give_the_numbers_of_a_loop(subject: Subject) -> None:
    """Under jit, scan and vmap the numbers are those of a Python loop."""
    tx = subject.make()
    params, grads = as_dtype(subject.draw(steps=4), jnp.float32)
    state, expected = tx.init(params), []
    for g in grads:
        updates, state = update(tx, g, state, params)
        expected.append(updates)

    def body(state, g):
        updates, state = update(tx, g, state, params)
        return state, updates

    def two(tree):
        return jax.tree.map(lambda x: jnp.stack([x, x]), tree)

    @jax.jit
    def compiled(grads, params):
        scanned = jax.lax.scan(body, tx.init(params), grads)
        first = jax.vmap(lambda g, p: update(tx, g, tx.init(p), p)[0])
        return scanned, first(two(jax.tree.map(lambda g: g[0], grads)), two(params))

    (scanned_state, scanned), first = compiled(stack(grads), params)
    close = {"rtol": 2e-5, "atol": 1e-7}
    comparison.close(
        scanned,
        stack(expected),
        what="the updates (by step) of a scan under jit",
        **close,
    )
    comparison.close(
        scanned_state, state, what="the state after a scan under jit", **close
    )
    comparison.close(first, two(expected[0]), what="the update under vmap", **close)


@law(
    "running",
    fix="init must return exactly the structure, shapes and dtypes that update does: "
    "give new arrays in init a dtype (jnp.zeros(shape, dtype)), and round what update "
    "returns to it.",
)
def the_second_call_does_not_compile(subject: Subject) -> None:
    """The second call of a compiled step does not compile again."""
    params, grads = subject.small()
    traces = []

    @jax.jit
    def step(g, state, params):
        traces.append(1)
        updates, state = update(subject.make(), g, state, params)
        return apply_updates(params, updates), state

    state = subject.make().init(params)
    for _ in range(3):
        params, state = step(grads, state, params)
    assert len(traces) == 1, f"three calls of one step compiled {len(traces)} times"


@law(
    "running",
    fix="a gradient through jnp.where is NaN if one of its two sides is: divide by "
    "numbers, and take roots of numbers, that are not zero, as jnp.where(x > 0, x, 1).",
)
def an_update_can_be_differentiated_where_it_is_smooth(subject: Subject) -> None:
    """jax.grad and jax.jvp of an update are finite, and agree."""
    tx = subject.make()
    params, grads = subject.small()

    def total(g):
        updates, _ = update(tx, g, tx.init(params), params)
        return sum(jnp.sum(u) for u in jax.tree.leaves(updates))

    @jax.jit
    def both_ways(g):
        ones = jax.tree.map(jnp.ones_like, g)
        grad = jax.tree.leaves(jax.grad(total)(g))
        return sum(jnp.sum(x) for x in grad), jax.jvp(total, (g,), (ones,))[1]

    by_grad, jvp = both_ways(grads)
    assert jnp.isfinite(by_grad), f"jax.grad of an update is {by_grad}"
    assert np.allclose(by_grad, jvp, rtol=1e-3, atol=1e-5), (
        f"jax.grad of an update gives {by_grad}, and jax.jvp gives {jvp}"
    )
