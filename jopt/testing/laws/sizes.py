"""Numbers of every size, and in low precision."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.apply import apply_updates
from jopt.core.order import lands
from jopt.core.transformation import GradientTransformation
from jopt.testing import comparison
from jopt.testing.law import Skipped, law
from jopt.testing.problem import as_dtype, draw, update, updates_of
from jopt.testing.subject import Subject


SIZES = {  # tiny and huge, of each dtype
    "float16": (6e-8, 6e4),
    "bfloat16": (1e-30, 1e30),
    "float32": (1e-30, 1e30),
}
PRECISION = (
    "compute in float32 or wider (g.astype(jnp.float32)), keep moments in float32, and "
    "round once, at the end. 1 - 0.999 is 0 in bfloat16. A rule written with "
    "jopt.leafwise does not have to care."
)


@law(
    "sizes",
    fix="divide by numbers that are not zero (add eps outside the root, or use "
    "jnp.where), and do not square numbers that may be as large as 1e30: "
    f"{PRECISION}",
)
def zero_tiny_and_huge_gradients_give_finite_updates(subject: Subject) -> None:
    """Gradients of 0, 1e-30 and 1e30 give finite updates."""
    tx = subject.make()
    params = {dtype: subject.small(dtype)[0] for dtype in SIZES}

    @jax.jit
    def step(grads, state):
        new = {d: update(tx, grads[d], state[d], p) for d, p in params.items()}
        return {d: u for d, (u, _) in new.items()}, {d: s for d, (_, s) in new.items()}

    for size in range(3):
        grads = {}
        for dtype, sizes in SIZES.items():
            value = (0.0, *sizes)[size]
            if dtype == "float16":
                value = min(value, subject.largest_float16)
            grads[dtype] = jax.tree.map(
                lambda p, x=value: jnp.full_like(p, x), params[dtype]
            )
        state = {dtype: tx.init(p) for dtype, p in params.items()}
        for _ in range(3):
            updates, state = step(grads, state)
            for dtype, u in updates.items():
                value = (0.0, *SIZES[dtype])[size]
                comparison.finite(u, f"the update for {dtype} gradients of {value:g}")
            if size == 0 and subject.moves_without_gradient is False:
                zeros = jax.tree.map(jnp.zeros_like, updates)
                comparison.equal(updates, zeros, "the update for gradients of zero")


@law("sizes", fix=PRECISION)
def bfloat16_updates_are_the_float32_updates_rounded_once(subject: Subject) -> None:
    """Updates for bfloat16 trees are those for float32 trees, rounded once."""
    params, grads = long_run() if subject.params is None else _long_run(subject.params)
    tx = subject.make()
    if isinstance(tx, GradientTransformation) and lands(tx):
        raise Skipped("its updates lead from one bfloat16 parameter to another")
    wide = updates_of(tx, *as_dtype((params, grads), jnp.float32))
    narrow = updates_of(tx, params, grads)
    comparison.close(
        as_dtype(narrow, jnp.float32),
        wide,
        rtol=2.0**-8,
        atol=1e-30,
        what="the bfloat16 updates (by step)",
    )


@functools.cache
def long_run() -> tuple[Any, Any]:
    """Parameters in bfloat16, and the gradients of 200 steps, stacked."""
    return _long_run()


def _long_run(like: Any = None) -> tuple[Any, Any]:
    params, grads = draw(like, steps=200)
    stacked = jax.tree.map(lambda *gs: np.stack(gs), *grads)
    return as_dtype((params, stacked), jnp.bfloat16)


@law("sizes", kind="optimizer", fix=PRECISION)
def a_bfloat16_run_tracks_the_float32_run(subject: Subject) -> None:
    """200 steps of bfloat16 parameters end where those of float32 parameters do."""
    # Bound: 200 roundings of a parameter of size 1, each at most 2^-9, at random.
    start = subject.choose({"w": jnp.linspace(-1.0, 1.0, 16)})

    def final(tx, dtype):
        params = as_dtype(start, dtype)

        def body(carry, _):
            params, state = carry
            grads = jax.tree.map(lambda p: p - jnp.asarray(0.3, p.dtype), params)
            updates, state = update(tx, grads, state, params)
            return (apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (params, tx.init(params)), length=200)
        return as_dtype(params, jnp.float32)

    # Larger steps move a bfloat16 to its end, and smaller ones do not swing around it;
    # powers of 2 are not rounded.
    txs = subject.with_steps_of(0.05, 2.0**-6, 2.0**-7)
    for tx in txs:
        try:
            expected = final(tx, jnp.float32)
            comparison.finite(expected, "the float32 parameters after 200 steps")
            comparison.close(
                final(tx, jnp.bfloat16),
                expected,
                rtol=0.0,
                atol=2.0**-9 * math.sqrt(200) * 2 * largest(start),
                what="the bfloat16 parameters after 200 steps",
            )
            return
        except AssertionError:
            if tx is txs[-1]:
                raise


def largest(tree: Any) -> float:
    """The largest size of an element, at least 1."""
    return max(
        [1.0, *(float(jnp.max(abs(x))) for x in jax.tree.leaves(tree) if x.size)]
    )
