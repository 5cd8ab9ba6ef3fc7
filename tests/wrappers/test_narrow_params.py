"""bfloat16 parameters that learn: what steps do with and without `bf16_params`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.wrappers.narrow_params import KEPT
from tests.laws.case import transform
from tests.twins.base import Array, double


def bf16_params(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Parameters of float32 and float64 are trained as without it: momentum here."""
    b = np.zeros_like(double(p))
    for g in grads:
        b = 0.9 * b + double(g)
        yield -0.1 * b


MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
CASES = [
    transform("bf16_params", inner=MOMENTUM, rounding="ecc8"),
    transform("bf16_params", inner=MOMENTUM, rounding="stochastic"),
]

KINDS = list(KEPT)
EXACT = ["kahan", "master", "ecc8", "ecc16"]


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


# What it is for.


def drift(start: jax.Array, steps: jax.Array) -> dict[str, Any]:
    """The parameters after all steps, in one scan: exact, to nearest, and by kind.

    Args:
      start: The parameters.
      steps: What to add: the mean step of each parameter, with noise of 1e-4 on top.
    """
    txs = {"nearest": jopt.scale(1.0)}
    txs |= {kind: jopt.bf16_params(jopt.scale(1.0), kind) for kind in KINDS}  # type: ignore[arg-type]
    start = start.astype(jnp.bfloat16)

    @jax.jit
    def run(start):
        def body(carry, t):
            (total, rest), runs = carry
            key = jax.random.fold_in(jax.random.key(0), t)
            noise = jax.random.normal(key, start.shape)
            u = steps + 1e-4 * noise
            new = total + (u - rest)  # Kahan's sum, in float32
            exact = new, (new - total) - (u - rest)
            after = {}
            for name, tx in txs.items():
                p, state = runs[name]
                step, state = tx.update(u, state, p)
                after[name] = jopt.apply_updates(p, step), state
            return (exact, after), None

        zero = start.astype(jnp.float32)
        runs = {name: (start, tx.init(start)) for name, tx in txs.items()}
        carry = (zero, jnp.zeros_like(zero)), runs
        return jax.lax.scan(body, carry, jnp.arange(20_000))[0]

    (exact, _), runs = run(start)
    found = {
        name: jopt.wide_params(state, p) if name in EXACT else p
        for name, (p, state) in runs.items()
    }
    return wide({"start": start, "exact": exact} | found)


def test_20_000_small_steps_are_lost_to_nearest_and_kept_by_every_kind() -> None:
    rng = np.random.default_rng(0)
    start = jnp.asarray(rng.uniform(0.5, 2, 64), jnp.float32)
    steps = jnp.asarray(rng.choice([-1e-5, 1e-5], 64), jnp.float32)
    found = drift(start, steps)
    moved = np.sqrt(np.mean((found["exact"] - found["start"]) ** 2))

    def error(name):
        return np.sqrt(np.mean((found[name] - found["exact"]) ** 2)) / moved

    np.testing.assert_array_equal(found["nearest"], found["start"])
    assert error("kahan") < 0.005
    assert error("ecc8") < 0.01
    assert error("ecc16") < 1e-4
    assert error("master") < 1e-4
    assert 0.2 < error("stochastic") < 1  # its noise: the root of steps and distance


def test_at_random_the_mean_of_many_parameters_is_exact() -> None:
    tx = jopt.bf16_params(jopt.sgd(1e-4), "stochastic")
    params = jnp.linspace(0.5, 2, 2**16).astype(jnp.bfloat16)
    start = wide(params)

    @jax.jit
    def run(params):
        def body(carry, _):
            params, state = carry
            g = jnp.ones_like(params)
            updates, state = tx.update(g, state, params)
            return (jopt.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=200)[0]

    moved = wide(run(params)[0]) - start
    spread = moved.std() / np.sqrt(moved.size)
    assert spread < 1e-4  # of 0.02
    assert abs(moved.mean() + 200e-4) < 4.5 * spread


