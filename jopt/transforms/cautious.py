"""Updates that meet the gradient they came from: ``cautious``, ``gradient_sign``.

    u <- inner(g)
    cautious         u <- u [u g > 0] / max(mean [u g > 0], 1/1000)
    gradient_sign    u <- |u| sign(g)

`cautious`       Liang, Chen, Liu & Liu, "Cautious optimizers: improving training with
                 one line of code", 2024
`gradient_sign`  Cao, Li & Song, "Grams: gradient descent with adaptive momentum
                 scaling", 2024

Momentum points where gradients pointed before; these drop, or turn around, the elements
where the gradient of this step says otherwise. State: that of the inner transformation
and nothing else, so a checkpoint of the one is a checkpoint of the other. The authors
take the hyperparameters of the inner optimizer as they are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import tree_checks
from jopt.core.chain import as_transformation
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leafwise import Leafwise, leafwise
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments


Normalizer = Literal["mean", "count", "none"]


@transformation
def cautious(
    inner: GradientTransformation,
    normalizer: Normalizer = "mean",
    *,
    descent: bool | None = None,
) -> GradientTransformation:
    """Drop the elements of an update that the gradient disagrees with.

    Around a ``scale_by_*`` the mask is the authors': weight decay comes after it and is
    not masked. Around a whole optimizer the mask is about the whole step, its decay
    included.

    Args:
      inner: An optimizer or any other transformation.
      normalizer: What makes up for the dropped elements: ``"mean"`` divides by the
        share of a leaf that is left, or 1/1000 (the authors' AdamW, timm); ``"count"``
        multiplies by n / (left + 1) (their Lion, pytorch_optimizer); ``"none"``.
      descent: Whether ``inner`` gives what is added to the parameters, against the
        gradient, or (False) what a learning rate is still to turn around. None: whether
        there is a ``learning_rate`` in it. Say True of an optimizer without one (a
        foreign one, Adafactor with relative steps), or it keeps what it should drop.

    Returns:
      A transformation with the state, and the hyperparameters, of ``inner``.

    Raises:
      TypeError: ``inner`` is not a transformation.

    An element of a complex leaf is kept where the update and the gradient are less than
    90 degrees apart.

    >>> import jopt
    >>> tx = jopt.chain(
    ...     jopt.cautious(jopt.scale_by_adam()),
    ...     jopt.add_decayed_weights(0.1),
    ...     jopt.scale_by_learning_rate(1e-3),
    ... )
    >>> tx = jopt.cautious(jopt.sgd(1.0, momentum=0.5))
    >>> _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([1.0, -0.1]), state)[0]
    Array([-3.,  0.], dtype=float32)
    """
    arguments.one_of(("mean", "count", "none"), normalizer=normalizer)
    inner = as_transformation(inner, "cautious: inner")
    return _gated("cautious", inner, _mask(normalizer, _is_descent(inner, descent)))


@transformation
def gradient_sign(
    inner: GradientTransformation, *, descent: bool | None = None
) -> GradientTransformation:
    """Keep the size of an update and take the sign of the gradient: ``|u| sign(g)``.

    Args:
      inner: An optimizer or any other transformation.
      descent: See `cautious`.

    Returns:
      A transformation with the state, and the hyperparameters, of ``inner``.

    Raises:
      TypeError: ``inner`` is not a transformation.

    Cao, Li & Song, "Grams: gradient descent with adaptive momentum scaling", 2024;
    `jopt.grams` is theirs. A complex ``sign(g)`` is ``g / |g|``.

    >>> import jopt
    >>> tx = jopt.gradient_sign(jopt.sgd(1.0, momentum=0.5))
    >>> _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([1.0, -0.1]), state)[0]
    Array([-1.5,  0.4], dtype=float32)
    """
    inner = as_transformation(inner, "gradient_sign: inner")
    return _gated("gradient_sign", inner, _turn(_is_descent(inner, descent)))


Gate = Callable[[jax.Array, jax.Array], jax.Array]  # of a gradient and its update


@functools.cache  # a gate is made once, so that what is compiled with it is kept
def _mask(normalizer: Normalizer, descent: bool) -> Gate:
    def gate(g, u):
        cosine = jnp.real(jnp.sign(u) * jnp.conj(jnp.sign(g)))
        along = cosine < 0 if descent else cosine > 0
        n = max(g.size, 1)
        left = jnp.sum(jnp.where(along, jnp.ones_like(cosine), 0))
        if normalizer == "mean":
            u = u / jnp.maximum(left / n, 1e-3)
        elif normalizer == "count":
            u = u * (n / (left + 1))
        return jnp.where(along, u, jnp.zeros_like(u))

    return gate


@functools.cache
def _turn(descent: bool) -> Gate:
    sign = -1 if descent else 1
    return lambda g, u: sign * jnp.abs(u) * jnp.sign(g)


def _is_descent(inner: GradientTransformation, descent: bool | None) -> bool:
    return _has_learning_rate(inner) if descent is None else descent


def _has_learning_rate(tx: GradientTransformation) -> bool:
    own = tx.changing is not None and "learning_rate" in tx.changing.names
    return own or any(map(_has_learning_rate, tx.children.values()))


def _gated(
    name: str, inner: GradientTransformation, gate: Gate
) -> GradientTransformation:
    """``inner``, each leaf of its update given to ``gate`` beside the gradient."""
    if isinstance(inner, Leafwise):
        return _gated_leafwise(name, inner, gate)
    beside = _beside(gate)

    def update(updates, state, params=None, **extra):
        leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        tree_checks.leaves(leaves, updates, "updates")
        # The update of a narrow gradient is not rounded before the gate has seen it.
        wide = treedef.unflatten(map(_widened, leaves))
        found, state = inner.update(wide, state, params, **extra)
        return beside.update(updates, NO_STATE, found)[0], state

    return GradientTransformation(
        inner.init,
        update,
        children=inner.children,
        needs=inner.needs,
        reach=inner.reach,
        readout=inner.readout,
        changing=inner.changing,
    )


def _gated_leafwise(name: str, inner: Leafwise, gate: Gate) -> Leafwise:
    """The gate as the last line of the rule, so that both are one kernel."""

    def gated(declared):
        @functools.wraps(declared.rule)
        def rule(g, *slots, **scalars):
            out = declared.rule(g, *slots, **scalars)
            u, *new = out if isinstance(out, tuple) else (out,)
            return (gate(g, u), *new)

        return declared._replace(rule=rule)

    kernel_key = dataclasses.replace(
        inner.kernel_key,
        identity=(gate, inner.kernel_key.identity),
        name=name,
        declare=lambda **numbers: gated(inner.kernel_key.declare(**numbers)),
    )
    return Leafwise(gated(inner.declaration), kernel_key, changing=inner.changing)


@functools.cache
def _beside(gate: Gate) -> Leafwise:
    # The update stands in the place of the parameter.
    return leafwise(lambda g, *, p: gate(g, p))


def _widened(g: Any) -> Any:
    if g is None:
        return None
    g = jnp.asarray(g)
    return g.astype(tree.compute_dtype(g.dtype))
