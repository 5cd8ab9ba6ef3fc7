"""Wrappers: a transformation inside another, and averages of the parameters."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .base import Array, Scalar, at, double, steps


def params_ema(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: Scalar,
    debias: bool = False,
    overwrite_every: int | None = None,
) -> Iterator[Array]:
    """Keras's ``use_ema``: the first average is the first new parameters."""
    p = double(p)
    total, filled = np.zeros_like(p), 0.0
    avg = p
    for t, u in steps(grads):
        d = at(decay, t)
        if debias:
            # An average of p_1, ..., p_t that starts at zero, and the same of ones.
            total, filled = d * total + (1 - d) * (p + u), d * filled + (1 - d)
            avg = total / filled
        else:
            avg = p + u if t == 1 else d * avg + (1 - d) * (p + u)
        yield avg - p if overwrite_every and t % overwrite_every == 0 else u


def params_ema_of_gradients(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: float,
    steps: int,
    overwrite_every: int,
) -> Iterator[Array]:
    """Keras's ``use_ema`` where ``steps`` gradients make a step, which it counts."""
    p = double(p)
    avg = p
    for i, u in enumerate(grads):
        first = i < steps
        avg = p + u if first else decay * avg + (1 - decay) * (p + u)
        done = i // steps + 1
        yield avg - p if done % overwrite_every == 0 else double(u)


def params_mean(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Izmailov et al., 2018: the mean of the parameters changes no update."""
    yield from (double(g) for g in grads)


def accumulate_sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    steps: Any,
    use_grad_mean: bool = True,
    **_: Any,
) -> Iterator[Array]:
    """Momentum 0.9 on the mean, or sum, of as many gradients as one step has."""
    b = np.zeros_like(double(p))
    waiting: list[Array] = []
    done = 0
    for g in grads:
        waiting.append(double(g))
        if len(waiting) < (round(float(steps(done))) if callable(steps) else steps):
            yield np.zeros_like(b)
            continue
        b = 0.9 * b + sum(waiting) / (len(waiting) if use_grad_mean else 1)
        waiting, done = [], done + 1
        yield -0.1 * b


def decayed_first_sgd(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Momentum 0.9 at rate 0.1, and a tenth of the parameter off at every step."""
    b = np.zeros_like(double(p))
    for g in grads:
        b = 0.9 * b + double(g)
        yield -0.1 * b - 0.1 * double(p)
