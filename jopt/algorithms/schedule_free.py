"""Schedule-Free learning: averaging replaces the decay of the learning rate.

    y   <- (1 - b1) z + b1 x                 trained: gradients are taken here
    z   <- z - lr_t u(y)                     u is an optimizer's update for a gradient
    x   <- (1 - c_t) x + c_t z               evaluated: `jopt.eval_params`
    c_t <- w_t / (w_1 + ... + w_t)           with w_t = t^r max(lr_1, ..., lr_t)^power

The parameters hold y. x is not stored, because it follows from y and z. With the new z,
the step of y is ``c_t (z - y) - (1 - c_t) (1 - b1) lr_t u``. b1 takes the role of
momentum.

Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky, "The road less scheduled", 2024.

State: 8 bytes per float32 parameter with Adam (as AdamW), 4 with SGD. The learning rate
is constant after a warmup, and 1 to 10 times that of a decaying schedule; b1 is 0.95 to
0.98 for long runs. Before evaluation at x, batch normalization must see some batches
there. Late steps of y are too small for bfloat16 parameters.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.algorithms.radam import average_length
from jopt.algorithms.rmsprop import scale_by_rms
from jopt.core.chain import chain
from jopt.core.factory import StorageDtype, transformation
from jopt.core.leafwise import copied, leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation, Place
from jopt.core.treatment import Treatment
from jopt.transforms.weight_decay import decoupled_decay
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByScheduleFreeState(NamedTuple):
    """State of `scale_by_schedule_free`."""

    count: jax.Array  # int32 scalar, updates so far
    weight_sum: jax.Array  # float32 scalar, sum of the average's weights
    max_lr: jax.Array  # float32 scalar, the largest learning rate so far
    z: Any  # the point that takes the steps, like params


@transformation
def scale_by_schedule_free(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: StorageDtype | None = None,
    *,
    r: ScalarOrSchedule = 0.0,
    warmup_steps: int = 0,
    rectify_b2: ScalarOrSchedule | None = None,
    rescale: bool = True,
) -> GradientTransformation:
    """Apply learning rate and average, as the last member of a schedule-free chain.

        z <- z - lr_t g
        u <- c_t (z - p) - (1 - c_t) (1 - b1) lr_t g

    Args:
      learning_rate: Step size, >= 0.
      b1: Weight of the average in the trained point, in (0, 1); it takes the role of
        momentum.
      weight_lr_power: Power of the largest learning rate so far in the weights.
      state_dtype: Storage dtype of ``z``; None means float32 or wider. The average
        comes from the difference of ``z`` and the parameters, which has few digits in
        bfloat16.
      r: Power of the step number in the weights, >= 0; above 0, early steps are
        forgotten sooner.
      warmup_steps: Number W of warmup steps: ``lr_t`` is the learning rate times
        ``min(1, t / W)``.
      rectify_b2: If given, the decay of a second moment for which to rectify ``lr_t``
        as RAdam does, in place of a warmup.
      rescale: If False, the updates are complete steps already, and the learning rate
        only sets the weights.

    Returns:
      A transformation that needs params and must be the last of a chain.

    Raises:
      ValueError: A number is out of range.

    Defazio et al., "The road less scheduled", 2024.

    >>> import jopt
    >>> tx, params = jopt.scale_by_schedule_free(1.0), jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> params, jopt.eval_params(tx, state, params)
    (Array([-1.55], dtype=float32), Array([-1.5], dtype=float32))
    """
    arguments.nonnegative(learning_rate=learning_rate, r=r)
    arguments.decay_rate(b1=b1)
    arguments.positive(b1=b1)
    arguments.finite(weight_lr_power=weight_lr_power)
    arguments.at_least(0, warmup_steps=warmup_steps)

    def scalars(t, weight_sum, max_lr):
        lr = learning_rate * jnp.minimum(t / max(warmup_steps, 1), 1)
        if rectify_b2 is not None:
            lr = lr * _rectification(rectify_b2, t)
        max_lr = jnp.maximum(max_lr, lr)
        weight = t**r * max_lr**weight_lr_power
        weight_sum = weight_sum + weight
        # Both are zero while the learning rate is.
        c = ratio(weight, weight_sum)
        return {"c": c, "lr": lr, "max_lr": max_lr, "weight_sum": weight_sum}

    def rule(g, z, *, p, c, lr):
        step = -lr * g if rescale else g
        z = z + step
        return c * (z - p) + (1 - c) * (1 - b1) * step, z

    def readout(p, z):
        x = ratio(p - (1 - b1) * z, b1, b1)  # y = (1 - b1) z + b1 x, solved for x
        return jnp.where(b1 > 0, x, p)

    # The first step is that of z.
    rate = math.nan if warmup_steps or rectify_b2 is not None else learning_rate
    return leafwise(
        rule,
        scalars,
        ScaleByScheduleFreeState,
        treatment=Treatment(factor=(-1.0, rate) if rescale else (), linear=True),
        carry={"weight_sum": 0.0, "max_lr": 0.0},
        readout=readout,
        place=Place(once_per_step=True),
        z=copied(state_dtype),
    )


def _rectification(b2: Any, t: jax.Array) -> jax.Array:
    """Return RAdam's ``r_t``, or zero while it is not defined."""
    length, longest = average_length(b2, t), 2 / (1 - b2) - 1
    share = (length - 4) * (length - 2) * longest / length
    share = jnp.where(length > 4, share / ((longest - 4) * (longest - 2)), 0)
    return jnp.sqrt(share)


