"""Loss scales are those of the libraries, and never reach zero or infinity."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import chex
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jopt
from jopt.testing.problem import as_dtype, draw
from tests.laws.case import transform
from tests.parity.loss_scale import GOLDEN, LIBRARIES, gradients, oracle, rows_of
from tests.twins.base import Array, Scalar, at, double


def dynamic_loss_scale(
    p: Array,
    grads: Iterable[Array],
    *,
    init_scale: float,
    growth_interval: int,
    growth_factor: Scalar = 2.0,
    backoff_factor: Scalar = 0.5,
    **_: Any,
) -> Iterator[Array]:
    """Micikevicius et al., 2018; whole gradients are skipped where one entry is bad."""
    b, scale, good = np.zeros_like(double(p)), init_scale, 0
    for t, g in enumerate(grads, start=1):
        g = double(g) / scale
        if np.all(np.isfinite(g)):
            b = 0.9 * b + g
            yield -0.1 * b
            good += 1
            if good == growth_interval:
                scale, good = scale * at(growth_factor, t), 0
        else:
            yield np.zeros_like(b)
            scale, good = scale * at(backoff_factor, t), 0


MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
CASES = [
    transform("dynamic_loss_scale", inner=MOMENTUM, init_scale=16.0, growth_interval=8),
]


def trace(tx: Any, grads: Any, first: Any = None) -> Any:
    """The state at the end; the scale, the count and the updates after each step.

    The gradients are those of the loss; the update gets them times the scale.
    """

    def body(state: Any, g: Any) -> Any:
        updates, state = tx.update(jopt.scale_loss(state, g), state)
        return state, (state.loss_scale, state.growth_count, updates)

    def run(grads: Any, first: Any) -> Any:
        state = tx.init(grads[0])
        if first is not None:
            state = state._replace(loss_scale=first)
        return jax.lax.scan(body, state, grads)

    return jax.jit(run if grads.ndim == 2 else jax.vmap(run))(grads, first)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_scale_count_and_gradient_is_the_librarys(library: str) -> None:
    with np.load(GOLDEN) as file:
        rows, golden = rows_of(library), file[library]
        again = "run python -m tests.parity.loss_scale"
        assert file[f"{library}.rows"].tolist() == list(map(str, rows)), again
    for interval in {row.growth_interval for row in rows}:
        own = [i for i, row in enumerate(rows) if row.growth_interval == interval]
        tx = jopt.dynamic_loss_scale(jopt.identity(), library, growth_interval=interval)
        grads = np.stack([gradients(rows[i]) for i in own])
        first = jnp.array([rows[i].init_scale for i in own], jnp.float32)
        state, (scale, count, updates) = trace(tx, jnp.asarray(grads), first)
        expected = golden[own]
        np.testing.assert_array_equal(scale, expected[..., 0])
        np.testing.assert_array_equal(count, expected[..., 1])
        before = np.column_stack([first, scale[:, :-1]])
        # torch and jmp multiply by 1 / scale as we do. The others divide, which is the
        # same by powers of two. Where 1 / scale is no normal number, some get zero.
        normal, power = before < 2.0**126, np.frexp(before)[0] == 0.5
        same = normal if library in ("torch", "jmp") else normal & power
        np.testing.assert_array_equal(updates[same], expected[..., 2:][same])
        expected = np.where(normal[..., None], expected[..., 2:], updates)
        np.testing.assert_allclose(updates, expected, rtol=3e-7)
        bad = ~np.isfinite(grads).all(axis=-1)
        np.testing.assert_array_equal(state.total_notfinite, bad.sum(axis=-1))


@pytest.mark.parametrize("library", LIBRARIES[:-1])
def test_the_golden_scales_are_what_the_installed_library_gives(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    with np.load(GOLDEN) as file:
        np.testing.assert_array_equal(oracle(library), file[library])


def test_the_presets_start_and_grow_as_their_originals() -> None:
    # The defaults, from the libraries' signatures.
    firsts = {"keras": 2**15, "keras2": 2**15, "torch": 65536, "flax": 65536}
    zeros = jnp.zeros((2005, 1))
    for preset, first in firsts.items():
        tx = jopt.dynamic_loss_scale(jopt.identity(), preset)
        _, (scale, _, _) = trace(tx, zeros)
        grows = 2001 if preset == "flax" else 2000
        assert scale.tolist() == [first] * (grows - 1) + [2 * first] * (2006 - grows)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_scale_reaches_zero_or_infinity(library: str) -> None:
    bad = jnp.full((200, 2), jnp.nan)
    good = jnp.full((550, 2), 1e-3)  # flax grows in every second step
    tx = jopt.dynamic_loss_scale(jopt.scale(-1.0), library, growth_interval=1)
    _, (scale, _, updates) = trace(tx, jnp.concatenate([bad, good, bad, good]))
    assert jnp.all((scale > 0) & (scale < jnp.inf))
    lowest = 1.0 if library in ("keras2", "jmp") else np.finfo(np.float32).tiny
    assert jnp.min(scale) == scale[199] == lowest
    # It came up to the end of float32, and down again.
    assert jnp.max(scale) == scale[749] >= 2.0**127
    # 1e-3 times the lowest scales is no normal number, which may be zero.
    np.testing.assert_allclose(updates[225:750], -1e-3, rtol=1e-6)


def test_a_division_that_overflows_is_a_bad_step_and_the_bounds_are_kept() -> None:
    tx = jopt.dynamic_loss_scale(
        jopt.scale(1.0),
        init_scale=0.5,
        growth_interval=1,
        min_scale=0.25,
        max_scale=1.0,
    )
    params = jnp.zeros(1)
    state, found = tx.init(params), []
    for g in (3e38, 1.0, 1.0, 1.0, jnp.nan, jnp.nan, jnp.nan):
        updates, state = tx.update(jnp.full(1, g), state, params)
        found.append((float(updates[0]), float(state.loss_scale)))
    assert found == [
        (0, 0.25), (4, 0.5), (2, 1), (1, 1), (0, 0.5), (0, 0.25), (0, 0.25)
    ]  # fmt: skip


def test_a_scale_of_zero_or_infinity_from_elsewhere_recovers() -> None:
    tx = jopt.dynamic_loss_scale(jopt.sgd(1.0), growth_interval=1)
    for wrong in (0.0, jnp.inf):
        state = tx.init(jnp.zeros(1))._replace(loss_scale=jnp.float32(wrong))
        for _ in range(300):
            g = jopt.scale_loss(state, jnp.full(1, 1e-3))
            updates, state = jax.jit(tx.update)(g, state)
        np.testing.assert_allclose(updates, -1e-3, rtol=1e-6)


# Where it stands.


def test_what_is_inside_sees_the_gradients_of_the_loss() -> None:
    inner = jopt.chain(jopt.clip_by_global_norm(0.1), jopt.adamw(0.1))
    params, grads = draw(steps=6)
    params, grads = as_dtype(params, jnp.float32), as_dtype(grads, jnp.float32)
    tx = jopt.dynamic_loss_scale(inner, init_scale=4.0, growth_interval=2)
    state, alone = tx.init(params), inner.init(params)
    step, step_alone = jax.jit(tx.update), jax.jit(inner.update)
    for g in grads:
        scaled = jopt.tree.scale(state.loss_scale, g)
        updates, state = step(scaled, state, params)
        expected, alone = step_alone(g, alone, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    assert state.loss_scale == 32.0


def test_float16_gradients_that_vanish_come_back() -> None:
    # The gradient of what is float16 is 1e-6 / 8, where the numbers are 6e-8 apart.
    x = jnp.linspace(-1.0, 1.0, 8)
    params = {"w": jnp.ones(8)}

    def loss(params: Any, dtype: Any) -> jax.Array:
        return jnp.mean((params["w"] * x).astype(dtype).astype("float32")) * 1e-6

    def first_update(tx: Any, dtype: Any, scaled: bool) -> Any:
        state = tx.init(params)

        def scaled_loss(params: Any) -> jax.Array:
            value = loss(params, dtype)
            return jopt.scale_loss(state, value) if scaled else value

        return tx.update(jax.grad(scaled_loss)(params), state, params)[0]["w"]

    wanted = first_update(jopt.sgd(1.0), "float32", False)
    assert jnp.max(jnp.abs(wanted)) > 1e-12
    lost = first_update(jopt.sgd(1.0), "float16", False)
    found = first_update(jopt.dynamic_loss_scale(jopt.sgd(1.0)), "float16", True)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    error = jnp.max(jnp.abs(lost / wanted - 1))
    assert error > 0.01


def test_the_inner_transformation_gets_float32() -> None:
    seen = []

    def look(updates: Any) -> Any:
        seen.extend(g.dtype for g in jax.tree.leaves(updates))
        return updates

    tx = jopt.dynamic_loss_scale(
        jopt.stateless(lambda g, p: jax.tree.map(lambda x: x * 1e-6, look(g))),
        init_scale=2.0**-20,
    )
    g = {"w": jnp.full(2, 6e4, jnp.float16)}
    updates, _ = tx.update(g, tx.init(g))
    assert seen == [jnp.float32]
    np.testing.assert_allclose(updates["w"], 6e4 * 2**20 * 1e-6, rtol=1e-3)


def test_the_loss_is_scaled_through_any_nesting() -> None:
    tx = jopt.dynamic_loss_scale(jopt.sgd(0.1), init_scale=8.0)
    params = {"w": jnp.ones(2)}
    loss = jnp.float32(0.5)
    state = flax.training.train_state.TrainState.create(
        apply_fn=None, params=params, tx=jopt.chain(tx, jopt.params_ema(0.9))
    )
    model = nnx.Dict(w=nnx.Param(jnp.ones(2)))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    tunable = jopt.dynamic_loss_scale(
        jopt.sgd(0.1), init_scale=8.0, growth_factor=jopt.tunable(2.0)
    )
    for nested in (
        jopt.partition({"a": tx}, "a").init(params),
        jopt.masked(jopt.chain(jopt.identity(), x=tx), True).init(params),
        tunable.init(params),
        state,
        optimizer.opt_state,
    ):
        assert jopt.scale_loss(nested, loss) == 4.0
    half = jopt.scale_loss(state, loss.astype("bfloat16"))
    assert half.dtype == jnp.float32


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (jopt.adam(0.1), "the state has no loss scale. Give the state of an optimizer"),
        (
            jopt.partition(
                dict.fromkeys("ab", jopt.dynamic_loss_scale(jopt.sgd(0.1))),
                {"v": "a", "w": "b"},
            ),
            r"several loss scales, \['a', 'b'\]",
        ),
    ],
)
def test_a_loss_has_one_scale(state: Any, message: str) -> None:
    params = {"v": jnp.ones(2), "w": jnp.ones(2)}
    with pytest.raises(ValueError, match=message):
        jopt.scale_loss(state.init(params), jnp.float32(1.0))


SCALED = jopt.dynamic_loss_scale(jopt.sgd(0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: jopt.dynamic_loss_scale(jopt.sgd(0.1), "pytorch"),
            "preset must be one of 'keras', 'keras2', 'torch', 'flax', 'jmp', got",
        ),
        (
            lambda: jopt.dynamic_loss_scale(jopt.sgd(0.1), init_scale=0.0),
            "min_scale <= init_scale <= max_scale.* init_scale=0,",
        ),
        (
            lambda: jopt.dynamic_loss_scale(jopt.sgd(0.1), "jmp", max_scale=0.5),
            "min_scale=1, init_scale=3.277e.04, max_scale=0.5",
        ),
        (
            lambda: jopt.dynamic_loss_scale(jopt.sgd(0.1), growth_interval=0),
            "growth_interval must be >= 1, got growth_interval=0",
        ),
        (
            lambda: jopt.dynamic_loss_scale(jopt.sgd(0.1), growth_factor=0.5),
            "growth_factor must be >= 1, got growth_factor=0.5",
        ),
        (
            lambda: jopt.dynamic_loss_scale(jopt.sgd(0.1), backoff_factor=1.0),
            r"backoff_factor must be in \[0, 1\), got backoff_factor=1.0",
        ),
        (
            lambda: jopt.dynamic_loss_scale(SCALED).init(jnp.ones(2)),
            "inner already has a loss scale",
        ),
        (
            lambda: jopt.skip_nonfinite(jopt.masked(SCALED, True)).init(jnp.ones(2)),
            r"Put it outside: dynamic_loss_scale\(skip_nonfinite\(…\)\)",
        ),
        (
            lambda: jopt.skip_spikes(SCALED).init(jnp.ones(2)),
            "skip_spikes: inner contains a dynamic_loss_scale",
        ),
    ],
)
def test_a_wrong_loss_scale_is_an_error_that_says_why(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
