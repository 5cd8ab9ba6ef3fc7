"""Row-sparse leaves: torch's and Keras's numbers, and nothing of the table's size."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.core.chain import Chain
from jopt.core.leafwise import Leafwise
from jopt.interop.flax import TrainState
from jopt.testing.comparison import types
from tests.catalogue import ONCE
from tests.parity.sparse import GOLDEN, GRADS, IDS, LIBRARIES, ROWS, oracle, rows_of
from tests.parity.sparse import TABLE as START
from tests.public import public


N, D = 9, 4
# Row 7 twice, and two that are no rows: their numbers must not matter.
TOUCHED, PADDED = np.array([2, 5, 7]), np.array([7, 2, 7, 5, -1, N])
UNTOUCHED = np.setdiff1d(np.arange(N), TOUCHED)


def table() -> np.ndarray:
    """Small numbers in the rows that are not touched, so norms are of the others."""
    found = np.random.default_rng(0).normal(size=(N, D))
    found[UNTOUCHED] *= 1e-9
    return found.astype(np.float32)


def lookups(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of what was looked up, and their sums by row; of different sizes."""
    scale = np.array([1.0, 1e-4, 1e-2, 1e-6, 1.0, 1.0])[:, None]
    g = np.random.default_rng(1).normal(size=(steps, 6, D)) * scale
    g = g.astype(np.float32)
    sums = np.stack([g[:, 1], g[:, 3], g[:, 0] + g[:, 2]], axis=1)
    g[:, 4] = np.nan
    return g, sums


def sparse(rows: Any, ids: Any = PADDED, num_rows: int = N) -> jopt.RowSparse:
    return jopt.RowSparse(jnp.asarray(ids), jnp.asarray(rows), num_rows)


# The numbers of others.


@functools.cache
def golden(library: str) -> np.ndarray:
    with np.load(GOLDEN) as file:
        recipes = [row.oracle for row in rows_of(library)]
        again = "run python -m tests.parity.sparse"
        assert file[f"{library}.rows"].tolist() == recipes, again
        return file[library]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.oracle)
def test_lazy_steps_are_those_of_torch_and_dense_ones_those_of_keras(
    row: Any, x64: bool
) -> None:
    expected = golden(row.library)[rows_of(row.library).index(row)]
    tx = eval(row.jopt.format(hat="eps_mode='before'"), public(jopt))
    if row.library == "keras":
        tx = jopt.chain(jopt.densify(), tx)
    with jax.enable_x64(True) if x64 else contextlib.nullcontext():
        params = jnp.asarray(START)
        state, found = tx.init(params), []
        for ids, g in zip(IDS, GRADS, strict=True):
            g = jopt.RowSparse(np.append(ids, -1), np.vstack([g, g[:1] * np.nan]), N)
            params, state = jopt.step(tx, g, state, params)
            found.append(params)
        close = {"rtol": 1e-12, "atol": 1e-14} if x64 else {"rtol": 0, "atol": 1e-6}
        np.testing.assert_allclose(jnp.stack(found), expected, **close)
        never = np.setdiff1d(np.arange(N), IDS)
        if row.library == "torch":
            np.testing.assert_array_equal(params[never], jnp.asarray(START)[never])


