"""The fields of an optax state, whose states are nested in tuples, dicts and states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from jopt import tree


# A slot or number: class of the state in lower case, field, and path of the parameter.
Key = tuple[str, str, str]

# Fields that hold other states instead of slots.
INNER = {"inner_state", "inner_states", "inner_opt_state", "base_optimizer_state"}


def states(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield each NamedTuple that is a state, with its path."""
    if hasattr(node, "_fields"):
        yield path, node
        inner = [(GetAttrKey(f), getattr(node, f)) for f in node._fields if f in INNER]
    elif isinstance(node, Mapping):
        inner = [(DictKey(name), x) for name, x in node.items()]
    elif isinstance(node, list | tuple):
        inner = [(SequenceKey(i), x) for i, x in enumerate(node)]
    else:
        inner = []
    for step, child in inner:
        yield from states(child, (*path, step))


def by_name(optax_state: Any) -> dict[Key, list[Any]]:
    """Return the paths of all slots and numbers by their `Key`."""
    paths = defaultdict(list)
    for path, state in states(optax_state):
        for field in state._fields:
            if field not in INNER:
                kind = type(state).__name__.lower()
                for rest, _ in leaves(getattr(state, field)):
                    key = (kind, field, tree.path_name(rest))
                    paths[key].append((*path, GetAttrKey(field), *rest))
    return paths


def hyperparam_paths(optax_state: Any) -> Iterator[tuple[Any, str]]:
    """Yield the path and name of each number that ``inject_hyperparams`` keeps."""
    for path, state in states(optax_state):
        if "hyperparams" in state._fields:
            for name in state.hyperparams:
                yield (*path, GetAttrKey("hyperparams"), DictKey(name)), name


def leaves(node: Any) -> list[tuple[Any, Any]]:
    """Return the leaves of a tree with their JAX paths."""
    return jax.tree_util.tree_leaves_with_path(node)
