"""Wrappers around every optimizer, and around each other, do what a loop would do."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core.eval_params import has_readout
from tests.laws.case import Case
from tests.laws.problem import as_dtype, draw, small, stack, types, update
from tests.laws.test_laws import each_optimizer
from tests.twins import loops


Wrapper = Callable[[Any], Any]


def in_order(tx: Any, *others: Any) -> list[Any]:
    """An optimizer and members that change its updates, if they may come after it."""
    return [*others, tx] if has_readout(tx) else [tx, *others]


# Around anything, these change nothing of these steps.
NEUTRAL: dict[str, Wrapper] = {
    "chain": lambda tx: jopt.chain(jopt.identity(), inner=tx),
    "masked": lambda tx: jopt.masked(tx, True),
    "partition": lambda tx: jopt.partition({"all": tx}, "all"),
    "selective": lambda tx: jopt.selective_transform(tx, freeze_mask=False),
    "accumulate": lambda tx: jopt.accumulate(tx, 1),
    "skip_nonfinite": jopt.skip_nonfinite,
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 3),
    "skip_spikes": lambda tx: jopt.skip_spikes(tx, warmup_steps=100),
    "loss_scale": lambda tx: jopt.dynamic_loss_scale(tx, init_scale=1.0),
    "transform": lambda tx: jopt.conditionally_transform(tx, lambda step: step >= 0),
    "mask": lambda tx: jopt.conditionally_mask(tx, lambda step: step >= 0),
    "monitor": lambda tx: jopt.monitor(tx, keep=True),
    "averages": lambda tx: jopt.chain(
        tx, jopt.params_mean(), jopt.params_ema(0.9), jopt.params_lawa(2)
    ),
    "groups": lambda tx: jopt.chain(
        *in_order(tx, jopt.scale_by_group(1), jopt.freeze(False))
    ),
}


@each_optimizer
def test_every_optimizer_gives_the_same_numbers_inside_every_wrapper(
    case: Case,
) -> None:
    """Under jit, scan and vmap at once; ready for donation; with types that stay."""
    params, grads = as_dtype(draw(steps=4), jnp.float32)
    everywhere = {"alone": case.make()}
    everywhere |= {name: wrap(case.make()) for name, wrap in NEUTRAL.items()}
    if has_readout(case.make()):
        with pytest.raises(ValueError, match="average after lookahead"):
            jopt.lookahead(case.make())
    else:
        everywhere["lookahead"] = jopt.lookahead(case.make(), sync_period=100)

    def body(carry: Any, g: Any) -> Any:
        new = {}
        for name, tx in everywhere.items():
            params, state = carry[name]
            updates, state = update(tx, g, state, params)
            new[name] = jopt.apply_updates(params, updates), state
        return new, {name: params for name, (params, _) in new.items()}

    def start(params: Any) -> Any:
        return {name: (params, tx.init(params)) for name, tx in everywhere.items()}

    def run(carry: Any, grads: Any) -> Any:
        return jax.lax.scan(body, carry, grads)

    twice = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)
    both = jax.tree.map(lambda g: jnp.stack([g, -0.5 * g]), stack(grads))
    carry = jax.vmap(start)(twice)
    _, found = jax.jit(jax.vmap(run))(carry, both)
    half, half_grads = small(jnp.bfloat16)[0], small(jnp.float32)[1]
    for name, tx in everywhere.items():
        arrays = jax.tree.leaves((params, tx.init(params)))
        buffers = {x.unsafe_buffer_pointer() for x in arrays}
        assert len(buffers) == len(arrays), name
        state = jax.eval_shape(tx.init, half)
        new = jax.eval_shape(functools.partial(update, tx), half_grads, state, half)
        assert types(new) == (types(half_grads), types(state)), name
        chex.assert_trees_all_close(
            found[name], found["alone"], rtol=1e-5, atol=1e-7, custom_message=name
        )


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