@pytest.mark.parametrize("library", LIBRARIES)
def test_golden_values_are_what_the_installed_library_gives(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    np.testing.assert_allclose(oracle(library), golden(library), 1e-12)


# Every leafwise transformation works on the touched rows, or says why it does not.

MIX_ROWS = {
    "adafactor", "adaptive_grad_clip", "came", "cautious", "clip_by_block_rms",
    "clip_by_norm", "fromage", "lamb", "lars", "ldog", "limit_norm_growth",
    "mars_adamw", "mars_correction", "mars_lion", "novograd",
    "scale_by_decayed_trust_ratio", "scale_by_distance_over_gradients",
    "scale_by_factored_rms", "scale_by_lars", "scale_by_param_block_rms",
    "scale_by_trust_ratio", "sm3", "stable_adamw",
}  # fmt: skip
LOOK_AT_ALL = {"dadapt_adamw", "momo", "momo_adam", "prodigy"}
LEAFWISE = [
    case
    for case in ONCE
    if all(
        isinstance(tx, Leafwise)
        for tx in (
            case.make().children.values()
            if isinstance(case.make(), Chain)
            else [case.make()]
        )
    )
]


def after(tx: Any, p: Any, grads: Any) -> Any:
    """The parameters and the state after steps with these gradients, stacked."""

    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        extra = {"value": jnp.float32(1.0)} if "value" in tx.needs.accepts else {}
        updates, state = tx.update(g, state, params, **extra)
        return (jopt.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (p, tx.init(p)), grads)[0]


@pytest.mark.parametrize("case", LEAFWISE, ids=lambda case: case.name)
def test_touched_rows_are_a_leaf_of_their_own_and_others_stay(case: Any) -> None:
    tx, p = case.make(), {"table": jnp.asarray(table())}
    g, sums = lookups(steps=3)
    stacked = jopt.RowSparse.tree_unflatten(N, (np.stack([PADDED] * 3), g))
    if case.name in MIX_ROWS | LOOK_AT_ALL:
        why = "some rows of a leaf" if case.name in MIX_ROWS else "computes a number"
        with pytest.raises(TypeError, match=f"{why}.*jopt.densify") as caught:
            after(tx, p, {"table": stacked})
        notes = getattr(caught.value, "__notes__", [])
        assert "'table'" in str([caught.value, *notes])
        return

    with jax.disable_jit():  # compiling would be most of what this takes
        found, state = after(tx, p, {"table": stacked})
        alone = {"table": p["table"][TOUCHED]}
        expected, own = after(tx, alone, {"table": jnp.asarray(sums)})
    close = {"rtol": 2e-5, "atol": 1e-7}
    np.testing.assert_allclose(found["table"][TOUCHED], expected["table"], **close)
    kept = jax.tree.leaves(tx.init(p))
    chex.assert_trees_all_equal(found["table"][UNTOUCHED], p["table"][UNTOUCHED])
    for x, of_rows, first in zip(
        jax.tree.leaves(state), jax.tree.leaves(own), kept, strict=True
    ):
        of_touched = x[TOUCHED] if x.shape[:1] == (N,) else x
        np.testing.assert_allclose(of_touched, of_rows, **close)
        if x.shape[:1] == (N,):
            np.testing.assert_array_equal(x[UNTOUCHED], first[UNTOUCHED])


@pytest.mark.parametrize(
    "rule",
    [
        lambda g: jnp.cumsum(g, axis=0),
        lambda g: jnp.sort(g, axis=0),
        lambda g: jnp.flip(g, axis=0),
        lambda g: jnp.roll(g, 1, axis=0),
        lambda g: g - jnp.mean(g, axis=0, keepdims=True),
        lambda g: g * jnp.sum(g),
        lambda g: g @ (g.T @ g),
        lambda g: g.T.reshape(g.shape),
        lambda g: g + jnp.arange(g.shape[0], dtype=g.dtype)[:, None],
        lambda g: g * g.shape[0] ** -0.5,
        lambda g: jax.lax.map(lambda row: row + g[0], g),
        lambda g: jax.lax.cond(jnp.any(g > 0), lambda: g, lambda: 2 * g),
    ],
)
def test_a_rule_that_mixes_rows_is_refused(rule: Any) -> None:
    tx = jopt.leafwise(rule)
    with pytest.raises(TypeError, match="cannot work on some rows of a leaf"):
        jax.eval_shape(tx.update, {"table": sparse(lookups(1)[0][0])}, ())


def test_a_rule_may_do_what_it_wants_within_a_row() -> None:
    def rule(g: jax.Array, *, p: jax.Array) -> jax.Array:
        unit = g / jopt.tree.norm_along(g, -1)
        unit = jnp.where(jnp.max(p, -1, keepdims=True) > 0, unit, -unit)
        return jnp.moveaxis(unit.reshape(-1, 2, 2), 0, -1).T.reshape(g.shape)

    g, sums = lookups(1)
    tx, p = jopt.leafwise(rule), jnp.asarray(table())
    found, _ = tx.update(sparse(g[0]), (), p)
    expected, _ = tx.update(jnp.asarray(sums[0]), (), p[TOUCHED])
    np.testing.assert_allclose(found.todense()[TOUCHED], expected, rtol=1e-6)


# The leaf itself.


@pytest.mark.parametrize(
    ("dtype", "ids_dtype"),
    [("float32", "uint8"), ("bfloat16", "int64"), ("complex64", "int32")],
)
def test_rows_are_summed_up_and_padding_is_dropped(dtype: str, ids_dtype: str) -> None:
    rng = np.random.default_rng(0)
    for k, shape in ((0, ()), (1, (2,)), (300, (3, 2)), (40, ())):
        ids = rng.integers(0 if ids_dtype == "uint8" else -20, 250, size=k)
        rows = jnp.asarray(rng.normal(size=(k, *shape)), dtype)
        valid = (ids >= 0) & (ids < 200)
        expected = np.zeros((200, *shape), np.complex128)
        np.add.at(expected, ids[valid], np.asarray(rows).astype(complex)[valid])
        with jax.enable_x64(ids_dtype == "int64"):
            g = jopt.RowSparse(jnp.asarray(ids, ids_dtype), rows, 200)
            own = g.coalesced()
            assert own.dtype == dtype and own.shape == (200, *shape) == g.shape
            assert len(set(own.ids.tolist())) == k
            tol = 2.0**-8 if dtype == "bfloat16" else 1e-5
            for x in (g, own):
                found = np.asarray(x.todense()).astype(complex)
                np.testing.assert_allclose(found, expected, tol, atol=1e-5)
            if k == 300:
                norm = np.sqrt(np.sum(np.abs(expected) ** 2))
                np.testing.assert_allclose(jopt.tree.norm(g), norm, tol)


def test_reductions_of_a_tree_count_every_row_once_and_the_others_as_zero() -> None:
    g = sparse(-jnp.abs(lookups(1)[1][0]), TOUCHED)
    ours, whole = {"a": g, "b": jnp.ones(2)}, {"a": g.todense(), "b": jnp.ones(2)}
    for f in ("norm", "sum", "max", "min", "size"):
        found = [getattr(jopt.tree, f)(x) for x in (ours, whole)]
        np.testing.assert_allclose(*found, rtol=1e-6, err_msg=f)
    assert jopt.tree.max(g) == 0 and jopt.tree.min(sparse(-g.rows, TOUCHED)) == 0
    for x, y in ((ours, whole), (whole, ours), (ours, ours)):
        expected = jopt.tree.vdot(whole, whole)
        np.testing.assert_allclose(jopt.tree.vdot(x, y), expected, rtol=1e-6)
    bad = {"a": sparse(np.full((6, D), np.inf)), "b": jnp.ones(2)}
    assert not jnp.isfinite(jopt.tree.norm(bad))


def test_the_global_norm_is_that_of_the_dense_gradient() -> None:
    g, _ = lookups(1)
    grads = {"table": sparse(g[0]), "w": jnp.ones(3)}
    dense = grads | {"table": grads["table"].todense()}
    tx = jopt.clip_by_global_norm(0.5)
    found, expected = (jax.jit(tx.update)(x, ())[0] for x in (grads, dense))
    assert isinstance(found["table"], jopt.RowSparse)
    p = {"table": jnp.full((N, D), jnp.inf), "w": jnp.ones(3)}
    decayed, _ = jopt.add_decayed_weights(1.0).update(grads, (), p)
    np.testing.assert_array_equal(decayed["table"].rows[len(TOUCHED) :], 0)
    found["table"] = found["table"].todense()
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.inf, jnp.nan])
def test_a_fault_in_one_touched_row_skips_the_step(bad: float) -> None:
    tx, p = jopt.skip_nonfinite(jopt.adam(0.1)), {"table": jnp.asarray(table())}
    good = {"table": sparse(lookups(1)[1][0], TOUCHED)}
    p, state = jopt.step(tx, good, tx.init(p), p)
    rows = good["table"].rows.at[1, 2].set(bad)
    q, after = jopt.step(tx, {"table": sparse(rows, TOUCHED)}, state, p)
    chex.assert_trees_all_equal((q, after.inner_state), (p, state.inner_state))
    q, _ = jopt.step(tx, good, after, q)
    assert jnp.all(jnp.isfinite(q["table"])) and jnp.any(q["table"] != p["table"])
    # What stands in padding is no number of the gradient.
    padded = jopt.RowSparse(jnp.array([0, -1]), jnp.full((2, D), bad).at[0].set(1.0), N)
    q, after = jopt.step(tx, {"table": padded}, state, p)
    assert after.total_notfinite == 0 and jnp.all(jnp.isfinite(q["table"]))


