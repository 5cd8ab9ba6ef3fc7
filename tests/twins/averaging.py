"""Averages of the parameters."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .base import Array, Scalar, at, double, steps


def scale_by_schedule_free(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
    warmup_steps: int = 0,
    rescale: bool = True,
) -> Iterator[Array]:
    """What `schedule_free_sgd` adds to parameters that stay where they are."""
    run = _three_points(
        p, learning_rate, b1, weight_lr_power, r, warmup_steps, rescale, moves=False
    )
    next(run)
    for _, g in steps(grads):
        yield run.send(lambda y, g=g: g) - p


def schedule_free_sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar = 1.0,
    warmup_steps: int = 0,
    b1: Scalar = 0.9,
    weight_decay: float = 0.0,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
) -> Iterator[Array]:
    """Defazio et al., 2024, "The road less scheduled": y, z and x of SGD."""
    run = _three_points(p, learning_rate, b1, weight_lr_power, r, warmup_steps)
    next(run)
    for _, g in steps(grads):
        yield run.send(lambda y, g=g: g + weight_decay * y)


def schedule_free_adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar = 0.0025,
    warmup_steps: int = 0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: float = 0.0,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
) -> Iterator[Array]:
    """The same paper, Schedule-Free AdamW."""
    run = _three_points(p, learning_rate, b1, weight_lr_power, r, warmup_steps)
    next(run)
    v = np.zeros(np.shape(p))
    for t, g in steps(grads):
        v = at(b2, t) * v + (1 - at(b2, t)) * np.abs(g) ** 2
        root = np.sqrt(v / (1 - at(b2, t) ** t)) + at(eps, t)
        yield run.send(lambda y, u=g / root: u + weight_decay * y)


def schedule_free(
    p: Array,
    grads: Iterable[Array],
    *,
    base_optimizer: Any,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
) -> Iterator[Array]:
    """With plain steps ``-0.1 g``, and parameters that stay where they are."""
    del base_optimizer
    run = _three_points(
        p, learning_rate, b1, weight_lr_power, r, rescale=False, moves=False
    )
    next(run)
    for _, g in steps(grads):
        yield run.send(lambda y, g=g: -0.1 * g) - p


def params_lawa(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Kaddour, 2022: the mean of the latest parameters changes no update."""
    yield from (double(g) for g in grads)


def lookahead(
    p: Array,
    grads: Iterable[Array],
    *,
    fast_optimizer: Any,
    sync_period: int,
    slow_step_size: Scalar,
    reset_state: bool = False,
) -> Iterator[Array]:
    """Zhang et al., 2019, algorithm 1, with steps ``-0.1 b``, ``b = 0.9 b + g``.

    The parameters stay where they are: each step sets out from there.
    """
    del fast_optimizer
    p = double(p)
    slow, b = p, np.zeros_like(p)
    for t, g in steps(grads):
        b = 0.9 * b + g
        fast = p - 0.1 * b
        if t % sync_period == 0:
            alpha = at(slow_step_size, t)
            slow = (1 - alpha) * slow + alpha * fast
            fast = slow
            b = np.zeros_like(p) if reset_state else b
        yield fast - p


def _three_points(
    p: Array,
    learning_rate: Scalar,
    b1: Scalar,
    power: Scalar,
    r: Scalar,
    warmup_steps: int = 0,
    rescale: bool = True,
    moves: bool = True,
) -> Any:
    """Is sent the direction as a function of y, and yields the next y."""
    y = z = double(p)
    lr_max = weight_sum = 0.0
    t = 0
    direction: Callable[[Array], Array] = yield
    while True:
        t += 1
        beta = at(b1, t)
        lr = at(learning_rate, t) * min(1.0, t / warmup_steps if warmup_steps else 1.0)
        x = (y - (1 - beta) * z) / beta
        z = z - lr * direction(y) if rescale else z + direction(y)
        lr_max = max(lr, lr_max)
        weight = t ** at(r, t) * lr_max ** at(power, t)
        weight_sum += weight
        c = weight / weight_sum if weight_sum > 0 else 0.0
        x = (1 - c) * x + c * z
        new = (1 - beta) * z + beta * x
        y = new if moves else y
        direction = yield new
