"""Read and set the hyperparameters of a state by name."""

from __future__ import annotations

import collections
from collections.abc import Iterator
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
    """Return the hyperparameters that a state holds, by name.

    The path replaces a name that occurs more than once: ``decoder/learning_rate``.

    Args:
      state: The state of any transformation, however nested.

    Returns:
      Scalars: the tunable numbers, the last values of the scheduled ones, and the
      learning rate. Works inside jit.

    Raises:
      TypeError: ``state`` is not a state, but for example the parameters.

    >>> import jopt
    >>> state = jopt.sgd(jopt.exponential_decay(0.1, 10, 0.5)).init(jnp.ones(3))
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.1, dtype=float32)}
    """
    return {name: value for name, (_, value) in _entries(state).items()}


def _entries(state: Any) -> dict[str, tuple[str, jax.Array]]:
    """Return ``name -> (path, value)``; an ambiguous name is replaced by its path."""
    if isinstance(state, Recorded):
        raise TypeError(
            "expected a state, as returned by init or update, got the transformation "
            f"{state!r}"
        )
    entries = []
    for path, holder in holders(state, "hyperparameters"):
        for name in type(holder).hyperparameters:
            prefix = tree.path_name(path)
            (value,) = jax.tree.leaves(getattr(holder, name))  # nnx wraps arrays
            entries.append((f"{prefix}/{name}" if prefix else name, name, value))
    # A state has NamedTuples, or no arrays at all.
    has_states = any(True for _ in holders(state, "hyperparameters", ()))
    if not has_states and jax.tree.leaves(state):
        raise TypeError(
            "expected a state, as returned by init or update, but these are arrays "
            f"without the state of a transformation: {abbreviated(state)}"
        )
    names = collections.Counter(name for _, name, _ in entries)
    return {
        (name if names[name] == 1 else path): (path, value)
        for path, name, value in entries
    }


def holders(
    state: Any, attribute: str, default: tuple[str, ...] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield ``(path, state)`` of each NamedTuple whose class lists such fields.

    Args:
      state: The state of any transformation, however nested.
      attribute: The class attribute that lists the fields: ``"hyperparameters"``,
        ``"metrics"`` or ``"step_counts"``.
      default: The fields of a class without the attribute; None leaves it out.

    Yields:
      Outer states before the states inside them.
    """

    def holds(x):
        return hasattr(x, "_fields") and isinstance(
            getattr(type(x), attribute, default), tuple
        )

    for path, x in jax.tree_util.tree_leaves_with_path(state, is_leaf=holds):
        if holds(x):
            yield path, x
            for name, field in zip(x._fields, x, strict=True):
                field_path = (*path, jax.tree_util.GetAttrKey(name))
                for inner_path, inner in holders(field, attribute, default):
                    yield (*field_path, *inner_path), inner


def set_hyperparams(tx: Any, state: Any, /, **values: float | jax.Array) -> Any:
    """Return the state with new values of some hyperparameters, without a retrace.

    Args:
      tx: The transformation that the state belongs to.
      state: Its state.
      **values: New numbers by name. For a name that occurs more than once use its path,
        as `hyperparams` shows it: ``**{"decoder/learning_rate": 1e-4}``.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      KeyError: No hyperparameter, or more than one, has this name.
      ValueError: The hyperparameter is scheduled, so the next step would overwrite the
        new value.

    >>> import jopt
    >>> tx = jopt.adam(1e-3)
    >>> state = jopt.set_hyperparams(tx, tx.init(jnp.ones(3)), learning_rate=3e-4)
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.0003, dtype=float32)}
    """
    entries = _entries(state)
    changing_numbers = dict(_changing_numbers(tx))
    changed = {}
    for name, value in values.items():
        if name not in entries:
            matches = [n for n in entries if n.endswith(f"/{name}")]
            if matches:
                raise KeyError(
                    f"{name!r} is ambiguous: the state has {matches}. Use the path: "
                    f"**{{{matches[0]!r}: …}}"
                )
            raise KeyError(
                f"the state has no hyperparameter {name!r}."
                f"{suggestion(name, entries)} It has {sorted(entries)}. To keep a "
                "number in the state, write jopt.tunable(number)."
            )
        path, old = entries[name]
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
    # A new sharding would compile the step again, so the value goes where the old was.
    if concrete and getattr(old, "committed", False):
        return jax.device_put(value, old.sharding)
    return value


def _changing_numbers(tx: Any, prefix: str = "") -> Any:
    """Yield ``(prefix of the state's paths, ChangingNumbers)`` of every member."""
    changing = getattr(tx, "changing", None)
    if changing is not None:
        yield prefix, changing
    for name, inner in getattr(tx, "children", {}).items():
        yield from _changing_numbers(inner, f"{prefix}{name}/")
