"""Gradients of functions that have none, from their values at random points.

The mean of a function over random points around ``x`` is smooth in ``x``, even if the
function is an argmax, a sort or a shortest path:

    f_s(x) = E f(x + s z),   grad f_s(x) = E f(x + s z) grad_x log p(x + s z)

with ``p`` the density of ``x + s z``. Both are estimated from samples of ``z``, without
derivatives of ``f``.

Berthet et al., "Learning with differentiable perturbed optimizers", 2020; Foerster et
al., "DiCE: the infinitely differentiable Monte Carlo estimator", 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jopt import tree
from jopt.tree.paths import map_leaves
from jopt.values import arguments


class Noise(Protocol):
    """A distribution: what `make_perturbed_fun` draws from."""

    def sample(self, key: Any, sample_shape: Any = (), dtype: Any = float) -> Any:
        """Return independent numbers of a shape."""
        ...

    def log_prob(self, inputs: Any) -> Any:
        """Return the log density of each number, up to a constant."""
        ...


class Normal:
    """The standard normal distribution, as noise of `make_perturbed_fun`.

    >>> Normal().log_prob(jnp.array([0.0, 2.0]))
    Array([-0., -2.], dtype=float32)
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Return independent numbers of a shape."""
        return jax.random.normal(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: ArrayLike) -> jax.Array:
        """Return the log density of each number, up to a constant."""
        return -0.5 * jnp.square(inputs)


class Gumbel:
    """The Gumbel distribution, as noise of `make_perturbed_fun`.

    The mean argmax of ``x`` plus this noise is ``softmax(x)``.

    >>> Gumbel().log_prob(jnp.array([0.0]))
    Array([-1.], dtype=float32)
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Return independent numbers of a shape."""
        return jax.random.gumbel(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: ArrayLike) -> jax.Array:
        """Return the log density of each number."""
        return -jnp.asarray(inputs) - jnp.exp(-jnp.asarray(inputs))


class DiagonalNormal:
    """Independent normal distributions, by their means and log standard deviations.

    Args:
      loc: The means.
      log_scale: The logs of the standard deviations; the shapes are broadcast.

    >>> normal = DiagonalNormal(jnp.zeros(2), jnp.zeros(2))
    >>> normal.log_prob(jnp.zeros(2))
    Array(-1.837877, dtype=float32)
    """

    def __init__(self, loc: ArrayLike, log_scale: ArrayLike):
        self.loc, self.log_scale = jnp.asarray(loc), jnp.asarray(log_scale)
        self._param_shape = jax.lax.broadcast_shapes(
            self.loc.shape, self.log_scale.shape
        )

    @property
    def params(self) -> list[jax.Array]:
        """The means and the logs of the standard deviations."""
        return [self.loc, self.log_scale]

    def sample(self, shape: Sequence[int], key: jax.Array) -> jax.Array:
        """Return ``shape`` independent samples, each of the shape of the parameters."""
        loc, scale = self._broadcast(*shape)
        return loc + scale * jax.random.normal(key, loc.shape, loc.dtype)

    def log_prob(self, x: ArrayLike) -> jax.Array:
        """Return the log density of each sample in ``x``."""
        loc, scale = self._broadcast()
        terms = jax.scipy.stats.norm.logpdf(x, loc, scale)
        return jnp.sum(terms, axis=tuple(range(-len(self._param_shape), 0)))

    def _broadcast(self, *shape: int) -> tuple[jax.Array, jax.Array]:
        both = self.loc, jnp.exp(self.log_scale)
        loc, scale = (jnp.broadcast_to(x, (*shape, *self._param_shape)) for x in both)
        return loc, scale


def make_perturbed_fun(
    fun: Callable[[Any], Any],
    num_samples: int = 1000,
    sigma: ArrayLike = 0.1,
    noise: Noise | None = None,
    use_baseline: bool = True,
) -> Callable[[jax.Array, Any], Any]:
    """Return the mean of a function under noise: smooth, and differentiable.

    Value and derivatives of any order are estimates without bias, from values of
    ``fun`` alone.

    Args:
      fun: A function of a tree that returns a tree.
      num_samples: Number of samples of the noise, > 0.
      sigma: The scale of the noise. Larger means smoother, and less like ``fun``.
      noise: A distribution with ``sample`` and ``log_prob``, such as `Normal`; None
        means `Gumbel`.
      use_baseline: Whether to evaluate ``fun`` at the point itself too, which makes
        gradients vary much less.

    Returns:
      A function of a random key and of the arguments' tree.

    Raises:
      ValueError: ``num_samples`` is below 1.

    >>> import jopt
    >>> winner = jopt.make_perturbed_fun(lambda x: jax.nn.one_hot(jnp.argmax(x), 2))
    >>> key, x = jax.random.key(0), jnp.array([0.1, 0.0])
    >>> winner(key, x).round(1), jax.nn.softmax(x / 0.1).round(1)
    (Array([0.7, 0.3], dtype=float32), Array([0.7, 0.3], dtype=float32))
    >>> jax.jacobian(winner, argnums=1)(key, x).shape
    (2, 2)
    """
    arguments.at_least(1, num_samples=num_samples)
    noise = Gumbel() if noise is None else noise

    def estimate(key, x, baseline):
        drawn = tree.random_like(key, x, sampler=noise.sample)
        point = jax.lax.stop_gradient(tree.add_scale(x, sigma, drawn))
        # The same noise, as a function of x: its log density has the derivatives.
        drawn = map_leaves(lambda p, x: (p - x) / sigma, point=point, x=x)
        # exp(l - stop(l)) is 1, and its derivatives are those of the density ratio.
        log_prob = tree.sum(jax.tree.map(noise.log_prob, drawn))
        weight = jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
        out = tree.scale(weight, fun(point))
        return tree.add_scale(out, 1 - weight, baseline) if use_baseline else out

    def perturbed(key, x):
        baseline = fun(jax.lax.stop_gradient(x)) if use_baseline else None
        keys = jax.random.split(key, num_samples)
        samples = jax.vmap(estimate, in_axes=(0, None, None))(keys, x, baseline)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), samples)

    return perturbed
