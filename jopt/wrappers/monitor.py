"""``monitor``: norms of what goes into a transformation and of what comes out.

Norms of whole trees cost a pass over them, so a monitor's numbers are no part of the
compiled step unless they are read in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import masks
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.state.metrics import Seen
from jopt.transforms.gradients import identity


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

    def measured(g, u, params):
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
            if inner.gain is not None:
                norms[inner.gain] = _ratio(of_u, of_g)
            found |= {f"{name}{suffix}": x for name, x in norms.items()}
        return found

    def init(params):
        if not keep:
            return MonitorState(inner.init(params), Seen())
        names = jax.eval_shape(lambda: measured(params, params, params))
        nan = {name: jnp.full((), jnp.nan, x.dtype) for name, x in names.items()}
        return MonitorState(inner.init(params), nan)

    def update(updates, state, params=None, **extra):
        new, own = inner.update(updates, state.inner_state, params, **extra)
        found = measured(updates, new, params)
        if keep:
            return new, MonitorState(own, found)
        seen = Seen()
        seen.values = found
        return new, MonitorState(own, seen)

    def readout(state, params):
        return eval_params(inner, state.inner_state, params)

    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        readout=readout if has_readout(inner) else None,
    )


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y == 0, jnp.zeros_like(y), x / jnp.where(y == 0, 1, y))
