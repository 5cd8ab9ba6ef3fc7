"""Transformations that run in some steps only.

    s <- should_transform_fn(step)
    conditionally_transform:  u <- inner(g) if s, else g
    conditionally_mask:       u <- inner(g) if s, else 0

In the other steps the inner transformation does not run, costs nothing and keeps its
state. State: the inner state and a count of all steps.
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
from jopt.core.order import check_changeable
from jopt.core.transformation import (
    ANYWHERE,
    GradientTransformation,
    Needs,
    Place,
    Updates,
)
from jopt.tree.like import zeros_beside
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.wrappers.in_place import either


class ConditionallyTransformState(NamedTuple):
    """State of `conditionally_transform`."""

    inner_state: Any  # state of the inner transformation
    step: jax.Array  # int32 scalar, updates so far, transformed or not
    step_counts = ("step",)


@transformation
def conditionally_transform(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    """Transform the updates in some steps and pass them unchanged in the others.

    Args:
      inner: A transformation.
      should_transform_fn: ``should_transform_fn(step)`` returns whether to run
        ``inner``: a bool, or a number where zero means no. ``step`` is an int32 scalar:
        0, 1, …. A schedule of zeros and ones is such a function.
      forward_extra_args: Whether to pass ``should_transform_fn``, by keyword, those
        extra arguments of ``update`` that it takes.

    Returns:
      A transformation.

    Raises:
      TypeError: ``should_transform_fn`` is not a function of the step.

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
    inner = as_transformation(inner, "conditionally_transform: inner")
    check_changeable("conditionally_transform", inner)
    return _conditional(
        ConditionallyTransformState,
        inner,
        should_transform_fn,
        forward_extra_args,
        lambda updates: updates,
        Place(keeps_updates=inner.place.keeps_updates),
    )


class ConditionallyMaskState(NamedTuple):
    """State of `conditionally_mask`."""

    step: jax.Array  # int32 scalar, updates so far, transformed or not
    step_counts = ("step",)
    inner_state: Any  # state of the inner transformation


@transformation
def conditionally_mask(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    """Transform the updates in some steps and return zeros in the others.

    Args:
      inner, should_transform_fn, forward_extra_args: See `conditionally_transform`.

    Returns:
      A transformation.

    Raises:
      TypeError: ``should_transform_fn`` is not a function of the step.

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
    inner = as_transformation(inner, "conditionally_mask: inner")
    check_changeable("conditionally_mask", inner)
    return _conditional(
        ConditionallyMaskState,
        inner,
        should_transform_fn,
        forward_extra_args,
        lambda updates: jax.tree.map(zeros_beside, updates),
    )


def _conditional(
    state_class: Any,
    inner: GradientTransformation,
    should: Callable[..., Any],
    forward: bool,
    otherwise: Callable[[Updates], Updates],
    place: Place = ANYWHERE,
) -> GradientTransformation:
    needs = _arguments(should, forward)

    def init(params):
        zero = jnp.zeros((), jnp.int32)
        return state_class(step=zero, inner_state=inner.init(params))

    def update(updates, state, params=None, **extra):
        decision = _decision(should(state.step, **needs.chosen(extra)))

        def transform(updates, inner_state):
            new, inner_state = inner.update(updates, inner_state, params, **extra)
            # Both branches of lax.cond must return the same dtypes, but a foreign
            # transformation may return others.
            new = jax.tree.map(lambda g, u: u.astype(g.dtype), updates, new)
            return new, inner_state

        def leave(updates, inner_state):
            return otherwise(updates), inner_state

        updates, inner_state = either(
            decision, transform, leave, updates, state.inner_state
        )
        count = tree.safe_increment(state.step)
        return updates, state_class(step=count, inner_state=inner_state)

    return around(inner, init, update, state_class, also=needs, place=place)


def _arguments(should: Callable[..., Any], forward: bool) -> Needs:
    """Return the arguments that ``should_transform_fn`` takes besides the step."""
    if not callable(should):
        raise TypeError(
            "should_transform_fn must be a function of the step, got "
            f"should_transform_fn={abbreviated(should)}"
        )
    try:
        signature = inspect.signature(should)
    except ValueError:  # some built-in functions have no signature
        return Needs(frozenset(), frozenset(), anything=forward)
    needs = Needs(frozenset(), frozenset())
    if forward:
        parameters = [
            p
            for p in list(signature.parameters.values())[1:]
            if p.kind is not p.VAR_KEYWORD
        ]
        needs = Needs(
            frozenset(p.name for p in parameters),
            frozenset(p.name for p in parameters if p.default is p.empty),
            anything=any(
                p.kind is p.VAR_KEYWORD for p in signature.parameters.values()
            ),
        )
    try:
        signature.bind(0, **dict.fromkeys(needs.requires))
    except TypeError:
        passed, hint = "the step only", ". For more, pass forward_extra_args=True"
        if forward:
            passed, hint = "the step and extra arguments by keyword", ""
        raise TypeError(
            f"should_transform_fn is called with {passed}, but takes {signature}{hint}"
        ) from None
    return needs


def _decision(result: Any) -> jax.Array:
    """Return the result of ``should_transform_fn`` as a bool."""
    is_bool = getattr(result, "dtype", None) == jnp.bool_ and jnp.shape(result) == ()
    if not (is_bool or isinstance(result, bool) or arguments.is_number(result)):
        raise TypeError(
            "should_transform_fn must return one bool or number, got "
            f"{abbreviated(result)}"
        )
    return jnp.asarray(result).astype(bool)