@pytest.mark.parametrize("kind", KINDS)
def test_50_steps_of_a_thousandth_move_a_parameter_of_1(kind: Any) -> None:
    def after(tx, start):
        params, state = start, tx.init(start)
        for _ in range(50):
            params, state = jopt.step(tx, jnp.ones_like(start), state, params)
        return wide(params)

    start = jnp.ones(256, jnp.bfloat16)
    assert (after(jopt.sgd(1e-3), start) == 1).all()
    found = after(jopt.bf16_params(jopt.sgd(1e-3), kind), start)
    expected = after(jopt.sgd(1e-3), jnp.ones(256))
    tolerance = 0.01 if kind == "stochastic" else 2.0**-9
    assert abs(found.mean() - expected.mean()) < tolerance
    # Without noise, the nearest number of the expected parameter.
    if kind in ("master", "ecc16"):
        np.testing.assert_array_equal(found, wide(jnp.bfloat16(expected)))


PARAMS = {
    "scale": jnp.ones(7, jnp.bfloat16),
    "kernel": jnp.asarray(np.random.default_rng(1).normal(size=(40, 30)), jnp.bfloat16),
    "small": jnp.asarray(
        np.random.default_rng(2).normal(size=300) * 1e-3, jnp.bfloat16
    ),
    "norm": jnp.full(5, 1.001, jnp.float32),
    "frozen": None,
}


def gradients(t: int, like: Any = None) -> Any:
    rng = np.random.default_rng(t)
    like = PARAMS if like is None else like
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), like)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_gradients_keep_parameters_and_errors_to_the_bit(kind: Any) -> None:
    tx = jopt.bf16_params(jopt.sgd(1e-2), kind)
    params, state = PARAMS | {"zero": jnp.array([0.0, -0.0], jnp.bfloat16)}, None
    state = tx.init(params)
    for t in range(3):
        grads = gradients(t) | {"zero": jnp.zeros(2, jnp.bfloat16)}
        params, state = jopt.step(tx, grads, state, params)
    new, after = params, state
    for _ in range(3):
        zeros = jax.tree.map(jnp.zeros_like, params)
        new, after = jopt.step(tx, zeros, after, new)

    def bits(tree):
        return [x.tobytes() for x in jax.tree.leaves(jax.tree.map(np.asarray, tree))]

    assert bits(new) == bits(params)
    assert bits(after.error) == bits(state.error)


# Nothing is lost: the parameter and its error are what float32 would have.


@pytest.mark.parametrize("kind", ["ecc16", "master"])
def test_training_is_that_of_float32_parameters(kind: Any) -> None:
    recipe = jopt.chain(
        jopt.clip_by_global_norm(5.0), jopt.adamw(3e-3, weight_decay=0.1)
    )
    tx = jopt.bf16_params(recipe, kind)
    params, expected = PARAMS, jopt.tree.cast(PARAMS, jnp.float32)
    state, of_wide = tx.init(params), recipe.init(expected)
    for t in range(20):  # small parameters change their signs on the way
        grads = gradients(t)
        params, state = jopt.step(tx, grads, state, params)
        grads = jopt.tree.cast(grads, jnp.float32)
        expected, of_wide = jopt.step(recipe, grads, of_wide, expected)
    found = jopt.wide_params(state, params)
    for name in ("scale", "kernel", "small", "norm"):
        assert found[name].dtype == jnp.float32
        np.testing.assert_allclose(found[name], expected[name], 3e-6, 1e-8)
        off = abs(wide(params[name]) - wide(expected[name]))
        assert (off <= 2.0**-8 * abs(wide(expected[name])) + 1e-8).all()


