"""QK-clip: queries and keys shrink where the logits of attention become too large.

    gamma = min(1, threshold / S)              for each head, S its largest logit
    W_q <- sqrt(gamma) W_q,   W_k <- sqrt(gamma) W_k      after the step

Kimi team, "Kimi K2: open agentic intelligence", 2025 (MuonClip): with Muon, logits grow
in a few heads until training fails. Only those heads shrink, and once their logits are
below the threshold nothing happens any more. Attention with normalized queries and keys
does not need it.

State: none. The threshold is 100; S comes from the forward pass.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.norm_control import times
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves
from jopt.core.transformation import GradientTransformation
from jopt.transforms.constraints import LAST
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


@transformation
def qk_clip(
    threshold: ScalarOrSchedule = 100.0,
    queries_and_keys: str = r"(query|key|q_proj|k_proj|wq|wk)",
) -> GradientTransformation:
    """Shrink queries and keys of heads with logits above a threshold, last in a chain.

        u <- sqrt(min(1, threshold / S)) (p + u) - p

    The logits are products of a query and a key, so that they shrink by the whole
    factor.

    Args:
      threshold: The largest logit that is allowed, > 0.
      queries_and_keys: A regular expression for the component of a path that names the
        layer of queries or of keys. What is before it is the name of the attention.

    Returns:
      A transformation that needs params and ``max_logits``: for each attention, by its
      name, the largest logit of each head in the batch, such as ``{"block_0/attn":
      jnp.max(logits, axis=(0, 2, 3))}``. A leaf has its heads as its axis before the
      last, as Flax's have, or as equal parts of the last. Stacked layers have stacked
      logits. Attentions without logits are left alone; no later member of a chain may
      change the updates. A complex number counts by its magnitude.

    Raises:
      ValueError: ``threshold`` is not positive, ``max_logits`` names an unknown
        attention, or a leaf cannot be split into these heads.

    Kimi team, "Kimi K2: open agentic intelligence", 2025. MuonClip is
    ``chain(muon(rate, consistent_rms=0.2, weight_decay=0.1), qk_clip())``.

    >>> import jopt
    >>> tx = jopt.chain(jopt.sgd(0.0), jopt.qk_clip(100.0))
    >>> params = {"attn": {"query": {"kernel": jnp.ones((2, 4))}}}
    >>> logits = {"attn": jnp.array([400.0, 9.0])}  # of two heads
    >>> params, _ = jopt.step(tx, params, tx.init(params), params, max_logits=logits)
    >>> params["attn"]["query"]["kernel"][0]
    Array([0.5, 0.5, 1. , 1. ], dtype=float32)
    """
    arguments.positive(threshold=threshold)
    layer = re.compile(rf"(?:(.*)/)?{queries_and_keys}(?:/[^/]*)?$")

    def init(params):
        Leaves(params, "params")
        return NO_STATE

    def update(updates, state, params, max_logits: Mapping[str, jax.Array]):
        leaves = Leaves(updates)
        olds, names = leaves.aligned(params, "params"), []
        new = list(leaves.values)
        for i, (path, u) in enumerate(tree.leaves_with_names(updates, none=True)):
            found = layer.match(path)
            if found is None or u is None:
                continue
            names.append(found[1] or "")
            if names[-1] in max_logits:
                logits = jnp.asarray(max_logits[names[-1]])
                axis = _heads(path, u.shape, logits.shape)
                new[i] = _clipped(u, olds[i], logits, threshold, axis)
        if unknown := sorted(max_logits.keys() - {*names}):
            raise ValueError(
                f"max_logits has the name {unknown[0]!r}, but the attentions with "
                f"queries or keys that match {text_of(queries_and_keys)} are "
                f"{sorted({*names})}"
            )
        return leaves.tree(new), state

    return GradientTransformation(init, update, place=LAST)


def _heads(path: str, shape: tuple[int, ...], logits: tuple[int, ...]) -> int:
    """The axis of the heads; the last if they are equal parts of it.

    Args:
      path: The path of a leaf.
      shape: Its shape.
      logits: The shape of its logits: stacked layers, and the heads.
    """
    *layers, heads = logits or (1,)
    if shape[: len(layers)] == (*layers,) and len(shape) > len(layers):
        if len(shape) - len(layers) > 1 and shape[-2] == heads:
            is_split = len(shape) - len(layers) > 2 or shape[-1] % heads != 0
            if is_split or "bias" in path:
                return -2
        if shape[-1] % heads == 0:
            return -1
    raise ValueError(
        f"leaf {path!r} of shape {shape} does not have the heads of its max_logits of "
        f"shape {logits}: as the axis before the last, or as equal parts of the last"
    )


@functools.partial(jax.jit, static_argnums=4)
def _clipped(
    u: jax.Array, p: jax.Array, logits: jax.Array, threshold: Any, axis: int
) -> jax.Array:
    wide = np.promote_types(tree.compute_dtype(u.dtype), tree.compute_dtype(p.dtype))
    real = jnp.finfo(wide).dtype
    most = jnp.asarray(threshold).astype(real)
    largest = jnp.atleast_1d(logits).astype(real)
    factor = jnp.sqrt(most / jnp.maximum(largest, most))  # 1 where nothing is above
    *layers, heads = factor.shape
    if axis == -1:
        factor = jnp.repeat(factor, u.shape[-1] // heads, axis=-1)
    after = (1,) * (-1 - axis)
    between = (1,) * (u.ndim - len(layers) - 1 - len(after))
    factor = factor.reshape(*layers, *between, factor.shape[-1], *after)
    # Written for the update, so that a factor of 1 changes no bit of it.
    moved = p.astype(wide) + u.astype(wide)
    new = u.astype(wide) + times(moved, factor - 1)
    return spread_like(new.astype(u.dtype), u)
