"""A line times a cosine, found by a search over update rules; with noise if wanted.

Bello, Zoph, Vasudevan & Le, "Neural optimizer search with reinforcement learning",
2017. The schedules of TensorFlow and Keras 2 that have these names.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.tree import scalar_dtype
from jopt.values import arguments


@schedule
def linear_cosine_decay(
    init_value: float,
    decay_steps: int,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
) -> ramp.Function:
    """A line times a cosine wave, Keras 2's LinearCosineDecay.

        init_value ((alpha + 1 - x) (1 + cos(2 pi num_periods x)) / 2 + beta),
        x = t / decay_steps, up to 1

    Args:
      init_value: The value at step 0, up to ``alpha`` and ``beta``.
      decay_steps: The step that the end is reached at, > 0.
      num_periods: How many waves there are until then, > 0; 0.5 goes down once.
      alpha: Added to the line, >= 0.
      beta: Added at last, >= 0: the end value as a fraction of ``init_value``.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range.

    >>> import jopt
    >>> jopt.linear_cosine_decay(1.0, 4, beta=0.0)(jnp.array([0, 2, 4, 5]))
    Array([1.  , 0.25, 0.  , 0.  ], dtype=float32)
    """
    left, wave = _line_and_wave(init_value, decay_steps, num_periods, alpha, beta)

    def function(count):
        return init_value * ((alpha + left(count)) * wave(count) + beta)

    return function


@schedule
def noisy_linear_cosine_decay(
    init_value: float,
    decay_steps: int,
    initial_variance: float = 1.0,
    variance_decay: float = 0.55,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
    *,
    key: int | jax.Array,
) -> ramp.Function:
    """`linear_cosine_decay` with Gaussian noise on its line, which fades.

        init_value ((alpha + 1 - x + noise) (1 + cos(2 pi num_periods x)) / 2 + beta),
        noise ~ N(0, initial_variance / (1 + t)^variance_decay)

    The noise of a step follows from the key and the step, so a step that is repeated
    or resumed has the same. With the default variance many values are negative, as in
    Keras 2.

    Args:
      init_value: The value at step 0, up to the noise, ``alpha`` and ``beta``.
      decay_steps: The step that the end is reached at, > 0.
      initial_variance: The variance of the noise at step 0, >= 0.
      variance_decay: How fast it fades, >= 0.
      num_periods: How many waves there are, > 0.
      alpha: Added to the line, >= 0.
      beta: Added at last, >= 0.
      key: A key of ``jax.random``, or the seed of one.

    Returns:
      A schedule.

    Raises:
      ValueError: A number is out of its range, or there is more than one key.

    >>> import jopt
    >>> values = jopt.noisy_linear_cosine_decay(1.0, 100, key=0)(jnp.arange(101))
    >>> float(values[100]), float(values.std()) > 0.3
    (0.0010000000474974513, True)
    """
    left, wave = _line_and_wave(init_value, decay_steps, num_periods, alpha, beta)
    arguments.nonnegative(
        initial_variance=initial_variance, variance_decay=variance_decay
    )
    typed = jax.random.key(key) if isinstance(key, int) else key
    if not jnp.issubdtype(typed.dtype, jax.dtypes.prng_key):
        typed = jax.random.wrap_key_data(typed)
    if typed.shape:
        raise ValueError(f"key must be one key, got {len(typed)} of them")

    @jnp.vectorize
    def normal(step):
        # In float32 for any width: another dtype would be other noise.
        return jax.random.normal(jax.random.fold_in(typed, step), (), jnp.float32)

    def function(count):
        steps = ramp.whole_steps(count)
        t = ramp.to_float(steps - ramp.since(steps, decay_steps))
        deviation = jnp.sqrt(initial_variance * (1 + t) ** -variance_decay)
        noise = deviation * normal(steps.astype(jnp.uint32)).astype(scalar_dtype())
        return init_value * ((alpha + left(count) + noise) * wave(count) + beta)

    return function


def _line_and_wave(
    init_value: float,
    decay_steps: int,
    num_periods: float,
    alpha: float,
    beta: float,
) -> tuple[ramp.Function, ramp.Function]:
    """What is left of the way, and the cosine wave from 1 to 0 and back."""
    arguments.finite(init_value=init_value)
    arguments.at_least(1, decay_steps=decay_steps)
    arguments.positive(num_periods=num_periods)
    arguments.nonnegative(alpha=alpha, beta=beta)
    # Half waves, so that each end of each is exact; the last may lie after the decay.
    halves = math.ceil(2 * num_periods)
    points = [
        (i * decay_steps / (2 * num_periods), (i + 1) % 2) for i in range(halves + 1)
    ]
    wave = ramp.path(points, ramp.half_cosine)

    def stopping(count):
        steps = ramp.whole_steps(count)
        return wave(steps - ramp.since(steps, decay_steps))

    return ramp.ramp(1.0, 0.0, 0, decay_steps), stopping