@pytest.mark.parametrize("kind", ["kahan", "ecc8"])
def test_shorter_errors_are_within_the_tolerances_of_their_authors(kind: Any) -> None:
    def trained(tx, params):
        state = tx.init(params)
        for t in range(10):
            like = jopt.tree.cast_like(gradients(t), params)
            params, state = jopt.step(tx, like, state, params)
        return params, state

    start = jopt.tree.cast(PARAMS, jnp.float32)
    for rate in (0.1, 1e-3):
        exact, _ = trained(jopt.adamw(rate), start)
        params, state = trained(jopt.bf16_params(jopt.adamw(rate), kind), PARAMS)
        found = jopt.wide_params(state, params)
        nearest, _ = trained(jopt.adamw(rate), PARAMS)
        for leaf in ("kernel", "small"):
            # optimi: 1e-3 and 1e-2 for bfloat16, of which 1 in 100 may be outside.
            close = np.isclose(wide(params[leaf]), wide(exact[leaf]), 1e-2, 1e-3)
            assert close.mean() > 0.99
            # FlashOptim: the direction and the size of the movement.
            moved, expected, rounded = (
                wide(x[leaf]) - wide(start[leaf]) for x in (found, exact, nearest)
            )

            def cosine(a, b):
                return np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))

            off = np.sum((moved - expected) ** 2) / np.sum(expected**2)
            assert cosine(moved, expected) > 0.9999
            assert off < 1e-4
            if rate == 1e-3 and leaf == "kernel":  # what is rounded is elsewhere
                assert cosine(rounded, expected) < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_large_steps_to_tiny_numbers_lose_no_more_than_float32(kind: Any) -> None:
    start = jnp.array([1.0, 1.0, -1000.0, 3e38, 1e-30], jnp.bfloat16)
    end = jnp.array([3e-9, -1e-12, 1e-5, 1.0, 2.0], jnp.float32)
    tx = jopt.bf16_params(jopt.identity(), kind)
    u = end - start.astype(jnp.float32)
    updates, state = tx.update(u, tx.init(start), start)
    assert updates.dtype == jnp.float32
    new = jopt.apply_updates(start, updates)
    found = wide(jopt.wide_params(state, new) if kind in EXACT else new)
    exact = wide(start.astype(jnp.float32) + u)
    size = abs(wide(start))
    # float32 itself is off by this much: 1 - 3e-9 is not one of its numbers.
    assert (abs(found - exact) <= 2.0**-24 * size + 2.0**-8 * abs(exact)).all()
    if kind == "master":
        assert (abs(found - exact) <= 2.0**-24 * abs(exact) + 1e-40).all()


def test_a_parameter_that_an_update_cannot_reach_keeps_its_error() -> None:
    tx = jopt.bf16_params(jopt.identity(), "master")
    start = jnp.bfloat16(4)
    error = jnp.float32(float.fromhex("0x1.fffe5ap+1")) - 4
    state: Any = tx.init(start)._replace(error=error)
    end = float.fromhex("-0x1.a6p-15")  # a bfloat16, but -4 + -5e-5 is no float32
    updates, state = tx.update(jnp.float32(-4), state, start)
    new = jopt.apply_updates(start, updates)
    assert float(new) == float.fromhex("-0x1.a8p-15")
    assert float(jopt.wide_params(state, new)) == end


def test_what_inner_gives_is_never_rounded_before_it_is_added() -> None:
    seen = []

    def update(updates, state, params):
        seen.append((updates, params))
        return jax.tree.map(lambda g: -1e-3 * g, updates), state

    inner = jopt.GradientTransformation(lambda params: (), update)
    tx = jopt.bf16_params(inner, "ecc16")
    params, state = PARAMS, tx.init(PARAMS)
    for t in range(2):
        updates, state = tx.update(gradients(t), state, params)
        params = jopt.apply_updates(params, updates)
    for tree in seen[1]:
        assert {x.dtype.name for x in jax.tree.leaves(tree)} == {"float32"}
    g0 = gradients(0)["kernel"].astype(jnp.float32)
    step = PARAMS["kernel"].astype(jnp.float32) - 1e-3 * g0
    np.testing.assert_allclose(seen[1][1]["kernel"], step, 2e-7)


# What it is made of.


def test_the_state_has_what_is_kept_and_nothing_for_other_leaves() -> None:
    for kind, dtype in KEPT.items():
        state: Any = jopt.bf16_params(jopt.sgd(0.1), kind).init(PARAMS)  # type: ignore[arg-type]
        assert (state.count is not None) == (kind == "stochastic")
        assert state.error["norm"] is None
        assert state.error["frozen"] is None
        kept = state.error["kernel"]
        if dtype is None:
            assert kept is None
        else:
            assert kept.dtype == dtype
            assert kept.shape == PARAMS["kernel"].shape
            assert not kept.any()


