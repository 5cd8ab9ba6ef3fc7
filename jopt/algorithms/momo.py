"""MoMo: momentum with a step size from a model of the loss.

    d     <- beta d + (1 - beta) g                averages: of the gradient,
    f     <- beta f + (1 - beta) value            of the loss,
    gamma <- beta gamma + (1 - beta) <g, p>       of their inner product
    tau   <- min(learning_rate, max(0, f - lb + <d, p> - gamma) / |d|^2)
    p     <- p - tau d

Schaipp, Ohana, Eickenberg, Defazio & Gower, "MoMo: momentum models for adaptive
learning rates", 2024. In `momo_adam` steps and norm are those of Adam: ``d / D`` and
``sum(d^2 / D)`` with ``D = sqrt(v^) + eps``.

State: 4 bytes per float32 parameter, 8 for `momo_adam`. Pass the loss that the gradient
belongs to: ``update(grads, state, params, value=loss)``. The learning rate is only an
upper bound of the step size: choose it too large rather than too small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.chain import optimizer
from jopt.core.factory import StorageDtype
from jopt.core.leafwise import leafwise, zeros
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class MomoState(NamedTuple):
    """State of `momo`."""

    count: jax.Array  # int32 scalar, updates so far
    exp_avg: Any  # average of the gradients, like params
    barf: jax.Array  # scalar, average of the loss
    gamma: jax.Array  # scalar, average of <g, p>
    lb: jax.Array  # scalar, lower bound of the loss


@optimizer
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 0.9,
    lower_bound: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    exp_avg_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """MoMo: gradient descent with momentum and an adaptive step size.

        p <- (p - tau d) / (1 + learning_rate weight_decay)

    The step size ``tau`` leads to where a model of the loss reaches its lower bound,
    and is at most the learning rate. Pass the loss to the update as ``value``.

    Args:
      learning_rate: Largest step size, >= 0; choose it too large rather than too small.
      beta: Decay of the averages, in [0, 1); they start at the values of the first
        step.
      lower_bound: Lower bound of the loss; if it adapts, the least value that it takes.
      weight_decay: Decay rate, >= 0, multiplied by the learning rate.
      adapt_lower_bound: Whether to estimate the lower bound, which is ``lb`` in the
        state.
      exp_avg_dtype: Storage dtype of ``exp_avg``; None means float32 or wider.

    Returns:
      A transformation for real numbers whose update needs params and ``value``.

    Raises:
      ValueError: A number is out of range.

    Schaipp, Ohana, Eickenberg, Defazio & Gower, "MoMo: momentum models for adaptive
    learning rates", 2024. Equal to the authors' code; optax (0.2.8) does not divide the
    step by ``1 + learning_rate weight_decay``.

    >>> import jopt
    >>> f = lambda p: jnp.sum(p**2)
    >>> tx, params = jopt.momo(), jnp.array([1.0, 2.0, 3.0])
    >>> value, grads = jax.value_and_grad(f)(params)
    >>> updates, _ = tx.update(grads, tx.init(params), params, value=value)
    >>> updates.round(4)
    Array([-0.5, -1. , -1.5], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)
    arguments.decay_rate(beta=beta)
    arguments.finite(lower_bound=lower_bound)

    def scalars(t, updates, params, value, exp_avg, barf, gamma, lb):
        # The first step fills the averages, so they need no bias correction.
        keep = jnp.where(t == 1, jnp.zeros_like(t), beta)
        take = jnp.where(t == 1, jnp.ones_like(t), 1 - beta)
        d = _on_leaves(lambda g, d: keep * d + take * g, updates, exp_avg)
        barf = keep * barf + take * tree.scalar(value)
        gamma = keep * gamma + take * _inner(updates, params)
        decay = tree.scalar(learning_rate * weight_decay)
        model = _Model(barf, gamma, _inner(d, params), tree.norm(d), 1 + decay)
        tau, lb = model.step(learning_rate, lb, lower_bound, adapt_lower_bound)
        averages = {"barf": barf, "gamma": gamma, "lb": lb}
        return {**averages, "keep": keep, "take": take, "decay": decay, "tau": tau}

    def rule(g, d, *, p, keep, take, decay, tau):
        d = keep * d + take * g
        return -(tau * d + decay * p) / (1 + decay), d

    return leafwise(
        rule,
        scalars,
        MomoState,
        treatment=Treatment(decay=(weight_decay,)),
        carry={"barf": 0.0, "gamma": 0.0, "lb": lower_bound},
        real_only=True,
        exp_avg=zeros(exp_avg_dtype),
    )


class MomoAdamState(NamedTuple):
    """State of `momo_adam`."""

    count: jax.Array  # int32 scalar, updates so far
    exp_avg: Any  # first moment, like params
    exp_avg_sq: Any  # second moment, like params
    barf: jax.Array  # scalar, average of the loss
    gamma: jax.Array  # scalar, average of <g, p>
    lb: jax.Array  # scalar, lower bound of the loss


