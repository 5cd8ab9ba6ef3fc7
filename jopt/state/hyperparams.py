"""Hyperparameters of a state: read and set by name."""

from __future__ import annotations

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.values import arguments
from jopt.values.arguments import abbreviated, suggestion
from jopt.values.numbers import number
from jopt.values.recipe import Recorded


def hyperparams(state: Any) -> dict[str, jax.Array]:
    """The hyperparameters that a state holds, by name.

    A name that occurs more than once is given with its path: ``decoder/learning_rate``.

    Args:
      state: The state of any transformation, however nested.

    Returns:
      Scalars: the tunable numbers, the last used values of scheduled ones, and the
      learning rate. Readable inside jit.

    >>> import jopt
    >>> state = jopt.sgd(jopt.exponential_decay(0.1, 10, 0.5)).init(jnp.ones(3))
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.1, dtype=float32)}
    """
    found = _located(state)
    return {name: value for name, (_, value) in found.items()}


def _located(state: Any) -> dict[str, tuple[str, jax.Array]]:
    """name -> (path, value); the name is the path where it would be ambiguous."""
    if isinstance(state, Recorded):
        raise TypeError(
            f"a state is needed, what init and update return, got the transformation "
            f"{state!r}"
        )
    found = []
    for path, holder in holders(state, "hyperparameters"):
        for name in type(holder).hyperparameters:
            prefix = tree.path_name(path)
            (value,) = jax.tree.leaves(getattr(holder, name))  # nnx wraps arrays
            found.append((f"{prefix}/{name}" if prefix else name, name, value))
    names = collections.Counter(name for _, name, _ in found)
    return {
        (name if names[name] == 1 else path): (path, value)
        for path, name, value in found
    }


def holders(state: Any, what: str) -> Any:
    """``(path, state)`` of each state whose class names fields so, outer ones first."""

    def holds(x):
        return hasattr(x, "_fields") and isinstance(getattr(type(x), what, 0), tuple)

    for path, x in jax.tree_util.tree_leaves_with_path(state, is_leaf=holds):
        if holds(x):
            yield path, x
            for name, field in zip(x._fields, x, strict=True):
                inside = (*path, jax.tree_util.GetAttrKey(name))
                for deeper, inner in holders(field, what):
                    yield (*inside, *deeper), inner


def set_hyperparams(tx: Any, state: Any, /, **values: float | jax.Array) -> Any:
    """A state with hyperparameters changed; nothing compiles again.

    Args:
      tx: The transformation the state belongs to.
      state: Its state.
      **values: New numbers by name; a name that occurs more than once is given with its
        path, as `hyperparams` shows it: ``**{"decoder/learning_rate": 1e-4}``.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      KeyError: No hyperparameter has this name, or more than one has.
      ValueError: The name is scheduled: its next value comes from the schedule.

    >>> import jopt
    >>> tx = jopt.adam(1e-3)
    >>> state = jopt.set_hyperparams(tx, tx.init(jnp.ones(3)), learning_rate=3e-4)
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.0003, dtype=float32)}
    """
    found = _located(state)
    changing_numbers = dict(_changing_numbers(tx))
    changed = {}
    for name, value in values.items():
        if name not in found:
            same = [n for n in found if n.endswith(f"/{name}")]
            if same:
                raise KeyError(
                    f"{name!r} is ambiguous: the state has {same}. Give the path: "
                    f"**{{{same[0]!r}: …}}"
                )
            raise KeyError(
                f"the state has no hyperparameter {name!r}."
                f"{suggestion(name, found)} It has: {sorted(found)}. A number "
                "is in the state if it is given as jopt.tunable(number)."
            )
        path, old = found[name]
        holder, _, field = path.rpartition("/")
        changing = changing_numbers.get(f"{holder}/" if holder else "")
        if changing is not None:
            changing.check(field, value)
        changed[path] = _like(name, value, old)

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: changed.get(tree.path_name(path), leaf), state
    )


def _like(name: str, value: Any, old: Any) -> Any:
    if not isinstance(value, jax.Array | np.ndarray):
        value = number(name, value, "a number")
    elif value.shape not in ((), old.shape) or not arguments.is_real(value.dtype):
        raise TypeError(
            f"{name} must be a number like the state's {old.dtype}{list(old.shape)}, "
            f"got {name}={abbreviated(value)}"
        )
    value = jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
    concrete = not isinstance(old, Tracer)
    # A state that is spread over devices stays where it is.
    if concrete and getattr(old, "committed", False):
        return jax.device_put(value, old.sharding)
    return value


def _changing_numbers(tx: Any, prefix: str = "") -> Any:
    """``(path of the state, ChangingNumbers)`` of every transformation that has one."""
    changing = getattr(tx, "changing", None)
    if changing is not None:
        yield prefix, changing
    for name, inner in getattr(tx, "children", {}).items():
        yield from _changing_numbers(inner, f"{prefix}{name}/")
