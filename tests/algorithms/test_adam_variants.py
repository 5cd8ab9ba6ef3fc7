"""What the laws and the tables do not say of the relatives of Adam."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import updates_of


WITH_DECAY: list[Callable[..., Any]] = [
    jopt.acprop,
    jopt.adabelief,
    jopt.adan,
    jopt.ademamix,
    jopt.adopt,
    jopt.laprop,
    jopt.radam,
    jopt.simplified_ademamix,
]


@pytest.mark.parametrize("factory", WITH_DECAY, ids=lambda f: f.__name__)
def test_without_weight_decay_no_params_are_needed(factory: Any) -> None:
    params = jnp.ones(2)
    tx = factory(0.1)
    tx.update(params, tx.init(params))
    decaying = factory(0.1, weight_decay=0.1)
    with pytest.raises(TypeError, match="needs the parameters"):
        decaying.update(params, decaying.init(params))


@pytest.mark.parametrize("factory", WITH_DECAY, ids=lambda f: f.__name__)
def test_the_mask_says_what_decays_and_no_more(factory: Any) -> None:
    mask = "weight_decay_mask" if factory is jopt.adabelief else "mask"
    params = {"bias": jnp.ones(2), "kernel": jnp.ones(2)}
    grads = [jax.tree.map(lambda p: 0.5 * p, params)] * 3
    plain = updates_of(factory(0.1), grads, params)
    masked = updates_of(
        factory(0.1, weight_decay=0.1, **{mask: "kernel"}), grads, params
    )
    decayed = updates_of(factory(0.1, weight_decay=0.1), grads, params)
    chex.assert_trees_all_close([u["bias"] for u in masked], [u["bias"] for u in plain])
    chex.assert_trees_all_equal(
        [u["kernel"] for u in masked], [u["kernel"] for u in decayed]
    )
    assert not np.allclose(masked[-1]["kernel"], plain[-1]["kernel"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jopt.adabelief(0.1, b1=0.0), "b1 must be > 0"),
        (lambda: jopt.acprop(0.1, b1=0.0), "b1 must be > 0"),
        (lambda: jopt.acprop(0.1, eps=0.0, eps_root=0.0), "cannot all be zero"),
        (lambda: jopt.yogi(0.1, initial_accumulator_value=-1.0), "must be >= 0"),
        (lambda: jopt.yogi(0.1, initial_mu=math.nan), "initial_mu must be a finite"),
        (lambda: jopt.radam(0.1, threshold=3.0), "threshold must be >= 4, got"),
        (lambda: jopt.adan(0.1, b3=1.0), r"b3 must be in \[0, 1\)"),
        (lambda: jopt.adopt(0.1, eps=0.0), "eps must be > 0"),
        (lambda: jopt.ademamix(0.1, alpha=-1.0), "alpha must be >= 0"),
        (lambda: jopt.ademamix(0.1, b3_warmup=0), "b3_warmup must be >= 1"),
        (lambda: jopt.ademamix(0.1, alpha_warmup=-5), "alpha_warmup must be >= 1"),
        (lambda: jopt.laprop(0.1, eps=0.0), "cannot all be zero"),
        (lambda: jopt.skip_first(-1), "steps must be >= 0"),
        (lambda: jopt.proximal_decay(0.1, -0.1), "weight_decay must be >= 0"),
    ],
)
def test_wrong_numbers_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