def test_low_precision_rows_are_added_in_float32_and_rounded_once() -> None:
    ones = jnp.ones((512, 1), jnp.bfloat16)
    g = jopt.RowSparse(jnp.zeros(512, jnp.int32), ones, 2)
    assert g.todense()[0, 0] == 512  # in bfloat16 the sum stands still at 256
    p = jopt.apply_updates(jnp.full((2, 1), 2.0**-9, jnp.bfloat16), g)
    assert p.dtype == jnp.bfloat16 and p[0, 0] == 512 and p[1, 0] == 2.0**-9


# From the loss to the parameters.


def loss(params: Any, tokens: Any, scale: float = 1.0) -> Any:
    seen = params["embed"]["table"]
    pairs = seen["a"] * seen["b"][:, None]
    return scale * jnp.sum(jnp.tanh(pairs @ params["w"])), jnp.sum(tokens["a"])


def dense_loss(params: Any, tokens: Any, scale: float = 1.0) -> Any:
    whole = params["embed"]["table"]
    rows = jax.tree.map(
        lambda ids: jnp.where((ids >= 0)[..., None], whole[ids], 0), tokens
    )
    return loss(params | {"embed": {"table": rows}}, tokens, scale)


SPARSE_GRAD = jopt.sparse_value_and_grad(
    loss, lambda tokens, **_: {"embed/table": tokens}, has_aux=True
)
TOKENS = {"a": jnp.array([[1, 3, 3], [5, -1, 1]]), "b": jnp.array([3, 8])}


