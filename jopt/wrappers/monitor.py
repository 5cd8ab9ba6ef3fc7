"""``monitor``: norms of the updates that enter and leave a transformation.

Norms of whole trees cost a pass over them, so a monitor's numbers are not part of the
compiled step unless the step reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import masks
from jopt.core.chain import as_transformation
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation, Place
from jopt.state.metrics import Seen
from jopt.transforms.gradients import identity


class MonitorState(NamedTuple):
    """State of `monitor`."""

    inner_state: Any  # state of the inner transformation
    measured: Any  # numbers by name if ``keep``, else a `Seen`
    metrics = ("measured",)


@transformation
def monitor(
    inner: GradientTransformation | None = None,
    groups: Callable[..., Any] | Any = None,
    keep: bool = False,
) -> GradientTransformation:
    """Measure the updates that enter and leave a transformation, for `metrics`.

        gradient_norm   |g|, of the incoming updates
        update_norm     |u|, of the outgoing updates
        param_norm      |p|
        update_ratio    |u| / |p|
        clip_factor     |u| / |g|, if ``inner`` is a clip

    All are L2 norms over all leaves. Without ``inner``, the monitor measures the
    updates at its place in a chain: ``update_norm``, ``param_norm``, ``update_ratio``.

    Read the numbers where ``update`` is called: in the jitted step, which may return
    them. Unread numbers are not computed. Set ``keep`` if the monitor is in a
    transformation that runs in a branch or loop (`accumulate`, a guard), or if you do
    not write the step (``nnx.Optimizer``, `step`).

    Args:
      inner: A transformation, usually the whole optimizer.
      groups: Labels of leaves as for `partition`, for example `rules`; each group is
        measured too, as ``update_norm/label``.
      keep: Whether to keep the numbers in the state, to be read at any time. They are
        then computed in every step, and are NaN before the first.

    Returns:
      A transformation. Numbers that need the parameters are NaN if ``update`` gets
      none.

    >>> import jopt
    >>> tx, params = jopt.monitor(jopt.sgd(0.1)), jnp.array([3.0, 4.0])
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> {name: round(float(x), 3) for name, x in jopt.metrics(state).items()}
    {'learning_rate': 0.1, 'gradient_norm': 5.0, 'update_norm': 0.5, \
'param_norm': 5.0, 'update_ratio': 0.1}
    """
    alone = inner is None
    inner = identity() if inner is None else as_transformation(inner, "monitor: inner")

    def measure(g, u, params):
        labelled = g if params is None else params
        parts = {"": None}
        if groups is not None:
            labels = masks.labels(groups, labelled)
            names = sorted({label for label in labels if label is not None})
            parts |= {f"/{x}": [label == x for label in labels] for x in names}
        numbers = {}
        for suffix, selected in parts.items():
            g_norm, u_norm, p_norm = (
                jnp.full((), jnp.nan, tree.scalar_dtype())
                if x is None and g is not None
                else tree.norm(masks.only(x, selected) if selected else x)
                for x in (g, u, params)
            )
            norms = {} if alone else {"gradient_norm": g_norm}
            norms |= {"update_norm": u_norm, "param_norm": p_norm}
            norms["update_ratio"] = _ratio(u_norm, p_norm)
            if inner.gain is not None:
                norms[inner.gain] = _ratio(u_norm, g_norm)
            numbers |= {f"{name}{suffix}": x for name, x in norms.items()}
        return numbers

    def init(params):
        inner_state = inner.init(params)
        if not keep:
            return MonitorState(inner_state, Seen())
        # Every step has to return the structure that init made.
        names = jax.eval_shape(lambda: measure(params, params, params))
        nan = {name: jnp.full((), jnp.nan, x.dtype) for name, x in names.items()}
        return MonitorState(inner_state, nan)

    def update(updates, state, params=None, **extra):
        new, inner_state = inner.update(updates, state.inner_state, params, **extra)
        numbers = measure(updates, new, params)
        if keep:
            return new, MonitorState(inner_state, numbers)
        # Numbers on an object without leaves are not outputs of the compiled step, so
        # XLA drops what nobody reads.
        seen = Seen()
        seen.values = numbers
        return new, MonitorState(inner_state, seen)

    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        state_class=MonitorState,
        place=Place(keeps_updates=inner.place.keeps_updates),
    )


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y == 0, jnp.zeros_like(y), x / jnp.where(y == 0, 1, y))