@transformation
def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: StorageDtype | None = None,
    *,
    r: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """Make an optimizer schedule-free: ``z`` takes its steps, the parameters follow.

    Train without a learning rate decay, for any number of steps, and evaluate at
    `jopt.eval_params`.

    Args:
      base_optimizer: An optimizer without momentum, which b1 replaces.
      learning_rate: The learning rate of ``base_optimizer``, number or schedule; here
        it only sets the weights of the average.
      b1, weight_lr_power, state_dtype, r: See `scale_by_schedule_free`.

    Returns:
      A chain of the base optimizer and `scale_by_schedule_free`, which needs params.

    Raises:
      ValueError: A number is out of range.

    Equal to the authors' ``ScheduleFreeWrapper``, and to optax with a constant learning
    rate; with a schedule, optax (0.2.8) weights each step by the rate of the next. For
    optax's ``schedule_free_eval_params(state, params)`` there is `jopt.eval_params`.

    >>> import jopt
    >>> rate = jopt.warmup_constant_schedule(0.0, 0.1, 100)
    >>> tx = jopt.schedule_free(jopt.sgd(rate), rate)
    >>> list(tx.init(jnp.ones(3)))
    ['scale_by_learning_rate', 'scale_by_schedule_free']
    """
    return chain(
        base_optimizer,
        scale_by_schedule_free(
            learning_rate, b1, weight_lr_power, state_dtype, r=r, rescale=False
        ),
    )


@transformation
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: int | None = None,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: StorageDtype | None = None,
    *,
    r: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> GradientTransformation:
    """Schedule-Free SGD: ``z <- z - lr_t (g + weight_decay y)``.

    Train without a learning rate decay, for any number of steps, and evaluate at
    `jopt.eval_params`.

    Args:
      learning_rate: Step size, >= 0; 10 to 50 times that of SGD with momentum.
      warmup_steps: Number of warmup steps, or None: ``lr_t`` grows linearly from
        ``learning_rate / warmup_steps`` in the first step to ``learning_rate`` in the
        last of them. (In optax it starts at zero.)
      b1: See `scale_by_schedule_free`.
      weight_decay: Decay at y, >= 0, multiplied by the learning rate; None means 0.
      weight_lr_power, state_dtype, r: See `scale_by_schedule_free`.
      mask: See `add_decayed_weights`.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is out of range.

    Equal to the authors' ``SGDScheduleFree``; to optax without a warmup.

    >>> import jax, jopt
    >>> f = lambda p: jnp.sum(p**2)
    >>> tx, params = jopt.schedule_free_sgd(), jnp.array([1.0, 2.0, 3.0])
    >>> state = tx.init(params)
    >>> for _ in range(5):
    ...     updates, state = tx.update(jax.grad(f)(params), state, params)
    ...     params = jopt.apply_updates(params, updates)
    >>> jopt.eval_params(tx, state, params).round(2)
    Array([0.13, 0.26, 0.39], dtype=float32)
    """
    return chain(
        *decoupled_decay(0.0 if weight_decay is None else weight_decay, mask),
        scale_by_schedule_free(
            *(learning_rate, b1, weight_lr_power, state_dtype),
            r=r,
            warmup_steps=warmup_steps or 0,
        ),
    )


@transformation
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: int | None = None,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: StorageDtype | None = None,
    *,
    r: ScalarOrSchedule = 0.0,
    rectify: bool = False,
    mask: Mask = None,
    nu_dtype: StorageDtype | None = None,
) -> GradientTransformation:
    """Schedule-Free AdamW: ``z <- z - lr_t (g / (sqrt(v^) + eps) + weight_decay y)``.

    Train without a learning rate decay, for any number of steps, and evaluate at
    `jopt.eval_params`. The authors recommend a warmup, and b1 of 0.95 to 0.98 for long
    runs.

    Args:
      learning_rate: Step size, >= 0; 1 to 10 times AdamW's with a decaying schedule.
      warmup_steps: See `schedule_free_sgd`.
      b1: See `scale_by_schedule_free`.
      b2: Decay of the second moment, in [0, 1).
      eps: Added to the root, > 0.
      weight_decay: Decay at y, >= 0, multiplied by the learning rate.
      weight_lr_power: Power of the largest learning rate so far in the weights of the
        average; 0 in Keras.
      state_dtype, r: See `scale_by_schedule_free`.
      rectify: Whether to rectify ``lr_t`` as RAdam does, in place of a warmup: there is
        no step until the second moment has seen five gradients.
      mask: See `add_decayed_weights`.
      nu_dtype: See `scale_by_rms`.

    Returns:
      A transformation that needs params. A complex number counts by its magnitude, see
      `split_real_and_imaginary`.

    Raises:
      ValueError: A number is out of range.

    Equal to the authors' ``AdamWScheduleFree``, and ``RAdamScheduleFree`` if rectified;
    to optax without a warmup; with ``weight_lr_power=0``, to Keras's
    ``ScheduleFreeAdamW`` without decay (except on torch, where it uses the new z in
    place of the old one).

    >>> import jopt
    >>> tx = jopt.schedule_free_adamw(0.01, warmup_steps=100)
    >>> list(tx.init(jnp.ones(3)))
    ['scale_by_rms', 'scale_by_schedule_free']
    """
    return chain(
        scale_by_rms(
            b2, eps, eps_in_sqrt=False, bias_correction=True, nu_dtype=nu_dtype
        ),
        *decoupled_decay(weight_decay, mask),
        scale_by_schedule_free(
            *(learning_rate, b1, weight_lr_power, state_dtype),
            r=r,
            warmup_steps=warmup_steps or 0,
            rectify_b2=b2 if rectify else None,
        ),
    )
