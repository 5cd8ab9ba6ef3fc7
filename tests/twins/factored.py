"""Second moments that take little memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from .base import Array, Scalar, at, double, steps


Tree = Mapping[str, Array]


def adafactor(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: int = 0,
    decay_rate_fn: Callable[..., Any] | None = None,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    weight_decay_rate: Scalar = 0.0,
    eps: Scalar = 1e-30,
    factored: bool = True,
    relative_step: bool = False,
    min_scale: Scalar = 1e-3,
    factored_axes: Literal["largest", "last"] = "largest",
    eps_mode: Literal["add", "clamp"] = "add",
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", algorithms 4 and 5.

    "clamp" is torch's: the epsilon bounds the mean of the rows and the divisor.
    """
    p = double(p)
    axes = list(range(p.ndim))
    if factored_axes == "largest":
        axes.sort(key=lambda axis: p.shape[axis])
    factored = factored and p.ndim >= 2
    if factored:
        i, j = axes[-2:]
        factored = min(p.shape[i], p.shape[j]) >= min_dim_size_to_factor
    rows, columns, v = 0.0, 0.0, 0.0
    m = np.zeros_like(p)
    for t, g in steps(grads):
        since = max(t - decay_offset, 1)
        beta = 1 - since ** -at(decay_rate, t)
        if decay_rate_fn is not None:
            beta = decay_rate_fn(since - 1, at(decay_rate, t))
        epsilon = at(eps, t)
        squares = np.abs(g) ** 2
        if eps_mode == "add":
            squares = squares + epsilon
        if factored:
            rows = beta * rows + (1 - beta) * squares.mean(j, keepdims=True)
            columns = beta * columns + (1 - beta) * squares.mean(i, keepdims=True)
            whole = rows.mean(i, keepdims=True)
            if eps_mode == "clamp":
                whole = np.maximum(whole, epsilon)
            v_hat = rows * columns / whole
        else:
            v = v_hat = beta * v + (1 - beta) * squares
        root = np.sqrt(v_hat)
        if eps_mode == "clamp":
            root = np.maximum(root, epsilon)
        u = g / root
        if clipping_threshold is not None:
            u = u / max(1.0, rms(u) / at(clipping_threshold, t))
        rate = 0.01 if learning_rate is None else at(learning_rate, t)
        if learning_rate is None or relative_step:
            rate = min(rate, 1 / np.sqrt(t))
        u = rate * u
        if multiply_by_parameter_scale:
            u = max(at(min_scale, t), rms(p)) * u
        if momentum is not None:
            u = m = at(momentum, t) * m + (1 - at(momentum, t)) * u
        p = p - (u + at(weight_decay_rate, t) * p)
        yield p


def rms(x: Array) -> float:
    """The root mean square of all elements."""
    return float(np.sqrt(np.mean(np.abs(x) ** 2))) if x.size else 0.0


def scale_by_factored_rms(
    p: Array,
    grads: Iterable[Array],
    *,
    epsilon: Scalar = 1e-30,
    step_offset: int = 0,
    clipping_threshold: Scalar | None = None,
    **options: Any,
) -> Iterator[Array]:
    """Adafactor's direction, as `adafactor` takes it from a parameter of zeros."""
    before = np.zeros_like(double(p))
    for after in adafactor(
        before,
        grads,
        learning_rate=-1.0,
        eps=epsilon,
        decay_offset=step_offset,
        clipping_threshold=clipping_threshold,
        multiply_by_parameter_scale=False,
        **options,
    ):
        yield after - before
        before = after


def scale_by_relative_step(
    p: Array, grads: Iterable[Array], *, learning_rate: Scalar = 1e-2
) -> Iterator[Array]:
    """Shazeer & Stern, 2018, "Adafactor", section 7: the step size."""
    for t, g in steps(grads):
        yield -min(at(learning_rate, t), 1 / np.sqrt(t)) * g


def sm3(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    momentum: Scalar | None = 0.9,
    b2: Scalar = 1.0,
    eps: Scalar = 1e-8,
) -> Iterator[Array]:
    """Anil et al., 2019, "Memory-efficient adaptive optimization", algorithm SM3-II.

    The cover of a tensor: for every axis and every index of it, the slice there.
    """
    p = double(p)
    cover = [
        (axis, index) for axis, size in enumerate(p.shape) for index in range(size)
    ]
    accumulators = dict.fromkeys(cover, 0.0)
    alone = 0.0  # of a number without axes
    m = np.zeros_like(p)
    for t, g in steps(grads):
        decay = at(b2, t)
        new = 1.0 if decay == 1 else 1 - decay
        v = np.zeros_like(p)
        for i in np.ndindex(p.shape):
            least = min([accumulators[axis, i[axis]] for axis in range(p.ndim)] or [0])
            v[i] = decay * (least if p.ndim else alone) + new * g[i] ** 2
        for axis, index in cover:
            accumulators[axis, index] = np.max(np.take(v, index, axis), initial=0.0)
        alone = v
        u = np.zeros_like(p)
        u[v > 0] = g[v > 0] / np.sqrt(v[v > 0] + at(eps, t))
        if momentum is not None:
            u = m = at(momentum, t) * m + (1 - at(momentum, t)) * u
        p = p - at(learning_rate, t) * u
        yield p


