"""A step that is done or not, with what it changes changed in place.

A ``lax.cond`` between an optimizer step and nothing costs much of what the step does:
XLA:GPU makes selections of it, so the step is computed in either case, and XLA:CPU and
XLA:TPU copy the arrays that one branch only passes through. A loop of one turn or none
keeps its arrays where they are on all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer


def once_if(
    condition: jax.Array, f: Callable[[Any, Any], Any], carry: Any, given: Any
) -> Any:
    """``f(carry, given)`` if the condition holds, else ``carry``.

    Args:
      condition: One bool.
      f: A function that gives a tree of the types of ``carry``.
      carry: Arrays.
      given: More arrays that ``f`` takes.

    >>> once_if(jnp.array(True), lambda carry, given: carry + given, 1, 2)
    3
    """
    if not isinstance(condition, Tracer):  # nothing to compile
        return f(carry, given) if condition else carry
    return _once_if(f, condition, carry, given)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _once_if(
    f: Callable[[Any, Any], Any], condition: jax.Array, carry: Any, given: Any
) -> Any:
    def body(loop):
        condition, old = loop
        # The state of a foreign transformation may come back in another dtype.
        new = jax.tree.map(lambda x, y: x.astype(y.dtype), f(old, given), old)
        return jnp.zeros_like(condition), new

    return jax.lax.while_loop(lambda loop: loop[0], body, (condition, carry))[1]


@_once_if.defjvp
def _once_if_jvp(f: Any, primals: Any, tangents: Any) -> Any:
    # A loop has no transpose, a conditional has.
    condition, *primals = primals

    def chosen(carry, given):
        return jax.lax.cond(condition, f, lambda carry, given: carry, carry, given)

    return jax.jvp(chosen, tuple(primals), tuple(tangents[1:]))
