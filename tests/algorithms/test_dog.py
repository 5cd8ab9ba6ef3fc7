"""DoG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.laws.case import Case
from tests.parity.row import optax, torch_like
from tests.twins.base import Scalar, Tree, as_vector, at, double


def dog(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    init_step: tuple[str, float] = ("heuristic", 1e-6),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Tree]:
    """Ivgi, Hinder & Carmon, 2023, "DoG is SGD's best friend", equation DoG.

    ``eps`` and the decay are those of the authors' code.
    """
    x0 = x = {n: double(p) for n, p in params.items()}
    kind, value = init_step
    r = {
        "distance": value,
        "heuristic": value * (1 + np.linalg.norm(as_vector(x0))),
        "learning_rate": 0.0,
    }[kind]
    total = 0.0
    for t, g in enumerate(grads, start=1):
        g = {n: double(g[n]) + weight_decay * x[n] for n in x}
        r = max(r, np.linalg.norm(as_vector(x) - as_vector(x0)))
        total += np.linalg.norm(as_vector(g)) ** 2
        eta = at(learning_rate, t) * r / np.sqrt(total + eps)
        if kind == "learning_rate" and t == 1:
            eta = at(learning_rate, t) * value
        new = {n: x[n] - eta * g[n] for n in x}
        x = new if moves else x
        yield new


def scale_by_dog(params: Tree, grads: Iterable[Tree], **options: Any) -> Iterator[Tree]:
    """At rate -1, and parameters that stay where they are."""
    for new in dog(params, grads, learning_rate=-1.0, moves=False, **options):
        yield {n: new[n] - double(params[n]) for n in new}


whole = partial(Case, looks_at_all_leaves=True, learning_rate=1.0, rate_for_descent=1.0)
whole_transform = partial(Case, looks_at_all_leaves=True, learning_rate=None)
# Larger first steps than the default: 1e-6 does not move a parameter of size 1 in
# bfloat16.
CASES = [
    whole("dog", {"init_step": ("distance", 0.3)}),
    whole_transform("scale_by_dog", {"init_step": ("heuristic", 0.1)}),
]

authors = partial(torch_like, "dog", package="dog-optimizer")
OPTAX_RATE = "lambda t: 1 / (1 + 0.25 * t)"  # its own schedules are in float32
RATE = "inverse_time_decay(1.0, 2, 0.5)"
ROWS = (
    authors("dog", "DoG()", "dog()"),
    authors(
        "dog-decay",
        "DoG(reps_rel=0.1, weight_decay=0.1, eps=1e-3)",
        'dog(init_step=("heuristic", 0.1), weight_decay=0.1, eps=1e-3)',
    ),
    authors(
        "dog-first-rate",
        "DoG(init_eta=0.05)",
        'dog(init_step=("learning_rate", 0.05))',
    ),
    authors(
        "dog-schedule", "DoG(reps_rel=0.1, lr=0.05)", 'dog(DECAY, ("heuristic", 0.1))'
    ),
    optax("dog", "dog()"),
    optax(
        "dog-schedule-decay",
        f'dog({OPTAX_RATE}, ("learning_rate", 0.1), 1e-4, 0.1, '
        '{"kernel": True, "bias": False})',
        f'dog({RATE}, ("learning_rate", 0.1), 1e-4, 0.1, "kernel")',
    ),
    optax("dog-distance", 'dog(0.5, ("distance", 0.1))'),
)