def model(num_rows: int = N) -> Any:
    w = jnp.asarray(np.random.default_rng(2).normal(size=(D, 2)), jnp.float32)
    whole = jnp.resize(jnp.asarray(table()[TOUCHED]), (num_rows, D))
    return {"embed": {"table": whole}, "w": w}


def test_the_gradient_of_lookups_is_that_of_the_table() -> None:
    params = model()
    value, grads = jax.jit(SPARSE_GRAD)(params, TOKENS, scale=0.5)
    expected = jax.value_and_grad(dense_loss, has_aux=True)(params, TOKENS, scale=0.5)
    assert grads["embed"]["table"].ids[:4].tolist() == [1, 3, 5, 8]
    assert grads["embed"]["table"].rows.shape == (8, D)
    grads["embed"]["table"] = grads["embed"]["table"].todense()
    chex.assert_trees_all_close((value, grads), expected, rtol=1e-5, atol=1e-7)


def equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        inner = list(core.jaxprs_in_params(eqn.params))
        yield from () if inner else (eqn,)
        for sub in inner:
            yield from equations(sub)


def test_a_step_makes_no_array_of_the_tables_size_but_writes_rows_in_place() -> None:
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3))

    def step(params: Any, state: Any, tokens: Any) -> Any:
        _, grads = SPARSE_GRAD(params, tokens)
        updates, state = tx.update(grads, state, params)
        return jopt.apply_updates(params, updates), state

    params = model(num_rows=5000)
    arguments = params, tx.init(params), TOKENS
    made = collections.Counter(
        eqn.primitive.name
        for eqn in equations(jax.make_jaxpr(step)(*arguments).jaxpr)
        for v in eqn.outvars
        if 5000 in v.aval.shape
    )
    assert made == {"scatter": 3}  # the parameter, mu and nu
    donated = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
    text = donated.as_text()
    assert "f32[5000,4]{1,0} copy(" not in text
    plain = jax.jit(step).lower(*arguments).compile()
    assert "f32[5000,4]{1,0} copy(" in plain.as_text()  # so it would be found
    assert donated.memory_analysis().temp_size_in_bytes < 5000 * D * 4


