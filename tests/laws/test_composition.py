"""Wrappers around every optimizer, and around each other, do what a loop would do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import testing
from jopt.testing.problem import as_dtype, draw
from tests.catalogue import ONCE, Case
from tests.twins import loops


Wrapper = Callable[[Any], Any]


@testing.parametrize_with_laws(ONCE, only=["*inside_every_wrapper"])
def test_every_optimizer_gives_the_same_numbers_inside_every_wrapper(
    tx: Case, law: Any
) -> None:
    law(tx)


# Nested, and not neutral: a twin of each in `loops.py`.
NESTED: dict[str, tuple[Wrapper, Wrapper]] = {
    "clip": (
        lambda tx: jopt.chain(jopt.clip_by_global_norm(0.7), tx),
        lambda inner: loops.Clip(inner, 0.7),
    ),
    "masked": (
        lambda tx: jopt.masked(tx, "kernel|scalar"),
        lambda inner: loops.Only(inner, ("kernel", "scalar")),
    ),
    "accumulate": (
        lambda tx: jopt.accumulate(tx, 2),
        lambda inner: loops.Accumulate(inner, 2),
    ),
    "skip": (jopt.skip_nonfinite, loops.SkipNonfinite),
    "second": (
        lambda tx: jopt.conditionally_mask(tx, lambda step: step % 2 == 0),
        loops.EverySecond,
    ),
    "lookahead": (
        lambda tx: jopt.lookahead(tx, sync_period=2, slow_step_size=0.5),
        lambda inner: loops.Lookahead(inner, 2, 0.5),
    ),
}


@pytest.mark.parametrize("inmost", NESTED)
def test_wrappers_nested_three_deep_in_every_order_do_what_a_loop_does(
    inmost: str,
) -> None:
    rate = jopt.linear_schedule(0.1, 0.0, 10)
    others = [name for name in NESTED if name != inmost]
    orders = [(inmost, *rest) for rest in itertools.permutations(others, 2)]
    start, grads = draw(steps=8)
    start = {n: np.asarray(p) for n, p in start.items()}
    for g in grads[2:4]:  # two bad steps in a row, one of two to be accumulated
        g["kernel"][0, 0] = np.nan if g is grads[2] else np.inf
    with jax.enable_x64(True):
        trajectories = jax.jit(run_all, static_argnums=0)(
            tuple(wrapped(jopt.adam(rate), order, 0) for order in orders),
            as_dtype(start, jnp.float64),
            {n: jnp.asarray(np.stack([g[n] for g in grads])) for n in start},
        )
    for order, trajectory in zip(orders, trajectories, strict=True):
        twin = wrapped(loops.Adam(lambda t: 0.1 - 0.01 * t), order, 1)
        params, expected = start, []
        with np.errstate(invalid="ignore"):  # inf * 0, where nothing guards
            for g in grads:
                updates = twin.update(g, params)
                params = {n: p + updates[n] for n, p in params.items()}
                expected.append(params)
        for name, found in trajectory.items():
            wanted = np.stack([params[name] for params in expected])
            message = f"{order} {name}"
            np.testing.assert_allclose(found, wanted, 1e-9, 1e-12, err_msg=message)


def wrapped(inner: Any, order: tuple[str, ...], which: int) -> Any:
    for name in order:
        inner = NESTED[name][which](inner)
    return inner


def run_all(txs: tuple[Any, ...], params: Any, grads: Any) -> list[Any]:
    """The parameters after each step, with each transformation."""

    def trajectory(tx: Any) -> Any:
        def body(carry: Any, g: Any) -> Any:
            params, state = carry
            updates, state = tx.update(g, state, params)
            params = jopt.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(body, (params, tx.init(params)), grads)[1]

    return [trajectory(tx) for tx in txs]
