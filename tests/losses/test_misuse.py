"""Losses that are called wrongly: errors that name the argument and both shapes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt import losses


N, N1, NN = jnp.ones(3), jnp.ones((3, 1)), jnp.ones((3, 3))
LABELS = jnp.array([0, 1, 2])
TWO = ("huber_loss", "log_cosh", "sigmoid_binary_cross_entropy", "sigmoid_focal_loss")
ALONG = ("softmax_cross_entropy", "safe_softmax_cross_entropy", "kl_divergence")
ALONG += ("generalized_kl_divergence", "cosine_similarity", "cosine_distance")
ALONG += ("poly_loss_cross_entropy", "kl_divergence_with_log_targets")
ALONG += ("ranking_softmax_loss",)
EXACT = ("squared_error", "l2_loss", "perceptron_loss")
INTEGER = ("multiclass_hinge_loss", "multiclass_perceptron_loss")
INTEGER += ("multiclass_sparsemax_loss", "softmax_cross_entropy_with_integer_labels")


@pytest.mark.parametrize("name", [*TWO, *ALONG, *EXACT, "hinge_loss"])
def test_a_vector_and_a_column_are_an_error(name: str) -> None:
    for x, y in ((N, N1), (N1, N)):
        message = rf"of shape {re.escape(str(x.shape))} and .*{re.escape(str(y.shape))}"
        with pytest.raises(ValueError, match=message):
            jax.jit(getattr(losses, name))(x, y)


@pytest.mark.parametrize("name", ALONG)
def test_classes_do_not_broadcast(name: str) -> None:
    # Labels (n, 1) are numbers of classes, more likely than one probability for all.
    with pytest.raises(ValueError, match=r"same size along axis 1"):
        getattr(losses, name)(NN, N1)
    with pytest.raises(ValueError, match=r"of shape \(3, 3\) and .*\(2, 3, 2\)"):
        getattr(losses, name)(NN, jnp.ones((2, 3, 2)))


@pytest.mark.parametrize("name", INTEGER)
def test_labels_have_the_shape_of_the_examples(name: str) -> None:
    for labels in (LABELS[:, None], LABELS[:2]):
        message = rf"\(3,\), got labels of shape {re.escape(str(labels.shape))}"
        with pytest.raises(ValueError, match=message):
            getattr(losses, name)(NN, labels)


@pytest.mark.parametrize("name", [*INTEGER, "sparsemax_loss"])
def test_labels_are_integers(name: str) -> None:
    scores = N if name == "sparsemax_loss" else NN
    with pytest.raises(TypeError, match="labels must be integers, got labels of float"):
        getattr(losses, name)(scores, N)


@pytest.mark.parametrize("name", INTEGER)
@pytest.mark.parametrize("label", [-1, 3])
def test_known_labels_are_in_range(name: str, label: int) -> None:
    loss = getattr(losses, name)
    labels = jnp.array([0, label, 1])
    message = rf">= 0 and < 3, .*got label {label} at index \(1,\)"
    with pytest.raises(ValueError, match=message):
        loss(NN, labels)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x: loss(x, np.asarray(labels)))(NN)
    jax.jit(loss)(NN, labels)  # not known before the run


def test_labels_that_a_mask_leaves_out_may_be_anything() -> None:
    loss = losses.softmax_cross_entropy_with_integer_labels
    found = loss(NN, jnp.array([0, -100, 2]), where=jnp.array([True, False, True]))
    np.testing.assert_allclose(found, np.log([3, 1, 3]), rtol=1e-6)


def test_a_label_out_of_range_is_nan_inside_jit() -> None:
    loss = jax.jit(losses.softmax_cross_entropy_with_integer_labels)
    assert np.isnan(loss(NN, jnp.array([0, 3, 2]))).tolist() == [False, True, False]


FLOATING = {
    "predictions": [losses.squared_error, losses.l2_loss, losses.huber_loss],
    "logits": [losses.softmax_cross_entropy, losses.sigmoid_binary_cross_entropy],
    "log_predictions": [losses.kl_divergence, losses.generalized_kl_divergence],
}


@pytest.mark.parametrize(
    ("name", "loss"), [(name, f) for name, fs in FLOATING.items() for f in fs]
)
def test_predictions_are_floating_point_numbers(
    name: str, loss: Callable[..., Any]
) -> None:
    message = f"{name} must be floating point numbers, got {name} of int32"
    with pytest.raises(TypeError, match=message):
        loss(LABELS, N)


PIXELS = jnp.zeros((2, 4, 3))
LOGITS, PADDING = jnp.zeros((2, 4, 3)), jnp.zeros((2, 4))
SHORT = jnp.zeros((2, 2), int)
WRONG = [
    (lambda: losses.huber_loss(N, delta=-1.0), "delta must be >= 0"),
    (lambda: losses.sigmoid_focal_loss(N, N, gamma=-1.0), "gamma must be >= 0"),
    (lambda: losses.sigmoid_focal_loss(N, N, alpha=2.0), "alpha must be in"),
    (lambda: losses.smooth_labels(NN, 1.5), "alpha must be in"),
    (lambda: losses.ntxent(NN, LABELS, 0.0), "temperature must be > 0"),
    (lambda: losses.ntxent(NN, LABELS[:2]), r"shape \(3, 3\) and labels .*\(2,\)"),
    (lambda: losses.triplet_margin_loss(N, N, N1), r"\(3,\), \(3,\) and \(3, 1\)"),
    (lambda: losses.triplet_margin_loss(N, N, N, norm_degree=0), "norm_degree"),
    (lambda: losses.softmax_cross_entropy(NN, LABELS[:2]), "integer_labels"),
    (lambda: losses.softmax_cross_entropy(NN, NN, axis=2), "axis 2 is out of bounds"),
    (lambda: losses.softmax_cross_entropy(NN, NN, where=N[:2]), r"where .*\(2,\)"),
    (lambda: losses.kl_divergence(NN, NN, where=N[:2]), r"where .*\(3, 3\).*\(2,\)"),
    (lambda: losses.sparsemax_loss(N, 2 * LABELS - 1), "got label -1"),
    (lambda: losses.dice_loss(PIXELS, PIXELS[:1]), r"\(2, 4, 3\) and .*\(1, 4, 3\)"),
    (lambda: losses.dice_loss(PIXELS, PIXELS, reduction="max"), "'mean', 'sum'"),
    (lambda: losses.dice_loss(PIXELS, PIXELS, axis=-1), "axis of the classes"),
    (lambda: losses.dice_loss(PIXELS, PIXELS, smooth=-1), "smooth must be >= 0"),
    (
        lambda: losses.dice_loss(PIXELS, PIXELS, class_weights=N1),
        r"\(3,\), got .*\(3, 1",
    ),
    (lambda: losses.dice_loss(PIXELS, PIXELS, apply_softmax=False), "sums from 0 to 0"),
    (
        lambda: losses.binary_dice_loss(PIXELS - 1, PIXELS, apply_sigmoid=False),
        "from -1 to -1",
    ),
    (
        lambda: losses.multiclass_generalized_dice_loss(
            PIXELS, PIXELS, apply_softmax=False
        ),
        "sums from 0 to 0",
    ),
    (lambda: losses.ctc_loss(LOGITS, PADDING, SHORT, PADDING), "label_paddings"),
    (lambda: losses.ctc_loss(LOGITS, SHORT, SHORT, SHORT), r"\(2, 4\) and logit_pad"),
    (lambda: losses.ctc_loss(LOGITS, PADDING, SHORT[:1], SHORT[:1]), r"\(1, 2\)"),
    (lambda: losses.ctc_loss(LOGITS, PADDING, SHORT + 3, SHORT), "got label 3"),
    (lambda: losses.ctc_loss(LOGITS, PADDING, SHORT, SHORT, blank_id=3), "blank_id"),
    (
        lambda: losses.ctc_loss(LOGITS, PADDING, SHORT, SHORT.at[1, 0].set(1)),
        r"row 1: \[1, 0\]",
    ),
    (lambda: losses.ctc_loss(LOGITS[:, :0], PADDING[:, :0], SHORT, SHORT), "frames"),
    (lambda: losses.hungarian_algorithm(N), r"rows and columns, got shape \(3,\)"),
    (lambda: losses.hungarian_algorithm(NN * jnp.nan), "NaN or minus infinity"),
    (lambda: losses.hungarian_algorithm(-NN * jnp.inf), "NaN or minus infinity"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_a_wrong_argument_is_an_error_that_says_what_is_right(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_probabilities_are_not_checked_inside_jit() -> None:
    @jax.jit
    def loss(p):
        return losses.dice_loss(p, PIXELS, apply_softmax=False)

    assert loss(PIXELS + 1 / 3).shape == (2,)
    losses.dice_loss((PIXELS + 1 / 3).astype("bfloat16"), PIXELS, apply_softmax=False)


def test_what_broadcasts_without_surprise_is_allowed() -> None:
    rows = jnp.ones((1, 3))
    cases = [(losses.huber_loss, *xy) for xy in ((NN, N), (NN, rows), (rows, NN))]
    cases += [(losses.huber_loss, NN, jnp.ones(()))]
    cases += [(losses.cosine_similarity, NN[:, None], NN[None])]
    for loss, x, y in cases:
        assert jax.eval_shape(loss, x, y).shape == (3, 3)
    assert jax.eval_shape(losses.softmax_cross_entropy, NN, N).shape == (3,)


def test_an_old_name_says_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="use generalized_kl_divergence"):
        losses.convex_kl_divergence(N, N)
