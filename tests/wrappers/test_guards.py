"""A bad step changes nothing, wherever it comes and whatever it goes through."""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import as_dtype, draw
from jopt.wrappers.guards import all_finite
from tests.laws.case import Case, transform
from tests.twins.base import Array, Scalar, at, double
from tests.wrappers.test_accumulation import accumulate_sgd


def skip_spikes(
    params: dict[str, Array],
    grads: Iterable[dict[str, Array]],
    *,
    z_thresh: Scalar,
    decay: Scalar,
    warmup_steps: int,
    max_consecutive_skips: int,
    of: str = "norm",
    eps: Scalar = 1e-6,
    value: Callable[[Any], Any] | None = None,
    **_: Any,
) -> Iterator[dict[str, Array]]:
    """All norms (or losses) are kept, and averaged anew in every step."""
    b = {n: np.zeros_like(double(p)) for n, p in params.items()}
    seen: list[float] = []
    weights: list[float] = []
    skipped = 0
    for t, tree in enumerate(grads, start=1):
        g = {n: double(x) for n, x in tree.items()}
        if of == "value":
            assert value is not None
            x = float(value({n: double(p) for n, p in params.items()}))
        else:
            x = float(np.sqrt(sum(np.sum(np.abs(v) ** 2) for v in g.values())))
        if len(seen) >= warmup_steps:
            mean = np.average(seen, weights=weights)
            deviation = np.sqrt(
                np.average((np.array(seen) - mean) ** 2, weights=weights)
            )
            z = (x - mean) / (deviation + at(eps, t) * abs(mean))
            if z > at(z_thresh, t):
                skipped += 1
                if skipped <= max_consecutive_skips:
                    yield {n: np.zeros_like(v) for n, v in g.items()}
                    continue
                seen, weights = [], []
        skipped = 0
        seen.append(x)
        share = max(1 / len(seen), 1 - at(decay, t))
        weights = [(1 - share) * w for w in weights] + [share]
        b = {n: 0.9 * b[n] + g[n] for n in g}
        yield {n: -0.1 * b[n] for n in g}


def conditionally_transform(
    p: Array,
    grads: Iterable[Array],
    *,
    should_transform_fn: Callable[[Any], Any],
    **_: Any,
) -> Iterator[Array]:
    """Momentum in the steps that are chosen, the gradient itself in the others."""
    b = np.zeros_like(double(p))
    for step, g in enumerate(grads):
        if should_transform_fn(step):
            b = 0.9 * b + double(g)
            yield -0.1 * b
        else:
            yield double(g)


# What the twins have inside.
MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
SOME_STEPS = jopt.piecewise_constant([2, 5], [1.0, 0.0, 1.0])
SPIKE_OPTIONS = {
    "inner": MOMENTUM,
    "decay": 0.8,
    "warmup_steps": 3,
    "max_consecutive_skips": 2,
}

CASES = [
    transform(
        "skip_nonfinite",
        lambda p, grads, **_: accumulate_sgd(p, grads, steps=1),
        inner=MOMENTUM,
    ),
    Case(
        "skip_spikes",
        SPIKE_OPTIONS | {"z_thresh": 0.5},
        learning_rate=None,
        looks_at_all_leaves=True,
    ),
    Case(
        "skip_spikes",
        SPIKE_OPTIONS | {"of": "value", "z_thresh": 2.0},
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    ),
    transform(
        "conditionally_transform", inner=MOMENTUM, should_transform_fn=SOME_STEPS
    ),
]

WITHOUT_ROW = {
    "apply_if_finite": "is skip_nonfinite",
    "conditionally_mask": "is conditionally_transform but for zeros",
}

PARAMS, GRADS = as_dtype(draw(steps=6), jnp.float32)
ADAMW = jopt.adamw(jopt.linear_schedule(0.1, 0.0, 10))


class Fault(NamedTuple):
    """A wrapper to put faults through."""

    tx: Any
    counters: str = "notfinite_count last_finite total_notfinite"  # what may change
    looks_at_value: bool = True  # a value that is not finite is a fault too


