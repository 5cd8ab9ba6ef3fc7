"""A batch in parts gives what the whole batch gives, in the memory of a part."""

from __future__ import annotations

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import as_dtype


RNG = np.random.default_rng(0)
SIZES = np.array([1.0, 1e-4, 1e-6])
PARAMS = as_dtype({"b": RNG.normal(), "w": RNG.normal(size=3)}, jnp.float32)
BATCH = as_dtype(
    {"x": RNG.normal(size=(24, 3)) * SIZES, "y": RNG.normal(size=24)}, jnp.float32
)


def loss(params: Any, batch: Any, scale: Any = 1.0) -> Any:
    out = jnp.tanh(batch["x"] @ params["w"] + params["b"]) - batch["y"]
    return scale * jnp.mean(out**2), {"hits": jnp.sum(out > 0), "out": out}


VALUE_AND_GRAD = jax.value_and_grad(loss, has_aux=True)
REDUCE = (("mean", {"hits": "sum", "out": "stack"}), "mean")


def close(found: Any, expected: Any) -> None:
    def check(x: Any, y: Any) -> None:
        largest = np.max(np.abs(np.asarray(y)))
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-6 * largest)

    jax.tree.map(check, found, expected)


def test_value_aux_and_gradient_are_those_of_the_whole_batch() -> None:
    f = jopt.micro_batch(VALUE_AND_GRAD, 4, reduce=REDUCE)
    found = jax.jit(f)(PARAMS, BATCH, scale=3.0)
    expected = VALUE_AND_GRAD(PARAMS, BATCH, scale=3.0)
    assert found[0][1]["out"].shape == (4, 6)
    found[0][1]["out"] = found[0][1]["out"].T.ravel()  # part i has i, i + 4, …
    close(found, expected)
    assert types(found) == types(expected)


def test_parts_of_unequal_weight_give_the_mean_over_all_tokens() -> None:
    tokens = jnp.asarray(RNG.integers(0, 5, 24) * (np.arange(24) % 4 != 1), jnp.float32)

    def mean(params: Any, batch: Any, tokens: Any) -> Any:
        out = (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2
        return jnp.sum(tokens * out) / jnp.sum(tokens)  # NaN in part 1

    f = jopt.micro_batch(
        jax.grad(mean),
        4,
        argnums=(1, 2),
        weight_fn=lambda params, batch, tokens: jnp.sum(tokens),
    )
    close(f(PARAMS, BATCH, tokens), jax.grad(mean)(PARAMS, BATCH, tokens))


def test_low_precision_is_added_in_float32_and_rounded_once() -> None:
    def one(params: Any, batch: Any) -> Any:
        return jnp.mean(batch, 0) + 0 * params

    ones = jnp.ones((512, 1), jnp.bfloat16)
    f = jopt.micro_batch(one, 512, reduce="sum")
    total = f(jnp.zeros(1, jnp.bfloat16), ones)
    assert total.dtype == jnp.bfloat16
    assert float(total[0]) == 512.0  # in bfloat16 the sum stands still at 256


def test_examples_that_are_spread_over_devices_stay_where_they_are() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(BATCH, NamedSharding(mesh, P("data")))
    f = jax.jit(jopt.micro_batch(jax.grad(lambda p, b: loss(p, b)[0]), 3))
    close(f(PARAMS, spread), f(PARAMS, BATCH))
    moved = re.findall(
        r"(all-gather|all-to-all|collective-permute)",
        f.lower(PARAMS, spread).compile().as_text(),
    )
    assert not moved


@pytest.mark.parametrize("check_vma", [True, False])
def test_each_device_may_go_through_its_part_of_the_batch(check_vma: bool) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    tx = jopt.chain(jopt.aggregate("data"), jopt.sgd(1.0))

    def step(params: Any, batch: Any) -> Any:
        own = params
        if check_vma:
            own = jax.lax.pcast(params, "data", to="varying")
        grads = jopt.micro_batch(jax.grad(lambda p, b: loss(p, b)[0]), 3)(own, batch)
        return tx.update(grads, tx.init(params), params)[0]

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=check_vma
    )
    expected = jax.grad(lambda p, b: -loss(p, b)[0])(PARAMS, BATCH)
    close(jax.jit(mapped)(PARAMS, BATCH), expected)