class Factored:
    """An average of squares, of which only the means of rows and columns are kept."""

    def __init__(self, ndim: int):
        self.ndim = ndim
        self.rows = self.columns = self.all = np.zeros(())

    def average(self, beta: float, squares: Array) -> Array:
        """The average with these squares, from its rows and columns if it has any."""
        if self.ndim < 2:
            self.all = beta * self.all + (1 - beta) * squares
            return self.all
        new_rows = squares.mean(-1, keepdims=True)
        new_columns = squares.mean(-2, keepdims=True)
        self.rows = beta * self.rows + (1 - beta) * new_rows
        self.columns = beta * self.columns + (1 - beta) * new_columns
        return self.rows * self.columns / self.rows.mean(-2, keepdims=True)


def came(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    eps1: Scalar = 1e-30,
    eps2: Scalar = 1e-16,
    clipping_threshold: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Luo et al., 2023, "CAME: confidence-guided adaptive memory efficient ..."."""
    p = double(p)
    v, instability = Factored(p.ndim), Factored(p.ndim)
    m = np.zeros_like(p)
    for t, g in steps(grads):
        u = g / np.sqrt(v.average(at(b2, t), g**2 + at(eps1, t)))
        u = u / max(1.0, rms(u) / at(clipping_threshold, t))
        m = at(b1, t) * m + (1 - at(b1, t)) * u
        direction = m
        if p.ndim >= 2:
            difference = (u - m) ** 2 + at(eps2, t)
            direction = m / np.sqrt(instability.average(at(b3, t), difference))
        p = p - at(learning_rate, t) * (direction + at(weight_decay, t) * p)
        yield p


def adam_mini(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> Iterator[Tree]:
    """Zhang et al., 2024, "Adam-mini", algorithm 1.

    A bias has a v for every element, a kernel one for every column, others just one.
    """
    p = {name: double(x) for name, x in params.items()}
    m = {name: np.zeros_like(x) for name, x in p.items()}
    v = {name: 0.0 for name in p}
    for t, gs in enumerate(grads, start=1):
        beta1, beta2 = at(b1, t), at(b2, t)
        for name, x in p.items():
            g = double(gs[name])
            m[name] = beta1 * m[name] + (1 - beta1) * g
            squares = g**2
            if name == "kernel":
                squares = squares.mean(0)
            elif name != "bias":
                squares = squares.mean()
            v[name] = beta2 * v[name] + (1 - beta2) * squares
            root = np.sqrt(v[name] / (1 - beta2**t)) + at(eps, t)
            u = m[name] / (1 - beta1**t) / root
            p[name] = x - at(learning_rate, t) * (u + at(weight_decay, t) * x)
        yield dict(p)


def scale_by_adam_mini(
    params: Tree, grads: Iterable[Tree], **options: Any
) -> Iterator[Tree]:
    """The direction of `adam_mini`."""
    before = {name: np.zeros_like(double(x)) for name, x in params.items()}
    for after in adam_mini(before, grads, learning_rate=-1.0, **options):
        yield {name: after[name] - before[name] for name in before}
        before = after


def galore(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    rank: int,
    update_proj_gap: int,
    scale: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    side: Literal["shorter", "longer"] = "shorter",
) -> Iterator[Array]:
    """Zhao et al., 2024, "GaLore", algorithm 2, with Adam.

    New singular vectors have the signs that fit the old ones.
    """
    p = double(p)
    projector = None
    m = v = 0.0
    for t, g in steps(grads):
        left = p.ndim == 2 and (p.shape[0] < p.shape[1]) == (side == "shorter")
        if p.ndim == 2 and (t - 1) % update_proj_gap == 0:
            u, _, vh = np.linalg.svd(g, full_matrices=False)
            new = (u if left else vh.T)[:, :rank]
            if projector is not None:
                new = new * np.where((new * projector).sum(0) < 0, -1, 1)
            projector = new
        if projector is not None:
            g = projector.T @ g if left else g @ projector
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        n = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if projector is not None:
            n = at(scale, t) * (projector @ n if left else n @ projector.T)
        p = p - at(learning_rate, t) * (n + at(weight_decay, t) * p)
        yield p