SCALE = "loss_scale growth_count notfinite_count last_finite total_notfinite"
SPIKES = functools.partial(jopt.skip_spikes, warmup_steps=2, z_thresh=100.0)
# THE table of faults. To add a wrapper, add a row; in a row without a guard of its own,
# the wrapper is inside of one, or around one and without state.
FAULTS = {
    "skip_nonfinite": Fault(jopt.skip_nonfinite(ADAMW)),
    "apply_if_finite": Fault(jopt.apply_if_finite(ADAMW, 0)),
    "skip_spikes": Fault(SPIKES(ADAMW), "total_skipped"),
    "skip_spikes of value": Fault(SPIKES(ADAMW, "value"), "total_skipped"),
    **{
        f"dynamic_loss_scale {preset}": Fault(
            jopt.dynamic_loss_scale(ADAMW, preset, growth_interval=2), SCALE, False
        )
        for preset in ("keras", "jmp", "flax")
    },
    "two guards": Fault(jopt.skip_nonfinite(SPIKES(ADAMW, "value"))),
    "a loss scale around a guard": Fault(
        jopt.dynamic_loss_scale(SPIKES(ADAMW)), SCALE, False
    ),
    "chain": Fault(
        jopt.skip_nonfinite(jopt.chain(jopt.clip_by_global_norm(1.0), jopt.lion(0.1)))
    ),
    "an average": Fault(
        jopt.skip_nonfinite(jopt.chain(jopt.sgd(0.1), jopt.params_ema(0.9)))
    ),
    "accumulate": Fault(jopt.skip_nonfinite(jopt.accumulate(ADAMW, 2))),
    "inside masked": Fault(jopt.masked(jopt.skip_nonfinite(ADAMW), True)),
    "around masked": Fault(jopt.skip_nonfinite(jopt.masked(ADAMW, "kernel"))),
    "inside partition": Fault(jopt.partition({"a": jopt.skip_nonfinite(ADAMW)}, "a")),
    "around partition": Fault(
        jopt.skip_nonfinite(
            jopt.partition(
                {"a": ADAMW, "b": jopt.sgd(0.1, 0.9)},
                lambda path, _: "a" if path == "bias" else "b",
            )
        )
    ),
    "accumulate that skips": Fault(
        jopt.accumulate(ADAMW, 2, should_skip_update_fn=jopt.skip_not_finite),
        "skipped total_skipped",
        False,
    ),
    "lookahead": Fault(jopt.skip_nonfinite(jopt.lookahead(ADAMW, 2))),
    "the latest": Fault(
        jopt.skip_nonfinite(jopt.chain(jopt.sgd(0.1), jopt.params_lawa(2)))
    ),
    "monitor": Fault(jopt.skip_nonfinite(jopt.monitor(ADAMW, keep=True))),
    "selective_transform": Fault(
        jopt.skip_nonfinite(jopt.selective_transform(ADAMW, freeze_mask="bias"))
    ),
    "conditionally_transform": Fault(
        jopt.skip_nonfinite(
            jopt.conditionally_transform(ADAMW, lambda step: step % 2 == 0)
        )
    ),
    "schedule_free": Fault(jopt.skip_nonfinite(jopt.schedule_free_adamw(0.1))),
    "mechanize": Fault(jopt.skip_nonfinite(jopt.mechanize(jopt.sgd(1.0)))),
    "muon": Fault(jopt.skip_nonfinite(jopt.muon(0.1))),
    "random numbers": Fault(jopt.skip_nonfinite(jopt.noisy_sgd(0.1, key=0))),
    "inject_hyperparams": Fault(
        jopt.skip_nonfinite(jopt.inject_hyperparams(jopt.adam)(0.1))
    ),
}
NAN, INF = jnp.float32(jnp.nan), jnp.float32(jnp.inf)


def broken(g: Any, kind: str, place: int) -> Any:
    """The gradients with one NaN, one infinity or both, in some leaf."""
    names = sorted(g)
    bad = {"nan": [NAN], "inf": [-INF], "both": [INF, NAN], "value": []}[kind]
    for i, x in enumerate(bad):
        name = names[(place + i) % len(names)]
        g = {**g, name: g[name].ravel().at[-1].set(x).reshape(g[name].shape)}
    return g


