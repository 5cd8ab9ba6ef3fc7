"""L-BFGS: Newton's method with a Hessian that the last gradients imply.

    s_i = p_{i+1} - p_i,  y_i = g_{i+1} - g_i      the last m pairs
    d   = H g                                      by two loops over the pairs
    p   <- p - t d                                 t from a line search

    H_0 = <s, y> / <y, y> of the last pair; in the first step min(1, 1 / |g|)

Liu & Nocedal, "On the limited memory BFGS method for large scale optimization", 1989;
Nocedal & Wright, "Numerical Optimization", 2006, algorithms 7.4 and 7.5.

State: 8 m + 12 bytes per float32 parameter with a line search, m = 10 pairs by
default. For losses without noise: a whole data set, a physical problem, a fit. There it
needs far fewer evaluations than first-order methods. With the noise of batches the
pairs say nothing; use another optimizer. m from 3 to 20 is usual.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.algorithms.quasi_newton import (
    Pairs,
    dot,
    inverse_curvature,
    inverse_hessian_times,
    no_pairs,
    remember,
)
from jopt.core.chain import chain
from jopt.core.factory import transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves, wide
from jopt.core.transformation import GradientTransformation
from jopt.gradients.searched_steps import scale_by_zoom_linesearch
from jopt.transforms.learning_rate import scale, scale_by_learning_rate
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class ScaleByLbfgsState(NamedTuple):
    """State of `scale_by_lbfgs`."""

    count: jax.Array  # int32 scalar, steps so far
    params: Any  # the last parameters
    updates: Any  # the last gradients, like params
    diff_params_memory: Any  # the last m differences of params, (m, *shape) per leaf
    diff_updates_memory: Any  # those of the gradients
    weights_memory: jax.Array  # (m,), 1 / <s, y> of each pair; 0 without a pair
    pairs: jax.Array  # int32 scalar, pairs stored so far
    identity_scale: jax.Array  # the scale of H_0


@transformation
def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> GradientTransformation:
    """Multiply by the inverse Hessian that past steps and gradients imply.

        u <- H g

    A pair without positive curvature, beyond rounding errors, is left out, so that
    ``-u`` points downhill. If the parameters have not moved since the last step, as
    after a line search that found no good step, all pairs are forgotten.

    Args:
      memory_size: Number of pairs to keep, >= 1.
      scale_init_precond: Whether ``H_0`` is a multiple of the identity that fits the
        last pair; in the first step one that makes a step no longer than 1. If False,
        it is the identity.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``memory_size`` is less than 1.

    Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.4. Equal to optax
    where all curvatures are positive.

    >>> import jopt
    >>> tx, params = jopt.scale_by_lbfgs(), jnp.array([1.0, 2.0])
    >>> state, curvature = tx.init(params), jnp.array([1.0, 10.0])
    >>> for _ in range(3):
    ...     updates, state = tx.update(curvature * params, state, params)
    ...     params = params - updates
    >>> int(state.pairs), state.diff_params_memory.shape
    (2, (10, 2))
    """
    arguments.at_least(1, memory_size=memory_size)

    slot = zeros()

    def init(params):
        Leaves(params, "params")
        pairs = no_pairs(memory_size, params)
        return ScaleByLbfgsState(
            count=jnp.zeros((), jnp.int32),
            params=jax.tree.map(slot.init, params),
            updates=jax.tree.map(slot.init, params),
            diff_params_memory=pairs.steps,
            diff_updates_memory=pairs.changes,
            weights_memory=pairs.weights,
            pairs=pairs.count,
            identity_scale=jnp.ones((), pairs.weights.dtype),
        )

    def update(updates, state, params):
        leaves = Leaves(updates)
        present = leaves.present

        def of(tree, name, shapes=None):
            values = leaves.aligned(tree, name, shapes=shapes)
            return [values[i] for i in present]

        def put(tree, new):
            values = leaves.treedef.flatten_up_to(tree)
            for i, x in zip(present, new, strict=True):
                values[i] = x
            return leaves.tree(values)

        def stack(shape):
            return memory_size, *shape

        # A leaf without a gradient takes no part.
        last_params = of(state.params, "the state's params")
        last_grads = of(state.updates, "the state's updates")
        now = [
            wide(p).astype(old.dtype)
            for p, old in zip(of(params, "params"), last_params, strict=True)
        ]
        grads = [
            wide(leaves.values[i]).astype(old.dtype)
            for i, old in zip(present, last_grads, strict=True)
        ]
        step = [p - old for p, old in zip(now, last_params, strict=True)]
        change = [g - old for g, old in zip(grads, last_grads, strict=True)]
        pairs = Pairs(
            state.pairs,
            of(state.diff_params_memory, "the state's diff_params_memory", stack),
            of(state.diff_updates_memory, "the state's diff_updates_memory", stack),
            state.weights_memory,
        )
        first = state.count == 0
        pairs, stored = remember(pairs, step, change, unless=first)
        moved = first | (dot(step, step) > 0)
        pairs = pairs._replace(
            count=jnp.where(moved, pairs.count, 0),
            weights=jnp.where(moved, pairs.weights, 0),
        )
        scale = state.identity_scale
        if scale_init_precond:
            capped = 1 / jnp.maximum(tree.norm(grads).astype(scale.dtype), 1)
            fitting = inverse_curvature(step, change).astype(scale.dtype)
            scale = jnp.where(stored, fitting, scale)
            scale = jnp.where(pairs.count > 0, scale, capped)
        new = inverse_hessian_times(pairs, scale, grads)
        new_state = ScaleByLbfgsState(
            count=tree.safe_increment(state.count),
            params=put(state.params, now),
            updates=put(state.updates, grads),
            diff_params_memory=put(state.diff_params_memory, pairs.steps),
            diff_updates_memory=put(state.diff_updates_memory, pairs.changes),
            weights_memory=pairs.weights,
            pairs=pairs.count,
            identity_scale=scale,
        )
        return leaves.rounded(put(updates, new)), new_state

    return GradientTransformation(init, update, state_class=ScaleByLbfgsState)


# The direction has the right length already.
FROM_ONE = scale_by_zoom_linesearch(20, initial_guess_strategy="one")


@transformation
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = FROM_ONE,
) -> GradientTransformation:
    """L-BFGS, by default with a line search for the strong Wolfe conditions.

        p <- p - t H g

    ``H`` is the inverse Hessian that the last steps and gradients imply. For losses
    without noise. With the state's own value and gradient, a step costs the evaluations
    of its line search, usually one.

    Args:
      learning_rate: Multiplies the direction before the line search; None means 1.
      memory_size, scale_init_precond: See `scale_by_lbfgs`.
      linesearch: The search for the step, a transformation that comes last; None takes
        the direction as it is.

    Returns:
      A transformation that needs params and, for the line search, ``value``, ``grad``
      and ``value_fn``; see `scale_by_zoom_linesearch`.

    Raises:
      ValueError: A number is out of range.

    Liu & Nocedal, "On the limited memory BFGS method for large scale optimization",
    1989.

    >>> import jopt
    >>> loss = lambda p: jnp.sum(jnp.array([1.0, 100.0]) * (p - 1.0) ** 2)
    >>> tx, value_and_grad = jopt.lbfgs(), jopt.value_and_grad_from_state(loss)
    >>> @jax.jit
    ... def step(params, state):
    ...     value, grad = value_and_grad(params, state=state)
    ...     updates, state = tx.update(
    ...         grad, state, params, value=value, grad=grad, value_fn=loss
    ...     )
    ...     return jopt.apply_updates(params, updates), state
    >>> params = jnp.zeros(2)
    >>> state = tx.init(params)
    >>> for _ in range(8):
    ...     params, state = step(params, state)
    >>> params.round(3)
    Array([1., 1.], dtype=float32)
    """
    if learning_rate is None:
        rate = scale(-1.0)
    else:
        rate = scale_by_learning_rate(learning_rate)
    last = [] if linesearch is None else [linesearch]
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, *last)
