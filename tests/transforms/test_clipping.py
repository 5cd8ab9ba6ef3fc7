"""Clipping by value, norm, block and unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import Case, transform
from tests.parity.row import optax
from tests.twins.base import Array, Scalar, at, double, steps


def clip(p: Array, grads: Iterable[Array], *, max_delta: Scalar) -> Iterator[Array]:
    """Mikolov, 2012, "Statistical language models based on neural networks".

    Each element on its own.
    """
    for t, g in steps(grads):
        c = at(max_delta, t)
        yield np.minimum(np.maximum(g, -c), c)


def clip_by_norm(
    p: Array, grads: Iterable[Array], *, max_norm: Scalar
) -> Iterator[Array]:
    """Pascanu, Mikolov & Bengio, 2013, "On the difficulty of training RNNs".

    Algorithm 1, on the norm of this array alone.
    """
    for t, g in steps(grads):
        c = at(max_norm, t)
        norm = np.sqrt(np.sum(np.abs(g) ** 2))
        yield g * (c / norm) if norm > c else g


def clip_by_global_norm(
    p: Mapping[str, Array],
    grads: Iterable[Mapping[str, Array]],
    *,
    max_norm: Scalar,
) -> Iterator[dict[str, Array]]:
    """Pascanu, Mikolov & Bengio, 2013, "On the difficulty of training RNNs".

    Algorithm 1, on the norm of all the arrays of a dict together.
    """
    for t, tree in enumerate(grads, start=1):
        c = at(max_norm, t)
        g = {name: double(leaf) for name, leaf in tree.items()}
        norm = np.sqrt(sum(np.sum(np.abs(leaf) ** 2) for leaf in g.values()))
        factor = c / norm if norm > c else 1.0
        yield {name: factor * leaf for name, leaf in g.items()}


def clip_by_block_rms(
    p: Array, grads: Iterable[Array], *, threshold: Scalar
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", section 6.

    The root mean square of the array is at most the threshold.
    """
    for t, g in steps(grads):
        rms = np.sqrt(np.mean(np.abs(g) ** 2)) if g.size else 0.0
        yield g / max(1.0, rms / at(threshold, t))


def unitwise_norm(x: Array, axis: int | tuple[int, ...] | None) -> Array:
    """The norm of each unit, the weights of one output; ``axis`` runs along a unit.

    By default a vector is one unit, three axes have it along the first, and all other
    arrays along every axis but the last.
    """
    if axis is None:
        if np.squeeze(x).ndim <= 1:
            axis = tuple(range(x.ndim))
        elif x.ndim == 3:
            axis = 0
        else:
            axis = tuple(range(x.ndim - 1))
    return np.sqrt(np.sum(np.abs(x) ** 2, axis=axis, keepdims=True))


def adaptive_grad_clip(
    p: Array,
    grads: Iterable[Array],
    *,
    clipping: Scalar,
    eps: Scalar = 1e-3,
    axis: int | tuple[int, ...] | None = None,
) -> Iterator[Array]:
    """Brock et al., 2021, "High-performance large-scale image recognition".

    Equation 3: the norm of a unit's gradient is at most ``clipping`` times the unit's.
    """
    p = double(p)
    for t, g in steps(grads):
        max_norm = at(clipping, t) * np.maximum(unitwise_norm(p, axis), at(eps, t))
        norm = unitwise_norm(g, axis)
        yield g * (max_norm / np.maximum(norm, max_norm))


CASES = [
    transform("adaptive_grad_clip", clipping=0.1),
    Case("clip", {"max_delta": 0.5}, learning_rate=None, complex_leaves=False),
    transform("clip_by_block_rms", threshold=0.3),
    Case(
        "clip_by_global_norm",
        {"max_norm": 0.5},
        learning_rate=None,
        looks_at_all_leaves=True,
    ),
    transform("clip_by_norm", max_norm=0.5),
]

ROWS = (
    optax("clip", "chain(clip(0.5), sgd(0.05))"),
    optax("clip-by-global-norm", "chain(clip_by_global_norm(0.5), sgd(0.05))"),
    optax("clip-by-global-norm-tiny", "chain(clip_by_global_norm(1e-4), adam(0.01))"),
    optax("clip-by-block-rms", "chain(clip_by_block_rms(0.1), sgd(0.05))"),
    optax("adaptive-grad-clip", "chain(adaptive_grad_clip(0.1), sgd(0.05))"),
)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    "tx",
    [
        jopt.clip_by_global_norm(1.0),
        jopt.clip_by_norm(1.0),
        jopt.clip_by_block_rms(1.0),
        jopt.adaptive_grad_clip(0.1),
    ],
    ids=repr,
)
def test_clipping_a_norm_that_is_not_finite_gives_nan_and_never_zeros(
    tx: jopt.GradientTransformation, bad: float
) -> None:
    grads = jnp.array([1.0, bad, 2.0])
    updates, _ = tx.update(grads, tx.init(grads), jnp.ones(3))
    assert jnp.all(jnp.isnan(updates))


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e30])
def test_clipping_by_norm_scales_any_size_exactly(size: float) -> None:
    direction = np.array([0.6, 0.0, 0.8])
    grads = jnp.asarray(size * direction, jnp.float32)
    bound = 0.01 * size
    for tx in (jopt.clip_by_global_norm(bound), jopt.clip_by_norm(bound)):
        updates, _ = tx.update(grads, tx.init(grads))
        np.testing.assert_allclose(updates / bound, direction, rtol=1e-6)
        loose, _ = jopt.clip_by_global_norm(2 * size).update(grads, ())
        chex.assert_trees_all_equal(loose, grads)


def test_a_float16_gradient_is_clipped_by_its_true_norm() -> None:
    grads = jnp.full(10, 300.0, jnp.float16)  # the squares do not fit into float16
    updates, _ = jopt.clip_by_global_norm(1.0).update(grads, ())
    norm = np.linalg.norm(np.asarray(updates, np.float64))
    np.testing.assert_allclose(norm, 1.0, rtol=2e-3)


def test_units_of_adaptive_clipping_are_the_inputs_of_an_output() -> None:
    params = jnp.ones((2, 3))
    grads = jnp.array([[3.0, 0.0, 0.1], [4.0, 0.0, 0.1]])
    tx = jopt.adaptive_grad_clip(0.5)
    updates, _ = tx.update(grads, tx.init(params), params)
    bound = 0.5 * np.sqrt(2)
    expected = np.array(grads)
    expected[:, 0] *= bound / 5.0
    np.testing.assert_allclose(updates, expected, rtol=1e-6)
    whole = jopt.adaptive_grad_clip(0.5, axis=(0, 1))
    updates, _ = whole.update(grads, whole.init(params), params)
    factor = 0.5 * np.sqrt(6) / np.linalg.norm(grads)
    np.testing.assert_allclose(updates, factor * np.asarray(grads), rtol=1e-6)
