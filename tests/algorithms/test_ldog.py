"""L-DoG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from tests.algorithms.test_dog import dog
from tests.laws.case import Case, transform
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, double


def ldog(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    reps_rel: float = 1e-6,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    moves: bool = True,
) -> Iterator[Array]:
    """The same paper: each layer on its own."""
    start = ("heuristic", reps_rel)
    options: dict[str, Any] = {"learning_rate": learning_rate, "init_step": start}
    options |= {"eps": eps, "weight_decay": weight_decay, "moves": moves}
    for x in dog({"": p}, ({"": g} for g in grads), **options):
        yield x[""]


def scale_by_distance_over_gradients(
    p: Array, grads: Iterable[Array], *, global_scale: float = 1.0, **options: Any
) -> Iterator[Array]:
    """At rate -1, and parameters that stay where they are."""
    for x in ldog(p, grads, learning_rate=-global_scale, moves=False, **options):
        yield x - double(p)


# Larger first steps than the default: 1e-6 does not move a parameter of size 1 in
# bfloat16.
CASES = [
    Case("ldog", {"reps_rel": 0.1}, learning_rate=1.0, rate_for_descent=1.0),
    transform("scale_by_distance_over_gradients", reps_rel=0.1, global_scale=-1.0),
]

authors = partial(torch_like, "dog", package="dog-optimizer")
ROWS = (
    authors("ldog", "LDoG()", "ldog()"),
    authors(
        "ldog-decay",
        "LDoG(reps_rel=0.1, lr=0.5, weight_decay=0.1)",
        "ldog(0.5, 0.1, weight_decay=0.1)",
    ),
    optax(
        "distance-over-gradients",
        "scale_by_distance_over_gradients(0.1, global_scale=-1.0)",
        tol64=1e-7,  # optax keeps the initial parameters in float32
    ),
)
