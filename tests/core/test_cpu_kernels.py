"""Kernels on XLA:CPU: in place, and nowhere else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core import cpu_kernels


LEAF = jax.ShapeDtypeStruct((256, 256), jnp.float32)


def lowered(tx: Any, leaf: Any = LEAF, platform: str = "cpu") -> Any:
    """A donated fused step, lowered for a platform."""

    def step(params, state, grads):
        return jopt.step(tx, grads, state, params)

    state = jax.eval_shape(tx.init, leaf)
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(leaf, state, leaf)
    return traced.lower(lowering_platforms=(platform,))


def temporary_leaves(tx: Any) -> float:
    memory = lowered(tx).compile().memory_analysis()
    return memory.temp_size_in_bytes / (4 * LEAF.size)


# More recipes are in tests/benchmarks/test_roofline.py.
@pytest.mark.parametrize(
    "tx",
    [
        jopt.lion(0.1),  # an old slot is read for the parameter
        jopt.adabelief(0.1, eps_root=1e-8),  # a slot that ends in "+ constant"
        jopt.skip_spikes(jopt.lion(0.1)),
        jopt.partition({"a": jopt.lion(0.1)}, "a"),
    ],
    ids=repr,
)
def test_a_step_keeps_no_array_beside_those_that_it_changes(tx: Any) -> None:
    assert temporary_leaves(tx) < 0.01


def test_without_the_order_arrays_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "LEAST_SIZE", 2**30)
    jax.clear_caches()
    assert temporary_leaves(jopt.lion(0.1)) >= 1
    jax.clear_caches()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_kernel_as_it_is(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tx = jopt.skip_spikes(jopt.lion(0.1))
    text = lowered(tx, platform=platform).as_text()
    assert "shift_right_logical" in lowered(tx).as_text()
    assert "shift_right_logical" not in text
    monkeypatch.setattr(cpu_kernels, "LEAST_SIZE", 2**30)
    jax.clear_caches()
    assert text.count("stablehlo.") == lowered(tx, platform=platform).as_text().count(
        "stablehlo."
    )
    jax.clear_caches()


def test_small_leaves_get_the_kernel_as_it_is() -> None:
    small = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    assert "shift_right_logical" not in lowered(jopt.lion(0.1), small).as_text()


def test_programs_for_several_devices_get_the_kernel_as_it_is() -> None:
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("d"))
    leaf = jax.ShapeDtypeStruct(LEAF.shape, LEAF.dtype, sharding=split)
    assert "shift_right_logical" not in lowered(jopt.lion(0.1), leaf).as_text()
    assert "shift_right_logical" in lowered(jopt.lion(0.1)).as_text()


def test_vmap_and_derivatives_see_the_kernel_as_it_is() -> None:
    tx = jopt.lion(0.1, weight_decay=0.0)
    p, g = jnp.ones((2, *LEAF.shape)), jnp.full((2, *LEAF.shape), 0.5)

    def step(p, g):
        return jopt.step(tx, g, tx.init(p), p)[0]

    np.testing.assert_array_equal(jax.vmap(step)(p, g), jnp.float32(0.9))
    slope = jax.grad(lambda p: jnp.sum(step(p, g[0]) ** 2))(p[0])
    np.testing.assert_allclose(slope, 1.8, rtol=1e-6)


def test_elsewhere_a_gradient_that_is_kept_is_written_by_the_loop_that_reads_it() -> (
    None
):
    tx = jopt.adan(0.1)
    assert "xor" in lowered(tx, platform="cuda").as_text()
    assert "xor" not in lowered(tx).as_text()
    g = jnp.linspace(-1.0, 1.0, LEAF.size).reshape(LEAF.shape)
    g = g.at[0, :2].set(jnp.array([jnp.nan, -0.0]))

    def kept(g):
        return tx.update(g, tx.init(g), g)[1]["scale_by_adan"].g

    (mapped,) = jax.jit(jax.vmap(kept))(g[None])  # as elsewhere
    np.testing.assert_array_equal(mapped.view(jnp.uint32), g.view(jnp.uint32))
    np.testing.assert_array_equal(jax.grad(lambda g: jnp.sum(kept(g)))(g), 1)


def test_it_runs_without_jit_too() -> None:
    tx, p = jopt.lion(0.1, weight_decay=0.0), jnp.ones(LEAF.shape)
    with jax.disable_jit():
        new, _ = jopt.step(tx, p, tx.init(p), p)
    np.testing.assert_array_equal(new, jnp.float32(0.9))


def test_a_rule_may_print(capfd: pytest.CaptureFixture[str]) -> None:
    def rule(g: Any) -> Any:
        jax.debug.print("norm {}", jnp.sum(g))
        return -g

    p = jnp.ones(LEAF.shape)
    jax.block_until_ready(jopt.step(jopt.leafwise(rule), p, (), p))
    jax.effects_barrier()
    assert capfd.readouterr().out == "norm 65536.0\n"


def test_equal_kernels_become_equal_programs() -> None:
    # JAX's cache on disk finds a program by its text.
    texts, kept = set(), []
    for n in range(6):
        jax.clear_caches()
        kept.append([object() for _ in range(1000 * n)])  # other addresses
        texts.add(lowered(jopt.adan(0.1)).as_text())
    assert len(texts) == 1
