"""Losses of embeddings: examples that belong together should lie together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt.losses.inputs import floating, real, scalars
from jopt.losses.regression import unit_vectors
from jopt.tree.dtypes import rounded_once
from jopt.values import arguments


def ntxent(
    embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07
) -> jax.Array:
    """Return the contrastive loss NT-Xent: a cross-entropy of scaled cosines.

        s_ij = cos(x_i, x_j) / temperature
        l_ij = log(exp(s_ij) + sum_{k: label_k != label_i} exp(s_ik)) - s_ij

    The loss is the mean of ``l_ij`` over all pairs of different examples with the same
    label, and 0 if there are none.

    Args:
      embeddings: One vector per example, of shape ``(n, d)``.
      labels: One number per example; examples with the same number belong together.
      temperature: What to divide cosines by, > 0. A low one weighs the nearest
        negatives most.

    Returns:
      A number, of the dtype of the embeddings.

    Raises:
      ValueError: The shapes do not fit, or the temperature is not positive.
      TypeError: The embeddings are no floating point numbers.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", 2020.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> ntxent(x, jnp.array([0, 0, 1, 1]), temperature=1.0).round(3)
    Array(0.551, dtype=float32)
    """
    arguments.positive(**scalars(temperature=temperature))
    [embeddings], [labels] = floating(embeddings=embeddings), real(labels=labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            "embeddings must have the shape (n, d) and labels (n,), got embeddings of "
            f"shape {embeddings.shape} and labels of shape {labels.shape}"
        )
    same = labels[:, None] == labels[None, :]
    pairs = same & ~jnp.eye(len(labels), dtype=bool)

    def contrastive(x, temperature):
        units = unit_vectors(x, -1, jnp.finfo(x.dtype).eps)
        highest = jax.lax.Precision.HIGHEST
        s = jnp.matmul(units, units.T, precision=highest) / temperature
        # A finite number below all cosines, so that an example may lack negatives.
        lowest = jnp.finfo(s.dtype).min / 2
        others = jax.nn.logsumexp(jnp.where(same, lowest, s), axis=1, keepdims=True)
        losses = jax.nn.softplus(others - s)
        number = jnp.maximum(jnp.sum(pairs), 1).astype(s.dtype)
        return jnp.sum(losses, where=pairs) / number

    return rounded_once(contrastive, embeddings, numbers=[temperature])


def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: int = -1,
    norm_degree: ArrayLike = 2,
    margin: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
) -> jax.Array:
    """Return by how much the positive is not nearer than the negative by a margin.

        d(a, b) = (sum_i |a_i - b_i|^k + eps)^(1 / k)
        max(0, d(anchor, positive) - d(anchor, negative) + margin)

    Args:
      anchors: Vectors.
      positives: Vectors that should be near, of the same shape.
      negatives: Vectors that should be far, of the same shape.
      axis: The axis or axes that form a vector.
      norm_degree: The degree ``k`` of the norm, > 0.
      margin: The margin.
      eps: What to add before the root, so that its gradient is finite, >= 0.

    Returns:
      One number per triplet.

    Raises:
      ValueError: The shapes differ, or a number is out of range.
      TypeError: A vector does not hold floating point numbers.

    Balntas et al., "Learning local feature descriptors with triplets and shallow
    convolutional neural networks", 2016.

    >>> a, p, n = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 5.5]])
    >>> triplet_margin_loss(a, p, n, eps=0)
    Array(0.5, dtype=float32)
    """
    arguments.positive(norm_degree=norm_degree)
    arguments.nonnegative(eps=eps)
    vectors = floating(anchors=anchors, positives=positives, negatives=negatives)
    shapes = [x.shape for x in vectors]
    if len(set(shapes)) != 1:
        raise ValueError(
            "anchors, positives and negatives must have the same shape, got shapes "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )

    def triplet(anchor, positive, negative, degree, margin, eps):
        def distance(other):
            powers = jnp.abs(anchor - other) ** degree
            total = jnp.sum(powers, axis=axis) + eps
            zero = total == 0
            return jnp.where(zero, 0, jnp.where(zero, 1, total) ** (1 / degree))

        return jnp.maximum(distance(positive) - distance(negative) + margin, 0)

    return rounded_once(triplet, *vectors, numbers=[norm_degree, margin, eps])
