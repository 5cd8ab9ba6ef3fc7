"""Norms of arrays so large that the CPU reads them once, if one sum is exact."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import tree


NORMAL = np.random.default_rng(0).normal(size=(8, 2**13))
SCALES = {
    "usual": np.ones(8),
    "mixed": 10.0 ** np.linspace(-9, 9, 8),
    "huge": 1e30 * np.ones(8),
    "tiny": 1e-30 * np.ones(8),
    "huge, tiny and zero": np.array([1, 1e30, 1e-30, 0, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_large_norms_are_exact_for_any_magnitude(scales: np.ndarray) -> None:
    rows = (NORMAL * scales[:, None]).astype(np.float32)
    exact = rows.astype(np.float64)
    for axis in (None, 1):
        expected = np.sqrt((exact**2).sum(axis, keepdims=True))
        found = jax.jit(tree.norm_along, static_argnums=1)(rows, axis)
        np.testing.assert_allclose(found, expected, rtol=2e-6)
    if not scales.all():
        return
    slope = jax.jit(jax.grad(lambda x: tree.norm_along(x, None).sum()))(rows)
    direction = exact / np.sqrt((exact**2).sum())
    np.testing.assert_allclose(slope, direction, rtol=2e-5, atol=1e-37)


def test_mapped_large_norms_choose_their_scales_one_by_one() -> None:
    stacked = np.stack([NORMAL, 1e30 * NORMAL, 1e-30 * NORMAL]).astype(np.float32)
    found = jax.jit(jax.vmap(lambda x: tree.norm_along(x, None)))(stacked)
    exact = np.sqrt((stacked.astype(np.float64) ** 2).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(found, exact, rtol=2e-6)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_large_norm_reads_its_array_once_and_writes_none(axis: Any) -> None:
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    norm = jax.jit(tree.norm_along, static_argnums=1)
    compiled = norm.lower(x, axis).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 5 * 4 * 1024
    text = compiled.as_text()
    entry = text[text.index("ENTRY") :]
    readers = re.findall(r" (\S+)\([^)]*%x\.\d+[,)]", entry)
    # A conditional passes a pointer; only the branch that is not taken reads.
    assert sorted(set(readers) - {"tuple"}) == ["fusion"]
    assert readers.count("fusion") == 1


def test_a_norm_beside_adam_writes_no_squares() -> None:
    tx = jopt.adamw(0.1)
    params = {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    state = jax.eval_shape(tx.init, params)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        # Asked for twice, as by a metric and by a guard; read once.
        norms = tree.norm(grads), tree.norm(grads, squared=True)
        return jopt.apply_updates(params, updates), state, norms

    jitted = jax.jit(step, donate_argnums=(0, 1))
    compiled: Any = jitted.lower(params, state, params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 10_000
    text = compiled.as_text()
    entry = text[text.index("ENTRY") :]
    assert len(re.findall(r" = f32\[\]\S* fusion\(.*%grads__w__", entry)) == 1


def test_other_compilers_sum_at_three_scales_in_one_pass() -> None:
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    traced = jax.jit(tree.norm_along, static_argnums=1).trace(x, None)
    others = traced.lower(lowering_platforms=("tpu",)).as_text()
    ours = traced.lower(lowering_platforms=("cpu",)).as_text()
    # Every case of the text for the TPU has one branch or a constant index.
    assert ours.count("stablehlo.case") == others.count("stablehlo.case") + 1
    assert others.count("stablehlo.reduce(") == 3


@pytest.mark.parametrize(
    "tx",
    [
        jopt.lamb(0.1),
        jopt.adafactor(0.1, eps=None, eps_mode="clamp"),
        jopt.skip_nonfinite(jopt.clip_by_global_norm(1.0)),
        jopt.accumulate(jopt.adaptive_grad_clip(0.1), 2),
    ],
    ids=lambda tx: tx.name,
)
def test_large_leaves_can_be_parts_of_a_mesh(tx: Any) -> None:
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    p = jax.ShapeDtypeStruct((1024, 256), jnp.float32)

    def update(g: Any, p: Any) -> Any:
        return tx.update(g, tx.init(p), p)[0]

    mapped = jax.shard_map(update, mesh=mesh, in_specs=jax.P("d"), out_specs=jax.P("d"))
    assert jax.eval_shape(mapped, p, p).shape == p.shape
