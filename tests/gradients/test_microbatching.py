"""Functions of a batch, one part after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.gradients import microbatching
from jopt.gradients.microbatching import (
    AccumulationType,
    Accumulator,
    micro_grad,
    micro_vmap,
    microbatch,
)


SUM, MEAN, CONCAT = (getattr(AccumulationType, n) for n in ("SUM", "MEAN", "CONCAT"))
BATCH = jnp.linspace(-1.0, 2.0, 36).reshape(12, 3)
W = jnp.array([1.0, -2.0, 0.5])


def results(w, x):
    each = x @ w
    return {"each": (each, x), "sum": jnp.sum(each), "mean": jnp.mean(x, axis=0)}


@pytest.mark.parametrize("size", [1, 4, 12])
def test_parts_give_the_results_of_the_whole(size: int) -> None:
    kinds = {"each": CONCAT, "sum": SUM, "mean": MEAN}
    found = jax.jit(microbatch(results, 1, size, kinds))(W, BATCH)
    expected = results(W, BATCH)
    check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(check, found, expected)


def test_arguments_by_name_and_other_axes_are_divided_too() -> None:
    def f(scale, x, *, y):
        assert x.shape == (3, 4) and y.shape == (4,)
        return scale * x @ y

    f = microbatch(f, 1, 4, argnames="y", in_axes=(1, 0))
    y = jnp.arange(12.0)
    np.testing.assert_allclose(f(2.0, BATCH.T, y=y), 2 * BATCH.T @ y, rtol=1e-5)


def test_only_the_real_parts_are_evaluated() -> None:
    x = jnp.array([1.0, jnp.nan, 3.0, jnp.nan])  # parts are (1, 3) and (nan, nan)
    for kind, expected in ((SUM, 4.0), (AccumulationType.RUNNING_MEAN, 4.0)):
        f = jax.jit(
            lambda x, n, kind=kind: microbatch(
                jnp.sum, 0, 2, kind, num_real_microbatches=n
            )(x)
        )
        assert f(x, 1) == expected and np.isnan(f(x, 2))


def test_an_accumulator_of_ones_own_combines_as_it_says() -> None:
    largest = Accumulator(
        lambda x: jnp.full(x.shape, -jnp.inf, x.dtype),
        lambda carry, x, i: jnp.maximum(carry, x),
        lambda carry: -carry,
        jnp.max,
    )
    assert microbatch(jnp.max, 0, 3, largest)(BATCH) == -2.0


def test_a_vmap_in_parts_is_a_vmap() -> None:
    def f(w, x, *, b):
        return x @ w + b

    b = jnp.arange(12.0)
    expected = jax.vmap(f, in_axes=(None, 0))(W, BATCH, b=b)
    for kind, reduced in ((CONCAT, expected), (SUM, jnp.sum(expected))):
        for size in (None, 3):
            g = micro_vmap(f, (None, 0), microbatch_size=size, accumulator=kind)
            np.testing.assert_allclose(g(W, BATCH, b=b), reduced, rtol=1e-5)
    with pytest.raises(NotImplementedError, match="out_axes must be 0"):
        micro_vmap(f, out_axes=1)


@pytest.mark.parametrize("keep_batch_dim", [True, False])
@pytest.mark.parametrize("size", [None, 3])
def test_gradients_of_examples_are_clipped_each(keep_batch_dim, size) -> None:
    def loss(w, x):
        x = x if keep_batch_dim else x[None]
        assert x.shape == (1, 3)
        value = jnp.mean((x @ w) ** 2)
        return value, {"value": value}

    def clip(g):
        return g / jnp.maximum(jnp.linalg.norm(g), 1)

    f = micro_grad(
        loss,
        has_aux=True,
        keep_batch_dim=keep_batch_dim,
        microbatch_size=size,
        accumulator=MEAN,
        transform_fn=lambda g: (clip(g), g**2),
        metrics_fn=jnp.linalg.norm,
    )
    (clipped, squares), each = jax.jit(f)(W, BATCH)
    gradients = [jax.grad(lambda w, x=x: (x @ w) ** 2)(W) for x in BATCH]
    expected = jnp.stack([clip(g) for g in gradients])
    np.testing.assert_allclose(clipped, expected.mean(0), rtol=1e-5)
    np.testing.assert_allclose(squares, (jnp.stack(gradients) ** 2).mean(0), rtol=1e-5)
    norms = [jnp.linalg.norm(g) for g in gradients]
    np.testing.assert_allclose(each.metrics, norms, rtol=1e-5)
    np.testing.assert_allclose(each.values, (BATCH @ W) ** 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(each.aux["value"], each.values)


def test_what_cannot_be_divided_or_combined_is_an_error() -> None:
    with pytest.raises(ValueError, match="a batch of 12 is not divisible"):
        microbatch(jnp.sum, 0, 5)(BATCH)
    with pytest.raises(ValueError, match="'argument 0': 12, 'argument 1': 3"):
        microbatch(jnp.dot, (0, 1), 3)(BATCH, W)
    with pytest.raises(ValueError, match=r"AccumulationType \(MEAN, SUM"):
        microbatch(jnp.sum, 0, 3, "sum")(BATCH)
    with pytest.raises(ValueError, match="the mean of a result of int32"):
        microbatch(jnp.sum, 0, 3, MEAN)(jnp.arange(12))
    f = microbatch(jnp.sum, 0, None)
    assert f is jnp.sum


def test_a_sharded_batch_stays_where_it_is() -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        batch = jax.device_put(BATCH, jax.P("data"))
        parts = microbatching.reshape_batch_axis(batch, 4)
        assert jax.typeof(parts).sharding.spec == jax.P(None, "data", None)
        np.testing.assert_array_equal(parts[1], BATCH[1::3])
        with pytest.raises(ValueError, match="cannot be divided over 4 devices"):
            microbatching.reshape_batch_axis(batch, 3)
        found = jax.jit(microbatch(lambda x: 2 * x, 0, 4, CONCAT))(batch)
        np.testing.assert_array_equal(found, 2 * BATCH)
