"""A line times a cosine, optionally with noise; found by a search over update rules.

Bello, Zoph, Vasudevan & Le, "Neural optimizer search with reinforcement learning",
2017. Same as the schedules of these names in TensorFlow and Keras 2.
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
      init_value: The value at step 0 if ``alpha`` and ``beta`` are 0.
      decay_steps: The step that reaches the end value, > 0.
      num_periods: Number of cosine waves until then, > 0 and at most 10,000; 0.5 goes
        down once.
      alpha: Added to the line, >= 0.
      beta: Added to the product, >= 0; by default the end value as a fraction of
        ``init_value``.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range.

    >>> import jopt
    >>> jopt.linear_cosine_decay(1.0, 4, beta=0.0)(jnp.array([0, 2, 4, 5]))
    Array([1.  , 0.25, 0.  , 0.  ], dtype=float32)
    """
    line, wave = _line_and_wave(init_value, decay_steps, num_periods, alpha, beta)

    def function(count):
        return init_value * ((alpha + line(count)) * wave(count) + beta)

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
    """`linear_cosine_decay` with decaying Gaussian noise on its line.

        init_value ((alpha + 1 - x + noise) (1 + cos(2 pi num_periods x)) / 2 + beta),
        noise ~ N(0, initial_variance / (1 + t)^variance_decay)

    The noise depends only on the key and the step, so a repeated or resumed step has
    the same noise. With the default variance many values are negative, as in Keras 2.

    Args:
      init_value, decay_steps: See `linear_cosine_decay`.
      initial_variance: Variance of the noise at step 0, >= 0.
      variance_decay: Exponent of the variance's decay, >= 0.
      num_periods, alpha, beta: See `linear_cosine_decay`.
      key: A ``jax.random`` key, or an integer seed.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or ``key`` holds several keys.

    >>> import jopt
    >>> values = jopt.noisy_linear_cosine_decay(1.0, 100, key=0)(jnp.arange(101))
    >>> float(values[100]), float(values.std()) > 0.3
    (0.0010000000474974513, True)
    """
    line, wave = _line_and_wave(init_value, decay_steps, num_periods, alpha, beta)
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
        # float32 also under x64: another dtype would draw different noise.
        return jax.random.normal(jax.random.fold_in(typed, step), (), jnp.float32)

    def function(count):
        steps = ramp.whole_steps(count)
        t = ramp.to_float(steps - ramp.since(steps, decay_steps))
        deviation = jnp.sqrt(initial_variance * (1 + t) ** -variance_decay)
        noise = deviation * normal(steps.astype(jnp.uint32)).astype(scalar_dtype())
        return init_value * ((alpha + line(count) + noise) * wave(count) + beta)

    return function


def _line_and_wave(
    init_value: float,
    decay_steps: int,
    num_periods: float,
    alpha: float,
    beta: float,
) -> tuple[ramp.Function, ramp.Function]:
    """Return the line from 1 to 0, and the cosine wave from 1 to 0 and back."""
    arguments.finite(init_value=init_value)
    arguments.at_least(1, decay_steps=decay_steps)
    arguments.untraced(num_periods=num_periods)
    arguments.positive(num_periods=num_periods)
    arguments.at_most(10_000, num_periods=num_periods)
    arguments.nonnegative(alpha=alpha, beta=beta)
    # Half waves, so that every extremum is exact; the last may lie after the decay.
    halves = math.ceil(2 * num_periods)
    points = [
        (i * decay_steps / (2 * num_periods), (i + 1) % 2) for i in range(halves + 1)
    ]
    wave = ramp.path(points, ramp.half_cosine)

    def stopped(count):
        steps = ramp.nonnegative(count)
        return wave(steps - ramp.since(steps, decay_steps))

    return ramp.ramp(1.0, 0.0, 0, decay_steps), stopped
