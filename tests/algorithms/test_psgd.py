"""PSGD Kron: what the factors are fitted to, when, and with which random numbers."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, Tree, at, double, rms


GOLDEN = Path(__file__).parent / "golden" / "psgd.npz"
Draw = Callable[[int, tuple[int, ...]], Array]


def draws(seed: int) -> Iterator[tuple[bool, Draw]]:
    """For each fit, whether to balance the factors, and V by a leaf's place and shape.

    Only leaves with one matrix.
    """
    key = jax.random.key(seed)
    while True:
        key, now = jax.random.split(key)
        balance, noise = jax.random.split(now)

        def draw(place: int, shape: tuple[int, ...], noise: Any = noise) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(noise, place), 0)
            shape_in_two = (*shape, 1, 1)[: max(2, len(shape))]
            v = jax.random.normal(key, shape_in_two, jnp.float32)
            return double(np.asarray(v)).reshape(shape)

        yield bool(jax.random.uniform(balance, dtype=jnp.float32) < 0.01), draw


def mode_product(q: Array, x: Array, axis: int) -> Array:
    """``Q`` times the axis; a vector is a diagonal matrix."""
    if not x.ndim:
        return q * x
    moved = np.moveaxis(x, axis, -1)
    return np.moveaxis(moved * q if q.ndim < 2 else moved @ q.T, -1, axis)


def gram(x: Array, axis: int, q: Array) -> Array:
    if not x.ndim:
        return x * x
    flat = np.moveaxis(x, axis, 0).reshape(len(q), -1)
    return np.sum(flat**2, 1) if q.ndim < 2 else flat @ flat.T


def bound(x: Array) -> Any:
    row = x @ x[np.argmax(np.sum(x**2, 1))]
    return np.linalg.norm(x @ (row / np.linalg.norm(row)))


def fit(qs: list[Array], g: Array, v: Array, balance: bool, lr: float) -> list[Array]:
    if balance and len(qs) > 1:
        sizes = [np.max(np.abs(q)) for q in qs]
        qs = [
            q * np.prod(sizes) ** (1 / len(qs)) / x
            for q, x in zip(qs, sizes, strict=True)
        ]
    if not g.any():
        return qs
    a = g + math.sqrt(np.finfo(np.float32).eps) * np.mean(np.abs(g)) * v
    b = v
    for axis, q in enumerate(qs):
        a = mode_product(q, a, axis)
        b = mode_product(1 / q if q.ndim < 2 else scipy.linalg.inv(q).T, b, axis)
    new = []
    for axis, q in enumerate(qs):
        of_a, of_b = gram(a, axis, q), gram(b, axis, q)
        if q.ndim < 2:
            new.append(q - lr * (of_a - of_b) / np.max(of_a + of_b) * q)
        else:
            new.append(q - lr / bound(of_a + of_b) * np.triu(of_a - of_b) @ q)
    return new


def psgd_kron(
    params: Tree,
    grads: list[Tree],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    preconditioner_update_probability: Scalar = 1.0,
    memory_save_mode: str | None = None,
    momentum_into_precond_update: bool = True,
    preconditioner_lr: Scalar = 0.1,
    key: int = 0,
) -> Iterator[Tree]:
    """Walters, 2024, psgd_jax; its defaults for the first 500 steps."""
    p = {n: double(x) for n, x in params.items()}
    m = {n: np.zeros_like(x) for n, x in p.items()}
    qs = {}
    for n, x in p.items():
        square = [x.ndim > 1 and size > 1 for size in x.shape] or [False]
        if memory_save_mode == "one_diag" and x.ndim:
            square[int(x.ndim > 1 and x.shape[1] >= x.shape[0])] = False
        if memory_save_mode == "all_diag":
            square = [False] * len(square)
        sides = x.shape or (1,)
        ones = [
            np.eye(k) if s else np.ones(k) for k, s in zip(sides, square, strict=True)
        ]
        qs[n] = ones if x.ndim else [np.ones(())]
    chances, waited = draws(key), 0
    for t, tree in enumerate(grads, start=1):
        waited += 1
        due = waited * at(preconditioner_update_probability, t) >= 1
        balance, draw = next(chances) if due else (False, None)
        waited = 0 if due else waited
        b = at(b1, t)
        for place, n in enumerate(sorted(p)):
            g = double(tree[n])
            m[n] = b * m[n] + (1 - b) * g
            hat = m[n] / (1 - b**t)
            if draw:
                fitted = hat if momentum_into_precond_update else g
                v = draw(place, g.shape)
                qs[n] = fit(qs[n], fitted, v, balance, at(preconditioner_lr, t))
            u = hat
            for axis, q in enumerate(qs[n]):
                u = mode_product(q.T @ q if q.ndim > 1 else q * q, u, axis)
            u = u / max(1.0, rms(u) / 1.1)
            p[n] = p[n] - at(learning_rate, t) * (u + at(weight_decay, t) * p[n])
        yield dict(p)


CASES = [
    Case(
        "psgd_kron",
        {
            "weight_decay": 0.1,
            "preconditioner_update_probability": 0.5,
            "key": 11,
        },
        looks_at_all_leaves=True,
        complex_leaves=False,
    ),
]

WITHOUT_ROW = {"scale_by_kron": "the row of psgd_kron"}

# Runs of psgd_jax, see tests/tools/psgd.py; seed 11 balances the factors in one fit.
SHAPES = {
    "wide": (4, 6),
    "column": (5, 1),
    "vector": (7,),
    "number": (),
}
RUNS: dict[str, dict[str, Any]] = {
    "usual": {"weight_decay": 0.1, "preconditioner_update_probability": 1.0},
    "seldom": {
        "b1": 0.8,
        "preconditioner_update_probability": jopt.exponential_decay(
            1.0, 10, math.exp(-1), 10, end_value=0.2
        ),
        "memory_save_mode": "one_diag",
        "momentum_into_precond_update": False,
        "preconditioner_lr": 0.3,
    },
    "diagonal": {
        "preconditioner_update_probability": 1.0,
        "memory_save_mode": "all_diag",
        "preconditioner_init_scale": 3.0,
    },
}
STEPS, RATE, SEED = 40, 0.05, 11


def problem() -> tuple[Tree, list[Tree]]:
    rng = np.random.default_rng(0)
    sides = {n: [rng.normal(size=(k, k)) for k in s] for n, s in SHAPES.items()}

    def gradient(name: str) -> Array:
        g = rng.normal(size=SHAPES[name])
        for axis, side in enumerate(sides[name]):
            g = np.moveaxis(np.tensordot(side, g, (1, axis)), 0, axis)
        return g

    params = {n: rng.normal(size=s) for n, s in SHAPES.items()}
    return params, [{n: gradient(n) for n in SHAPES} for _ in range(STEPS)]


@pytest.mark.parametrize("name", RUNS)
def test_the_numbers_are_those_of_psgd_jax(name: str) -> None:
    golden = np.load(GOLDEN)[name]
    with jax.enable_x64(True):
        params, grads = problem()
        params = jax.tree.map(jnp.asarray, params)
        tx = jopt.psgd_kron(RATE, key=SEED, **RUNS[name])
        state, rows = tx.init(params), []
        step = jax.jit(lambda g, s, p: jopt.step(tx, g, s, p))
        for g in grads:
            params, state = step(g, state, params)
            rows.append(np.concatenate([np.ravel(params[n]) for n in sorted(params)]))
    np.testing.assert_allclose(np.stack(rows), golden, rtol=1e-9, atol=1e-9)


def test_the_factors_become_the_inverse_root_of_the_covariance() -> None:
    # Of G = L Z R^T with Z ~ N(0, I), row by row, that is (L L^T)^-1/2 x (R R^T)^-1/2.
    rng = np.random.default_rng(0)
    sides = [
        np.linalg.qr(rng.normal(size=(len(s), len(s))))[0] * s
        for s in ([3.0, 1.0, 0.5, 0.3], [2.0, 1.0, 0.2])
    ]
    left, right = (jnp.asarray(x, jnp.float32) for x in sides)
    tx = jopt.scale_by_kron(
        0.0, 1.0, preconditioner_lr=jopt.piecewise_constant([500], [0.1, 0.02])
    )

    def body(state: Any, key: Any) -> Any:
        g = left @ jax.random.normal(key, (4, 3)) @ right.T
        state = tx.update(g, state)[1]
        return state, jnp.kron(state.q_in, state.q_out)

    keys = jax.random.split(jax.random.key(1), 3000)
    _, qs = jax.lax.scan(body, tx.init(jnp.zeros((4, 3))), keys)
    p = np.mean(qs[1000:].mT @ qs[1000:], 0)
    roots = [scipy.linalg.sqrtm(np.linalg.inv(x @ x.T)) for x in sides]
    expected = np.kron(*roots)
    error = np.linalg.norm(p - expected) / np.linalg.norm(expected)
    assert error < 0.1


def test_masks_stacks_and_equal_leaves_change_no_number_of_a_matrix() -> None:
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(2))
    tx = jopt.scale_by_kron(axes=lambda _, x: "bio" if x.ndim > 2 else "io")

    def run(tree: Any) -> Any:
        state = tx.init(tree)
        update = jax.jit(tx.update)
        found = []
        for _ in range(3):
            u, state = update(tree, state)
            found.append(u)
        return found[-1]

    together = run({"a": a, "b": b})
    np.testing.assert_allclose(run({"a": None, "b": b})["b"], together["b"], rtol=1e-5)
    stack = run({"a": jnp.stack([a, b]), "b": None})["a"]
    np.testing.assert_allclose(stack[0], together["a"], rtol=1e-5)
    assert stack.shape == (2, 4, 3)


def test_a_step_that_does_not_fit_skips_the_work() -> None:
    params = jnp.ones((8, 6))
    tx = jopt.scale_by_kron()
    compiled = jax.jit(tx.update).lower(params, tx.init(params)).compile()
    text = compiled.as_text() or ""
    outside = [c for c in text.split("\n\n") if c.startswith("ENTRY")]
    assert "conditional(" in outside[0]
    assert "trsm" in text and "trsm" not in outside[0]


def test_a_fit_waits_for_its_turn() -> None:
    g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    tx = jopt.scale_by_kron(preconditioner_update_probability=0.25)
    state, fits = tx.init(g), []
    for _ in range(8):
        old, state = state, tx.update(g, state)[1]
        fits.append(not np.array_equal(old.q_in, state.q_in))
        assert fits[-1] != np.array_equal(old.key, state.key)
    assert fits == [False, False, False, True] * 2


def test_a_leaf_without_gradients_keeps_its_factors() -> None:
    tx, g = jopt.scale_by_kron(), jnp.zeros((3, 2))
    state = tx.init(g)
    u, new = tx.update(g, state)
    np.testing.assert_array_equal(u, g)
    np.testing.assert_array_equal(new.q_in, np.eye(3))
    # At once after gradients of 1e-30, one of 1e30 has updates of the usual size.
    for size in [1e-30] * 300 + [1e30]:
        u, state = tx.update(g + size, state)
    assert 0.5 < float(jnp.sqrt(jnp.mean(u * u))) < 1.2


@pytest.mark.parametrize(
    ("mode", "wide", "square"),
    [
        (None, (2, 2), (2, 2)),
        ("one_diag", (2, 1), (2, 1)),
        ("smart_one_diag", (2, 1), (2, 2)),
        ("all_diag", (1, 1), (1, 1)),
    ],
)
def test_the_longer_side_may_have_a_diagonal_factor(
    mode: Any, wide: Any, square: Any
) -> None:
    params = {"square": jnp.ones((3, 3)), "wide": jnp.ones((2, 4))}
    state = jopt.scale_by_kron(memory_save_mode=mode).init(params)
    axes = {n: (state.q_in[n].ndim, state.q_out[n].ndim) for n in params}
    assert axes == {"square": square, "wide": wide}


def test_factors_in_float16_are_refused() -> None:
    with pytest.raises(ValueError, match="precond_dtype must have the range"):
        jopt.scale_by_kron(precond_dtype="float16")


@pytest.mark.parametrize("precond_dtype", [None, "bfloat16"])
def test_spread_matrices_get_the_same_updates(precond_dtype: Any) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    drawn = np.random.default_rng(0).normal(size=(11, 16, 8))
    grads = {f"layer_{i}": jnp.asarray(x, jnp.float32) for i, x in enumerate(drawn)}
    recipe = functools.partial(
        jopt.scale_by_kron,
        preconditioner_update_probability=1.0,
        precond_dtype=precond_dtype,
    )

    def run(tx, grads):
        state, found = jax.jit(tx.init)(grads), []
        compiled = jax.jit(tx.update).lower(grads, state).compile()
        for _ in range(3):
            u, state = compiled(grads, state)
            found.append(u)
        return found, compiled.as_text()

    expected, _ = run(recipe(), grads)
    with jax.set_mesh(mesh):
        found, text = run(recipe(mesh_axis="data"), jax.device_put(grads, rows))
    chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-4, atol=1e-4)
    assert all(x.sharding.is_equivalent_to(rows, 2) for x in found[-1].values())
    # Gradients, moments and factors to the matrices' devices in one exchange, two where
    # they have two dtypes; what is new comes back in another. Nothing else is sent.
    exchanges = 2 if precond_dtype is None else 4
    assert text.count(" all-to-all(") == exchanges
    assert not re.search(" (all-gather|all-reduce|collective-permute)[(]", text)
