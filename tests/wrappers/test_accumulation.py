"""Accumulated gradients are those of a large batch, and cost no more than a sum."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax as real_optax
import pytest

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import as_dtype, draw
from tests.benchmarks.recipes import fused, lowered, temporary_bytes
from tests.benchmarks.traffic import traffic
from tests.laws.case import transform
from tests.parity.row import keras, optax
from tests.twins.base import Array, double


def accumulate_sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    steps: Any,
    use_grad_mean: bool = True,
    **_: Any,
) -> Iterator[Array]:
    """Momentum 0.9 on the mean, or sum, of as many gradients as one step has."""
    b = np.zeros_like(double(p))
    waiting: list[Array] = []
    done = 0
    for g in grads:
        waiting.append(double(g))
        if len(waiting) < (round(float(steps(done))) if callable(steps) else steps):
            yield np.zeros_like(b)
            continue
        b = 0.9 * b + sum(waiting) / (len(waiting) if use_grad_mean else 1)
        waiting, done = [], done + 1
        yield -0.1 * b


SGD = jopt.sgd(0.1, 0.9)
CASES = [
    transform("accumulate", accumulate_sgd, inner=SGD, steps=3),
    transform(
        "accumulate",
        accumulate_sgd,
        inner=SGD,
        steps=jopt.piecewise_interpolate_schedule("linear", 1.0, {4: 4.0}),
        use_grad_mean=False,
    ),
]

ADAM = 'adam(0.01, eps=1e-7, eps_mode="before")'
MEAN32 = 1e-8  # optax accumulates in float32
ROWS = (
    keras(
        "gradient-accumulation",
        "Adam(0.01, gradient_accumulation_steps=3)",
        f"accumulate({ADAM}, 3)",
    ),
    keras(
        "gradient-accumulation-clip-decay",
        "SGD(0.05, momentum=0.9, gradient_accumulation_steps=4, clipnorm=0.5, "
        "weight_decay=0.1)",
        "accumulate(chain(clip_by_norm(0.5), trace(0.9), add_decayed_weights(0.1), "
        "scale_by_learning_rate(0.05)), 4)",
    ),
    keras(
        "gradient-accumulation-schedule",
        "Adam(DECAY, gradient_accumulation_steps=3)",
        'accumulate(adam(micro_step_schedule(DECAY, 3), eps=1e-7, eps_mode="before"), '
        "3)",
    ),
    optax(
        "multi-steps",
        "MultiSteps(adam(0.01), 3).gradient_transformation()",
        "accumulate(adam(0.01), 3)",
        tol64=MEAN32,
    ),
    optax(
        "multi-steps-sum",
        "MultiSteps(adam(0.01), 3, use_grad_mean=False).gradient_transformation()",
        "accumulate(adam(0.01), 3, use_grad_mean=False)",
        tol64=MEAN32,
    ),
)

PARAMS, GRADS = draw(steps=12)
P32, G32 = as_dtype((PARAMS, GRADS), jnp.float32)
NAN, INF = jnp.float32(jnp.nan), jnp.float32(jnp.inf)


def run(tx: Any, grads: Any, state: Any = None, **extra: Any) -> Any:
    """The updates and states, of a compiled loop at the same parameters."""
    step = jax.jit(tx.update)
    state = tx.init(P32) if state is None else state
    found = []
    for i, g in enumerate(grads):
        told = {name: values[i] for name, values in extra.items()}
        updates, state = step(g, state, P32, **told)
        found.append((updates, state))
    return found


def times(tree: Any, factor: Any) -> Any:
    return jax.tree.map(lambda x: factor * x, tree)


# The large batch.


@pytest.mark.parametrize("use_grad_mean", [True, False])
@pytest.mark.parametrize("grads_are_sums", [True, False])
def test_unequal_micro_batches_give_the_gradient_of_the_large_batch(
    use_grad_mean: bool, grads_are_sums: bool
) -> None:
    # 24 examples of three features of very unlike size, in float64 by hand.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3)) * np.array([1.0, 1e-4, 1e-6])
    y, w = rng.normal(size=24), rng.normal(size=3)
    each = 2 * (x @ w - y)[:, None] * x
    expected = each.mean(0) if use_grad_mean else each.sum(0)
    scale = np.abs(each).mean(0) if use_grad_mean else np.abs(each).sum(0)
    tx = jopt.accumulate(jopt.sgd(1.0), 4, use_grad_mean, grads_are_sums=grads_are_sums)
    params = jnp.asarray(w, jnp.float32)
    state, step = tx.init(params), jax.jit(tx.update)
    for part in np.split(each, [1, 9, 9]):  # 1, 8, 0 and 15 examples
        g = part.sum(0) if grads_are_sums else part.sum(0) / max(len(part), 1)
        g = jnp.full(3, NAN) if len(part) == 0 else jnp.asarray(g, jnp.float32)
        updates, state = step(g, state, params, weight=len(part))
    assert np.all(np.abs(-np.asarray(updates) - expected) <= 1e-6 * scale)
    assert int(state.gradient_step) == 1


def test_accumulation_within_accumulation_has_the_weights_of_its_parts() -> None:
    tx = jopt.accumulate(jopt.accumulate(jopt.sgd(1.0), 2), 2)
    weights = [3.0, 1.0, 0.5, 5.5]
    updates, _ = run(tx, G32[:4], weight=weights)[-1]
    expected = jax.tree.map(
        lambda *gs: -sum(w * g for w, g in zip(weights, gs, strict=True)) / 10.0,
        *GRADS[:4],
    )
    chex.assert_trees_all_close(updates, as_dtype(expected, jnp.float32), rtol=1e-5)


def test_where_nothing_had_a_weight_the_step_waits_for_one_that_has() -> None:
    found = run(jopt.accumulate(jopt.sgd(1.0), 2), G32[:3], weight=[0, 0, 2])
    assert [int(state.gradient_step) for _, state in found] == [0, 0, 1]
    chex.assert_trees_all_equal(found[2][0], times(G32[2], -1))
    assert [bool(jopt.has_updated(state)) for _, state in found] == [False, False, True]


def test_it_is_optax_multi_steps_with_a_schedule_of_steps_and_skipping() -> None:
    grads = [*G32]
    for i in (1, 2, 7):
        grads[i] = {**grads[i], "bias": grads[i]["bias"].at[0].set(NAN)}
    found = []
    for library in (real_optax, jopt):

        def every(count: Any) -> Any:
            return jnp.where(count < 2, 2, 3)

        tx = library.MultiSteps(library.adam(0.1), every, True, library.skip_not_finite)
        with jax.numpy_dtype_promotion("standard"):
            found.append([*run(tx.gradient_transformation(), grads), tx])
    for (theirs, their_state), (ours, state) in zip(
        *(x[:-1] for x in found), strict=True
    ):
        chex.assert_trees_all_close(ours, theirs, rtol=2e-5, atol=1e-8)
        for name in ("mini_step", "gradient_step"):
            assert int(getattr(state, name)) == int(getattr(their_state, name))
        chex.assert_trees_all_close(
            state.inner_opt_state["scale_by_adam"].nu,
            their_state.inner_opt_state[0].nu,
            rtol=2e-5,
        )
        # optax says that a gradient that was skipped right after a step made one.
        if not state.skipped:
            has = found[0][-1].has_updated(their_state)
            assert bool(has) == bool(found[1][-1].has_updated(state))
    assert int(found[1][-2][1].total_skipped) == 3


# What is not finite.


def test_after_an_inf_all_later_steps_are_right_and_the_others_are_zero() -> None:
    grads = [*G32]
    grads[1] = {**grads[1], "kernel": grads[1]["kernel"].at[0, 0].set(INF)}
    found = run(jopt.accumulate(jopt.sgd(1.0), 3), grads[:6])
    assert not jnp.isfinite(found[2][0]["kernel"][0, 0])  # it is not hidden
    for t in (0, 1, 3, 4):
        zeros = jax.tree.map(jnp.zeros_like, P32)
        chex.assert_trees_all_equal(found[t][0], zeros)
    mean = jax.tree.map(lambda *gs: -sum(gs) / 3, *GRADS[3:6])
    chex.assert_trees_all_close(
        found[5][0], as_dtype(mean, jnp.float32), rtol=1e-5, atol=1e-12
    )
    # The optax of today keeps the inf, and multiplies it by zero.
    with jax.numpy_dtype_promotion("standard"):
        theirs = run(real_optax.MultiSteps(real_optax.sgd(1.0), 3), grads[:6])
    assert jnp.isnan(theirs[4][0]["kernel"][0, 0])
    assert jnp.isnan(theirs[5][0]["kernel"][0, 0])


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_skipped_gradient_changes_nothing_but_the_counters(bad: Any) -> None:
    tx = jopt.accumulate(jopt.adam(0.1), 3, should_skip_update_fn=jopt.skip_not_finite)
    good = run(tx, G32)
    poison = jax.tree.map(lambda g: jnp.full_like(g, bad), G32[0])
    for at in range(6):  # at every place within a step
        grads = [*G32[:at], poison, *G32[at:]]
        found = run(tx, grads, weight=[1] * at + [NAN] + [1] * 12)
        before = found[at - 1][1] if at else tx.init(P32)
        updates, after = found[at]
        assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
        counters = {"skipped": before.skipped + 1, "total_skipped": jnp.int32(1)}
        chex.assert_trees_all_equal(after, before._replace(**counters))
        assert not jopt.has_updated(after)
        last, expected = found[-1][1], good[-1][1]._replace(total_skipped=jnp.int32(1))
        chex.assert_trees_all_equal(last, expected)


def test_only_too_large_gradients_are_skipped() -> None:
    f = functools.partial(jopt.skip_large_updates, max_squared_norm=5.0)
    g = {"w": jnp.ones(4)}
    for value, skipped in ((1.0, False), (1.2, True), (NAN, True), (1e30, True)):
        ours, _ = f(times(g, value))
        theirs, _ = real_optax.skip_large_updates(times(g, value), 0, None, 5.0)
        assert bool(ours) == bool(theirs) == skipped


# Two functions.


def test_the_two_functions_give_the_numbers_and_states_of_the_one() -> None:
    tx = jopt.accumulate(
        jopt.chain(jopt.clip_by_global_norm(0.5), jopt.adamw(0.1)),
        3,
        should_skip_update_fn=jopt.skip_not_finite,
    )
    bad = {**G32[1], "scalar": INF}
    grads = [*G32[:4], bad, *G32[4:9]]
    weights = [jnp.float32(w) for w in (1, 2, 3, 1, 9, 4, 1, 2, 2, 5)]
    add = jax.jit(
        lambda g, state, w: jopt.accumulate_grads(tx, g, state, weight=w),
        donate_argnums=1,
    )
    emit = jax.jit(functools.partial(jopt.emit, tx))
    expected = run(tx, grads, weight=weights)
    state = tx.init(P32)
    for i, (updates, whole) in enumerate(expected):
        # A loop that was begun with one may go on with the other.
        if i == 5:
            state = expected[i - 1][1]
        state = add(grads[i], jax.tree.map(jnp.copy, state), weights[i])
        assert types(state) == types(whole)
        if jopt.has_updated(whole):
            found, state = emit(state, P32)
            chex.assert_trees_all_close(found, updates, rtol=1e-6, atol=1e-12)
        chex.assert_trees_all_close(state, whole, rtol=1e-6, atol=1e-12)
    assert int(state.gradient_step) == 3


def test_with_nothing_added_there_is_no_step() -> None:
    tx = jopt.accumulate(jopt.adamw(0.1), 2, should_skip_update_fn=jopt.skip_not_finite)
    state = jopt.accumulate_grads(tx, times(G32[0], NAN), tx.init(P32))
    updates, after = jopt.emit(tx, state, P32)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, P32))
    chex.assert_trees_all_equal(after, state)
    bf16 = as_dtype(PARAMS, jnp.bfloat16)
    state = jopt.accumulate_grads(tx, G32[0], tx.init(bf16))
    assert types(jopt.emit(tx, state, bf16)[0]) == types(bf16)


# What it is made of.


def test_a_foreign_state_that_is_computed_in_another_dtype_keeps_its_own() -> None:
    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.bfloat16)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, state.astype(jnp.float32) + 1

    tx = jopt.accumulate((init, update), 2)
    state = tx.init(P32)
    for _ in range(4):
        _, after = jax.jit(tx.update)(G32[0], state, P32)
        assert types(after) == types(state)
        state = after
    assert state.inner_opt_state == 2


def test_extra_arguments_go_through_arrays_and_functions() -> None:
    def init(params: Any) -> Any:
        return jnp.zeros(())

    def update(updates: Any, state: Any, params: Any, *, value: Any, f: Any) -> Any:
        return times(updates, f(value)), state + value

    tx = jopt.accumulate((init, update), 2)

    @jax.jit
    def step(g: Any, state: Any, value: Any) -> Any:
        return tx.update(g, state, P32, value=value, f=lambda v: 10 * v)

    state = tx.init(P32)
    for t in range(2):
        updates, state = step(G32[0], state, jnp.float32(t + 2))
    chex.assert_trees_all_close(updates, times(G32[0], 30.0), rtol=1e-6)
    assert float(state.inner_opt_state) == 3.0  # that of the last gradient
    with pytest.raises(TypeError, match=r"'wieght'.*Did you mean 'weight'"):
        tx.update(G32[0], state, P32, wieght=2.0, value=1.0, f=abs)


def test_the_sum_is_stored_in_the_dtype_that_is_asked_for() -> None:
    half = as_dtype(GRADS[0], jnp.bfloat16)
    tx = jopt.accumulate(jopt.sgd(1.0), 64, accumulator_dtype="bfloat16")
    found = run(tx, [half] * 3)[-1][1].acc_grads
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
    once = jax.tree.map(lambda g: g.astype(jnp.float32), half)
    twice = as_dtype(times(once, 2.0), jnp.bfloat16)
    sums = jax.tree.map(lambda x, g: x.astype(g.dtype) + g, twice, once)
    chex.assert_trees_all_equal(found, as_dtype(sums, jnp.bfloat16))


def test_it_can_be_written_down_with_its_functions() -> None:
    tx = jopt.accumulate(
        jopt.sgd(0.1),
        jopt.piecewise_constant_schedule(2.0, {10: 2.0}),
        should_skip_update_fn=jopt.skip_not_finite,
    )
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))) == tx
    again = jopt.MultiSteps(jopt.sgd(0.1), tx.recipe.arguments["steps"], True)
    assert again != tx
    assert again.gradient_transformation() is again


# What is compiled.

SIDE = 512


def compiled(f: Any, donated: Any, *args: Any) -> str:
    """The module, without the loop that is not entered between two steps."""
    text = jax.jit(f, donate_argnums=donated).lower(*args).compile().as_text()
    loop = re.compile(r" while\(| call\(.*to_apply=%while")  # as of JAX 0.12
    return "\n".join(line for line in text.split("\n") if not loop.search(line))


def test_a_micro_step_moves_the_gradient_and_the_sum_and_no_more() -> None:
    params = {"w": jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)}
    gradient = 4 * SIDE**2
    tx = jopt.accumulate(jopt.adamw(0.1), 4)
    state = jax.eval_shape(tx.init, params)
    add = compiled(functools.partial(jopt.accumulate_grads, tx), 1, params, state)
    assert traffic(add)[0] <= 3 * gradient + 100

    # One function: also what the updates, which are zero, are added to; and the sum,
    # in whose memory they come.
    def step(library: Any, tx: Any, params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    whole = compiled(functools.partial(step, jopt, tx), (0, 1), params, state, params)
    assert traffic(whole)[0] <= 8 * gradient + 200
    with jax.numpy_dtype_promotion("standard"):
        theirs = real_optax.MultiSteps(real_optax.adamw(0.1), 4)
        state = jax.eval_shape(theirs.init, params)
        f = functools.partial(step, real_optax, theirs)
        moved, _ = traffic(compiled(f, (0, 1), params, state, params))
    assert moved >= 15 * gradient  # a whole step and more, at every gradient


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_updates_take_the_memory_of_the_sum(dtype: Any) -> None:
    params = {f"w{i}": jax.ShapeDtypeStruct((SIDE, SIDE), dtype) for i in range(4)}
    tx = jopt.accumulate(jopt.adamw(0.1), 4)
    assert temporary_bytes(tx, params) <= 10_000


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_fused_step_adds_what_update_returns(dtype: Any) -> None:
    # The inner transformation takes the weight too.
    tx = jopt.accumulate(jopt.accumulate(jopt.sgd(0.1), 1), 2)
    params = {"w": jnp.arange(4.0)}
    grads = {"w": jnp.array([1.0, -3.0, 1e-4, 0.0], dtype)}
    fused_run = plain_run = params, tx.init(params)
    for weight in (1.0, 3.0, 2.0, 0.5):
        p, state = fused_run
        fused_run = jopt.step(tx, grads, state, p, weight=weight)
        p, state = plain_run
        updates, state = tx.update(grads, state, p, weight=weight)
        plain_run = jopt.apply_updates(p, updates), state
        chex.assert_trees_all_close(fused_run, plain_run, rtol=1e-6)
    assert bool(jnp.any(fused_run[0]["w"] != params["w"]))


def test_a_fused_step_needs_no_memory_for_updates() -> None:
    leaf = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
    tx = jopt.accumulate(jopt.adamw(0.1), 4)
    compiled = lowered(fused(tx), tx, {"w0": leaf, "w1": leaf}).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 10_000


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_sums_that_can_and_cannot_hold_the_updates_give_the_same_under_jit(
    dtype: Any,
) -> None:
    tx = jopt.accumulate(jopt.adam(0.1), 2, accumulator_dtype=dtype)
    params = {"w": jnp.full(3, 2.0), "none": None, "b": jnp.full(3, 2.0)}
    grads = {"w": jnp.array([1.0, -3.0, 1e-3]), "none": None, "b": None}
    jitted = eager = tx.init(params)
    for t in range(5):
        g = jax.tree.map(lambda x, t=t: (1 + t) * x, grads)
        found, jitted = jax.jit(tx.update)(g, jitted, params)
        expected, eager = tx.update(g, eager, params)
        chex.assert_trees_all_close((found, jitted), (expected, eager), rtol=1e-6)
        emitted = t % 2 == 1
        assert bool(jnp.any(found["w"] != 0)) == emitted
        assert bool(jnp.any(jitted.acc_grads["w"] != 0)) != emitted


def test_the_inner_transformation_is_within_the_loop_only() -> None:
    tx = jopt.accumulate(jopt.adam(0.1), 4)
    jaxpr = jax.make_jaxpr(tx.update)(G32[0], tx.init(P32), P32)
    outside = [e for e in jaxpr.jaxpr.eqns if e.primitive.name != "custom_jvp_call"]
    assert len(outside) < len(jaxpr.jaxpr.eqns)
    assert "scale_by_adam" in str(jaxpr)
    assert not any("scale_by_adam" in str(eqn) for eqn in outside)


# Misuse.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jopt.accumulate(jopt.sgd(0.1), 0), ValueError, "steps must be >= 1"),
        (
            lambda: jopt.accumulate(jopt.sgd(0.1), 2.5),
            TypeError,
            "steps must be a whole number, got steps=2.5",
        ),
        (
            lambda: jopt.accumulate(jopt.sgd(0.1), lambda count: count),
            ValueError,
            r"steps must be >= 1, but steps\(0\) is 0",
        ),
        (
            lambda: jopt.accumulate(jopt.sgd(0.1), 2, should_skip_update_fn=True),
            TypeError,
            "should_skip_update_fn must be a function of .*got True",
        ),
        (
            lambda: run(
                jopt.accumulate(jopt.sgd(0.1), 2, should_skip_update_fn=lambda *_: 1),
                G32[:1],
            ),
            TypeError,
            "must return True or False for the whole gradient, got 1",
        ),
        (
            lambda: jopt.accumulate(jopt.sgd(0.1), 2).update(
                G32[0], jopt.accumulate(jopt.sgd(0.1), 2).init(P32), P32, weight=-1
            ),
            ValueError,
            "weight must be >= 0 and finite, got weight=-1",
        ),
        (
            lambda: run(jopt.accumulate(jopt.sgd(0.1), 2), G32[:1], weight=[P32]),
            TypeError,
            "weight must be one number",
        ),
        (
            lambda: jopt.accumulate(jopt.sgd(0.1), 2).update(G32[0], P32, P32),
            TypeError,
            "accumulate expects the state .* an AccumulateState.*update.updates, state",
        ),
        (
            lambda: jopt.emit(jopt.sgd(0.1), ()),
            TypeError,
            r"emit takes a transformation made by jopt.accumulate.*got sgd",
        ),
        (
            lambda: jopt.has_updated(jopt.sgd(0.1).init(P32)),
            ValueError,
            "has_updated takes a state with one jopt.accumulate.*this state has 0",
        ),
    ],
)
def test_misuse_is_told(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_accumulated_bfloat16_gradients_are_added_in_float32() -> None:
    tx = jopt.accumulate(jopt.scale(1.0), 512)
    params = {"w": jnp.zeros((), jnp.bfloat16)}
    g = {"w": jnp.asarray(1.0, jnp.bfloat16)}
    step = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(512):
        updates, state = step(g, state, params)
    assert updates["w"] == 1.0  # in bfloat16 the sum stands still at 256
    assert int(state.gradient_step) == 1
    assert int(state.mini_step) == 0


def test_the_inner_transformation_runs_in_the_step_that_emits_only() -> None:
    tx = jopt.accumulate(jopt.adam(jopt.linear_schedule(0.1, 0.0, 10)), 3)
    state = run(tx, G32[:7])[-1][1]
    assert int(state.inner_opt_state["scale_by_adam"].count) == 2
    assert float(jopt.hyperparams(state)["learning_rate"]) == pytest.approx(0.09)
    state = jopt.set_hyperparams(
        jopt.accumulate(jopt.sgd(0.1), 2),
        jopt.accumulate(jopt.sgd(0.1), 2).init(P32),
        learning_rate=0.5,
    )
    assert float(jopt.hyperparams(state)["learning_rate"]) == 0.5


def test_an_accumulation_of_no_gradients_is_an_error() -> None:
    with pytest.raises(ValueError, match="steps must be >= 1, got steps=0"):
        jopt.accumulate(jopt.sgd(0.1), 0)


AVERAGES: dict[str, Callable[[], Any]] = {
    "params_ema": lambda: jopt.params_ema(0.5),
    "with a schedule": lambda: jopt.params_ema(jopt.ema_warmup_schedule(0.9)),
    "overwriting": lambda: jopt.params_ema(0.5, overwrite_every=2),
    "params_mean": lambda: jopt.params_mean(1, 2),
    "params_lawa": lambda: jopt.params_lawa(2),
    "schedule-free": lambda: jopt.scale_by_schedule_free(1.0),
    "nested": lambda: jopt.masked(jopt.chain(jopt.params_ema(0.5)), True),
    "grouped": lambda: jopt.chain(jopt.scale(0.5), jopt.params_ema(0.5)),
}
ACCUMULATIONS: dict[str, Callable[[Any], Any]] = {
    "accumulate": lambda tx: jopt.accumulate(tx, 3),
    "skipping": lambda tx: jopt.accumulate(
        tx, 3, should_skip_update_fn=jopt.skip_not_finite
    ),
    "guarded": lambda tx: jopt.skip_nonfinite(jopt.accumulate(tx, 3)),
    "a group": lambda tx: jopt.partition({"a": jopt.accumulate(tx, 3)}, "a"),
    "optax's name": lambda tx: jopt.MultiSteps(tx, 3),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
@pytest.mark.parametrize("average", AVERAGES)
def test_an_average_after_an_accumulation_is_the_one_inside_it(
    average: str, accumulation: str, compiled: bool
) -> None:
    wrap, member = ACCUMULATIONS[accumulation], AVERAGES[average]
    inside = wrap(jopt.chain(jopt.sgd(0.1), member()))
    after = jopt.chain(wrap(jopt.sgd(0.1)), member())
    grads = [*np.random.default_rng(0).normal(size=(14, 2))]
    if accumulation in ("skipping", "guarded"):
        grads[3] = np.full(2, np.nan)  # right after a step, in which the state stays

    def evaluated(tx: Any) -> Any:
        params, found = jnp.ones(2), []
        state = tx.init(params)
        step = jax.jit(tx.update) if compiled else tx.update
        for g in grads:
            updates, state = step(jnp.asarray(g, jnp.float32), state, params)
            params = jopt.apply_updates(params, updates)
            found.append((params, jopt.eval_params(tx, state, params)))
        return found

    chex.assert_trees_all_close(evaluated(after), evaluated(inside), rtol=1e-6)


def test_an_average_counts_steps_unless_told_to_count_gradients() -> None:
    """SGD on ones, four to a step: the parameters are 0, 0, 0, -1, -1, -1, -1, -2."""
    sgd = jopt.accumulate(jopt.sgd(1.0), 4)
    for average, expected in (
        (jopt.params_ema(0.5), (-1 - 2) / 2),
        (jopt.params_ema(0.5, each_gradient=True), -1.46875),
    ):
        for tx in (
            jopt.chain(sgd, average),
            jopt.chain(jopt.sgd(1.0), jopt.scale(0.25), jopt.apply_every(4), average),
        ):
            params, state = jnp.zeros(1), tx.init(jnp.zeros(1))
            for _ in range(8):
                params, state = jopt.step(tx, jnp.ones(1), state, params)
            assert jopt.eval_params(tx, state, params) == expected, tx


def test_an_average_of_groups_of_which_one_accumulates_counts_its_steps() -> None:
    groups = {"a": jopt.accumulate(jopt.sgd(1.0), 4), "b": jopt.set_to_zero()}
    tx = jopt.chain(
        jopt.partition(groups, lambda path, leaf: path), average=jopt.params_ema(0.5)
    )
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = tx.init(params)
    for _ in range(8):
        params, state = jopt.step(
            tx, jax.tree.map(jnp.ones_like, params), state, params
        )
    assert state["average"].count == 2
    assert jopt.eval_params(tx, state, params) == {"a": -1.5, "b": 0.0}