@optimizer
def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    exp_avg_dtype: StorageDtype | None = None,
    exp_avg_sq_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """MoMo-Adam: Adam with an adaptive step size.

        p <- (p - tau d / D) / (1 + learning_rate weight_decay)

    Args:
      learning_rate: See `momo`.
      b1: Decay of the averages, in [0, 1); they start at zero.
      b2: Decay of the second moment, in [0, 1).
      eps: Added to the root, > 0.
      lower_bound, weight_decay, adapt_lower_bound, exp_avg_dtype: See `momo`.
      exp_avg_sq_dtype: Storage dtype of ``exp_avg_sq``; None means float32 or wider.

    Returns:
      A transformation for real numbers whose update needs params and ``value``.

    Raises:
      ValueError: A number is out of range.

    Schaipp, Ohana, Eickenberg, Defazio & Gower, "MoMo: momentum models for adaptive
    learning rates", 2024. Equal to the authors' code; optax (0.2.8) does not divide the
    step by ``1 + learning_rate weight_decay``.

    >>> import jopt
    >>> jopt.momo_adam(2e-2, weight_decay=0.1)
    momo_adam(learning_rate=0.02, weight_decay=0.1)
    """
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)
    arguments.decay_rate(b1=b1, b2=b2)
    arguments.positive(eps=eps)
    arguments.finite(lower_bound=lower_bound)

    def moments(g, d, v, scale):
        d = b1 * d + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        return d, v, jnp.sqrt(scale * v) + eps

    def scalars(t, updates, params, value, exp_avg, exp_avg_sq, barf, gamma, lb):
        scale = 1 / tree.one_minus_power(b2, t)

        def scaled(g, d, v):
            d, _, root = moments(g, d, v, scale)
            # The square of its norm is sum(d^2 / D).
            return tree.ratio(d, jnp.sqrt(root), eps)

        norm = tree.norm(_on_leaves(scaled, updates, exp_avg, exp_avg_sq))
        d = _on_leaves(lambda g, d: b1 * d + (1 - b1) * g, updates, exp_avg)
        barf = b1 * barf + (1 - b1) * tree.scalar(value)
        gamma = b1 * gamma + (1 - b1) * _inner(updates, params)
        decay = tree.scalar(learning_rate * weight_decay)
        filled = tree.one_minus_power(b1, t)
        model = _Model(barf, gamma, _inner(d, params), norm, 1 + decay, filled)
        tau, lb = model.step(learning_rate, lb, lower_bound, adapt_lower_bound)
        averages = {"barf": barf, "gamma": gamma, "lb": lb}
        return {**averages, "scale": scale, "decay": decay, "tau": tau}

    def rule(g, d, v, *, p, scale, decay, tau):
        d, v, root = moments(g, d, v, scale)
        return -(tau * tree.ratio(d, root, eps) + decay * p) / (1 + decay), d, v

    return leafwise(
        rule,
        scalars,
        MomoAdamState,
        treatment=Treatment(decay=(weight_decay,)),
        carry={"barf": 0.0, "gamma": 0.0, "lb": lower_bound},
        real_only=True,
        exp_avg=zeros(exp_avg_dtype),
        exp_avg_sq=zeros(exp_avg_sq_dtype, divides=True),
    )


class _Model(NamedTuple):
    """The lower model of the loss that determines the step size; all are scalars."""

    barf: jax.Array
    gamma: jax.Array
    inner: jax.Array  # <d, p>
    norm: jax.Array  # of d
    growth: jax.Array  # 1 + learning rate * weight decay
    filled: jax.Array | float = 1.0  # weight of the averages

    def step(
        self, learning_rate: Any, lb: jax.Array, lower_bound: float, adapt: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return the step size, which reaches ``lb`` at most, and the next ``lb``."""
        level = self.growth * (self.barf - self.gamma) + self.inner
        share = self.growth * self.filled
        if adapt:  # lower a bound that the model has fallen below
            lowered = jnp.maximum(level / (2 * share), lower_bound)
            lb = jnp.where(level < share * lb, lowered, lb)
        norm = self.norm
        # Where the square of a small norm underflows, the largest step is right.
        square = jnp.maximum(norm * norm, jnp.finfo(norm.dtype).tiny)
        gap = jnp.maximum(level - share * lb, 0)
        tau = jnp.minimum(learning_rate / self.filled, gap / square)
        tau = jnp.where(norm == 0, 0.0, tau)
        if adapt:  # the next bound is what the model predicts after this step
            level = self.barf - self.gamma + self.inner - tau * norm * norm / 2
            lb = jnp.maximum(level / self.filled, lower_bound)
        return tau, lb


def _on_leaves(f: Callable[..., jax.Array], updates: Any, *slots: Any) -> Any:
    """Apply ``f`` to each gradient and its slots, in the dtype of scalars."""

    def apply(g, *slots):
        return None if g is None else f(*map(tree.scalar, (g, *slots)))

    return jax.tree.map(apply, updates, *slots, is_leaf=lambda x: x is None)


def _inner(x: Any, y: Any) -> jax.Array:
    """Return the inner product of two trees, over the leaves that both have."""
    products = _on_leaves(lambda x, y: jnp.sum(x * y), x, y)
    return sum(jax.tree.leaves(products), jnp.zeros((), tree.scalar_dtype()))