@pytest.mark.parametrize("kind", ["kahan", "ecc16"])
def test_float16_parameters_learn_too_but_not_at_random(kind: Any) -> None:
    params = jnp.array([1.0, 1e-4, 3e-7], jnp.float16)
    tx = jopt.bf16_params(jopt.sgd(1e-4), kind)
    state = tx.init(params)
    for _ in range(50):
        params, state = jopt.step(tx, -jnp.ones_like(params), state, params)
    expected = wide(jnp.float16([1.0, 1e-4, 3e-7])) + 50e-4
    np.testing.assert_allclose(wide(params), expected, 2.0**-11)
    with pytest.raises(TypeError, match=r"leaf 'w' is float16\. Make it bfloat16, or"):
        jopt.bf16_params(jopt.sgd(0.1), "stochastic").init({"w": params})


def test_an_unknown_rounding_and_a_missing_slot_are_named() -> None:
    with pytest.raises(ValueError, match="rounding must be one of 'stochastic', 'kah"):
        jopt.bf16_params(jopt.sgd(0.1), "ecc4")  # type: ignore[arg-type]
    tx = jopt.bf16_params(jopt.sgd(0.1), "ecc8")
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = tx.init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="no slot for leaf 'w'"):
        tx.update(params, state, params)
    with pytest.raises(TypeError, match="bf16_params needs the parameters"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="the state has no bf16_params"):
        jopt.wide_params(jopt.sgd(0.1).init(params), params)


# In and around other things.


def run(tx: Any, params: Any = None, steps: int = 4, how: str = "step") -> Any:
    """Parameters and state after some steps."""
    params = PARAMS if params is None else params
    state, update = tx.init(params), jax.jit(tx.update)
    for t in range(steps):
        grads = gradients(t, params)
        if how == "step":
            params, state = jopt.step(tx, grads, state, params)
        elif how == "donated":
            params = jax.tree.map(jnp.copy, params)
            params, state = jopt.step(tx, grads, state, params, donate=True)
        else:
            updates, state = update(grads, state, params)
            params = jopt.apply_updates(params, updates)
    return params, state


def types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def equal(found: Any, expected: Any, what: str = "") -> None:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    assert all(x.dtype == y.dtype and (x == y).all() for x, y in pairs), what


def always(step: Any) -> Any:
    return step >= 0


ADAMW = jopt.adamw(3e-3, weight_decay=0.1)
AROUND = {
    "chain": lambda tx: jopt.chain(jopt.identity(), inner=tx),
    "masked": lambda tx: jopt.masked(tx, True),
    "partition": lambda tx: jopt.partition(
        {"small": tx, "others": tx},
        lambda path, _: "small" if path == "small" else "others",
    ),
    "skip_nonfinite": jopt.skip_nonfinite,
    "skip_spikes": lambda tx: jopt.skip_spikes(tx, warmup_steps=100),
    "monitor": jopt.monitor,
    "averages": lambda tx: jopt.chain(tx, jopt.params_mean(), jopt.params_ema(0.9)),
}
INSIDE = AROUND | {
    "conditionally_mask": lambda tx: jopt.conditionally_mask(tx, always),
    "accumulate": lambda tx: jopt.accumulate(tx, 1),
    "dynamic_loss_scale": lambda tx: jopt.dynamic_loss_scale(tx, init_scale=1.0),
    "lookahead": lambda tx: jopt.lookahead(tx, sync_period=100),
}


def test_inside_and_around_every_wrapper_it_gives_the_same_bits() -> None:
    tx = jopt.bf16_params(ADAMW, "ecc8")
    expected, _ = run(tx)
    equal(run(tx, how="update")[0], expected)
    equal(run(tx, how="donated")[0], expected)
    for fused in ("partition", "skip_nonfinite"):
        equal(run(AROUND[fused](tx))[0], expected)
    txs = [around(tx) for around in AROUND.values()]
    txs += [jopt.bf16_params(around(ADAMW), "ecc8") for around in INSIDE.values()]

    @jax.jit
    def together(grads):
        def body(carry, g):
            new = []
            for tx, (params, state) in zip(txs, carry, strict=True):
                updates, state = tx.update(g, state, params)
                new.append((jopt.apply_updates(params, updates), state))
            return new, None

        return jax.lax.scan(body, [(PARAMS, tx.init(PARAMS)) for tx in txs], grads)[0]

    grads = jax.tree.map(lambda *gs: jnp.stack(gs), *map(gradients, range(4)))
    for name, (params, _) in zip([*AROUND, *INSIDE], together(grads), strict=True):
        equal(params, expected, name)


