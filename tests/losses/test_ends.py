"""Losses at the ends: infinite logits, probabilities of 0 and 1, empty masks, zeros.

Where the limit of a loss is finite, the loss is that number, and its gradient finite.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt import losses


INF = np.inf
NONE = np.zeros(3, bool)


class End(NamedTuple):
    """A call with the loss that it must have, and the gradient of its first argument.

    A gradient of None has to be finite, whatever it is.
    """

    name: str
    arrays: tuple[Any, ...]
    loss: Any
    gradient: Any = None
    others: Any = None

    def __str__(self) -> str:
        return f"{self.name} {self.arrays} {self.others}".replace("\n", "")


INTEGER = "softmax_cross_entropy_with_integer_labels"
ENDS = [
    # Large logits, and infinite ones.
    End("sigmoid_binary_cross_entropy", ([1e4, -1e4], [0.0, 1.0]), [1e4, 1e4], [1, -1]),
    End("sigmoid_binary_cross_entropy", ([INF, -INF], [1.0, 0.0]), [0, 0], [0, 0]),
    End("sigmoid_binary_cross_entropy", ([INF, -INF], [0.0, 1.0]), [INF, INF], [1, -1]),
    End("sigmoid_focal_loss", ([1e4, -1e4], [0.0, 1.0]), [1e4, 1e4], [1, -1]),
    End("sigmoid_focal_loss", ([1e4, -1e4], [1.0, 0.0]), [0, 0], [0, 0]),
    End("sigmoid_focal_loss", ([INF, -INF], [1.0, 0.0]), [0, 0], [0, 0]),
    End("sigmoid_focal_loss", ([INF, 1e4], [1.0, 1.0]), [0, 0], [0, 0], {"gamma": 0}),
    End("sigmoid_focal_loss", ([INF, 1e4], [1.0, 1.0]), [0, 0], [0, 0], {"gamma": 0.5}),
    *(
        case
        for name in ("softmax_cross_entropy", "safe_softmax_cross_entropy")
        for case in (
            End(name, ([1e4, 0.0, -1e4], [0.0, 0.0, 1.0]), 2e4, [1, 0, -1]),
            End(name, ([0.0, 0.0, -INF], [0.5, 0.5, 0.0]), np.log(2), [0, 0, 0]),
            End(name, ([0.0, 0.0, -INF], [0.5, 0.25, 0.25]), INF, [0, 0.25, -0.25]),
            End(name, ([0.0, -INF, INF], [0.0, 0.0, 1.0]), 0, [0, 0, 0]),
            End(name, ([0.0, -INF, -INF], [1.0, 0.0, 0.0]), 0, [0, 0, 0]),
            End(name, ([-INF, -INF, -INF], [1.0, 0.0, 0.0]), np.log(3)),
        )
    ),
    End("poly_loss_cross_entropy", ([0.0, 0.0, -INF], [0.5, 0.5, 0.0]), np.log(2) + 1),
    End("poly_loss_cross_entropy", ([0.0, -INF, INF], [0.0, 0.0, 1.0]), 0, [0, 0, 0]),
    End(INTEGER, ([1e4, 0.0, -1e4], 2), 2e4, [1, 0, -1]),
    End(INTEGER, ([0.0, 0.0, -INF], 0), np.log(2), [-0.5, 0.5, 0]),
    End(INTEGER, ([0.0, -INF, INF], 2), 0, [0, 0, 0]),
    End(INTEGER, ([-INF, 0.0, 0.0], 0), INF, [-1, 0.5, 0.5]),
    End("ranking_softmax_loss", ([0.0, 0.0, -INF], [1.0, 0.0, 0.0]), np.log(2)),
    End("hinge_loss", ([INF, -INF], [1, -1]), [0, 0], [0, 0]),
    End("perceptron_loss", ([INF, -INF], [1, -1]), [0, 0], [0, 0]),
    End("sparsemax_loss", ([INF, -INF, 1e30], [1, 0, 0]), [0, 0, 1e30], [0, 0, 1]),
    End("sparsemax_loss", ([INF, -INF], [0, 1]), [INF, INF], [1, -1]),
    *(
        End(f"multiclass_{name}_loss", ([0.0, -INF, top], 2), 0, [0, 0, 0])
        for name in ("hinge", "perceptron", "sparsemax")
        for top in (1e4, INF)
    ),
    End("multiclass_sparsemax_loss", ([1e4, -1e4, 0.0], 1), 2e4, [1, -1, 0]),
    End("huber_loss", ([INF, 1e30, 0.0],), [INF, 1e30, 0], [1, 1, 0]),
    End("log_cosh", ([1e30, INF, 0.0, 1e-4],), [1e30, INF, 0, 5e-9], [1, 1, 0, 1e-4]),
    End("ntxent", ([[1e30, 0.0], [1e30, 0.0], [0.0, 1e-30]], [0, 0, 1]), 6.24867e-7),
    # Probabilities of 0 and 1.
    End("kl_divergence", ([0.0, -INF], [1.0, 0.0]), 0, [-1, 0]),
    End("kl_divergence", ([-INF, 0.0], [0.5, 0.5]), INF, [-0.5, -0.5]),
    End("generalized_kl_divergence", ([0.0, -INF], [1.0, 0.0]), 0, [0, 0]),
    End("kl_divergence_with_log_targets", ([0.0, -INF], [0.0, -INF]), 0, [-1, 0]),
    End("kl_divergence_with_log_targets", ([-1.0, -1.0], [0.0, -INF]), 1, [-1, 0]),
    # Masks that leave nothing.
    *(
        End(name, ([0.0, 1.0, INF], [0.5, 0.5, 1.0]), 0, [0, 0, 0], {"where": NONE})
        for name in (
            "softmax_cross_entropy",
            "poly_loss_cross_entropy",
            "ranking_softmax_loss",
            "kl_divergence",
            "generalized_kl_divergence",
            "kl_divergence_with_log_targets",
            "cosine_similarity",
        )
    ),
    End(INTEGER, ([0.0, 1.0, INF], 5), 0, [0, 0, 0], {"where": np.zeros(3, bool)}),
    End("cosine_distance", ([1.0, 2.0], [1.0, 2.0]), 1, [0, 0], {"where": NONE[:2]}),
    End("smooth_labels", ([0.0, 1.0], 0.5), [0.5, 1], None, {"where": NONE[:2]}),
    # Numbers that a mask leaves out reach no gradient.
    *(
        End(name, ([0.0, np.nan], [1.0, 1.0]), 0, None, {"where": [True, False]})
        for name in (
            "kl_divergence",
            "softmax_cross_entropy",
            "poly_loss_cross_entropy",
        )
    ),
    # Vectors and regions of zeros, and of any magnitude.
    End("cosine_similarity", ([0.0, 0.0], [1.0, 2.0]), 0, [0, 0]),
    End("cosine_distance", ([0.0, 0.0], [0.0, 0.0]), 1, [0, 0]),
    *(
        End("cosine_similarity", ([3 * size, 4 * size], [0.0, 1e25]), 0.8)
        for size in (1e-30, 1e30)
    ),
    End("ntxent", ([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [0, 0, 1]), np.log(2)),
    End("ntxent", ([[1.0, 0.0], [0.0, 1.0]], [0, 1]), 0, [[0, 0], [0, 0]]),
    End("ntxent", ([[1.0, 0.0], [0.0, 1.0]], [0, 0]), 0, [[0, 0], [0, 0]]),
    End("triplet_margin_loss", ([1.0], [1.0], [1.0]), 1, [0], {"eps": 0}),
    End("triplet_margin_loss", ([1.0], [1.0], [1.0]), 1, [0], {"norm_degree": 1}),
    End("dice_loss", ([[[-1e4]]], [[[0.0]]]), [0], [[[0]]], {"smooth": 0}),
    End("dice_loss", ([[[1e4, -1e4]]], [[[1.0, 0.0]]]), [0], None, {"smooth": 0}),
]


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_a_loss_has_its_limit_and_a_finite_gradient(end: End) -> None:
    first, *rest = (np.asarray(x, "f4") if np.ndim(x) else x for x in end.arrays)
    rest = [x.astype(int) if _whole(end.name) and np.ndim(x) else x for x in rest]

    @jax.jit
    def run(first):
        found = getattr(losses, end.name)(first, *rest, **(end.others or {}))
        return jnp.sum(jnp.asarray(found)), found

    gradient, found = jax.grad(run, has_aux=True)(first)
    np.testing.assert_allclose(found, end.loss, rtol=2e-6, atol=1e-7)
    assert np.isfinite(gradient).all()
    if end.gradient is not None:
        np.testing.assert_allclose(gradient, end.gradient, rtol=2e-6, atol=1e-7)


def _whole(name: str) -> bool:
    return name in ("sparsemax_loss", "hinge_loss", "perceptron_loss", "ntxent")


def test_an_infinite_logit_of_ctc_is_a_probability_of_zero() -> None:
    logits = jnp.array([[[0.0, 0.0, -INF], [0.0, 0.0, -INF]]])
    padding = jnp.zeros((1, 2))

    def loss(logits, label):
        labels = jnp.array([[label, 0]])
        return losses.ctc_loss(logits, padding, labels, jnp.array([[0, 1]]))[0]

    run = jax.jit(jax.value_and_grad(loss))
    possible, gradient = run(logits, 1)
    np.testing.assert_allclose(possible, -np.log(3 / 4), rtol=1e-6)
    assert np.isfinite(gradient).all()
    impossible, gradient = run(logits, 2)
    assert 9e4 < impossible < 2e5 and np.isfinite(gradient).all()


def test_gradients_of_hard_labels_are_finite() -> None:
    # Labels may come from a network too, as in distillation.
    labels = jnp.array([1.0, 0.0])
    logs = jnp.log(jnp.array([0.5, 0.5]))

    @jax.jit
    @jax.grad
    def gradient(labels):
        return (
            losses.kl_divergence(logs, labels)
            + losses.softmax_cross_entropy(logs, labels)
            + losses.sigmoid_focal_loss(logs, labels).sum()
        )

    assert np.isfinite(gradient(labels)).all()


def test_half_precision_neither_overflows_nor_loses_small_numbers() -> None:
    x = jnp.full((2, 4), -300, jnp.float16)
    cosine = losses.cosine_similarity(x, x)  # 300^2 is too large for float16
    np.testing.assert_array_equal(cosine, jnp.ones(2, jnp.float16))
    many = jnp.zeros((1, 70000), jnp.bfloat16)  # so is a sum of 70000 for bfloat16
    label = jnp.zeros(1, jnp.int32)
    loss = losses.softmax_cross_entropy_with_integer_labels(many, label)
    np.testing.assert_allclose(loss.astype("float32"), np.log(70000), rtol=2**-8)


def test_distances_of_odd_degree_have_no_sign() -> None:
    a, p, n = jnp.zeros((1, 2)), jnp.array([[3.0, -3.0]]), jnp.array([[-1.0, 1.0]])
    loss = losses.triplet_margin_loss(a, p, n, norm_degree=1, eps=0, margin=0)
    np.testing.assert_allclose(loss, [6 - 2])
    loss = losses.triplet_margin_loss(a, p, n, norm_degree=3, eps=0, margin=0)
    np.testing.assert_allclose(loss, [54 ** (1 / 3) - 2 ** (1 / 3)], rtol=1e-6)
