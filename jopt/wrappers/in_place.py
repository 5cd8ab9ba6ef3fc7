"""Run a step conditionally, updating its arrays in place.

A ``lax.cond`` between an optimizer step and no step costs nearly as much as the step:
XLA:GPU turns it into selections and computes the step in either case; XLA:CPU and
XLA:TPU copy the arrays that one branch passes through. A loop of at most one iteration
updates its arrays in place on all three.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jopt.core.cpu_kernels import LEAST_SIZE, always
from jopt.tree.like import zeros_beside
from jopt.tree.platforms import per_platform


def either(
    condition: jax.Array, f: Callable[..., Any], g: Callable[..., Any], *operands: Any
) -> Any:
    """Return ``f(*operands)`` if the condition holds, else ``g(*operands)``.

    Outside jit Python decides. There a schedule may need the value of its step, and the
    two results may lie in other memories, as neither may under ``lax.cond``.

    >>> either(jnp.array(True), lambda x: x + 1, lambda x: x, 1)
    2
    """
    if not isinstance(condition, Tracer):
        return f(*operands) if condition else g(*operands)
    return jax.lax.cond(condition, f, g, *operands)


def once_if(
    condition: jax.Array, f: Callable[[Any, Any], Any], carry: Any, operands: Any
) -> Any:
    """Return ``f(carry, operands)`` if the condition holds, else ``carry``.

    Args:
      condition: One bool.
      f: A function that returns a tree with the structure and shapes of ``carry``.
      carry: The arrays to update.
      operands: Further arrays that ``f`` reads.

    >>> once_if(jnp.array(True), lambda carry, operands: carry + operands, 1, 2)
    3
    """
    if not isinstance(condition, Tracer):  # outside jit Python can decide
        return f(carry, operands) if condition else carry
    return _once_if(f, condition, carry, operands)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _once_if(
    f: Callable[[Any, Any], Any], condition: jax.Array, carry: Any, operands: Any
) -> Any:
    def body(loop):
        condition, old = loop
        # The state of a foreign transformation may come back in another dtype.
        new = jax.tree.map(lambda x, y: x.astype(y.dtype), f(old, operands), old)
        return jnp.zeros_like(condition), new

    return jax.lax.while_loop(lambda loop: loop[0], body, (condition, carry))[1]


@_once_if.defjvp
def _once_if_jvp(f: Any, primals: Any, tangents: Any) -> Any:
    # Reverse-mode differentiation works through a conditional but not through a loop.
    condition, *primals = primals

    def conditional(carry, operands):
        return jax.lax.cond(
            condition, f, lambda carry, operands: carry, carry, operands
        )

    return jax.jvp(conditional, tuple(primals), tuple(tangents[1:]))


def zeros_after(whole: Any, others: Any) -> Any:
    """Return zeros in the memory of a tree of arrays, after others were computed.

    XLA for the CPU would copy an array that is still read when it is overwritten.

    Args:
      whole: A tree of arrays, which may contain NaN.
      others: Arrays that are computed from it.

    >>> zeros_after(jnp.ones(2), [])
    Array([0., 0.], dtype=float32)
    """

    def zeros(whole, others):
        return jax.tree.map(zeros_beside, whole)

    def on_cpu(whole, others):
        large = [x for x in jax.tree.leaves(others) if x.size >= LEAST_SIZE]
        if not large:
            return zeros(whole, others)
        done = always(*large)
        return jax.tree.map(lambda x: jax.lax.select(done, jnp.zeros_like(x), x), whole)

    return per_platform(zeros, on_cpu, whole, others, one_device=True)