REFUSING = {
    "conditionally_mask": lambda tx: jopt.conditionally_mask(tx, always),
    "conditionally_transform": lambda tx: jopt.conditionally_transform(tx, always),
    "lookahead": jopt.lookahead,
    "ema_nesterov": jopt.ema_nesterov,
    "dynamic_loss_scale": jopt.dynamic_loss_scale,
    "accumulate": lambda tx: jopt.accumulate(tx, 2),
    "mechanize": jopt.mechanize,
    "cautious": jopt.cautious,
    "gradient_sign": jopt.gradient_sign,
    "scale_by_galore": lambda tx: jopt.scale_by_galore(1, base_optimizer=tx),
}


@pytest.mark.parametrize("name", REFUSING)
def test_what_changes_or_rounds_updates_belongs_inside(name: str) -> None:
    tx = jopt.skip_nonfinite(jopt.bf16_params(jopt.sgd(0.1), "ecc8"))
    with pytest.raises(ValueError, match=rf"{name} inside: bf16_params\({name}\(…\)"):
        REFUSING[name](tx)
    if name != "scale_by_galore":
        jopt.bf16_params(REFUSING[name](jopt.sgd(0.1)), "ecc8")


@pytest.mark.parametrize(
    "member",
    [
        jopt.scale(0.5),
        jopt.add_decayed_weights(0.1),
        jopt.project(lambda p: p),
        jopt.params_ema(0.9, overwrite_every=2),
        jopt.bf16_params(jopt.identity(), "kahan"),
    ],
    ids=lambda tx: tx.name,
)
def test_no_later_member_of_a_chain_may_change_the_updates(member: Any) -> None:
    inner = jopt.bf16_params(jopt.sgd(0.1), "ecc8")
    message = rf"'later' inside: bf16_params\(chain\(optimizer, {member.name}"
    for tx in (inner, jopt.masked(inner, ""), jopt.chain(jopt.clip(1.0), inner)):
        with pytest.raises(ValueError, match=message):
            jopt.chain(tx, later=member)


def test_other_libraries_arrive_at_the_same_parameters() -> None:
    import optax
    from flax import nnx
    from flax.training.train_state import TrainState

    from jopt.interop import flax

    tx = jopt.bf16_params(ADAMW, "ecc8")
    start = {name: p for name, p in PARAMS.items() if p is not None}
    expected, _ = run(tx, start, 3)
    grads = [gradients(t, start) for t in range(3)]
    with jax.numpy_dtype_promotion("standard"):
        for of in (tx, optax.chain(optax.identity(), tx)):
            params, state = start, of.init(start)
            for g in grads:
                updates, state = of.update(g, state, params)
                params = optax.apply_updates(params, updates)
            equal(params, expected)
        for kind in (TrainState, flax.TrainState):
            train: Any = kind.create(apply_fn=None, params=start, tx=tx)
            for g in grads:
                train = train.apply_gradients(grads=g)
            equal(train.params, expected)

        def module(tree):
            return nnx.Dict({name: nnx.Param(x) for name, x in tree.items()})

        for kind in (nnx.Optimizer, flax.Optimizer):
            model = module(start)
            optimizer = kind(model, tx, wrt=nnx.Param)
            for g in grads:
                optimizer.update(model, nnx.state(module(g)))
            equal(nnx.to_pure_dict(nnx.state(model)), expected)
            found = jopt.wide_params(optimizer.opt_state, nnx.state(model, nnx.Param))
            assert found["kernel"].dtype == jnp.float32


