"""The metrics of an optimizer, as a flat dict of numbers.

`metrics` reads them from a state: hyperparameters, counts of skipped steps, the loss
scale, and the numbers of a `monitor`.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jopt import tree
from jopt.core.transformation import OptState
from jopt.state.hyperparams import Numbers, holders, numbers_of
from jopt.tree.paths import by_name
from jopt.tree.variables import sees_arrays


class _NoFields(NamedTuple):
    pass


class Seen(_NoFields):
    """Numbers that do not outlive the trace in which they were measured.

    To JAX it is a node without leaves. Rebuilding it from its leaves, as the end of a
    compiled function does, loses the numbers. So XLA computes only the numbers that the
    function read.
    """

    values: dict[str, jax.Array] | None = None


@sees_arrays()
def metrics(state: OptState) -> dict[str, jax.Array]:
    """Return all numbers of a state that are worth logging, by name.

    A name that occurs more than once is preceded by its path. `hyperparams` says how to
    read several by one name, such as ``"learning_rate"`` where groups have theirs.

    Args:
      state: The state of any transformation, however nested. With a `monitor` that does
        not keep its numbers, call this inside the jitted step.

    Returns:
      Scalars: the hyperparameters, including the learning rate; the numbers of
      monitors; and the counters of wrappers, such as skipped steps and the loss scale.
      The names are the same after every step.

    Raises:
      TypeError: ``state`` is not a state, but for example the parameters.
      ValueError: A monitor is empty, because it was updated in another compiled
        function or not at all.

    >>> import jopt, jax.numpy as jnp
    >>> tx, params = jopt.skip_nonfinite(jopt.sgd(0.1)), jnp.ones(1)
    >>> _, state = tx.update(jnp.array([jnp.nan]), tx.init(params))
    >>> {name: round(float(x), 3) for name, x in jopt.metrics(state).items()}
    {'learning_rate': 0.1, 'notfinite_count': 1.0, 'last_finite': 0.0, \
'total_notfinite': 1.0}
    """
    known = numbers_of(state)
    numbers, paths = dict(known), dict(known.paths)
    entries = list(_entries(state))
    by_name((f"{path}/{name}", value) for path, name, value in entries)
    occurrences = collections.Counter(name for _, name, _ in entries)
    for path, name, value in entries:
        unique = occurrences[name] == 1 and name not in numbers
        full = f"{path}/{name}" if path else name
        shown = name if unique else full
        numbers[shown], paths[shown] = value, full
    return Numbers(numbers, paths)


def _entries(state: OptState) -> Iterator[tuple[str, str, Any]]:
    """Yield ``(path, name, value)`` of each number that a wrapper or monitor has."""
    for keys, holder in holders(state, "metrics"):
        path = tree.path_name(keys)
        for name in type(holder).metrics:
            value = getattr(holder, name)
            if isinstance(value, Seen):
                value = _values(path, value)
            if isinstance(value, Mapping):
                yield from ((path, key, x) for key, x in value.items())
            else:
                yield path, name, value


def _values(path: str, seen: Seen) -> dict[str, jax.Array]:
    if seen.values is None:
        raise ValueError(
            f"the monitor at {path or 'the top'!r} has no numbers here. Read them from "
            "the state that update returned, in the same compiled function and outside "
            "the branches of accumulate, lax.cond and guards, and return them. Or "
            "build the monitor with monitor(…, keep=True)"
        )
    return seen.values
