"""How many gradients make a step of `accumulate`, and which ones it skips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.changing_numbers import scheduled
from jopt.core.transformation import Updates
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of
from jopt.values.registry import config_function


@config_function
def skip_not_finite(
    updates: Updates, gradient_step: Any = None, params: Any = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return whether a gradient contains an infinity or a NaN, for `accumulate`.

    Args:
      updates: The gradient.
      gradient_step: Unused.
      params: Unused.

    Returns:
      A bool, and a dict with the bool (``should_skip``) and the number of such elements
      (``num_not_finite``).

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


@config_function
def skip_large_updates(
    updates: Updates,
    gradient_step: Any = None,
    params: Any = None,
    max_squared_norm: float | jax.Array = jnp.inf,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return whether a gradient is too large or not finite, for `accumulate`.

    Args:
      updates: The gradient.
      gradient_step: Unused.
      params: Unused.
      max_squared_norm: Skip a gradient unless its squared norm is below this.

    Returns:
      A bool, and a dict with the bool (``should_skip``) and the squared norm
      (``norm_squared``).

    >>> skip, details = skip_large_updates({"w": jnp.full(1, 4.0)}, max_squared_norm=9)
    >>> bool(skip), float(details["norm_squared"])
    (True, 16.0)
    """
    del gradient_step, params
    squared = tree.norm(updates) ** 2
    skip = ~(squared < max_squared_norm)  # not >=, which is False for NaN
    return skip, {"should_skip": skip, "norm_squared": squared}


def check_skip(f: Any) -> None:
    """Raise TypeError unless ``f`` can be a ``should_skip_update_fn``."""
    if f is not None and not callable(f):
        raise TypeError(
            "should_skip_update_fn must be a function of (updates, gradient_step, "
            f"params), such as jopt.skip_not_finite, got {text_of(f)}"
        )


def skip_decision(
    f: Callable[..., Any] | None, updates: Updates, gradient_step: Any, params: Any
) -> jax.Array | None:
    """Return the decision of ``should_skip_update_fn``, or None without one."""
    if f is None:
        return None
    result = f(updates, gradient_step, params)
    skip = jnp.asarray(result[0] if isinstance(result, tuple) else result)
    if skip.shape or skip.dtype != jnp.bool_:
        raise TypeError(
            "should_skip_update_fn must return True or False for the whole gradient, "
            f"got {abbreviated(result)}"
        )
    return skip


def gradients_per_step(steps: Any) -> Callable[[jax.Array], Any]:
    """Return the number of gradients per step as a function of the emitted steps."""
    if not callable(steps):
        number = arguments.whole("steps", steps)
        arguments.at_least(1, steps=number)
        return lambda count: number
    arguments.function_of_step("steps", steps)

    def number_at(count):
        return jnp.round(scheduled("steps", steps, count)).astype(jnp.int32)

    # Also under jit the first value must be concrete, to be checked here.
    with jax.ensure_compile_time_eval():
        first = number_at(jnp.zeros((), jnp.int32))
    if first < 1:
        raise ValueError(f"steps must be >= 1, but steps(0) is {first}")
    return number_at
