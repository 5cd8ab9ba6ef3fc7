"""Grokfast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import chex
import jax.numpy as jnp
import pytest

import jopt
from tests.algorithms.runs import random_tree, updates_and_state
from tests.laws.case import transform
from tests.parity.row import pytorch_optimizer, torch_like
from tests.twins.base import Array, Scalar, at, steps


def grokfast_ema(
    p: Array,
    grads: Iterable[Array],
    *,
    alpha: Scalar = 0.98,
    lamb: Scalar = 2.0,
) -> Iterator[Array]:
    """Lee et al., 2024, "Grokfast", algorithm 2."""
    average = None
    for t, g in steps(grads):
        if average is None:
            average = g
        average = at(alpha, t) * average + (1 - at(alpha, t)) * g
        yield g + at(lamb, t) * average


def grokfast_ma(
    p: Array,
    grads: Iterable[Array],
    *,
    window_size: int = 100,
    lamb: Scalar = 5.0,
    filter_type: str = "mean",
    warmup: bool = True,
) -> Iterator[Array]:
    """Lee et al., 2024, "Grokfast", algorithm 1."""
    queue: list[Array] = []
    for t, g in steps(grads):
        queue = [*queue, g][-window_size:]
        slow = sum(queue) if filter_type == "sum" else sum(queue) / len(queue)
        if warmup and len(queue) < window_size:
            yield g
        else:
            yield g + at(lamb, t) * slow


CASES = [
    transform("grokfast_ema", alpha=0.8, lamb=0.05),
    transform("grokfast_ma", window_size=3, lamb=0.05),
]

grokfast = partial(torch_like, "grokfast_pytorch", package="grokfast-pytorch")
ROWS = (
    grokfast(
        "grokfast-ema-adam",
        "GrokFastAdamW(0.05, eps=1e-30, normalize_lr=False)",
        "chain(grokfast_ema(), adam(DECAY, b2=0.99, eps=1e-30))",
    ),
    grokfast(
        "grokfast-ema-adam-normalized",
        "GrokFastAdamW(0.01, eps=1e-30, grokfast_alpha=0.8, grokfast_lamb=3.0)",
        "chain(grokfast_ema(0.8, 3.0), adam(0.0025, b2=0.99, eps=1e-30))",
    ),
    pytorch_optimizer(
        "grokfast-ema-adam",
        "GrokFastAdamW(0.05, eps=1e-30, weight_decay=0.1, normalize_lr=False)",
        "chain(grokfast_ema(), adamw(DECAY, b2=0.99, eps=1e-30, weight_decay=0.1))",
    ),
)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("filter_type", ["mean", "sum"])
def test_grokfast_ma_adds_what_is_in_the_window(filter_type: str, warmup: bool) -> None:
    params, grads = random_tree()
    tx = jopt.grokfast_ma(4, 2.0, filter_type, warmup)
    updates, _ = updates_and_state(tx, params, grads)
    for t, (u, g) in enumerate(zip(updates, grads, strict=True)):
        window = jnp.stack([x["w"] for x in grads[max(0, t - 3) : t + 1]])
        slow = getattr(jnp, filter_type)(window, axis=0)
        share = 0.0 if warmup and t < 3 else 2.0
        chex.assert_trees_all_close(u["w"], g["w"] + share * slow, rtol=1e-5)