def test_a_training_state_a_scan_and_vmap_take_row_sparse_gradients() -> None:
    g, _ = lookups(3)
    p, tx = {"table": jnp.asarray(table())}, jopt.adamw(jopt.linear_schedule(0.1, 0, 9))
    state, params = TrainState.create(apply_fn=None, params=p, tx=tx), p
    own = tx.init(p)
    for rows in g:
        state = state.apply_gradients(grads={"table": sparse(rows)})
        params, own = jopt.step(tx, {"table": sparse(rows)}, own, params)
    chex.assert_trees_all_close(state.params, params, rtol=1e-6)
    stacked = jopt.RowSparse.tree_unflatten(N, (np.stack([PADDED] * 3), g))
    scanned, _ = after(tx, p, {"table": stacked})
    chex.assert_trees_all_close(scanned, params, rtol=1e-6)
    first = jax.vmap(lambda g: tx.update(g, tx.init(p), p)[0]["table"].todense())(
        {"table": stacked}
    )
    alone, _ = tx.update({"table": sparse(g[1])}, tx.init(p), p)
    np.testing.assert_allclose(first[1], alone["table"].todense(), rtol=1e-6)


@pytest.mark.parametrize("name", ["accumulate", "lookahead"])
def test_wrappers_that_work_on_all_rows_make_the_gradient_dense(name: str) -> None:
    inner = jopt.adam(0.1)
    tx = {"accumulate": jopt.accumulate, "lookahead": jopt.lookahead}[name](inner, 2)
    params, (g, _) = {"table": table()}, lookups(6)
    found = run_of(tx, params, [{"table": sparse(rows)} for rows in g])
    dense = [{"table": sparse(rows).todense()} for rows in g]
    chex.assert_trees_all_close(found, run_of(tx, params, dense), rtol=1e-6)
    moved = np.abs(found["table"] - params["table"])
    assert (moved[TOUCHED] > 1e-4).all()


def test_the_halves_of_an_accumulation_take_rows_too() -> None:
    tx, params = jopt.accumulate(jopt.sgd(1.0), 2), {"table": jnp.zeros((N, D))}
    state = tx.init(params)
    for factor in (1.0, 3.0):
        g = {"table": sparse(jnp.full((6, D), factor))}
        state = jopt.accumulate_grads(tx, g, state)
    updates, _ = jopt.emit(tx, state, params)
    expected = -np.bincount(PADDED[:4], minlength=N)[:, None] * 2.0 * np.ones(D)
    np.testing.assert_allclose(updates["table"], expected)


def test_a_loss_scale_leaves_rows_sparse() -> None:
    params, (g, _) = {"table": table()}, lookups(6)
    tx = jopt.dynamic_loss_scale(jopt.adam(0.1), init_scale=8.0)
    expected = run_of(jopt.adam(0.1), params, [{"table": sparse(r)} for r in g])
    found = run_of(tx, params, [{"table": sparse(8 * rows)} for rows in g])
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    half = {"table": sparse(jnp.full((6, D), jnp.inf, jnp.float16))}
    updates, state = tx.update(half, tx.init(params), params)
    assert updates["table"].rows.dtype == jnp.float16
    assert not updates["table"].todense().any()
    assert not state.last_finite


