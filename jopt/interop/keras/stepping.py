"""A step on pairs of gradients and variables, like Keras's ``apply_gradients``.

Keras   optimizer.apply_gradients(zip(gradients, variables))
jopt    variables, state = apply_gradients(tx, zip(gradients, variables), state)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation, OptState
from jopt.values.arguments import abbreviated


def apply_gradients(
    tx: GradientTransformation,
    grads_and_vars: Iterable[tuple[Any, Any]],
    state: OptState,
    *,
    names: Sequence[str] | None = None,
) -> tuple[list[Any], OptState]:
    """Make one step; a variable without a gradient and its part of the state stay.

    Args:
      tx: A transformation.
      grads_and_vars: Pairs of a gradient, or None, and a variable.
      state: ``tx.init(variables)``; with names, ``tx.init(dict(zip(names,
        variables)))``.
      names: Paths of the variables for masks, such as ``"dense/kernel"``; None means
        "0", "1", and so on.

    Returns:
      The new variables in the same order, and the new state.

    Raises:
      ValueError: No variable has a gradient, or ``names`` does not have one distinct
        name for each variable.
      TypeError: ``grads_and_vars`` is not a sequence of pairs.

    Warns:
      UserWarning: Some variables have no gradient.

    >>> import jopt
    >>> tx, variables = jopt.sgd(1.0), [jnp.array([1.0]), jnp.array([2.0])]
    >>> gradients = [jnp.array([0.5]), jnp.array([0.5])]
    >>> pairs = zip(gradients, variables)
    >>> apply_gradients(tx, pairs, tx.init(variables))[0]
    [Array([0.5], dtype=float32), Array([1.5], dtype=float32)]
    """
    tx = as_transformation(tx, "apply_gradients: tx")
    grads, variables = _unzipped(grads_and_vars)
    paths = [str(i) for i in range(len(variables))] if names is None else list(names)
    if len(paths) != len(variables) or len(set(paths)) != len(paths):
        raise ValueError(
            f"names must have one name for each of the {len(variables)} variables, got "
            f"{paths}"
        )
    absent = [i for i, g in enumerate(grads) if g is None]
    if len(absent) == len(grads):
        raise ValueError(
            f"No gradients provided for any variable: {paths}. The loss does not "
            "depend on them, or jax.grad differentiated something else"
        )
    if absent:
        warnings.warn(
            f"Gradients do not exist for variables {[paths[i] for i in absent]}: they "
            "are not updated",
            UserWarning,
            stacklevel=2,
        )

    def as_tree(leaves):
        return leaves if names is None else dict(zip(paths, leaves, strict=True))

    return stepped(tx, grads, variables, state, as_tree)


def stepped(
    tx: GradientTransformation,
    grads: Sequence[Any],
    variables: Sequence[Any],
    state: OptState,
    as_tree: Callable[[list[Any]], Any],
) -> tuple[list[Any], OptState]:
    """Make one step; a variable whose gradient is None and its part of the state stay.

    Args:
      tx: A transformation.
      grads: The gradients.
      variables: The variables.
      state: ``tx.init(as_tree(variables))``.
      as_tree: Makes the tree of parameters from its leaves: a list, or a dict.

    Returns:
      The new variables in the same order, and the new state.
    """
    absent = [i for i, g in enumerate(grads) if g is None]
    filled = [
        jnp.zeros_like(p) if g is None else g
        for g, p in zip(grads, variables, strict=True)
    ]
    params: Any = as_tree(list(variables))
    updates, new = tx.update(as_tree(filled), state, params)
    leaves = jax.tree.leaves(apply_updates(params, updates))
    order = jax.tree.leaves(as_tree(list(range(len(variables)))))  # JAX sorts dicts
    by_index = dict(zip(order, leaves, strict=True))
    result = [by_index[i] for i in range(len(variables))]
    if absent:
        result = [
            p if i in absent else q
            for i, (p, q) in enumerate(zip(variables, result, strict=True))
        ]
        # The zeros above have changed moments and parameters alike; undo that.
        present = [None if i in absent else p for i, p in enumerate(variables)]
        new = _restored(new, state, jax.eval_shape(tx.init, as_tree(present)))
    return result, new


def _unzipped(pairs: Any) -> tuple[list[Any], list[Any]]:
    pairs = list(pairs) if isinstance(pairs, Iterable) else pairs
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs
    ):
        raise TypeError(
            "grads_and_vars must be pairs of a gradient and a variable, such as "
            f"zip(gradients, variables), got {abbreviated(pairs)}"
        )
    if any(p is None for _, p in pairs):
        raise TypeError(
            "a pair of grads_and_vars must be (gradient, variable), but one has no "
            "variable"
        )
    return [g for g, _ in pairs], [p for _, p in pairs]


def _restored(new: OptState, old: OptState, without: OptState) -> OptState:
    """Return the new state, but the old leaves that ``without`` lacks."""
    shared = {name for name, x in tree.leaves_with_names(without) if x is not None}
    return jax.tree_util.tree_map_with_path(
        lambda path, x, y: x if tree.path_name(path) in shared else y, new, old
    )
