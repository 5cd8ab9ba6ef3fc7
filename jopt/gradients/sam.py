"""Sharpness-aware minimization: the gradient is taken where the loss is higher nearby.

    sam   e = rho g / |g|               g is the gradient at w
    asam  e = rho T^2 g / |T g|         T = |w| + eta, element by element
          the gradient to use is that at w + e

They change where the gradient is taken, not what is made of it. So each takes a
function that gives value and gradient, gives another, and goes with every optimizer.

Foret, Kleiner, Mobahi & Neyshabur, "Sharpness-aware minimization for efficiently
improving generalization", 2021; Kwon, Kim, Park & Choi, "ASAM: Adaptive sharpness-aware
minimization for scale-invariant learning of deep neural networks", 2021.

State: none; a step takes two gradients, and `looksam` fewer. Parameters in bfloat16
round most of the small ``e`` away: keep them in float32. Where every device takes the
gradient of its own part of a batch, each has its own ``e``, as in the paper; where the
function averages over devices, all have one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt import tree
from jopt.core import masks, tree_checks
from jopt.core.masks import Mask
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# ``f(params, *args, **kwargs) -> (value, grads)``, as of ``jax.value_and_grad``.
ValueAndGrad = Callable[..., tuple[Any, Any]]


def sam(value_and_grad_fn: ValueAndGrad, rho: ArrayLike = 0.05) -> ValueAndGrad:
    """The value at the parameters, and the gradient where the loss is higher nearby.

    Args:
      value_and_grad_fn: ``f(params, …) -> (value, grads)``, such as
        ``jax.value_and_grad(loss)``; with ``has_aux=True`` the value is a pair. All
        further arguments go to both calls, so both see the same batch.
      rho: How far away, >= 0, as a Euclidean distance of all parameters together.

    Returns:
      A function like ``value_and_grad_fn``. The value, and what comes with it, is of
      the first call, so that running averages come from the parameters themselves. A
      leaf whose gradient is None stays in its place.

    Raises:
      ValueError: ``rho`` is negative.
      TypeError: ``value_and_grad_fn`` is not a function, or gives something else.

    Foret, Kleiner, Mobahi & Neyshabur, "Sharpness-aware minimization for efficiently
    improving generalization", 2021, where rho = 0.05 is a good first choice.
    ``optax.contrib.sam`` with ``sync_period=2`` and normalized SGD as the adversary is
    this one; several steps uphill, or the second gradient from another batch, are not
    here.

    >>> import jopt
    >>> f = jopt.sam(jax.value_and_grad(lambda w: jnp.sum(w**2)), rho=1.0)
    >>> f(jnp.array([3.0, 4.0]))
    (Array(25., dtype=float32), Array([7.2, 9.6], dtype=float32))
    """
    return _where_it_is_higher("sam", value_and_grad_fn, rho, 0.0, mask=False)


def asam(
    value_and_grad_fn: ValueAndGrad,
    rho: ArrayLike = 0.5,
    eta: ArrayLike = 0.01,
    *,
    mask: Mask = None,
) -> ValueAndGrad:
    """`sam` with distances in multiples of the parameters.

        e = rho T^2 g / |T g|,   T = |w| + eta

    So what scales the parameters of one layer up, and of the next one down, leaves it
    the same.

    Args:
      value_and_grad_fn: See `sam`.
      rho: How far away, >= 0; about 10 times that of `sam`.
      eta: What a parameter at zero moves by, >= 0.
      mask: The leaves it is for; see `jopt.Mask`. The others have ``T = 1``, as
        biases and the scales of normalizations in the authors' package.

    Returns:
      A function like ``value_and_grad_fn``; see `sam`.

    Raises:
      ValueError: A number is negative.
      TypeError: ``value_and_grad_fn`` is not a function, or gives something else.

    Kwon, Kim, Park & Choi, "ASAM: Adaptive sharpness-aware minimization for
    scale-invariant learning of deep neural networks", 2021; rho from 0.5 to 2 is usual.
    Other packages have ``eta=0``.

    >>> import jopt
    >>> f = jopt.asam(jax.value_and_grad(lambda w: jnp.sum(w)), rho=1.0, eta=0.0)
    >>> g = jopt.asam(jax.value_and_grad(lambda w: jnp.sum(w**2)), rho=1.0, eta=0.0)
    >>> f(jnp.array([3.0, 4.0]))[1], g(jnp.array([1.0, 0.0]))[1]
    (Array([1., 1.], dtype=float32), Array([4., 0.], dtype=float32))
    """
    return _where_it_is_higher("asam", value_and_grad_fn, rho, eta, mask)


def _where_it_is_higher(
    name: str, value_and_grad_fn: ValueAndGrad, rho: Any, eta: Any, mask: Mask
) -> ValueAndGrad:
    call = checked(name, value_and_grad_fn, rho=rho, eta=eta)

    def value_and_grad(params, *args, **kwargs):
        value, grads = call(params, *args, **kwargs)
        leaves = Leaves(name, grads)
        adaptive = tuple(leaves.of(masks.select(mask, grads)))
        at = leaves.like(params, "params")
        point = leaves.put(params, uphill(leaves.grads, at, rho, eta, adaptive))
        return value, call(point, *args, **kwargs)[1]

    return value_and_grad


def checked(name: str, function: ValueAndGrad, **numbers: Any) -> ValueAndGrad:
    """The function, which gives a pair or raises."""
    for argument, number in numbers.items():
        arguments.one_number(f"{name}: {argument}", number)
    arguments.nonnegative(**numbers)
    if not callable(function):
        raise TypeError(
            f"{name}: value_and_grad_fn must be a function such as "
            f"jax.value_and_grad(loss), got {abbreviated(function)}"
        )

    def call(*args, **kwargs):
        found = function(*args, **kwargs)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(
                f"{name}: value_and_grad_fn must return (value, grads), as "
                f"jax.value_and_grad(loss) does, got {abbreviated(found)}"
            )
        return found

    return call


class Leaves:
    """The leaves that have a gradient, of one tree after the other."""

    def __init__(self, name: str, grads: Any):
        self.name, self.tree = name, grads
        self.all, self.treedef = jax.tree.flatten(grads, is_leaf=lambda x: x is None)
        tree_checks.leaves(self.all, grads, "grads", [name])
        self.grads = self.of(self.all)

    def of(self, values: list[Any]) -> list[Any]:
        """Those values, of one for every leaf, where there is a gradient."""
        return [x for g, x in zip(self.all, values, strict=True) if g is not None]

    def like(self, other: Any, what: str) -> list[Any]:
        """The leaves of another tree."""
        try:
            aligned = tree_checks.aligned(
                self.tree, self.all, self.treedef, other, what
            )
        except ValueError as error:
            raise ValueError(
                f"{self.name}: value_and_grad_fn must give the gradients of its first "
                f"argument, the params, and {what} must be like them. {error}"
            ) from None
        return self.of(aligned)

    def put(self, other: Any, values: list[Any]) -> Any:
        """Another tree with these leaves."""
        new = iter(values)
        kept = zip(self.all, self.treedef.flatten_up_to(other), strict=True)
        return self.treedef.unflatten(x if g is None else next(new) for g, x in kept)


def wide(x: jax.Array) -> jax.Array:
    """``x`` in the compute dtype."""
    return x.astype(tree.compute_dtype(x.dtype))


def times(number: Any, x: jax.Array) -> jax.Array:
    """``number x``, in the dtype of ``x``."""
    return jnp.asarray(number, x.dtype) * x


def divided(x: jax.Array, norm: jax.Array) -> jax.Array:
    """``x / norm``, which is not above 1 whatever the size of both, or all zero."""
    x = wide(x)
    return x / jnp.where(norm > 0, norm, 1).astype(x.dtype)


@functools.partial(jax.jit, static_argnames="adaptive")
def uphill(
    grads: list[jax.Array],
    at: list[jax.Array],
    rho: Any,
    eta: Any = 0.0,
    adaptive: tuple[bool, ...] | None = None,
) -> list[jax.Array]:
    """``w + rho T s / |s|`` with ``s = T g``."""
    wides = [wide(w) for w in at]
    units = [
        jnp.abs(w) + jnp.asarray(eta, w.dtype) if on else jnp.ones((), w.dtype)
        for w, on in zip(wides, adaptive or [False] * len(at), strict=True)
    ]
    scaled = [t * g.astype(t.dtype) for t, g in zip(units, grads, strict=True)]
    norm = tree.norm(scaled)
    steps = [t * divided(s, norm) for t, s in zip(units, scaled, strict=True)]
    return [
        (w + times(rho, e)).astype(p.dtype)
        for w, e, p in zip(wides, steps, at, strict=True)
    ]