def run_of(tx: Any, params: Any, grads: list[Any]) -> Any:
    state, step = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = step(g, state, params)
        params = jopt.apply_updates(params, updates)
    return params


def test_masks_and_groups_are_about_the_table() -> None:
    p = {"embed": {"table": jnp.asarray(table())}, "w": jnp.ones((3, D))}
    g = {"embed": {"table": sparse(lookups(1)[0][0])}, "w": jnp.ones((3, D))}
    groups = {"few": jopt.adagrad(0.1), "all": jopt.chain(jopt.adam(0.1))}
    tx = jopt.chain(
        jopt.masked(jopt.scale(2.0), "embed"),
        jopt.partition(groups, lambda path, leaf: "few" if "table" in path else "all"),
        jopt.add_decayed_weights(0.1, mask=lambda path, leaf: leaf.shape == (N, D)),
    )
    updates, state = tx.update(g, tx.init(p), p)
    assert state["partition"]["all"]["scale_by_adam"].mu["embed"]["table"] is None
    alone = jopt.chain(jopt.scale(2.0), groups["few"], jopt.add_decayed_weights(0.1))
    only = {"embed": p["embed"]}
    expected, _ = alone.update({"embed": g["embed"]}, alone.init(only), only)
    found = updates["embed"]["table"].todense()
    np.testing.assert_allclose(found, expected["embed"]["table"].todense(), rtol=1e-6)


def test_other_rows_do_not_compile_again_and_the_state_keeps_its_types() -> None:
    traces = []

    @jax.jit
    def step(g: Any, state: Any, p: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(g, state, p)
        return updates, state, jopt.apply_updates(p, updates)

    tx, p = jopt.adam(0.1), {"table": jnp.asarray(table(), jnp.bfloat16)}
    first = state = tx.init(p)
    for rows in lookups(2)[0]:
        updates, state, p = step({"table": sparse(rows)}, state, p)
    assert len(traces) == 1 and types(state) == types(first)
    assert updates["table"].dtype == jnp.float32
    assert p["table"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (AxisType.Auto, P("data")),
        (AxisType.Explicit, P("data", None)),
        (AxisType.Explicit, P(None, "data")),
    ],
    ids=str,
)
def test_a_sharded_table_gives_the_numbers_of_one_device(kind: Any, spec: P) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    p, tx = jnp.tile(jnp.asarray(START, jnp.float32), (8, 2)), jopt.adamw(0.1)
    g = jopt.RowSparse(jnp.asarray([70, 3, 3, 41, 99]), jnp.ones((5, 2 * D)), 8 * N)
    expected, own = jopt.step(tx, g, tx.init(p), p)
    split = jax.device_put(p, NamedSharding(mesh, spec))
    found, state = jopt.step(tx, g, tx.init(split), split)
    chex.assert_trees_all_close((found, state), (expected, own), rtol=1e-6)
    assert found.sharding.is_equivalent_to(split.sharding, 2)
    mu = state["scale_by_adam"].mu
    assert mu.sharding.is_equivalent_to(split.sharding, 2)


# Catching up.


def catching_up_cases() -> list[Any]:
    rate = jopt.cosine_decay_schedule(0.1, 20)
    return [
        jopt.adamw(rate, weight_decay=0.1),
        jopt.sgd(0.1, momentum=0.9, nesterov=True),
        jopt.chain(jopt.lion(0.01), jopt.params_ema(0.8)),
    ]


