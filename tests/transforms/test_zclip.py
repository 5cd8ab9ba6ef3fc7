"""ZClip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import updates_and_state
from tests.laws.case import Case
from tests.twins.base import Array, Scalar, at, double


def zclip(
    params: Mapping[str, Array],
    grads: Iterable[Mapping[str, Array]],
    *,
    alpha: Scalar = 0.97,
    z_thresh: Scalar = 2.5,
    max_norm: Scalar | None = 1.0,
    eps: Scalar = 1e-6,
    warmup_steps: int = 25,
) -> Iterator[dict[str, Array]]:
    """Kumar et al., 2025, "ZClip", algorithm 1, with the norms of the warm-up kept."""
    warmup: list[float] = []
    mean = variance = 0.0
    for t, tree in enumerate(grads, start=1):
        wide: dict[str, Any] = {name: double(g) for name, g in tree.items()}
        norm = np.sqrt(sum(np.sum(np.abs(g) ** 2) for g in wide.values()))
        fed = norm
        if len(warmup) < warmup_steps:
            warmup.append(norm)
            mean, variance = np.mean(warmup), np.var(warmup)
        else:
            z = (norm - mean) / (np.sqrt(variance) + at(eps, t))
            threshold = at(z_thresh, t)
            if z > threshold:
                fed = mean + threshold * np.sqrt(variance) / (z / threshold)
            mean = at(alpha, t) * mean + (1 - at(alpha, t)) * fed
            variance = at(alpha, t) * variance + (1 - at(alpha, t)) * (fed - mean) ** 2
        bound = fed if max_norm is None else min(fed, at(max_norm, t))
        factor = bound / norm if norm > bound else 1.0
        yield {name: factor * g for name, g in wide.items()}


CASES = [
    Case(
        "zclip",
        {"warmup_steps": 4, "z_thresh": 0.5, "max_norm": 2.35},
        learning_rate=None,
        looks_at_all_leaves=True,
    ),
]


def test_zclip_bounds_a_spike_and_is_not_fooled_by_it() -> None:
    params = {"a": jnp.zeros(1), "b": jnp.zeros(3)}

    def of_norm(norm: float) -> Any:
        return {"a": jnp.full(1, norm), "b": jnp.zeros(3)}

    usual = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    tx = jopt.zclip(max_norm=None, warmup_steps=4)
    updates, state = updates_and_state(
        tx, params, [of_norm(x) for x in [*usual, 500.0, 1.0]]
    )
    norms = [float(jopt.tree.norm(u)) for u in updates]
    assert norms[:6] == pytest.approx(usual)
    assert 1.0 < norms[6] < 1.1
    assert norms[7] == pytest.approx(1.0)
    assert 0.9 < float(state.mean) < 1.1
    for bad in (jnp.inf, jnp.nan):
        updates, after = tx.update(of_norm(bad), state, params)
        assert all(jnp.all(jnp.isnan(u)) for u in jax.tree.leaves(updates))
        chex.assert_trees_all_equal(after._replace(count=state.count), state)


def test_the_first_norms_of_zclip_count_alike() -> None:
    norms = [3.0, 1.0, 4.0, 1.0, 5.0]
    tx = jopt.zclip(warmup_steps=5)
    updates, state = updates_and_state(
        tx, jnp.zeros(1), [jnp.full(1, x) for x in norms]
    )
    assert [float(u[0]) for u in updates] == pytest.approx([1.0] * 5)
    assert float(state.mean) == pytest.approx(np.mean(norms))
    assert float(state.deviation) == pytest.approx(np.std(norms))


def test_zclip_stands_norms_whose_squares_do_not_fit() -> None:
    tx = jopt.zclip(max_norm=None, warmup_steps=2)
    grads = [jnp.full(1, x) for x in (1e30, 1.2e30, 9e30, 1e-30)]
    updates, state = updates_and_state(tx, jnp.zeros(1), grads)
    assert 1.1e30 < float(updates[2][0]) < 1.3e30
    assert bool(jnp.isfinite(state.mean) & jnp.isfinite(state.deviation))
