"""Which gradients make a step of `accumulate`: how many, and which are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.changing_numbers import scheduled
from jopt.core.transformation import Updates
from jopt.values import arguments
from jopt.values.arguments import abbreviated


def skip_not_finite(
    updates: Updates, gradient_step: Any = None, params: Any = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether a gradient has an infinity or a NaN, for `accumulate`.

    Args:
      updates: The gradient.
      gradient_step: Not used.
      params: Not used.

    Returns:
      The answer, and a dict of it and of the number of such elements.

    >>> skip, details = skip_not_finite({"w": jnp.array([1.0, jnp.nan])})
    >>> bool(skip), int(details["num_not_finite"])
    (True, 1)
    """
    del gradient_step, params
    counts = [
        jnp.sum(~jnp.isfinite(g), dtype=jnp.int32) for g in jax.tree.leaves(updates)
    ]
    number = sum(counts, jnp.zeros((), jnp.int32))
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Updates,
    gradient_step: Any = None,
    params: Any = None,
    max_squared_norm: float | jax.Array = jnp.inf,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether a gradient is too large, or not finite, for `accumulate`.

    Args:
      updates: The gradient.
      gradient_step: Not used.
      params: Not used.
      max_squared_norm: What the square of its norm has to be below.

    Returns:
      The answer, and a dict of it and of the square of the norm.

    >>> skip, details = skip_large_updates({"w": jnp.full(1, 4.0)}, max_squared_norm=9)
    >>> bool(skip), float(details["norm_squared"])
    (True, 16.0)
    """
    del gradient_step, params
    squared = tree.norm(updates) ** 2
    skip = ~(squared < max_squared_norm)  # NaN is not below
    return skip, {"should_skip": skip, "norm_squared": squared}


def check_skip(f: Any) -> None:
    """Raise unless it can be a ``should_skip_update_fn``."""
    if f is not None and not callable(f):
        raise TypeError(
            "should_skip_update_fn must be a function of (updates, gradient_step, "
            f"params), such as jopt.skip_not_finite, got {f!r}"
        )


def skips(
    f: Callable[..., Any] | None, updates: Updates, gradient_step: Any, params: Any
) -> jax.Array | None:
    """What a ``should_skip_update_fn`` says of a gradient; None if there is none."""
    if f is None:
        return None
    found = f(updates, gradient_step, params)
    skip = jnp.asarray(found[0] if isinstance(found, tuple) else found)
    if skip.shape or skip.dtype != jnp.bool_:
        raise TypeError(
            "should_skip_update_fn must return True or False for the whole gradient, "
            f"got {abbreviated(found)}"
        )
    return skip


def whole_numbers(steps: Any) -> Callable[[jax.Array], Any]:
    """The number of gradients for a step, as a function of the steps so far."""
    if not callable(steps):
        number = arguments.whole("steps", steps)
        arguments.at_least(1, steps=number)
        return lambda count: number
    arguments.function_of_step("steps", steps)

    def every(count):
        return jnp.round(scheduled("steps", steps, count)).astype(jnp.int32)

    with jax.ensure_compile_time_eval():
        first = every(jnp.zeros((), jnp.int32))
    if first < 1:
        raise ValueError(f"steps must be >= 1, but steps(0) is {first}")
    return every