@pytest.mark.parametrize("tx", catching_up_cases(), ids=repr)
def test_rows_that_caught_up_are_where_dense_steps_lead(tx: Any) -> None:
    with jax.enable_x64(True):
        p = {"a": {"table": jnp.asarray(START)}, "w": jnp.ones(D)}
        late = jopt.chain(jopt.clip_by_global_norm(0.5), jopt.catch_up(tx, "table$"))
        dense = jopt.chain(jopt.clip_by_global_norm(0.5), tx)
        q, state, own = p, late.init(p), dense.init(p)
        for t, (ids, g) in enumerate(zip(IDS, GRADS, strict=True)):
            ids = [*ids[:2].tolist(), int(ids[t % 3]), -1]
            rows = jopt.RowSparse(jnp.array(ids), jnp.asarray(g[:4]), N)
            w = jnp.full(D, 0.1 * t)
            if t % 2:  # as before a lookup
                p, state = jopt.caught_up(late, state, p, {"a/table": jnp.array(ids)})
                behind = q["a"]["table"][jnp.array(ids[:3])]
                found = p["a"]["table"][jnp.array(ids[:3])]
                np.testing.assert_allclose(found, behind, rtol=1e-12)
            p, state = jopt.step(late, {"a": {"table": rows}, "w": w}, state, p)
            whole = {"a": {"table": rows.todense()}, "w": w}
            q, own = jopt.step(dense, whole, own, q)
            touched = np.unique(ids[:3])
            close = {"rtol": 1e-12, "atol": 1e-13}
            np.testing.assert_allclose(
                p["a"]["table"][touched], q["a"]["table"][touched], **close
            )
        assert jnp.max(jnp.abs(p["a"]["table"] - q["a"]["table"])) > 1e-3
        evaluated = jopt.eval_params(late, state, p)
        expected = jopt.eval_params(dense, own, q, default=q)
        chex.assert_trees_all_close(evaluated, expected, rtol=1e-12, atol=1e-13)
        p, state = jopt.caught_up(late, state, p)
        inner = state["catch_up"].inner_state
        inner = inner if isinstance(inner, dict) else {"": inner}
        chex.assert_trees_all_close(
            (p, jax.tree.leaves(inner)),
            (q, jax.tree.leaves(own)),
            rtol=1e-12,
            atol=1e-13,
        )


def test_every_group_can_catch_up_for_itself() -> None:
    p = {"a": jnp.zeros((2, 1)), "b": jnp.zeros((2, 1))}
    groups = {n: jopt.catch_up(jopt.sgd(1.0, momentum=0.5), n) for n in p}
    tx = jopt.partition(groups, lambda path, leaf: path)
    state = tx.init(p)
    for row in (0, 1):
        g = {n: jopt.RowSparse(jnp.array([row]), jnp.ones((1, 1)), 2) for n in p}
        p, state = jopt.step(tx, g, state, p)
    ids = {"a": jnp.array([1, 0]), "b": jnp.array([1])}
    found, state = jopt.caught_up(tx, state, p, ids)
    np.testing.assert_array_equal(found["a"].ravel(), [-1.5, -1])
    np.testing.assert_array_equal(found["b"].ravel(), [-1, -1])
    for whole in (jopt.eval_params(tx, state, found), jopt.caught_up(tx, state, p)[0]):
        np.testing.assert_array_equal(whole["b"].ravel(), [-1.5, -1])


# Misuse.