def contents(tree: Any, without: str = "") -> dict[str, Any]:
    """The bits of every array by path, but for fields of these names."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = jopt.tree.path_name(path)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if name.split("/")[-1] not in without.split():
            found[name] = np.asarray(x).tobytes()
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_any_step_changes_nothing_but_counters(name: str) -> None:
    tx, counters, looks_at_value = FAULTS[name]
    scaled = counters == SCALE

    @jax.jit
    def step(g: Any, state: Any, params: Any, value: Any) -> Any:
        if scaled:
            g = jax.tree.map(lambda x: jopt.scale_loss(state, x), g)
        updates, state = tx.update(g, state, params, value=value)
        return updates, state, jopt.apply_updates(params, updates)

    one = jnp.float32(1.0)
    clean = [(PARAMS, tx.init(PARAMS))]
    for g in GRADS:
        _, state, params = step(g, clean[-1][1], clean[-1][0], one)
        clean.append((params, state))

    # One more comes after the faults, which count at most once.
    again = counters + (" loss_scale growth_count" if scaled else "")
    again += " skip_count"
    for kind in ("nan", "inf", "both", "value")[: 4 if looks_at_value else 3]:
        for place in range(len(GRADS)):
            params, before = clean[place]
            bad = broken(GRADS[place], kind, place)
            value = INF if kind == "value" else one
            updates, state, after = step(bad, before, params, value)
            where = f"{kind} at {place}"
            assert not any(np.any(u) for u in jax.tree.leaves(updates)), where
            assert contents(after) == contents(params), where
            assert contents(state, counters) == contents(before, counters), where
            assert contents(state) != contents(before), where
            assert types(state) == types(before)
            # From there it goes on as if it had not been.
            for g in GRADS[place:]:
                _, state, params = step(g, state, params, one)
            assert contents(params) == contents(clean[-1][0]), where
            assert contents(state, again) == contents(clean[-1][1], again), where


def test_a_guard_within_a_group_is_for_its_leaves_only() -> None:
    guarded = jopt.skip_nonfinite(jopt.sgd(1.0))
    tx = jopt.partition({"a": guarded, "b": guarded}, {"v": "a", "w": "b"})
    g = {"v": jnp.array([jnp.nan]), "w": jnp.ones(1)}
    updates, state = tx.update(g, tx.init(g), g)
    chex.assert_trees_all_equal(updates, {"v": jnp.zeros(1), "w": -jnp.ones(1)})
    assert (state["a"].total_notfinite, state["b"].total_notfinite) == (1, 0)


@pytest.mark.parametrize("guard", [jopt.skip_nonfinite, SPIKES])
def test_training_goes_on_after_any_streak(guard: Any) -> None:
    inner, bad = jopt.adam(0.1), broken(GRADS[1], "both", 0)
    tx = guard(inner)
    step = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for g in (GRADS[0], GRADS[2], *[bad] * 100):
        updates, state = step(g, state, PARAMS)
    alone = inner.init(PARAMS)
    for g in (GRADS[0], GRADS[2], GRADS[1]):
        expected, alone = inner.update(g, alone, PARAMS)
    updates, state = step(GRADS[1], state, PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    chex.assert_trees_all_close(state.inner_state, alone, rtol=1e-6)


def test_counters_and_updates_are_those_of_optax_until_it_gives_up() -> None:
    inner = jopt.sgd(0.5, 0.9)
    ours, theirs = jopt.apply_if_finite(inner, 3), optax.apply_if_finite(inner, 3)
    state, expected = ours.init(PARAMS), theirs.init(PARAMS)
    step, oracle = jax.jit(ours.update), jax.jit(theirs.update)
    pattern = "g" + "n" + "gg" + "iib" + "g" + "nib" + "g" + "nibn" + "g"
    kinds = {"n": "nan", "i": "inf", "b": "both"}
    found = []
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        for t, letter in enumerate(pattern):
            g = GRADS[t % len(GRADS)]
            g = g if letter == "g" else broken(g, kinds[letter], t)
            updates, state = step(g, state, PARAMS)
            theirs_updates, expected = oracle(g, expected, PARAMS)
            assert state._fields == type(expected)._fields
            chex.assert_trees_all_equal(state[:3], expected[:3])
            same = contents(updates) == contents(theirs_updates)
            found.append(same and contents(state[3]) == contents(expected[3]))
    # The fourth in a row, the last but one, is where optax lets the NaN in, for good.
    assert found == [True] * (len(pattern) - 2) + [False] * 2
    chex.assert_tree_all_finite(updates)
    assert not all(np.isfinite(u).all() for u in jax.tree.leaves(theirs_updates))


# What it costs.


def primitives(jaxpr: Any) -> collections.Counter[str]:
    """How often each operation occurs, calls looked into."""
    found: collections.Counter[str] = collections.Counter()
    for eqn in jaxpr.eqns:
        bodies = [x for x in jax.tree.leaves(eqn.params) if hasattr(x, "eqns")]
        if not bodies or eqn.primitive.name in ("cond", "while", "scan"):
            found[eqn.primitive.name] += 1
        for body in bodies:
            found += primitives(body)
    return found


def operations(tx: Any) -> collections.Counter[str]:
    return primitives(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS).jaxpr)


def test_a_guard_adds_a_test_and_a_choice_per_array_and_no_branch() -> None:
    plain = operations(ADAMW)
    added = operations(jopt.skip_nonfinite(ADAMW))
    assert "cond" not in added and "mul" not in added - plain
    more = added - plain
    n, scalars = len(PARAMS), 3  # the two counts of adamw and its learning rate
    assert more.pop("is_finite") == more.pop("reduce_and") == n
    # An update and two moments per leaf; two counters, each reset.
    assert more.pop("select_n") == 3 * n + scalars + 2
    assert more.keys() <= {
        "and",
        "add",
        "lt",
        "broadcast_in_dim",
        "convert_element_type",
    }, more


def test_a_step_of_a_guard_is_compiled_without_a_branch() -> None:
    tx = jopt.skip_nonfinite(ADAMW)
    text = jax.jit(tx.update).lower(PARAMS, tx.init(PARAMS), PARAMS).compile().as_text()
    assert "conditional(" not in text and "custom-call" not in text


LARGE = {"a": np.full((256, 256), 0.5), "b": np.full(3, 2.0)}


@pytest.mark.parametrize("leaf", LARGE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_only_a_nan_or_an_infinity_in_a_large_tree_is_not_finite(
    dtype: str, leaf: str
) -> None:
    finite = jax.jit(all_finite)
    largest = float(jnp.finfo(dtype).max)
    for entry, expected in [
        (1.0, True),
        (largest, True),  # its square overflows
        (-largest, True),
        (np.inf, False),
        (-np.inf, False),
        (np.nan, False),
    ]:
        tree = {name: x.copy() for name, x in LARGE.items()}
        tree[leaf].flat[1] = entry
        tree = {name: jnp.asarray(x, dtype) for name, x in tree.items()}
        assert finite(tree) == expected, entry
        assert not finite(tree, jnp.float32(np.nan))
    integers = {"n": np.full(2**16, 2**31 - 1, np.int32)}
    assert finite(integers) and finite({**integers, "none": None}, 1.0)


def test_a_guard_and_clipping_read_a_large_gradient_once_for_both() -> None:
    inner = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(0.1))
    tx = jopt.skip_nonfinite(inner)
    grads = {"w": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    state = jax.eval_shape(tx.init, grads)
    text = jax.jit(tx.update).lower(grads, state, grads).compile().as_text()
    entry = text[text.index("ENTRY") :]
    # What takes the gradient and returns one number; branches are not of the entry.
    assert (
        len(re.findall(r" = (?:f32|pred)\[\]\S* fusion\(.*%updates__w__", entry)) == 1
    )
    assert entry.count(" conditional(") == 2  # neither is taken in a usual step


# Spikes.


def outcome(tx: Any, values: Any, of: str) -> tuple[list[int], Any]:
    """The steps that are skipped, given norms or losses, and the last state."""

    def body(state: Any, x: Any) -> Any:
        g, told = (x[None], {}) if of == "norm" else (jnp.ones(1), {"value": x})
        updates, state = tx.update(g, state, jnp.ones(1), **told)
        return state, updates[0] == 0

    state, skipped = jax.jit(
        lambda xs: jax.lax.scan(body, tx.init(jnp.ones(1)), jnp.asarray(xs))
    )(values)
    return np.flatnonzero(skipped).tolist(), state


def run_with_spikes() -> np.ndarray:
    """300 losses or norms: falling, noisy, with spikes, and then on another level."""
    rng = np.random.default_rng(1)
    x = 2.0 + 3 * np.exp(-np.arange(300) / 30) + 0.1 * rng.normal(size=300)
    x[[90, 91, 150]] += [5.0, 40.0, 3.0]
    x[200:] += 20.0
    return x


@pytest.mark.parametrize("of", ["norm", "value"])
def test_spikes_are_skipped_until_there_are_too_many(of: str) -> None:
    values = run_with_spikes()
    options = {"decay": 0.95, "z_thresh": 5.0, "warmup_steps": 30}
    options |= {"of": of, "max_consecutive_skips": 4}
    tx = jopt.skip_spikes(jopt.sgd(1.0), **options)
    with jax.enable_x64(True):
        found, state = outcome(tx, values, of)
        twin = skip_spikes(
            {"w": np.zeros(1)},
            [{"w": np.full(1, x)} for x in values],
            **(options | {"of": "norm"}),
        )
        expected = [t for t, u in enumerate(twin) if u["w"] == 0]
    assert found == expected == [90, 91, 150, 200, 201, 202, 203]
    assert list(map(int, (state.total_skipped, state.skip_count, state.seen))) == [
        7,
        0,
        96,
    ]
    recent = values[204:]
    assert abs(float(state.mean) - recent[-20:].mean()) < 0.1
    assert abs(float(state.deviation) - 0.1) < 0.03
    # In float32, times 1e-30 and times 1e30, it is the same.
    for factor in (1.0, 1e-30, 1e30):
        assert outcome(tx, (values * factor).astype(np.float32), of)[0] == found


def test_mean_and_deviation_are_those_of_the_steps_so_far() -> None:
    values = run_with_spikes()[:80]
    tx = jopt.skip_spikes(jopt.sgd(1.0), "value", decay=0.95, z_thresh=1e9)
    with jax.enable_x64(True):
        for n in (1, 2, 20):  # with equal weights
            _, state = outcome(tx, values[:n], "value")
            np.testing.assert_allclose(state.mean, np.mean(values[:n]), rtol=1e-12)
            np.testing.assert_allclose(
                state.deviation, np.std(values[:n]), rtol=1e-9, atol=1e-12
            )
        first, second = np.mean(values[:20]), np.mean(values[:20] ** 2)
        for x in values[20:]:
            first, second = 0.95 * first + 0.05 * x, 0.95 * second + 0.05 * x**2
        _, state = outcome(tx, values, "value")
        np.testing.assert_allclose(state.mean, first, rtol=1e-12)
        np.testing.assert_allclose(
            state.deviation, np.sqrt(second - first**2), rtol=1e-9
        )


def test_a_first_step_a_constant_and_a_fall_are_no_spikes() -> None:
    tx = jopt.skip_spikes(jopt.sgd(1.0), "value", warmup_steps=2)
    level = np.full(20, 3.0, np.float32)
    rounded = np.where(np.arange(20) == 15, np.nextafter(level, 4), level)
    for values in (level, rounded, level - 2 * (np.arange(20) > 10), -level):
        assert outcome(tx, values.astype(np.float32), "value")[0] == []
    jump = np.where(np.arange(20) == 15, 3.001, level).astype(np.float32)
    assert outcome(tx, jump, "value")[0] == [15]
    huge = np.array([1e3, 1.0, 1.0, 1e4], np.float32)
    assert outcome(tx, huge, "value")[0] == [3]


def test_two_guards_skip_spikes_of_both() -> None:
    tx = SPIKES(SPIKES(jopt.sgd(1.0), "value"))
    state, skipped = tx.init(jnp.ones(1)), []
    for g, value in [(1, 1), (1, 1), (1, 1), (9, 1), (1, 9), (9, 9), (1, 1)]:
        updates, state = tx.update(jnp.full(1, float(g)), state, value=float(value))
        skipped.append(updates[0] == 0)
    assert skipped == [False] * 3 + [True] * 3 + [False]
    assert state.inner_state.total_skipped == 1  # the outer guard left two out


# Some of the steps.


def every_third(step: Any, value: Any = 0.0, **_: Any) -> Any:
    return (step % 3 == 0) | (value > 1.0)


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("name", ["conditionally_transform", "conditionally_mask"])
def test_some_steps_are_transformed_as_by_optax(name: str, forward: bool) -> None:
    inner = jopt.adam(0.1)
    ours = getattr(jopt, name)(inner, every_third, forward)
    theirs = getattr(optax, name)(inner, every_third, forward)
    state, expected = ours.init(PARAMS), theirs.init(PARAMS)
    step, oracle = jax.jit(ours.update), jax.jit(theirs.update)
    for t, g in enumerate(GRADS):
        told = {"value": jnp.float32(2.0 if t in (1, 4) else 0.5)}
        updates, state = step(g, state, PARAMS, **told)
        others, expected = oracle(g, expected, PARAMS, **told)
        assert contents(updates) == contents(others)
        assert state._fields == type(expected)._fields
        assert contents(tuple(state)) == contents(tuple(expected))
    assert jopt.tree.get(state, "scale_by_adam/count") == (4 if forward else 2)


def test_what_the_condition_takes_is_asked_for_and_nothing_else_is_given() -> None:
    tx = jopt.conditionally_mask(
        jopt.polyak_sgd(), lambda step, loss: loss < 1.0, forward_extra_args=True
    )
    g = jnp.ones(1)
    state = tx.init(g)
    assert tx.update(g, state, g, loss=0.5, value=1.0, other=1)[0] == -1.0
    assert tx.update(g, state, g, loss=1.5, value=1.0)[0] == 0.0
    with pytest.raises(TypeError, match="conditionally_mask needs the argument 'loss'"):
        tx.update(g, state, g, value=1.0)
    with pytest.raises(TypeError, match="Did you mean 'loss'"):
        tx.update(g, state, g, los=0.5, value=1.0)


# Together with the rest.


def test_extra_arguments_and_averages_pass_through() -> None:
    told = {"value": jnp.float32(0.3)}
    inner = jopt.chain(jopt.polyak_sgd(), jopt.params_ema(0.5))
    state = inner.init(PARAMS)
    expected, state = inner.update(GRADS[1], state, PARAMS, **told)
    average = jopt.eval_params(inner, state, PARAMS)
    for tx in (
        jopt.skip_nonfinite(inner),
        SPIKES(inner),
        jopt.conditionally_mask(inner, lambda step: True),
        jopt.dynamic_loss_scale(inner, init_scale=1.0),
    ):
        with pytest.raises(TypeError, match="needs the argument 'value'"):
            tx.update(GRADS[1], tx.init(PARAMS), PARAMS)
        updates, own = tx.update(GRADS[1], tx.init(PARAMS), PARAMS, **told)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
        found = jopt.eval_params(tx, own, PARAMS)
        chex.assert_trees_all_close(found, average, rtol=1e-6)


def growing() -> Any:
    """A foreign transformation whose state gets another structure."""
    return (lambda params: {}, lambda g, state, params=None: (g, {"norm": g}))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: jopt.skip_nonfinite(jopt.sgd),
            TypeError,
            "skip_nonfinite: inner is .* It is a function: call it, sgd",
        ),
        (
            lambda: jopt.apply_if_finite(jopt.sgd(0.1)),
            TypeError,
            "missing a required argument: 'max_consecutive_errors'",
        ),
        (
            lambda: jopt.apply_if_finite(jopt.sgd(0.1), -1),
            ValueError,
            "max_consecutive_errors must be >= 0, got max_consecutive_errors=-1",
        ),
        (
            lambda: jopt.skip_spikes(jopt.sgd(0.1), of="loss"),
            ValueError,
            "of must be one of 'norm', 'value', got of='loss'",
        ),
        (
            lambda: jopt.skip_spikes(jopt.sgd(0.1), z_thresh=0.0),
            ValueError,
            "z_thresh must be > 0 and finite, got z_thresh=0.0",
        ),
        (
            lambda: jopt.skip_spikes(jopt.sgd(0.1), warmup_steps=1),
            ValueError,
            "warmup_steps must be >= 2, got warmup_steps=1",
        ),
        (
            lambda: jopt.skip_spikes(jopt.sgd(0.1), max_consecutive_skips=0),
            ValueError,
            "max_consecutive_skips must be >= 1",
        ),
        (
            lambda: SPIKES(ADAMW, "value").update(
                GRADS[0], SPIKES(ADAMW, "value").init(PARAMS), PARAMS, value=jnp.ones(2)
            ),
            TypeError,
            "value must be one number",
        ),
        (
            lambda: jopt.conditionally_mask(jopt.sgd(0.1), True),
            TypeError,
            "should_transform_fn must be a function of the step, got .*=True",
        ),
        (
            lambda: jopt.conditionally_mask(jopt.sgd(0.1), lambda step, loss: True),
            TypeError,
            r"with the step only, but takes \(step, loss\). For more, pass forward_ext",
        ),
        (
            lambda: jopt.conditionally_mask(jopt.sgd(0.1), lambda step: None).update(
                jnp.ones(1), jopt.conditionally_mask(jopt.sgd(0.1), bool).init(1.0)
            ),
            TypeError,
            "should_transform_fn must return one bool or number, got None",
        ),
        (
            lambda: jopt.skip_nonfinite(growing()).update(
                jnp.ones(1), jopt.skip_nonfinite(growing()).init(jnp.ones(1))
            ),
            ValueError,
            "the inner update changed the structure of the inner state",
        ),
    ],
)
def test_a_wrong_guard_is_an_error_that_says_why(
    call: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
