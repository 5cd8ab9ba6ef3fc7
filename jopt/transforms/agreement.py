"""Check updates against the current gradient: ``cautious``, ``gradient_sign``.

    u <- inner(g)
    cautious         u <- u [u g > 0] / max(mean [u g > 0], 1/1000)
    gradient_sign    u <- |u| sign(g)

`cautious`       Liang, Chen, Liu & Liu, "Cautious optimizers: improving training with
                 one line of code", 2024
`gradient_sign`  Cao, Li & Song, "Grams: gradient descent with adaptive momentum
                 scaling", 2024

Momentum points where earlier gradients pointed. Where the current gradient disagrees,
`cautious` drops the element and `gradient_sign` flips it. The state is the inner
transformation's and nothing else, so checkpoints with and without the wrapper are
interchangeable. The authors leave the inner optimizer's hyperparameters unchanged.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jopt.core.chain import as_transformation
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leafwise import Leafwise, leafwise
from jopt.core.leaves import Leaves
from jopt.core.order import check_changeable, must_be_last
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.values import arguments


Normalizer = Literal["mean", "count", "none"]


@transformation
def cautious(
    inner: GradientTransformation,
    normalizer: Normalizer = "mean",
    *,
    descent: bool | None = None,
) -> GradientTransformation:
    """Drop the elements of an update that disagree with the gradient.

    Around a ``scale_by_*``, as in the paper, the mask does not affect the weight decay
    that follows. Around a whole optimizer it applies to the whole step, including the
    decay.

    Args:
      inner: An optimizer or any other transformation.
      normalizer: How to compensate for the dropped elements of a leaf with n elements:
        ``"mean"`` divides by the share that remains, at least 1/1000 (the authors'
        AdamW, timm); ``"count"`` multiplies by n / (remaining + 1) (their Lion,
        pytorch_optimizer); ``"none"`` does nothing.
      descent: If True, ``inner`` returns a descent step, which is added to the
        parameters; if False, its sign is still to be flipped by a learning rate. None
        means True if ``inner`` has a ``learning_rate``. Pass True for an optimizer
        without one (a foreign one, Adafactor with relative steps): otherwise the
        comparison has the wrong sign.

    Returns:
      A transformation with the state and the hyperparameters of ``inner``.

    Raises:
      TypeError: ``inner`` is not a transformation.
      ValueError: ``inner`` averages parameters.

    An element of a complex leaf is kept if the update and the gradient are less than
    90 degrees apart (more than 90 degrees for a descent step).

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
    """Give each element of an update the sign of the gradient: ``|u| sign(g)``.

    Args:
      inner, descent: See `cautious`.

    Returns:
      A transformation with the state and the hyperparameters of ``inner``.

    Raises:
      TypeError: ``inner`` is not a transformation.
      ValueError: ``inner`` averages parameters.

    Cao, Li & Song, "Grams: gradient descent with adaptive momentum scaling", 2024;
    `jopt.grams` is the full optimizer. For complex ``g``, ``sign(g)`` is ``g / |g|``.

    >>> import jopt
    >>> tx = jopt.gradient_sign(jopt.sgd(1.0, momentum=0.5))
    >>> _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([1.0, -0.1]), state)[0]
    Array([-1.5,  0.4], dtype=float32)
    """
    inner = as_transformation(inner, "gradient_sign: inner")
    return _gated("gradient_sign", inner, _turn(_is_descent(inner, descent)))


Gate = Callable[[jax.Array, jax.Array], jax.Array]  # (gradient, update) -> update


# Gates are cached because kernels are keyed by the gate: a new one would recompile.
@functools.cache
def _mask(normalizer: Normalizer, descent: bool) -> Gate:
    def gate(g, u):
        # Signs before the product: u g of small numbers would underflow to zero.
        cosine = jnp.real(jnp.sign(u) * jnp.conj(jnp.sign(g)))
        agrees = cosine < 0 if descent else cosine > 0
        n = max(g.size, 1)
        remaining = jnp.sum(jnp.where(agrees, jnp.ones_like(cosine), 0))
        if normalizer == "mean":
            u = u / jnp.maximum(remaining / n, 1e-3)
        elif normalizer == "count":
            u = u * (n / (remaining + 1))
        # where, not a product with the mask: 0 * inf would be NaN.
        return jnp.where(agrees, u, jnp.zeros_like(u))

    return gate


@functools.cache
def _turn(descent: bool) -> Gate:
    sign = -1 if descent else 1
    return lambda g, u: sign * jnp.abs(u) * jnp.sign(g)


def _is_descent(inner: GradientTransformation, descent: bool | None) -> bool:
    return _has_learning_rate(inner) if descent is None else descent


def _has_learning_rate(tx: GradientTransformation) -> bool:
    # Even a constant learning rate is kept in the state, and so a changing number.
    changes = tx.changing is not None and "learning_rate" in tx.changing.names
    return changes or any(map(_has_learning_rate, tx.children.values()))


def _gated(
    name: str, inner: GradientTransformation, gate: Gate
) -> GradientTransformation:
    """Return ``inner`` with ``gate(gradient, update)`` applied to each leaf."""
    check_changeable(name, inner)
    if must_be_last(inner):
        raise ValueError(
            f"{name} changes the steps of inner, so an average or a projection inside "
            f"it is not one of the parameters. Put it after {name} in a chain. Got "
            f"{inner!r}"
        )
    if isinstance(inner, Leafwise):
        return _gated_leafwise(name, inner, gate)
    gate_leaves = _leafwise_gate(gate)

    def update(updates, state, params=None, **extra):
        # Widened, so that a 16-bit update is rounded once, after the gate.
        wide = Leaves(updates).widened()
        inner_updates, state = inner.update(wide, state, params, **extra)
        return gate_leaves.update(updates, NO_STATE, inner_updates)[0], state

    return GradientTransformation(
        inner.init,
        update,
        children=inner.children,
        needs=inner.needs,
        state_class=inner.state_class,
        reach=inner.reach,
        readout=inner.readout,
        changing=inner.changing,
        treatment=Treatment(factor=(math.nan,)),
        slots=inner.slots,
    )


def _gated_leafwise(name: str, inner: Leafwise, gate: Gate) -> Leafwise:
    """Append the gate to the rule, so that both compile into one kernel."""

    def gated(declared):
        @functools.wraps(declared.rule)
        def rule(g, *slots, **scalars):
            out = declared.rule(g, *slots, **scalars)
            u, *new = out if isinstance(out, tuple) else (out,)
            return (gate(g, u), *new)

        return dataclasses.replace(declared, rule=rule, treatment=None)

    kernel_key = dataclasses.replace(
        inner.kernel_key,
        identity=(gate, inner.kernel_key.identity),
        name=name,
        declare=lambda **numbers: gated(inner.kernel_key.declare(**numbers)),
    )
    return Leafwise(gated(inner.declaration), kernel_key, changing=inner.changing)


@functools.cache
def _leafwise_gate(gate: Gate) -> Leafwise:
    # The caller passes the inner update as params: a rule sees no other second tree.
    return leafwise(lambda g, *, p: gate(g, p))
