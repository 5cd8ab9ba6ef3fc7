"""What is compiled, exactly: equations, calls, kernels, memory. No clocks here."""

from __future__ import annotations

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jopt
from tests.benchmarks.recipes import (
    RECIPES,
    gpt2_small,
    lowered,
    of_jopt,
    of_optax,
    pair,
)


RECIPE = of_jopt(RECIPES["clip+adamw+cosine"])


def leaves(n: int, shape: tuple[int, ...] = (4, 4)) -> dict[str, Any]:
    return {f"layer_{i}": jax.ShapeDtypeStruct(shape, jnp.float32) for i in range(n)}


def equations(tx: Any, params: Any) -> list[Any]:
    state = jax.eval_shape(tx.init, params)
    return jax.make_jaxpr(tx.update)(params, state, params).jaxpr.eqns


def calls(eqns: list[Any]) -> list[Any]:
    """The calls in these equations; that of leaves of one kind is those inside it."""
    return [
        call
        for eqn in eqns
        for call in (
            eqn.params["jaxpr"].jaxpr.eqns
            if eqn.params.get("name") == "leaves_alike"
            else [eqn]
        )
    ]


def called(eqns: list[Any]) -> collections.Counter[str]:
    return collections.Counter(eqn.params.get("name", "") for eqn in calls(eqns))


@pytest.mark.parametrize(
    "tx", [jopt.adamw(1e-3), RECIPE, jopt.rmsprop(0.1, centered=True, momentum=0.9)]
)
def test_an_update_is_one_kernel_call_per_leaf_and_one_prologue(tx: Any) -> None:
    names = called(equations(tx, leaves(50)))
    assert len(names) == 2
    assert names.pop("prologue") == 1
    assert list(names.values()) == [50]


def test_the_kernel_of_a_chain_is_named_after_its_members() -> None:
    (name,) = called(equations(RECIPE, leaves(1))) - collections.Counter(["prologue"])
    members = ["clip_by_global_norm", "scale_by_adam", "add_decayed_weights"]
    assert name == "__".join([*members, "scale_by_learning_rate"])


def test_a_member_that_looks_at_all_updates_starts_a_new_kernel() -> None:
    tx = jopt.chain(jopt.adam(1e-3), jopt.clip_by_global_norm(1.0), jopt.scale(2.0))
    names = called(equations(tx, leaves(3)))
    names.pop("prologue")
    assert sorted(names.values()) == [3, 3]


def test_the_norm_of_many_equal_leaves_takes_few_calls() -> None:
    tree = leaves(160)
    (outer,) = jax.make_jaxpr(jopt.tree.norm)(tree).jaxpr.eqns
    names = called(outer.params["jaxpr"].jaxpr.eqns)
    assert names["_add_squares"] == 3


def test_leaves_of_one_shape_share_one_kernel() -> None:
    params = leaves(30, (4, 4)) | {
        f"b{i}": x for i, x in enumerate(leaves(9, (4,)).values())
    }
    kernels = {
        id(eqn.params["jaxpr"])
        for eqn in calls(equations(RECIPE, params))
        if eqn.params["name"] != "prologue"
    }
    assert len(kernels) == 2


def test_in_a_trace_one_call_serves_16_leaves_of_one_kind() -> None:
    params, n = leaves(100), 100
    assert len(equations(of_jopt(RECIPES["adamw"]), params)) == 1 + 7
    assert len(jax.make_jaxpr(jopt.apply_updates)(params, params).jaxpr.eqns) == 7
    with jax.numpy_dtype_promotion("standard"):
        assert len(equations(of_optax(RECIPES["adamw"]), params)) > 15 * n


def test_leaves_with_and_without_a_multiple_are_of_two_kinds() -> None:
    params = leaves(20)
    factors = {name: 0.5 if i % 2 else 1.0 for i, name in enumerate(params)}
    tx = jopt.adamw(1e-3, weight_decay=0.1, mask=factors)
    assert len(equations(tx, params)) == 1 + 2
    given = {
        name: jnp.full(x.shape, i * 0.1) for i, (name, x) in enumerate(params.items())
    }
    state = tx.init(given)
    together, _ = jax.jit(tx.update)(given, state, given)
    alone, _ = tx.update(given, state, given)  # outside a trace, a call for each leaf
    for name in given:
        assert jnp.array_equal(together[name], alone[name])


def test_a_rebuilt_optimizer_compiles_nothing_again() -> None:
    params = {"w": jnp.ones((4, 4))}

    def train() -> None:
        tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3))
        updates, _ = tx.update(params, tx.init(params), params)
        jopt.apply_updates(params, updates)

    train()
    with jax.no_tracing():
        train()


def test_checks_leave_no_equation_behind() -> None:
    kernel = [
        e for e in equations(jopt.sgd(0.1), leaves(1)) if "prologue" not in str(e)
    ]
    (inner,) = kernel
    names = [eqn.primitive.name for eqn in inner.params["jaxpr"].jaxpr.eqns]
    assert names == ["neg", "mul"]


def test_a_clipped_step_of_gpt2_small_needs_no_second_gradient() -> None:
    params = gpt2_small()
    assert len(jax.tree.leaves(params)) == 148
    assert sum(x.size for x in jax.tree.leaves(params)) == 124_439_808
    compiled = lowered(pair(jopt, RECIPE), RECIPE, params).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes <= 2_000_000
    # Everything that is donated is written in place.
    donated = 3 * 4 * 124_439_808
    assert memory.alias_size_in_bytes >= donated


def test_the_step_is_smaller_than_that_of_optax() -> None:
    params = leaves(100)

    def size(make: Any) -> int:
        tx = make(RECIPES["clip+adamw+cosine"])
        state = jax.eval_shape(tx.init, params)
        with jax.numpy_dtype_promotion("standard"):  # optax needs it
            module = jax.jit(tx.update).lower(params, state, params)
        return len(module.as_text().splitlines())

    assert size(of_jopt) < 0.25 * size(of_optax)


@functools.cache
def step_text(library: Any, n: int) -> str:
    """The compiled step of a chain of clipping and AdamW with n small leaves."""
    tx = {jopt: of_jopt, optax: of_optax}[library](RECIPES["clip+adamw+cosine"])
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        return lowered(pair(library, tx), tx, leaves(n)).compile().as_text()


def test_a_further_leaf_adds_fewer_loops_than_with_optax() -> None:
    loops = {
        library: [step_text(library, n).count(" fusion(") for n in (8, 24)]
        for library in (jopt, optax)
    }
    (few, many), (few_there, many_there) = loops.values()
    # One for each of mu, nu and the parameter, and a few per 16 leaves for the norm.
    assert many - few <= 3 * 16 + 4
    assert many_there - few_there >= 5 * 16


def test_the_loops_of_the_leaves_do_not_compute_the_clip_factor_again() -> None:
    few, many = (step_text(jopt, n) for n in (8, 24))
    assert few.count("= f32[] select(") == many.count("= f32[] select(")