# Gradients per example.


def test_private_gradients_in_parts_are_those_of_the_batch_in_less_memory() -> None:
    def one(params: Any, example: Any) -> Any:
        return jnp.tanh(example["x"] @ params["w"] + params["b"]) * example["y"]

    grad = jax.grad(one)
    tx = jopt.dpsgd(0.1, l2_norm_clip=0.5, noise_multiplier=1.1, key=0, momentum=0.9)
    state = tx.init(PARAMS)
    whole = jax.vmap(grad, (None, 0))(PARAMS, BATCH)
    expected, kept = tx.update(whole, state, PARAMS)
    sums, clipped = jopt.clipped_grad_sum(grad, 0.5, 6)(PARAMS, BATCH)
    found, also = tx.update(sums, state, PARAMS, examples=24)
    close(found, expected)  # with the same noise
    chex.assert_trees_all_close(also, kept, rtol=1e-5, atol=1e-7)
    norms = np.sqrt(
        sum(
            (np.asarray(g, np.float64).reshape(24, -1) ** 2).sum(1)
            for g in whole.values()
        )
    )
    assert 0 < int(clipped) == int((norms > 0.5).sum()) < 24

    def memory(parts: int) -> int:
        def f(w: Any, x: Any) -> Any:
            grad = jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w)))
            return jopt.clipped_grad_sum(grad, 0.5, parts)(w, x)[0]

        w, x = jnp.ones((64, 64)), jnp.ones((64, 64))
        return jax.jit(f).lower(w, x).compile().memory_analysis().temp_size_in_bytes

    one_gradient = 4 * 64 * 64
    assert memory(1) >= 64 * one_gradient
    assert memory(16) <= (2 * 4 + 3) * one_gradient


# Misuse.


def ready(x: Any, **options: Any) -> Any:
    return jopt.micro_batch(lambda w, x: w * jnp.sum(x), 4, **options)(jnp.ones(()), x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: jopt.micro_batch(jnp.sum, 0),
            ValueError,
            "micro_batches must be >= 1, got micro_batches=0",
        ),
        (
            lambda: jopt.micro_batch(jnp.sum, 2, reduce=("mean", "avg")),
            ValueError,
            "reduce must be one of 'mean', 'sum', 'stack', got reduce='avg'",
        ),
        (
            lambda: ready(jnp.ones(6)),
            ValueError,
            r"a batch of 6 \(argument 1\) cannot be divided into micro_batches=4.*pad",
        ),
        (
            lambda: ready({"x": jnp.ones(8), "y": jnp.ones(4)}),
            ValueError,
            "leaf 'x': 8, .*leaf 'y': 4|lengths are .*8.*4",
        ),
        (lambda: ready(jnp.ones(())), ValueError, "lengths are .*None"),
        (
            lambda: ready(jnp.ones(8), argnums=2),
            ValueError,
            "argnums names argument 2 .*called with 2 positional arguments",
        ),
        (
            lambda: ready(jnp.ones(8), reduce=("mean", "mean")),
            ValueError,
            "does not fit what the function returns",
        ),
        (
            lambda: jopt.micro_batch(lambda w, x: jnp.argmax(x), 2)(0, jnp.ones(4)),
            TypeError,
            'the mean of result .* dtype int32, is not defined.*"stack"',
        ),
        (
            lambda: jopt.dpsgd(0.1, 1.0, 1.0, 0).update(
                PARAMS, jopt.dpsgd(0.1, 1.0, 1.0, 0).init(PARAMS), examples=0
            ),
            ValueError,
            "examples must be > 0",
        ),
    ],
)
def test_misuse_is_told(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
