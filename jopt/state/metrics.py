"""Metrics: what an optimizer measures, as a flat dict of numbers.

`metrics` reads them from a state: hyperparameters, counts of skipped steps, the loss
scale, and what a `monitor` has measured.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jopt import tree
from jopt.core.transformation import OptState
from jopt.state.hyperparams import holders, hyperparams


class _NoFields(NamedTuple):
    pass


class Seen(_NoFields):
    """Numbers that go no further than the trace they were measured in.

    To JAX it is a node without leaves. What is rebuilt from its leaves, at the end of a
    compiled function above all, has no numbers, and so they are computed only if they
    were taken out before.
    """

    values: dict[str, jax.Array] | None = None


def metrics(state: OptState) -> dict[str, jax.Array]:
    """All numbers of a state that are worth a log, by name.

    A name that occurs more than once is given with its path.

    Args:
      state: The state of any transformation, however nested; inside of the jitted step
        if there is a `monitor` that does not keep its numbers.

    Returns:
      Scalars: the hyperparameters (the learning rate among them), what monitors have
      measured, and what wrappers count, such as skipped steps and the loss scale. The
      names are the same after every step.

    Raises:
      ValueError: The numbers of a monitor are not there: it was updated in another
        compiled function, or not yet.

    >>> import jopt
    >>> tx, params = jopt.skip_nonfinite(jopt.sgd(0.1)), jnp.ones(1)
    >>> _, state = tx.update(jnp.array([jnp.nan]), tx.init(params))
    >>> {name: round(float(x), 3) for name, x in jopt.metrics(state).items()}
    {'learning_rate': 0.1, 'notfinite_count': 1.0, 'last_finite': 0.0, \
'total_notfinite': 1.0}
    """
    found = hyperparams(state)
    entries = list(_entries(state))
    times = collections.Counter(name for _, name, _ in entries)
    for path, name, value in entries:
        (value,) = jax.tree.leaves(value)  # nnx wraps arrays
        unique = times[name] == 1 and name not in found
        found[name if unique or not path else f"{path}/{name}"] = value
    return found


def _entries(state: OptState) -> Iterator[tuple[str, str, Any]]:
    """``(path, name, value)`` of each number that a wrapper or monitor has."""
    for keys, holder in holders(state, "metrics"):
        path = tree.path_name(keys)
        for name in type(holder).metrics:
            value = getattr(holder, name)
            if isinstance(value, Seen):
                value = _known(path, value)
            if isinstance(value, Mapping):
                yield from ((path, own, x) for own, x in value.items())
            else:
                yield path, name, value


def _known(path: str, seen: Seen) -> dict[str, jax.Array]:
    if seen.values is None:
        raise ValueError(
            f"the monitor at {path or 'the top'!r} has no numbers here: they can be "
            "read from the state that update has just returned, in the same compiled "
            "function, and outside of the branches of accumulate, lax.cond and guards. "
            "Read them there and return them, or build it with monitor(…, keep=True)"
        )
    return seen.values
