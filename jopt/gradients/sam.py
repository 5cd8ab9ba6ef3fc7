"""Sharpness-aware minimization: take the gradient where the loss is higher nearby.

    sam   e = rho g / |g|               g is the gradient at w
    asam  e = rho T^2 g / |T g|         T = |w| + eta, element by element
          the optimizer gets the gradient at w + e

Both change where the gradient is taken, not how it is used. Each takes a function of
value and gradient and returns another, so it combines with every optimizer.

Foret, Kleiner, Mobahi & Neyshabur, "Sharpness-aware minimization for efficiently
improving generalization", 2021; Kwon, Kim, Park & Choi, "ASAM: Adaptive sharpness-aware
minimization for scale-invariant learning of deep neural networks", 2021.

State: none. A step takes two gradients; `looksam` takes fewer. bfloat16 parameters
round most of the small ``e`` away: keep them in float32. If every device takes the
gradient of its own part of a batch, each has its own ``e``, as in the paper; if the
function averages over devices, all share one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt import tree
from jopt.core import masks
from jopt.core.leaves import Leaves, wide
from jopt.core.masks import Mask
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# ``f(params, *args, **kwargs) -> (value, grads)``, as from ``jax.value_and_grad``.
ValueAndGrad = Callable[..., tuple[Any, Any]]


def sam(value_and_grad_fn: ValueAndGrad, rho: ArrayLike = 0.05) -> ValueAndGrad:
    """Sharpness-aware minimization: the gradient where the loss is higher nearby.

        gradient at w + rho g / |g|

    It looks for flat minima, which often generalize better, at the price of two
    gradients per step. Give the result to any optimizer.

    Args:
      value_and_grad_fn: ``f(params, …) -> (value, grads)``, such as
        ``jax.value_and_grad(loss)``; with ``has_aux=True`` the value is a pair. Further
        arguments go to both calls, so both see the same batch.
      rho: Radius of the neighbourhood, >= 0, as a Euclidean distance over all
        parameters.

    Returns:
      A function like ``value_and_grad_fn``. Its value and auxiliary output are those of
      the first call, so that running averages are taken at the parameters themselves. A
      leaf whose gradient is None keeps its value.

    Raises:
      ValueError: ``rho`` is negative.
      TypeError: ``value_and_grad_fn`` is not a function, or does not return a pair.

    Foret, Kleiner, Mobahi & Neyshabur, "Sharpness-aware minimization for efficiently
    improving generalization", 2021, where rho = 0.05 is a good first choice. Equal to
    ``optax.contrib.sam`` with ``sync_period=2`` and normalized SGD as the adversary.
    Several steps uphill, or a second gradient from another batch, are not supported.

    >>> import jopt
    >>> f = jopt.sam(jax.value_and_grad(lambda w: jnp.sum(w**2)), rho=1.0)
    >>> f(jnp.array([3.0, 4.0]))
    (Array(25., dtype=float32), Array([7.2, 9.6], dtype=float32))
    """
    return _gradient_uphill("sam", value_and_grad_fn, rho, 0.0, mask=False)


def asam(
    value_and_grad_fn: ValueAndGrad,
    rho: ArrayLike = 0.5,
    eta: ArrayLike = 0.01,
    *,
    mask: Mask = None,
) -> ValueAndGrad:
    """Adaptive SAM: `sam` with distances relative to the parameters.

        gradient at w + rho T^2 g / |T g|,   T = |w| + eta

    It does not change if the parameters of one layer are scaled up, and those of the
    next one down.

    Args:
      value_and_grad_fn: ``f(params, …) -> (value, grads)``, as in `sam`.
      rho: Radius of the neighbourhood, >= 0; about 10 times that of `sam`.
      eta: Added to ``|w|``, so that parameters at zero move too; >= 0.
      mask: The leaves that adapt; see `jopt.Mask`. Others have ``T = 1``, as biases and
        the scales of normalizations do in the authors' package.

    Returns:
      A function like ``value_and_grad_fn``, as in `sam`.

    Raises:
      ValueError: A number is negative.
      TypeError: ``value_and_grad_fn`` is not a function, or does not return a pair.

    Kwon, Kim, Park & Choi, "ASAM: Adaptive sharpness-aware minimization for
    scale-invariant learning of deep neural networks", 2021; rho from 0.5 to 2 is usual.
    Other packages have ``eta=0``.

    >>> import jopt
    >>> f = jopt.asam(jax.value_and_grad(lambda w: jnp.sum(w)), rho=1.0, eta=0.0)
    >>> g = jopt.asam(jax.value_and_grad(lambda w: jnp.sum(w**2)), rho=1.0, eta=0.0)
    >>> f(jnp.array([3.0, 4.0]))[1], g(jnp.array([1.0, 0.0]))[1]
    (Array([1., 1.], dtype=float32), Array([4., 0.], dtype=float32))
    """
    return _gradient_uphill("asam", value_and_grad_fn, rho, eta, mask)


def _gradient_uphill(
    name: str, value_and_grad_fn: ValueAndGrad, rho: Any, eta: Any, mask: Mask
) -> ValueAndGrad:
    call = checked_function(name, value_and_grad_fn, rho=rho, eta=eta)

    def value_and_grad(params, *args, **kwargs):
        value, grads = call(params, *args, **kwargs)
        leaves = GradientLeaves(name, grads)
        adaptive = tuple(leaves.of(masks.select(mask, grads)))
        weights = leaves.like(params, "params")
        point = leaves.put(params, uphill(leaves.grads, weights, rho, eta, adaptive))
        return value, call(point, *args, **kwargs)[1]

    return value_and_grad


def checked_function(name: str, function: ValueAndGrad, **numbers: Any) -> ValueAndGrad:
    """Return ``function`` with a check that it returns a pair.

    Raises:
      ValueError: One of the numbers is negative.
      TypeError: ``function`` is not a function, or one of the numbers is not a scalar.
    """
    for argument, number in numbers.items():
        arguments.one_number(f"{name}: {argument}", number)
    arguments.nonnegative(**numbers)
    if not callable(function):
        raise TypeError(
            f"{name}: value_and_grad_fn must be a function such as "
            f"jax.value_and_grad(loss), got {abbreviated(function)}"
        )

    def call(*args, **kwargs):
        pair = function(*args, **kwargs)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(
                f"{name}: value_and_grad_fn must return (value, grads), as "
                f"jax.value_and_grad(loss) does, got {abbreviated(pair)}"
            )
        return pair

    return call


class GradientLeaves(Leaves):
    """The leaves that have a gradient, of any tree like the gradients."""

    def __init__(self, name: str, grads: Any):
        super().__init__(grads, "grads", real_only=name)
        self.name, self.grads = name, self.of(self.values)

    def of(self, values: list[Any]) -> list[Any]:
        """Return those of one value per leaf that belong to a gradient."""
        return [values[i] for i in self.present]

    def like(self, other: Any, what: str) -> list[Any]:
        """Return the leaves of another tree that have a gradient."""
        try:
            return self.of(self.aligned(other, what))
        except ValueError as error:
            raise ValueError(
                f"{self.name}: value_and_grad_fn must return the gradients of its "
                f"first argument, the params, and {what} must match them. {error}"
            ) from None

    def put(self, other: Any, values: list[Any]) -> Any:
        """Return another tree with ``values`` for its leaves that have a gradient."""
        leaves = self.treedef.flatten_up_to(other)
        for i, value in zip(self.present, values, strict=True):
            leaves[i] = value
        return self.tree(leaves)


def times(number: Any, x: jax.Array) -> jax.Array:
    """Return ``number x`` in the dtype of ``x``."""
    return jnp.asarray(number, x.dtype) * x


def divided(x: jax.Array, norm: jax.Array) -> jax.Array:
    """Return ``x / norm``, or zeros if the norm is zero."""
    x = wide(x)
    return x / jnp.where(norm > 0, norm, 1).astype(x.dtype)


@functools.partial(jax.jit, static_argnames="adaptive")
def uphill(
    grads: list[jax.Array],
    weights: list[jax.Array],
    rho: Any,
    eta: Any = 0.0,
    adaptive: tuple[bool, ...] | None = None,
) -> list[jax.Array]:
    """Return ``w + rho T s / |s|`` with ``s = T g``."""
    points = [wide(w) for w in weights]
    units = [
        jnp.abs(w) + jnp.asarray(eta, w.dtype) if on else jnp.ones((), w.dtype)
        for w, on in zip(points, adaptive or [False] * len(weights), strict=True)
    ]
    scaled = [t * g.astype(t.dtype) for t, g in zip(units, grads, strict=True)]
    norm = tree.norm(scaled)
    # Divided first: s / |s| is at most 1, whatever the scale of the gradients.
    steps = [t * divided(s, norm) for t, s in zip(units, scaled, strict=True)]
    return [
        (w + times(rho, e)).astype(p.dtype)
        for w, e, p in zip(points, steps, weights, strict=True)
    ]
