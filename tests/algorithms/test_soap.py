"""SOAP and KL-SOAP."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from tests.algorithms.eigen_problem import GOLDEN, RUNS, SHOWN, decomposing, ours
from tests.algorithms.test_adam import adamw
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double, steps


def eigenvectors(s: Array) -> Array:
    return np.linalg.eigh(s)[1][:, ::-1]


def soap(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    adam_learning_rate: Scalar,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.01,
    shampoo_beta: float | None = None,
    precondition_frequency: int = 10,
    kl: bool = False,
    sides: str = "both",
    **_: Any,
) -> Iterator[Array]:
    """Vyas et al., 2024, "SOAP: improving and stabilizing Shampoo using Adam".

    ``kl`` is Lin et al., 2025, "Understanding and improving the Shampoo optimizer via
    Kullback-Leibler minimization".
    """
    p = double(p)
    if p.ndim < 2:
        options: Any = {"b1": 0.9, "b2": 0.95, "weight_decay": 0.0}
        yield from adamw(p, grads, learning_rate=adam_learning_rate, **options)
        return
    m, n = p.shape
    left, right = np.eye(m), np.eye(n)
    s_left, s_right = np.zeros((m, m)), np.zeros((n, n))
    both = sides == "both"  # else the left one, which is smaller here
    e_left, e_right = np.full(m, 0.1), np.full(n, 0.1) if both else np.ones(n)
    mu, nu = np.zeros_like(p), np.zeros_like(p)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        beta = beta2 if shampoo_beta is None else shampoo_beta
        white_left, white_right = g, g
        if t > 1:
            seen = left.T @ g @ right
            mu = beta1 * mu + (1 - beta1) * seen
            nu = beta2 * nu + (1 - beta2) * seen**2
            scale = 1.0
            if not kl:
                scale = np.sqrt(1 - beta2 ** (t - 1)) / (1 - beta1 ** (t - 1))
            u = scale * left @ (mu / (np.sqrt(nu) + at(eps, t))) @ right.T
            p = p - at(learning_rate, t) * u
            p = p * (1 - at(learning_rate, t) * at(weight_decay, t))
            if kl:
                white_left = g @ right / np.sqrt(e_right)
                white_right = (left.T @ g) / np.sqrt(e_left)[:, None]
                d_left = np.mean((seen / np.sqrt(e_right)) ** 2, axis=1)
                d_right = np.mean((seen / np.sqrt(e_left)[:, None]) ** 2, axis=0)
                e_left = np.maximum(beta * e_left + (1 - beta) * d_left, 0.01)
                e_right = np.maximum(beta * e_right + (1 - beta) * d_right, 0.01)
                e_right = e_right if both else np.ones(n)
        parts = (n, m) if kl else (1, 1)
        gram = white_left @ white_left.T / parts[0]
        s_left = beta * s_left + (1 - beta) * gram
        gram = white_right.T @ white_right / parts[1]
        s_right = beta * s_right + (1 - beta) * gram
        if t == 1:
            left = eigenvectors(s_left)
            right = eigenvectors(s_right) if both else right
        elif (t - 1) % precondition_frequency == 0:
            mu = left @ mu @ right.T
            if not kl:
                order = np.argsort(-np.diag(left.T @ s_left @ left), kind="stable")
                left, nu = left[:, order], nu[order]
            if not kl and both:
                order = np.argsort(-np.diag(right.T @ s_right @ right), kind="stable")
                right, nu = right[:, order], nu[:, order]
            left = np.linalg.qr(s_left @ left)[0]
            right = np.linalg.qr(s_right @ right)[0] if both else right
            mu = left.T @ mu @ right
        yield p


def kl_soap(p: Array, grads: Iterable[Array], **options: Any) -> Iterator[Array]:
    """The twin with the other statistics, and its defaults."""
    return soap(p, grads, **({"b1": 0.9, "b2": 0.98} | options), kl=True)


# The gradients of the laws have singular values six orders of magnitude apart, whose
# singular vectors float32 does not know. With one side and a large eps they are equal.
OPTIONS: Any = {"eps": 1.0, "precondition_frequency": 3, "staggered": False}
OPTIONS |= {"weight_decay": 0.1, "sides": "smaller", "adam_learning_rate": 0.02}
CASES = [
    Case("soap", {**OPTIONS, "shampoo_beta": 0.9}, complex_leaves=False),
    Case("kl_soap", OPTIONS, complex_leaves=False),
]

WITHOUT_ROW = {
    "soap": "equal to the authors' recorded runs; a row decomposes in float32",
    "kl_soap": "equal to the authors' recorded runs",
    "scale_by_soap": "its twin is that of soap",
}


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def updates(tx: Any, grads: list[Any]) -> list[Any]:
    """The updates of these gradients."""
    state, found = tx.init(grads[0]), []
    update = jax.jit(tx.update)
    for g in grads:
        u, state = update(g, state)
        found.append(u)
    return found


def draws(*shape: int, steps: int = 7) -> list[Any]:
    return [jnp.asarray(random(*shape, seed=i), float) for i in range(steps)]


@pytest.mark.parametrize("name", [name for name in RUNS if "soap" in name])
def test_forty_steps_are_those_of_the_authors(name: str) -> None:
    with np.load(GOLDEN) as golden:
        expected = golden[name]
    np.testing.assert_allclose(ours(RUNS[name])[SHOWN], expected, 1e-9, 1e-9)


def test_the_first_step_moves_no_hidden_matrix() -> None:
    params = {"hidden": jnp.eye(3), "bias": jnp.ones(3)}
    tx = jopt.soap(0.1, weight_decay=0.5)
    state, update = tx.init(params), jax.jit(tx.update)
    u, state = update(params, state, params)
    assert not u["hidden"].any() and u["bias"].all()
    u, _ = update(params, state, params)
    assert u["hidden"].any()


def test_turning_the_gradients_turns_the_updates() -> None:
    left = np.linalg.qr(random(4, 4))[0]
    options: Any = {"precondition_frequency": 2, "sides": "smaller"}
    with jax.enable_x64(True):
        tx, grads = jopt.scale_by_soap(**options), draws(4, 6)
        turned = updates(tx, [jnp.asarray(left) @ g for g in grads])
        plain = updates(tx, grads)
    for u, v in zip(plain, turned, strict=True):
        np.testing.assert_allclose(left @ np.asarray(u), v, rtol=0, atol=1e-9)


def test_a_kernel_is_the_matrix_that_its_axes_say() -> None:
    grads = [{"w": g} for g in draws(12, 5)]
    options: Any = {"precondition_frequency": 2, "staggered": False}
    plain = updates(jopt.scale_by_soap(**options, axes="io"), grads)
    kernel = [{"w": g["w"].reshape(3, 4, 5)} for g in grads]
    found = updates(jopt.scale_by_soap(**options, axes="iio"), kernel)
    for u, v in zip(plain, found, strict=True):
        chex.assert_trees_all_close(u["w"], v["w"].reshape(12, 5), atol=1e-6)
    state = jopt.scale_by_soap(axes="iio", merge_axes=False).init(kernel[0])
    assert [x["w"].shape for x in state.bases] == [(1, n, n) for n in (3, 4, 5)]


def test_a_leaf_among_many_gets_what_it_gets_alone() -> None:
    shapes = [(4, 6)] * 10 + [(3,), (2, 4, 6)]
    axes = [*["io"] * 10, None, "bio"]
    rng = np.random.default_rng(0)
    grads = [
        [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes] for _ in range(5)
    ]
    options: Any = {"precondition_frequency": 2, "staggered": False}
    together = updates(jopt.scale_by_soap(axes=axes, **options), grads)[-1]
    for i in (9, 10):
        tx = jopt.scale_by_soap(axes=[axes[i]], **options)
        alone = updates(tx, [[g[i]] for g in grads])[-1]
        chex.assert_trees_all_close(alone[0], together[i], rtol=1e-3, atol=1e-4)
    one = [[g[11][1]] for g in grads]  # of the two matrices of the last leaf
    alone = updates(jopt.scale_by_soap(axes=["io"], **options), one)[-1]
    chex.assert_trees_all_close(alone[0], together[11][1], rtol=1e-3, atol=1e-4)


def test_only_steps_that_are_due_decompose() -> None:
    params = {"w": jnp.ones((4, 6)), "v": jnp.ones((5, 5))}
    for tx in (jopt.soap(0.1), jopt.kl_soap(0.1)):
        outside, inside, text = decomposing(tx, params)
        assert not outside and inside == {"eigh", "qr"}
        entry = text[text.index("\nENTRY") :]
        assert "conditional(" in entry and "custom-call" not in entry


def test_stacks_take_turns() -> None:
    params = {str(n): jnp.asarray(random(n, n), jnp.float32) for n in (3, 4, 5, 6)}
    tx = jopt.scale_by_soap(precondition_frequency=4)
    state, changed = tx.init(params), []
    update = jax.jit(tx.update)
    for i in range(9):
        g = jax.tree.map(
            lambda p, i=i: p + jnp.asarray(random(*p.shape, seed=i)), params
        )
        old, (_, state) = state.bases[0], update(g, state)
        changed.append([n for n in old if (old[n] != state.bases[0][n]).any()])
    assert changed[0] == ["3", "4", "5", "6"]
    turns = [["6"], ["5"], ["4"], ["3"]]
    assert changed[1:] == turns * 2


def test_long_sides_and_larger_sides_are_left_alone() -> None:
    params = {"w": jnp.ones((4, 9))}
    for options in ({"max_dim": 8}, {"sides": "smaller"}):
        state = jopt.scale_by_soap(**options).init(params)
        assert state.bases[0]["w"].shape == (1, 4, 4) and state.bases[1]["w"] is None


def test_spread_matrices_get_the_same_updates() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    grads = {f"layer_{i}": random(16, 8, seed=i) for i in range(11)}
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads)
    options: Any = {"precondition_frequency": 1, "sides": "smaller"}
    expected = updates(jopt.scale_by_soap(**options), [grads] * 3)
    tx = jopt.scale_by_soap(mesh_axis="data", **options)
    with jax.set_mesh(mesh):
        grads = jax.device_put(grads, rows)
        state, found = jax.jit(tx.init)(grads), []
        compiled = jax.jit(tx.update).lower(grads, state).compile()
        for _ in range(3):
            u, state = compiled(grads, state)
            found.append(u)
    chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-3, atol=1e-3)
    assert all(x.sharding.is_equivalent_to(rows, 2) for x in found[-1].values())
    bases = state.bases[1].values()
    assert {x.sharding.spec for x in bases} <= {P(None, "data"), P(None, "data", None)}
    # Gradients, moments and bases to the matrices' devices in one exchange; updates,
    # moments and what is new of the statistics back in another. The first step, and
    # those that renew bases, take two more each.
    text = compiled.as_text()
    assert text.rpartition("\nENTRY")[2].count(" all-to-all(") == 2
    assert text.count(" all-to-all(") == 6
    assert not re.search(" (all-gather|all-reduce|collective-permute)", text)


def test_a_stack_with_layers_for_all_devices_stays_where_it_is() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    tx = jopt.scale_by_soap(mesh_axis="data", axes="bio")
    layers = {name: jnp.ones((8, 4, 4)) for name in "ab"}
    with jax.set_mesh(mesh):
        layers = jax.device_put(layers, NamedSharding(mesh, P("data")))
        state = jax.jit(tx.init)(layers)
        text = jax.jit(tx.update).lower(layers, state).compile().as_text()
    assert {x.sharding.spec[0] for x in jax.tree.leaves(state.bases)} == {"data"}
    assert not re.search(" (all-|collective-permute)", text)


def test_bases_in_two_bytes_are_computed_in_four() -> None:
    grads = draws(6, 4)
    options: Any = {"precondition_frequency": 2, "sides": "smaller"}
    tx = jopt.scale_by_soap(**options, precond_dtype="bfloat16")
    state = tx.init(grads[0])
    kept = state.statistics[1], state.bases[1]
    assert [x.dtype.name for x in kept] == ["bfloat16"] * 2
    found, expected = updates(tx, grads), updates(jopt.scale_by_soap(**options), grads)
    for u, v in zip(found, expected, strict=True):
        chex.assert_trees_all_close(u, v, rtol=0, atol=0.1)


def test_spread_matrices_have_the_types_that_they_had() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    rows = NamedSharding(mesh, P("data"))
    tx = jopt.scale_by_soap(mesh_axis="data")
    with jax.set_mesh(mesh):
        g = jax.device_put(jnp.ones((16, 8)), rows)
        state = tx.init(g)
        u, new = jax.eval_shape(tx.update, g, state)

    def types(tree: Any) -> list[str]:
        return [str(jax.typeof(x)) for x in jax.tree.leaves(tree)]

    assert types(new) == types(state) and types(u) == types(g)
    bases = [jax.typeof(x).sharding.spec for x in state.bases]
    assert bases == [P(None, "data", None)] * 2


def test_narrow_gradients_are_decomposed_in_float32() -> None:
    g = jnp.asarray(random(4, 6), "bfloat16")
    tx = jopt.scale_by_soap(precondition_frequency=1)
    state = tx.init(g)
    update = jax.jit(tx.update)
    for _ in range(3):
        u, state = update(g, state)
    assert u.dtype == g.dtype and {x.dtype for x in state.bases} == {np.dtype("f4")}
    wide = updates(tx, [g.astype(jnp.float32)] * 3)[-1]
    chex.assert_trees_all_close(u.astype(jnp.float32), wide, rtol=2e-2, atol=2e-2)


def test_what_is_zero_empty_or_complex() -> None:
    tx = jopt.scale_by_soap(precondition_frequency=1)
    g = {"zero": jnp.zeros((3, 3)), "empty": jnp.ones((0, 3)), "one": jnp.ones((1, 3))}
    state = tx.init(g)
    update = jax.jit(tx.update)
    for _ in range(3):
        u, state = update(g, state)
    chex.assert_tree_all_finite((u, state))
    assert u["empty"].shape == (0, 3) and not u["zero"].any()
    with pytest.raises(TypeError, match="defined for real numbers only"):
        tx.init({"w": jnp.ones((2, 2), jnp.complex64)})
    # What is not finite spoils no basis.
    huge = jnp.full((3, 3), 1e30)
    assert jnp.isfinite(updates(tx, [huge] * 3)[-1]).all()


def test_on_a_cpu_a_decomposition_is_of_one_matrix() -> None:
    # Several batches at once may wait for each other's threads, forever.
    tx, params = jopt.scale_by_soap(precondition_frequency=1), jnp.ones((3, 4, 5))
    state = jax.eval_shape(jax.vmap(tx.init), params)
    text = jax.jit(jax.vmap(tx.update)).lower(params, state).as_text()
    calls = [line for line in text.splitlines() if "@lapack_" in line]
    found = {shape for line in calls for shape in re.findall(r"<(\d[\dx]*)xf32", line)}
    assert found == {"4", "5", "4x4", "5x5"}
