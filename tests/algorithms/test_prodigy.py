"""Prodigy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import chex
import jax.numpy as jnp
import numpy as np

import jopt
from tests.algorithms.runs import on_a_path, scalars
from tests.laws.case import Case
from tests.parity.row import optax, torch_like
from tests.twins.base import Scalar, Tree, as_tree, as_vector, at, double


def prodigy(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: float = 0.0,
    safeguard_warmup: bool = False,
    use_bias_correction: bool = False,
    growth_rate: float = np.inf,
) -> Iterator[Tree]:
    """Mishchenko & Defazio, 2024, "Prodigy": its Adam, with the authors' options."""
    like = {n: double(p) for n, p in params.items()}
    p, b1, b2 = as_vector(like), *betas
    b3 = np.sqrt(b2) if beta3 is None else beta3
    p0, m, v, s = p, np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    d = d_max = estim_lr0
    r = 0.0
    for t, tree in enumerate(grads, start=1):
        g = as_vector({n: double(tree[n]) for n in like})
        step = d * at(learning_rate, t)
        if use_bias_correction:
            step *= np.sqrt(1 - b2**t) / (1 - b1**t)
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        r = b3 * r + d / estim_lr0 * step * np.dot(g, p0 - p)
        s = b3 * s + d / estim_lr0 * (d if safeguard_warmup else step) * g
        size = np.sum(np.abs(s))
        found = estim_lr_coef * r / size if size > 0 else 0.0
        if d == estim_lr0:
            d = max(d, found)
        d_max = max(d_max, found)
        d = min(d_max, d * growth_rate)
        p = p - step * (m / (np.sqrt(v) + d * eps) + weight_decay * p)
        yield as_tree(p, like)


whole = partial(Case, looks_at_all_leaves=True, learning_rate=1.0, rate_for_descent=1.0)
# Larger first steps than the default: 1e-6 does not move a parameter of size 1 in
# bfloat16.
CASES = [
    whole("prodigy", {"estim_lr0": 0.01}, complex_leaves=False),
]

authors = partial(torch_like, "prodigyopt")
OPTAX_RATE = "lambda t: 1 / (1 + 0.25 * t)"  # its own schedules are in float32
RATE = "inverse_time_decay(1.0, 2, 0.5)"
ROWS = (
    authors("prodigy", "Prodigy()", "prodigy()"),
    authors(
        "prodigy-decay-growth",
        "Prodigy(d0=1e-3, betas=(0.8, 0.99), beta3=0.9, weight_decay=0.1, d_coef=2.0, "
        "growth_rate=1.1)",
        "prodigy(1.0, (0.8, 0.99), 0.9, 1e-8, 1e-3, 2.0, 0.1, growth_rate=1.1)",
    ),
    authors(
        "prodigy-correction-schedule",
        "Prodigy(lr=0.05, d0=0.1, use_bias_correction=True, safeguard_warmup=True)",
        "prodigy(DECAY, estim_lr0=0.1, use_bias_correction=True, "
        "safeguard_warmup=True)",
    ),
    authors(
        "prodigy-l2-schedule",
        "Prodigy(lr=0.05, d0=0.1, weight_decay=0.1, decouple=False)",
        "chain(add_decayed_weights(0.1), prodigy(DECAY, estim_lr0=0.1))",
    ),
    optax(
        "prodigy",
        f"prodigy({OPTAX_RATE}, estim_lr0=0.01, weight_decay=0.1)",
        f"prodigy({RATE}, estim_lr0=0.01, weight_decay=0.1, use_bias_correction=True)",
    ),
)


def test_the_start_of_narrow_parameters_can_be_kept_as_narrow() -> None:
    narrow = jopt.prodigy(params0_dtype="bfloat16")
    state = on_a_path(narrow, jnp.bfloat16)
    assert state["prodigy"].params0["w"].dtype == jnp.bfloat16
    expected = scalars(on_a_path(jopt.prodigy(), jnp.bfloat16))
    chex.assert_trees_all_equal(scalars(state), expected)
