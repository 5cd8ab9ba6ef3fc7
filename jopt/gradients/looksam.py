"""LookSAM: the second gradient of SAM every few steps, and its direction in between.

    v <- g_s - (g_s . g / |g|^2) g     every k steps, with g_s the gradient of `sam`
    g_s                                is used in these steps, and
    g + alpha |g| v / |v|              in all others, which take one gradient only

Liu, Mai, Chen, Hsieh & You, "Towards efficient and scalable sharpness-aware
minimization", 2022.

State: 4 bytes per float32 parameter. A step takes ``1 + 1 / k`` gradients on average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jopt import tree
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves, wide
from jopt.core.transformation import Params
from jopt.gradients.sam import (
    GradientLeaves,
    ValueAndGrad,
    checked_function,
    divided,
    times,
    uphill,
)
from jopt.values import arguments


class LookSamState(NamedTuple):
    """State of `looksam`."""

    count: jax.Array  # int32 scalar, gradients so far
    direction: Any  # v / |v| at the last second gradient, like params


class LookSam(NamedTuple):
    """The pair of functions that `looksam` returns."""

    init: Callable[[Params], LookSamState]  # init(params) -> state
    # value_and_grad(state, params, …) -> ((value, grads), state)
    value_and_grad: Callable[..., tuple[tuple[Any, Any], LookSamState]]


def looksam(
    value_and_grad_fn: ValueAndGrad,
    rho: ArrayLike = 0.1,
    update_interval: int = 5,
    alpha: ArrayLike = 0.7,
) -> LookSam:
    """LookSAM: `sam` with a second gradient only every few steps.

        g_s,  v = g_s - (g_s . g / |g|^2) g    every update_interval-th step
        g + alpha |g| v / |v|                  in between

    The first step takes a second gradient. The component ``v`` that `sam` adds across
    the gradient changes slowly, so it is used again. On average a step takes
    ``1 + 1 / update_interval`` gradients.

    Args:
      value_and_grad_fn: ``f(params, …) -> (value, grads)``, as in `sam`.
      rho: Radius of the neighbourhood, >= 0, as in `sam`.
      update_interval: Number of steps from one second gradient to the next, >= 1; the
        paper's k, 5 or 10.
      alpha: Weight of the direction in the steps between, >= 0.

    Returns:
      A pair of functions: ``init(params) -> state``, and ``value_and_grad(state,
      params, …) -> ((value, grads), state)``. Under ``jax.vmap`` every step takes both
      gradients, because vmap turns the conditional into a selection.

    Raises:
      ValueError: A number is out of range.
      TypeError: ``value_and_grad_fn`` is not a function, or does not return a pair.

    Liu, Mai, Chen, Hsieh & You, "Towards efficient and scalable sharpness-aware
    minimization", 2022, algorithm 1. As there, norms are over all parameters together;
    pytorch_optimizer takes one per tensor.

    >>> import jopt
    >>> loss = lambda w: jnp.sum(jnp.array([1.0, 2.0]) * w**2)
    >>> init, value_and_grad = jopt.looksam(jax.value_and_grad(loss), update_interval=2)
    >>> params = jnp.ones(2)
    >>> state = init(params)
    >>> for _ in range(2):
    ...     (value, grads), state = value_and_grad(state, params)
    ...     print(value, [f"{g:.3f}" for g in grads])
    3.0 ['2.089', '4.358']
    3.0 ['-0.800', '5.400']
    """
    call = checked_function("looksam", value_and_grad_fn, rho=rho, alpha=alpha)
    arguments.at_least(
        1, update_interval=arguments.whole("update_interval", update_interval)
    )

    def init(params):
        Leaves(params, "params", real_only="looksam")
        direction = jax.tree.map(zeros().init, params)
        return LookSamState(jnp.zeros((), jnp.int32), direction)

    def value_and_grad(state, params, *args, **kwargs):
        value, grads = call(params, *args, **kwargs)
        leaves = GradientLeaves("looksam", grads)
        first, weights = leaves.grads, leaves.like(params, "params")
        last = leaves.like(state.direction, "the state's direction")

        def renew():
            point = leaves.put(params, uphill(first, weights, rho))
            second = leaves.like(call(point, *args, **kwargs)[1], "the second grads")
            return second, _direction(first, second, last)

        def reuse():
            return _turned(first, last, alpha), last

        due = state.count % update_interval == 0
        new, directions = jax.lax.cond(due, renew, reuse)
        direction = leaves.put(state.direction, directions)
        state = LookSamState(tree.safe_increment(state.count), direction)
        return (value, leaves.put(grads, new)), state

    return LookSam(init, value_and_grad)


@jax.jit
def _direction(
    first: list[jax.Array], second: list[jax.Array], old: list[jax.Array]
) -> list[jax.Array]:
    """Return ``v / |v|``, or zeros if v is no more than rounding error."""
    norm = tree.norm(first)
    units = [divided(g, norm) for g in first]
    along = tree.vdot(units, second)
    across = [wide(g) - times(along, u) for g, u in zip(second, units, strict=True)]
    eps = max((float(jnp.finfo(g.dtype).eps) for g in first), default=0.0)
    length = tree.norm(across)
    # A shorter v is rounding error. False for NaN too, so that one bad batch does not
    # spoil the steps that follow.
    real = length > 2 * eps * tree.norm(second)
    new = [jnp.where(real, divided(v, length), 0) for v in across]
    return [v.astype(x.dtype) for v, x in zip(new, old, strict=True)]


@jax.jit
def _turned(
    grads: list[jax.Array], directions: list[jax.Array], alpha: Any
) -> list[jax.Array]:
    """Return ``g + alpha |g| v / |v|``."""
    norm = tree.norm(grads)
    length = times(alpha, norm)
    return [
        (wide(g) + times(length, v.astype(wide(g).dtype))).astype(g.dtype)
        for g, v in zip(grads, directions, strict=True)
    ]
