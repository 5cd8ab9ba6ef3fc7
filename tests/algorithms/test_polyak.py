"""Polyak's step size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

import jopt
from tests.laws.case import Case
from tests.parity.row import optax
from tests.twins.base import Scalar, Tree, at, double, l2_norm


def scale_by_polyak(
    p: Tree,
    grads: Iterable[Tree],
    *,
    value: Callable[[Any], Any],
    f_min: Scalar = 0.0,
    max_learning_rate: Scalar = 1.0,
    eps: Scalar = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> Iterator[Tree]:
    """Loizou et al., 2021, "Stochastic Polyak step-size for SGD", equation SPS_max.

    "sps+": Garrigos, Gower & Schaipp, 2023, "Function value learning".
    """
    p = {name: double(x) for name, x in p.items()}
    for t, tree in enumerate(grads, start=1):
        g = {name: double(x) for name, x in tree.items()}
        square = sum(l2_norm(x) ** 2 for x in g.values())
        gap = float(value(p)) - at(f_min, t)
        if variant == "sps+":
            gap = max(gap, 0.0)
        step = 0.0
        if square > 0:
            step = min(gap / (square + at(eps, t)), at(max_learning_rate, t))
        yield {name: step * x for name, x in g.items()}


def polyak_sgd(
    p: Tree,
    grads: Iterable[Tree],
    *,
    value: Callable[[Any], Any],
    scaling: Scalar = 1.0,
    **options: Any,
) -> Iterator[Tree]:
    """Loizou et al., 2021, "Stochastic Polyak step-size for SGD"."""
    updates = scale_by_polyak(p, grads, value=value, **options)
    for t, u in enumerate(updates, start=1):
        yield {name: -at(scaling, t) * x for name, x in u.items()}


CASES = [
    Case(
        "polyak_sgd",
        {"scaling": 0.5, "f_min": 0.5},
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    ),
    Case(
        "scale_by_polyak",
        {"variant": "sps+", "eps": 0.1},
        learning_rate=None,
        looks_at_all_leaves=True,
        needs_value=True,
    ),
]

ROWS = (
    optax("polyak-sgd", "polyak_sgd()"),
    optax("polyak-sgd-f-min", "polyak_sgd(0.5, f_min=1.0, eps=0.1)"),
    optax("polyak-sgd-backwards", "polyak_sgd(f_min=1.5)"),
    optax("polyak-sgd-plus", "polyak_sgd(f_min=1.5, variant='sps+')"),
)


def test_the_step_of_polyak_is_bounded_for_a_vanishing_gradient() -> None:
    tiny = jnp.array([1e-30])
    for value, expected in [(2.0, 1e-30), (0.0, 0.0)]:
        tx = jopt.scale_by_polyak()
        updates, _ = tx.update(tiny, tx.init(tiny), value=value)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
    back = jopt.scale_by_polyak(f_min=1.0)
    updates, _ = back.update(tiny, back.init(tiny), value=0.0)
    assert -jnp.inf < float(updates[0]) < 0


def test_scaling_of_polyak_multiplies_the_step() -> None:
    # optax's divides it, since the norm is that of the scaled gradient.
    grads = jnp.array([3.0, 4.0])
    tx = jopt.polyak_sgd(scaling=0.5)
    updates, _ = tx.update(grads, tx.init(grads), value=5.0)
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)
