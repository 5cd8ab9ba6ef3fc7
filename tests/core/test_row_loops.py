"""On one CPU, slots in blocks are computed some rows at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core import kernels, row_loops
from jopt.core.fused import fused_update


class State(NamedTuple):
    mu: Any


def by_norm(g, mu):
    """A rule that needs all of the leaf."""
    mu = 0.9 * mu + g / jnp.sqrt(jnp.sum(g * g))
    return mu, mu


def moments(format):
    return jopt.adamw(1e-2, mu_dtype=format, nu_dtype=format)


# 46 rows of 700 columns fit into a loop's part, so some are left over.
WIDE, STACK = (300, 700), (4, 9, 30, 130)
RECIPES = [
    (moments("int8"), WIDE),
    (moments("int4"), STACK),
    (moments("float8_e4m3"), WIDE),
    (jopt.skip_spikes(jopt.lion(1e-3, mu_dtype="int8")), STACK),
    (jopt.leafwise(by_norm, state=State, mu=jopt.zeros("int8")), WIDE),
    (jopt.bf16_params(moments("int8"), "ecc8"), WIDE),
    (jopt.bf16_params(moments("int4"), "kahan"), STACK),
]


def trained(tx, shape):
    kernels._kernel.cache_clear()
    key = jax.random.key(0)
    dtype = "bfloat16" if "bf16" in repr(tx) else "float32"
    params = {"w": jax.random.normal(key, shape, dtype)}
    scale = jnp.broadcast_to(jnp.logspace(-4, 0, shape[-1]), shape)

    def step(carry, key):
        grads = {"w": jax.random.normal(key, shape) * scale}
        # Not jopt.step, which would be traced once for both forms.
        return fused_update(tx, grads, carry[1], carry[0], {}, adds=True), None

    @jax.jit
    def run(params):
        keys = jax.random.split(key, 3)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0]

    return jax.tree.map(lambda x: np.asarray(x).astype("f4"), run(params))


@pytest.mark.parametrize(("tx", "shape"), RECIPES, ids=str)
def test_the_numbers_are_those_of_all_rows_at_once(tx, shape, monkeypatch):
    found = trained(tx, shape)
    monkeypatch.setattr(row_loops, "form", lambda *_: None)
    expected = trained(tx, shape)
    kernels._kernel.cache_clear()

    def close(x, y):
        # A last bit can decide how a number is rounded at random.
        same = np.isclose(x, y, rtol=1e-5, atol=1e-6)
        assert same.mean() > 0.995

    jax.tree.map(close, found, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_update_has_the_dtype_of_its_gradient(dtype):
    tx, params = moments("float8_e4m3"), jnp.ones(WIDE, dtype)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates.dtype == dtype
    np.testing.assert_allclose(updates.astype("f4"), -0.01, rtol=0.02)


@pytest.mark.parametrize(
    "tx",
    [
        moments("int8"),
        moments("float8_e4m3"),
        jopt.bf16_params(moments("int8"), "ecc8"),
    ],
    ids=str,
)
def test_a_step_needs_little_memory_and_converts_rows_only(tx):
    params = jax.ShapeDtypeStruct((8191, 4096), jnp.bfloat16)

    def step(params, state, grads):
        return jopt.step(tx, grads, state, params)

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, jax.eval_shape(tx.init, params), params
    )
    compiled = lowered.compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * params.size
    # Not even in the registers of a loop, which would go over all rows in each round.
    assert "f32[8191,4096]" not in compiled.as_text()
