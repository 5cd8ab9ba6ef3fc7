"""Losses against other libraries, and against the formulas of the papers, in NumPy."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.metrics

from jopt import losses


RNG = np.random.default_rng(1)
X = RNG.normal(size=(6, 4)).astype("f4")
LABELS = np.array([0, 1, 2, 3, 3, 0])
P, Q = RNG.dirichlet(np.ones(4), size=(2, 6)).astype("f4")


def run(loss: Any, *arrays: Any, **options: Any) -> Any:
    """The loss, compiled at once, which takes less time than its operations do."""
    return jax.jit(functools.partial(loss, **options))(*arrays)


def close(found: object, wanted: object, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-6)


def test_cross_entropies_are_those_of_scikit_learn() -> None:
    probabilities = scipy.special.softmax(X.astype("f8"), axis=1)
    wanted = sklearn.metrics.log_loss(LABELS, probabilities, labels=range(4))
    found = run(losses.softmax_cross_entropy_with_integer_labels, X, LABELS)
    close(found.mean(), wanted)
    close(run(losses.softmax_cross_entropy, X, np.eye(4)[LABELS]).mean(), wanted)
    bits = LABELS % 2
    wanted = sklearn.metrics.log_loss(bits, scipy.special.expit(X[:, 0].astype("f8")))
    close(run(losses.sigmoid_binary_cross_entropy, X[:, 0], bits).mean(), wanted)


def test_hinge_losses_are_those_of_scikit_learn() -> None:
    signs = 2 * (LABELS % 2) - 1
    wanted = sklearn.metrics.hinge_loss(signs, X[:, 0])
    close(run(losses.hinge_loss, X[:, 0], signs).mean(), wanted)
    wanted = sklearn.metrics.hinge_loss(LABELS, X, labels=range(4))
    close(run(losses.multiclass_hinge_loss, X, LABELS).mean(), wanted)


def test_divergences_are_those_of_scipy() -> None:
    close(run(losses.kl_divergence, np.log(P), Q), scipy.special.rel_entr(Q, P).sum(-1))
    close(
        run(losses.generalized_kl_divergence, np.log(2 * P), Q),
        scipy.special.kl_div(Q, 2 * P).sum(-1),
    )


def test_huber_is_that_of_scipy() -> None:
    close(run(losses.huber_loss, 3 * X, delta=0.7), scipy.special.huber(0.7, 3 * X))


def test_a_focal_loss_is_the_formula_of_the_paper() -> None:
    bits, p = LABELS % 2, scipy.special.expit(X[:, 0].astype("f8"))
    p_t, alpha_t = np.where(bits, p, 1 - p), np.where(bits, 0.25, 0.75)
    found = run(losses.sigmoid_focal_loss, X[:, 0], bits, alpha=0.25, gamma=1.5)
    close(found, -alpha_t * (1 - p_t) ** 1.5 * np.log(p_t))


def test_log_cosh_has_all_its_digits_near_zero() -> None:
    e = np.float32([1e-3, 1e-2, 0.5, 0.999, 1.0, 3.0, 30.0])
    wide = e.astype("f8")
    wanted = np.log1p(2 * np.sinh(wide / 2) ** 2)
    np.testing.assert_allclose(run(losses.log_cosh, e), wanted, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda e: losses.log_cosh(e).sum()))(e)
    np.testing.assert_allclose(gradient, np.tanh(wide), rtol=1e-6)


def test_the_sparsemax_loss_is_a_maximum_over_distributions() -> None:
    for s, label in zip(2 * X[:3].astype("f8"), LABELS, strict=False):
        found = scipy.optimize.minimize(
            lambda p, s=s: 0.5 * (p @ p) - p @ s,
            np.full(4, 0.25),
            method="SLSQP",
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            options={"ftol": 1e-12},
        )
        loss, gradient = run(
            jax.value_and_grad(losses.multiclass_sparsemax_loss), jnp.float32(s), label
        )
        np.testing.assert_allclose(loss, 0.5 - found.fun - s[label], atol=1e-5)
        np.testing.assert_allclose(gradient, found.x - np.eye(4)[label], atol=1e-4)


def test_the_sparsemax_loss_of_two_classes_is_that_of_many() -> None:
    s = X.ravel()
    bits = np.arange(s.size) % 2
    many = run(losses.multiclass_sparsemax_loss, np.stack([0 * s, s], -1), bits)
    close(run(losses.sparsemax_loss, s, bits), many)


def test_fenchel_young_losses_of_known_maxima_are_known_losses() -> None:
    y = np.eye(4, dtype="f4")[LABELS]
    loss = losses.make_fenchel_young_loss(jax.nn.logsumexp)
    close(run(loss, X, y), run(losses.softmax_cross_entropy, X, y))
    gradient = run(jax.grad(lambda x: loss(x, y).sum()), X)
    close(gradient, scipy.special.softmax(X, axis=1) - y)

    def largest(row, scale):
        return scale * jnp.max(row)

    loss = losses.make_fenchel_young_loss(largest)
    wanted = run(losses.multiclass_perceptron_loss, X, LABELS)
    close(run(loss, X, y, 1.0), wanted)
    close(run(loss, X, y, scale=1.0), wanted)
    close(run(loss, X, y[0], 1.0), X.max(1) - X[:, 0])
    assert loss(X.astype("float16"), y.astype("float16"), 1.0).dtype == "float16"


def test_contrastive_losses_are_the_formula_of_the_paper() -> None:
    s = sklearn.metrics.pairwise.cosine_similarity(X.astype("f8")) / 0.5
    terms = []
    for i, j in itertools.permutations(range(6), 2):
        if LABELS[i] == LABELS[j]:
            others = sum(np.exp(s[i, k]) for k in range(6) if LABELS[k] != LABELS[i])
            terms.append(np.log(np.exp(s[i, j]) + others) - s[i, j])
    close(run(losses.ntxent, X, LABELS, 0.5), np.mean(terms))


def test_the_probabilities_of_ctc_are_sums_over_all_paths() -> None:
    frames, classes = 5, 3
    logits = RNG.normal(size=(1, frames, classes)).astype("f4")
    log_p = scipy.special.log_softmax(logits[0].astype("f8"), axis=-1)
    by_labels: dict[tuple[int, ...], list[float]] = {}
    for path in itertools.product(range(classes), repeat=frames):
        merged = tuple(c for c, _ in itertools.groupby(path) if c != 0)
        by_labels.setdefault(merged, []).append(log_p[range(frames), path].sum())

    @jax.jit
    def loss(labels, padding):
        return losses.ctc_loss(logits, jnp.zeros((1, frames)), labels, padding)[0]

    # All of them together have the probability 1; a padded label may be anything.
    total = 0.0
    for labels, paths in by_labels.items():
        padded = jnp.array([[*labels, *[-100] * (frames - len(labels))]])
        padding = jnp.arange(frames)[None] >= len(labels)
        found = loss(padded, padding)
        np.testing.assert_allclose(found, -np.logaddexp.reduce(paths), rtol=1e-4)
        total += np.exp(-found)
    np.testing.assert_allclose(total, 1, rtol=1e-4)


def test_padded_frames_of_ctc_do_not_count() -> None:
    logits = RNG.normal(size=(2, 6, 4)).astype("f4")
    labels, all_labels = jnp.array([[1, 2], [3, 3]]), jnp.zeros((2, 2))
    padding = jnp.arange(6)[None].repeat(2, 0) >= 4
    short = run(losses.ctc_loss, logits[:, :4], jnp.zeros((2, 4)), labels, all_labels)

    def total(logits):
        return losses.ctc_loss(logits, padding, labels, all_labels).sum()

    found, gradient = jax.jit(jax.value_and_grad(total))(logits)
    close(found, short.sum())
    assert np.all(gradient[:, 4:] == 0) and np.any(gradient[:, 3] != 0)


def test_the_loss_of_no_labels_is_that_of_blanks() -> None:
    logits = RNG.normal(size=(1, 3, 4)).astype("f4")
    none = jnp.zeros((1, 0), int)
    found = run(losses.ctc_loss, logits, jnp.zeros((1, 3)), none, none, blank_id=2)
    close(found[0], -scipy.special.log_softmax(logits[0], axis=-1)[:, 2].sum())


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.2, 0.8)])
def test_dice_is_the_formula_of_the_papers(alpha: float, beta: float) -> None:
    targets = RNG.integers(2, size=X.shape)
    p = scipy.special.expit(X.astype("f8"))
    hit = (p * targets).sum(1)
    wrong = alpha * (p * (1 - targets)).sum(1) + beta * ((1 - p) * targets).sum(1)
    found = run(
        losses.dice_loss, X[..., None], targets, alpha=alpha, beta=beta, smooth=0
    )
    close(found, 1 - hit / (hit + wrong))
    if alpha == beta:  # 2 |A & B| / (|A| + |B|)
        close(found, 1 - 2 * hit / (p.sum(1) + targets.sum(1)))
        given = run(
            losses.binary_dice_loss,
            p.astype("f4"),
            targets,
            apply_sigmoid=False,
            smooth=0,
        )
        close(given, found)


def test_rare_classes_weigh_as_much_as_common_ones() -> None:
    targets = np.eye(3)[np.array([[0, 0, 0, 1], [0, 0, 1, 2]])]
    x = RNG.normal(size=(2, 4, 3)).astype("f4")
    weights = 1 / (targets.sum((0, 1)) ** 2 + 1e-7)
    each = np.asarray(run(losses.dice_loss, x, targets, reduction="none"))
    wanted = (each * weights / weights.mean()).mean()
    close(run(losses.multiclass_generalized_dice_loss, x, targets), wanted)


def test_second_derivatives_of_the_sparsemax_loss_are_those_of_the_projection() -> None:
    # Over the k classes of the support: the identity minus 1 / k.
    s = jnp.array([0.3, 0.1, -0.2, -3.0])
    hessian = jax.jit(jax.hessian(losses.multiclass_sparsemax_loss))(s, 1)
    support = jnp.array([1.0, 1.0, 1.0, 0.0])
    wanted = jnp.diag(support) - jnp.outer(support, support) / 3
    np.testing.assert_allclose(hessian, wanted, atol=1e-6)