def test_keras_arrives_at_the_same_parameters() -> None:
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend")
    from jopt.interop.keras import as_optimizer

    tx = jopt.bf16_params(ADAMW, "ecc8")
    start = {"kernel": PARAMS["kernel"], "norm": PARAMS["norm"]}
    with jax.numpy_dtype_promotion("standard"):
        variables = [
            keras.Variable(p, dtype=p.dtype.name, name=name)
            for name, p in start.items()
        ]
        optimizer = as_optimizer(tx)
        optimizer.build(variables)
        for t in range(3):
            optimizer.apply([*gradients(t, start).values()])
        expected, _ = run(tx, start, 3)
        equal([v.value for v in variables], [*expected.values()])


@pytest.mark.parametrize("kind", ["ecc16", "stochastic"])
@pytest.mark.parametrize(
    "inner",
    [
        jopt.chain(ADAMW, jopt.params_ema(0.8), jopt.params_mean()),
        jopt.schedule_free_adamw(3e-3),
        jopt.lookahead(ADAMW, sync_period=2),
        jopt.masked(jopt.chain(ADAMW, jopt.params_ema(0.8)), "kernel|small"),
    ],
    ids=["averages", "schedule_free", "lookahead", "masked"],
)
def test_parameters_to_evaluate_with_follow_from_the_wide_ones(
    inner: Any, kind: Any
) -> None:
    tx, name = jopt.bf16_params(inner, kind), None
    if "params_mean" in repr(inner):
        name = "params_ema"
    params, state = run(tx)
    found = jopt.eval_params(tx, state, params, name=name)
    assert types(found) == types(params)
    wide_params, of_wide = PARAMS, state
    if kind == "stochastic":
        exact = jopt.eval_params(
            inner, state.inner_state, jopt.tree.cast(params, "float32"), name=name
        )
    else:  # nothing was lost on the way
        wide_params, of_wide = jopt.tree.cast(PARAMS, "float32"), None
        of_wide = inner.init(wide_params)
        for t in range(4):
            grads = jopt.tree.cast(gradients(t), "float32")
            wide_params, of_wide = jopt.step(inner, grads, of_wide, wide_params)
        exact = jopt.eval_params(inner, of_wide, wide_params, name=name)
    for leaf in ("kernel", "small", "norm"):
        limit = 2.0**-8 * abs(wide(exact[leaf])) + 1e-8
        assert (abs(wide(found[leaf]) - wide(exact[leaf])) <= limit).all()


def test_weight_decay_acts_on_the_wide_parameter() -> None:
    # 0.999 a step: a bfloat16 of 1 loses nothing if it is rounded to nearest.
    decay = jopt.chain(jopt.add_decayed_weights(0.1), jopt.sgd(0.01))
    params = jnp.ones(3, jnp.bfloat16)
    tx = jopt.bf16_params(decay, "ecc16")
    state = tx.init(params)
    for _ in range(100):
        params, state = jopt.step(tx, jnp.zeros_like(params), state, params)
    np.testing.assert_allclose(jopt.wide_params(state, params), 0.999**100, 1e-5)
    assert abs(wide(params) - 0.999**100).max() < 2.0**-9


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_table_learn_as_the_whole_table_does(kind: Any) -> None:
    tx = jopt.bf16_params(jopt.sgd(1e-3), kind)
    table = jax.random.normal(jax.random.key(2), (20, 6), jnp.bfloat16)
    sparse, dense = (table, tx.init(table)), (table, tx.init(table))
    for t in range(5):
        ids = jnp.array([t, 2 * t, t, 99])  # one of them twice, and padding
        rows = jax.random.normal(jax.random.key(t), (4, 6), jnp.bfloat16)
        g = jopt.RowSparse(ids, rows, 20)
        updates, state = tx.update(g, sparse[1], sparse[0])
        assert isinstance(updates, jopt.RowSparse)
        sparse = jopt.apply_updates(sparse[0], updates), state
        # Rows of one id are added up before they are rounded.
        whole = g.with_rows(rows.astype(jnp.float32)).todense()
        dense = jopt.step(tx, whole, dense[1], dense[0])
    equal(sparse, dense)
    found = jopt.wide_params(sparse[1], sparse[0])
    moved = (found != table.astype(jnp.float32)).any(1)
    assert moved[:5].all() or kind == "stochastic"
    assert not moved[9:].any()


