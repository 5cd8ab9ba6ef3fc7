"""Metrics: what an optimizer measures, as a flat dict of numbers.

`metrics` reads them from a state: hyperparameters, counts of skipped steps, the loss
scale, and what a `monitor` has measured. Norms of whole trees cost a pass over them, so
a monitor's numbers are no part of the compiled step unless they are read in it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import masks, tree
from jopt.base import GradientTransformation, OptState, Params, Updates
from jopt.chain import as_transformation
from jopt.evaluation import eval_params, has_readout
from jopt.factory import transformation
from jopt.hyperparams import holders, hyperparams
from jopt.transforms.gradients import identity


class _NoFields(NamedTuple):
    pass


class Seen(_NoFields):
    """Numbers that go no further than the trace they were measured in.

    To JAX it is a node without leaves. What is rebuilt from its leaves, at the end of a
    compiled function above all, has no numbers, and so they are computed only if they
    were taken out before.
    """

    values: dict[str, jax.Array] | None = None


class MonitorState(NamedTuple):
    """State of `monitor`."""

    inner_state: Any  # of the inner transformation
    measured: Any  # numbers by name if they are kept, else a `Seen`
    metrics = ("measured",)


@transformation
def monitor(
    inner: GradientTransformation | None = None,
    groups: Callable[..., Any] | Any = None,
    keep: bool = False,
) -> GradientTransformation:
    """Measure what goes into a transformation and what comes out, for `metrics`.

        gradient_norm   |g|, of the incoming updates
        update_norm     |u|, of those that come out
        param_norm      |p|
        update_ratio    |u| / |p|
        clip_factor     |u| / |g|, if ``inner`` is a clip

    All are L2 norms over all leaves. Without ``inner`` it measures the updates at its
    place in a chain: ``update_norm``, ``param_norm`` and ``update_ratio``.

    The numbers can be read where ``update`` is called, that is in the jitted step,
    which may return them. If they are not, nothing is computed. Within an inner
    transformation that runs in a branch or loop of its own (`accumulate`, a guard) or
    if the step is not yours (``nnx.Optimizer``, `step`), they can be kept in the state.

    Args:
      inner: A transformation, usually the whole optimizer.
      groups: Labels of leaves, as those of `partition` (`rules`, say), to measure each
        group too: ``update_norm/label``.
      keep: Whether the numbers are in the state, to be read at any time. Then they are
        computed in every step; before the first they are NaN.

    Returns:
      A transformation. What needs parameters is NaN if the update has none.

    >>> import jopt
    >>> tx, params = jopt.monitor(jopt.sgd(0.1)), jnp.array([3.0, 4.0])
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> {name: round(float(x), 3) for name, x in jopt.metrics(state).items()}
    {'learning_rate': 0.1, 'gradient_norm': 5.0, 'update_norm': 0.5, \
'param_norm': 5.0, 'update_ratio': 0.1}
    """
    alone = inner is None
    inner = identity() if inner is None else as_transformation(inner, "monitor: inner")

    def measured(g: Updates, u: Updates, params: Params | None) -> dict[str, Any]:
        known = g if params is None else params
        parts = {"": None}
        if groups is not None:
            labels = masks.labels(groups, known)
            own = sorted({label for label in labels if label is not None})
            parts |= {f"/{x}": [label == x for label in labels] for x in own}
        found = {}
        for suffix, chosen in parts.items():
            of_g, of_u, of_p = (
                jnp.full((), jnp.nan, tree.scalar_dtype())
                if x is None
                else tree.norm(masks.only(x, chosen) if chosen else x)
                for x in (g, u, params)
            )
            norms = {} if alone else {"gradient_norm": of_g}
            norms |= {"update_norm": of_u, "param_norm": of_p}
            norms["update_ratio"] = _ratio(of_u, of_p)
            if "clip" in inner.name:
                norms["clip_factor"] = _ratio(of_u, of_g)
            found |= {f"{name}{suffix}": x for name, x in norms.items()}
        return found

    def init(params: Params) -> OptState:
        if not keep:
            return MonitorState(inner.init(params), Seen())
        names = jax.eval_shape(lambda: measured(params, params, params))
        nan = {name: jnp.full((), jnp.nan, x.dtype) for name, x in names.items()}
        return MonitorState(inner.init(params), nan)

    def update(
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Updates, OptState]:
        new, own = inner.update(updates, state.inner_state, params, **extra)
        found = measured(updates, new, params)
        if keep:
            return new, MonitorState(own, found)
        seen = Seen()
        seen.values = found
        return new, MonitorState(own, seen)

    def readout(state: OptState, params: Params) -> Params:
        return eval_params(inner, state.inner_state, params)

    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        readout=readout if has_readout(inner) else None,
    )


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y == 0, jnp.zeros_like(y), x / jnp.where(y == 0, 1, y))


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
