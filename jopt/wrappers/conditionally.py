"""A transformation for some of the steps.

    s <- should_transform_fn(step)
    conditionally_transform:  u <- inner(g) if s, else g
    conditionally_mask:       u <- inner(g) if s, else 0

In the other steps the inner transformation does not run, costs nothing and keeps its
state. The state is that of the inner one and a count of all steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.around import around
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import (
    GradientTransformation,
    Needs,
    Updates,
)
from jopt.values import arguments
from jopt.values.arguments import abbreviated


class ConditionallyTransformState(NamedTuple):
    """State of `conditionally_transform`."""

    inner_state: Any  # of the inner transformation
    step: jax.Array  # int32 scalar, updates so far, transformed or not


@transformation
def conditionally_transform(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    """Transform in some steps; in the others updates pass as they are.

    Args:
      inner: A transformation.
      should_transform_fn: ``should_transform_fn(step)`` says whether to: one bool, or a
        number, of which zero is no. ``step`` is an int32 scalar: 0, 1, …. A schedule
        of zeros and ones is such a function.
      forward_extra_args: Whether it gets those of the extra arguments of the update, by
        keyword, that it takes.

    Returns:
      A transformation.

    Raises:
      TypeError: ``should_transform_fn`` is no function of the step.

    Equal to ``optax.conditionally_transform``, which forwards all extra arguments.

    >>> import jopt
    >>> tx = jopt.conditionally_transform(jopt.scale(10.0), lambda step: step >= 1)
    >>> state = tx.init(jnp.ones(1))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state)
    ...     print(updates)
    [1.]
    [10.]
    """
    return _conditional(
        ConditionallyTransformState,
        as_transformation(inner, "conditionally_transform: inner"),
        should_transform_fn,
        forward_extra_args,
        lambda updates: updates,
    )


class ConditionallyMaskState(NamedTuple):
    """State of `conditionally_mask`."""

    step: jax.Array  # int32 scalar, updates so far, transformed or not
    inner_state: Any  # of the inner transformation


@transformation
def conditionally_mask(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    """Transform in some steps; in the others updates are zero.

    Args:
      inner: A transformation.
      should_transform_fn: ``should_transform_fn(step)`` says whether to; see
        `conditionally_transform`.
      forward_extra_args: Whether it gets those of the extra arguments of the update, by
        keyword, that it takes.

    Returns:
      A transformation.

    Raises:
      TypeError: ``should_transform_fn`` is no function of the step.

    Equal to ``optax.conditionally_mask``, which forwards all extra arguments.

    >>> import jopt
    >>> tx = jopt.conditionally_mask(jopt.sgd(0.1), lambda step: step % 2 == 1)
    >>> state = tx.init(jnp.ones(1))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.ones(1), state)
    ...     print(updates)
    [0.]
    [-0.1]
    """
    return _conditional(
        ConditionallyMaskState,
        as_transformation(inner, "conditionally_mask: inner"),
        should_transform_fn,
        forward_extra_args,
        lambda updates: jax.tree.map(jnp.zeros_like, updates),
    )


def _conditional(
    state_class: Any,
    inner: GradientTransformation,
    should: Callable[..., Any],
    forward: bool,
    otherwise: Callable[[Updates], Updates],
) -> GradientTransformation:
    takes = _arguments(should, forward)

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return state_class(step=zero, inner_state=inner.init(params))

    def update(updates, state, params=None, **extra):
        decision = _decision(should(state.step, **takes.chosen(extra)))

        def transform(updates, own):
            new, own = inner.update(updates, own, params, **extra)
            # A foreign update may come back in another dtype.
            return jax.tree.map(lambda g, u: u.astype(g.dtype), updates, new), own

        def leave(updates, own):
            return otherwise(updates), own

        updates, own = jax.lax.cond(
            decision, transform, leave, updates, state.inner_state
        )
        count = tree.safe_increment(state.step)
        return updates, state_class(step=count, inner_state=own)

    return around(inner, init, update, also=takes)


def _arguments(should: Callable[..., Any], forward: bool) -> Needs:
    """What ``should_transform_fn`` takes beyond the step."""
    if not callable(should):
        raise TypeError(
            "should_transform_fn must be a function of the step, got "
            f"should_transform_fn={abbreviated(should)}"
        )
    try:
        signature = inspect.signature(should)
    except ValueError:  # of some built-in functions
        return Needs(frozenset(), frozenset(), anything=forward)
    takes = Needs(frozenset(), frozenset())
    if forward:
        named = [
            p
            for p in list(signature.parameters.values())[1:]
            if p.kind is not p.VAR_KEYWORD
        ]
        takes = Needs(
            frozenset(p.name for p in named),
            frozenset(p.name for p in named if p.default is p.empty),
            anything=any(
                p.kind is p.VAR_KEYWORD for p in signature.parameters.values()
            ),
        )
    try:
        signature.bind(0, **dict.fromkeys(takes.requires))
    except TypeError:
        given, hint = "the step only", ". For more give forward_extra_args=True"
        if forward:
            given, hint = "the step and extra arguments by keyword", ""
        raise TypeError(
            f"should_transform_fn is called with {given}, but takes {signature}{hint}"
        ) from None
    return takes


def _decision(found: Any) -> jax.Array:
    """What ``should_transform_fn`` returned, as a bool."""
    is_bool = getattr(found, "dtype", None) == jnp.bool_ and jnp.shape(found) == ()
    if not (is_bool or isinstance(found, bool) or arguments.is_number(found)):
        raise TypeError(
            "should_transform_fn must return one bool or number, got "
            f"{abbreviated(found)}"
        )
    return jnp.asarray(found).astype(bool)