@pytest.mark.parametrize("kind", ["ecc8", "stochastic"])
@pytest.mark.parametrize(
    "axes", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit]
)
def test_on_eight_devices_the_bits_are_those_of_one(kind: Any, axes: Any) -> None:
    tx = jopt.bf16_params(jopt.adam(1e-3), kind)
    start = {"kernel": jax.random.normal(jax.random.key(0), (16, 8), jnp.bfloat16)}
    expected = run(tx, start, 3)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(axes, axes))
    place = jax.NamedSharding(mesh, jax.P("x", "y"))
    with jax.set_mesh(mesh):
        params = jax.device_put(start, place)
        state = jax.jit(tx.init)(params)
        for t in range(3):
            grads = jax.device_put(gradients(t, start), place)
            params, state = jopt.step(tx, grads, state, params)
    equal((params, state), expected)
    if kind == "ecc8":
        assert state.error["kernel"].sharding.is_equivalent_to(place, 2)
        shapes = jax.eval_shape(tx.init, start)
        assert shapes.error["kernel"].dtype == jnp.int8


@pytest.mark.parametrize("kind", ["kahan", "ecc8", "stochastic"])
def test_a_resumed_run_goes_on_to_the_same_bits(kind: Any, tmp_path: Any) -> None:
    tx = jopt.bf16_params(jopt.adam(1e-3), kind)
    start = {name: p for name, p in PARAMS.items() if p is not None}
    expected = run(tx, start, 4)
    params, state = run(tx, start, 2)
    path = tmp_path / "checkpoint.npz"
    jopt.checkpoint.save(path, params=params, opt_state=state, tx=tx)
    restored = jopt.checkpoint.restore(path, params=start, tx=tx)
    params, state = restored.params, restored.opt_state
    for t in range(2, 4):
        params, state = jopt.step(tx, gradients(t, start), state, params)
    equal((params, state), expected)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), start)
    abstract = jax.eval_shape(tx.init, shapes)
    assert types(tx.init(shapes)) == types(abstract)


def test_members_of_a_batch_learn_as_alone() -> None:
    tx = jopt.bf16_params(jopt.adam(1e-2), "ecc8")
    start = jax.random.normal(jax.random.key(0), (3, 5), jnp.bfloat16)

    def trained(params):
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = jopt.apply_updates(params, updates)
        return params

    together = jax.jit(jax.vmap(trained))(start)
    equal(together, jnp.stack([jax.jit(trained)(p) for p in start]))


def test_parameters_that_are_set_by_hand_count() -> None:
    tx = jopt.bf16_params(jopt.sgd(1e-3), "master")
    params, state = run(tx)
    set_to = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    new, _ = jopt.step(tx, zeros, state, set_to)
    equal(new, set_to)  # a master copy would go back


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_the_state_that_are_like_parameters_are_found(kind: Any) -> None:
    tx = jopt.bf16_params(jopt.adam(0.1), kind)
    params = {"kernel": jnp.ones((4, 2), jnp.bfloat16), "norm": jnp.ones(3)}
    state = tx.init(params)
    names = {"kernel": "of kernel", "norm": "of norm"}
    found: Any = jopt.tree.map_params(tx, lambda x, name: name, state, names)
    adam = found.inner_state["scale_by_adam"]
    assert adam.mu == adam.nu == names
    kept = None if kind == "stochastic" else "of kernel"
    assert found.error == {"kernel": kept, "norm": None}


def test_an_equinox_model_learns() -> None:
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    half = jopt.tree.cast(eqx.filter(model, eqx.is_array), "bfloat16")
    model = eqx.combine(half, model)
    tx = jopt.bf16_params(jopt.sgd(1e-3), "ecc8")
    grads = jax.tree.map(jnp.ones_like, half)
    new, state = jopt.step(tx, grads, tx.init(model), model)
    wide_model = jopt.wide_params(state, new)
    assert wide_model.weight.dtype == jnp.float32
    expected = model.weight.astype(jnp.float32) - 1e-3
    np.testing.assert_allclose(wide_model.weight, expected, 2.0**-15)