def misuses() -> dict[str, tuple[Any, type[Exception], str]]:
    g, p = sparse(np.ones((6, D))), {"table": jnp.ones((N, D)), "w": jnp.ones(2)}
    grads = {"table": g, "w": jnp.ones(2)}
    late = jopt.catch_up(jopt.sgd(0.1), "table")
    floats = jax.tree.map(lambda x: -0.1 * x.astype(jnp.float32), grads)

    def lookup(ids: Any, path: str = "table") -> Any:
        f = jopt.sparse_value_and_grad(lambda p: 0.0, lambda: {path: ids})
        return lambda: f(p | {"one": jnp.ones(())})

    def update(tx: Any, grads: Any = grads) -> Any:
        return lambda: tx.update(grads, tx.init(p), p)

    by_size = jopt.leafwise(
        lambda g, total: (g, total),
        state=collections.namedtuple("State", ["total"]),
        total=jopt.zeros(over=lambda shape: () if shape[0] >= N else None),
    )
    return {
        "a slot for many rows": (
            update(by_size, {"table": g, "w": None}),
            TypeError,
            "its slots depend on the number of rows",
        ),
        "float ids": (
            lambda: jopt.RowSparse([0.5], jnp.ones((1, 2)), 3),
            TypeError,
            "ids of a RowSparse must be integers, got float32",
        ),
        "no ids": (
            lambda: jopt.RowSparse([0, 1], jnp.ones((3, 2)), 3),
            ValueError,
            r"ids of shape \(k,\) and rows of shape \(k, …\), got \(2,\) and \(3, 2\)",
        ),
        "no rows": (
            lambda: jopt.RowSparse([0], jnp.ones((1, 2)), 0),
            ValueError,
            "num_rows must be >= 1, got num_rows=0",
        ),
        "half a row": (
            lambda: jopt.RowSparse([0], jnp.ones((1, 2)), 1.5),
            TypeError,
            "num_rows must be a whole number, got 1.5",
        ),
        "another table": (
            update(
                jopt.adam(0.1),
                grads | {"table": jopt.RowSparse([0], jnp.ones((1, D)), 3)},
            ),
            ValueError,
            r"leaf 'table': updates have shape \(3, 4\), but params has shape \(9, 4\)",
        ),
        "mapped ids": (
            lambda: jopt.apply_updates(p, floats),
            TypeError,
            r"changes the ids too: put\s+jopt.densify\(\)",
        ),
        "not leafwise": (
            update(jopt.muon(0.1)),
            TypeError,
            r"leaf 'table' is row-sparse.*Put jopt.densify\(\) before it",
        ),
        "params": (
            lambda: jopt.adam(0.1).init(grads),
            TypeError,
            "params leaf 'table' is row-sparse",
        ),
        "no such path": (
            lookup(jnp.array([1]), "tabel"),
            ValueError,
            r"no parameter at 'tabel'.*Did you mean 'table'\?",
        ),
        "one number": (
            lookup(jnp.array([1]), "one"),
            ValueError,
            "'one' is one number",
        ),
        "float lookups": (
            lookup(jnp.array([1.0])),
            TypeError,
            r"ids for 'table' must be integers, got Array\(\[1\.\]",
        ),
        "catch_up of an estimate": (
            lambda: jopt.catch_up(jopt.prodigy(1.0), "table"),
            TypeError,
            "cannot take a missed step of prodigy later: it computes its scalars from",
        ),
        "catch_up of a clip": (
            lambda: jopt.catch_up(
                jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(0.1)), "table"
            ),
            TypeError,
            "a missed step of clip_by_global_norm later",
        ),
        "catch_up of a wrapper": (
            lambda: jopt.catch_up(jopt.masked(jopt.sgd(0.1), "table"), "table"),
            TypeError,
            "missed step of masked later: it is not leafwise",
        ),
        "catch_up without params": (
            lambda: late.update(grads, late.init(p)),
            TypeError,
            "catch_up needs the parameters",
        ),
        "no catch_up": (
            lambda: jopt.caught_up(jopt.sgd(0.1), jopt.sgd(0.1).init(p), p),
            ValueError,
            "there is no catch_up in sgd",
        ),
        "caught up elsewhere": (
            lambda: jopt.caught_up(late, late.init(p), p, {"w": jnp.array([0])}),
            ValueError,
            r"no table at 'w'; its tables are \['table'\]",
        ),
    }


@pytest.mark.parametrize("name", misuses())
def test_misuse_is_told_apart(name: str) -> None:
    call, error, message = misuses()[name]
    with pytest.raises(error, match=f"(?s){message}"):
        call()
