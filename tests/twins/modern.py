"""Small modern gains."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .base import Array, EpsMode, Scalar, at, denominator, double, steps


# Optimizers: they yield the parameters.


def adam_atan2(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    a: Scalar = 1.27,
    b: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Everett et al., 2024, "Scaling exponents across parameterizations".

    A complex moment keeps its phase.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = at(a, t) * np.arctan2(np.abs(m_hat), at(b, t) * np.sqrt(v_hat))
        u = u * phase(m_hat)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def grams(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Cao, Li & Song, 2024, "Grams", algorithm 1."""
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        u = m_hat / (np.sqrt(v_hat + at(eps_root, t)) + at(eps, t))
        u = phase(g) * np.abs(u)
        p = p - at(learning_rate, t) * (u + at(weight_decay, t) * p)
        yield p


def mars_adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.95,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    gamma: Scalar = 0.025,
    max_norm: Scalar | None = 1.0,
    matrices_only: bool = False,
    weight_decay: Scalar = 0.0,
    eps_mode: EpsMode = "after",
) -> Iterator[Array]:
    """Yuan et al., 2024, "MARS", algorithm 2, with the gradient of the batch before."""
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    before = np.zeros_like(p)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        c = g
        if p.ndim == 2 or not matrices_only:
            c = mars_corrected(g, before, at(gamma, t), beta1, max_norm, t)
        before = g
        m = beta1 * m + (1 - beta1) * c
        v = beta2 * v + (1 - beta2) * np.abs(c) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        root = denominator(v_hat, 1 - beta2**t, at(eps, t), at(eps_root, t), eps_mode)
        p = p - at(learning_rate, t) * (m_hat / root + at(weight_decay, t) * p)
        yield p


def mars_lion(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.95,
    gamma: Scalar = 0.025,
    max_norm: Scalar | None = 1.0,
    matrices_only: bool = False,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Yuan et al., 2024, "MARS", algorithm 3, with the gradient of the batch before."""
    p = double(p)
    m = np.zeros_like(p)
    before = np.zeros_like(p)
    for t, g in steps(grads):
        beta1 = at(b1, t)
        c = g
        if p.ndim == 2 or not matrices_only:
            c = mars_corrected(g, before, at(gamma, t), beta1, max_norm, t)
        before = g
        m = beta1 * m + (1 - beta1) * c
        p = p - at(learning_rate, t) * (phase(m) + at(weight_decay, t) * p)
        yield p


def mars_corrected(
    g: Array,
    before: Array,
    gamma: float,
    b1: float,
    max_norm: Scalar | None,
    t: int,
) -> Array:
    """The paper's equation 3.1, and the clipping after it."""
    c = g + gamma * (b1 / (1 - b1)) * (g - before)
    norm = np.sqrt(np.sum(np.abs(c) ** 2))
    if max_norm is not None and norm > at(max_norm, t):
        c = c * at(max_norm, t) / norm
    return c


def stable_adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 1e-2,
) -> Iterator[Array]:
    """Wortsman et al., 2023, "Stable and low-precision training", algorithm 2.

    Its beta_hat are Adam's bias corrections in another form.
    """
    p = double(p)
    m = np.zeros_like(p)
    v = np.zeros(p.shape)
    for t, g in steps(grads):
        beta1, beta2 = at(b1, t), at(b2, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.abs(g) ** 2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        rms = np.sqrt(np.mean(np.abs(g) ** 2 / np.maximum(v_hat, at(eps, t) ** 2)))
        lr = at(learning_rate, t) / max(1.0, rms)
        p = (
            p
            - lr * at(weight_decay, t) * p
            - lr * m_hat / (np.sqrt(v_hat) + at(eps, t))
        )
        yield p


# Transformations: they yield the updates.


def cautious(
    p: Array,
    grads: Iterable[Array],
    *,
    inner: Callable[..., Iterator[Array]],
    normalizer: str = "mean",
    descent: bool = False,
) -> Iterator[Array]:
    """Liang et al., 2024, "Cautious optimizers", algorithm 1 and the authors' code."""
    kept_grads = [double(g) for g in grads]
    for g, u in zip(kept_grads, inner(p, kept_grads), strict=True):
        product = np.real((-u if descent else u) * np.conj(g))
        mask = (product > 0).astype(float)
        if normalizer == "mean":
            mask = mask / max(mask.mean(), 1e-3)
        elif normalizer == "count":
            mask = mask * (mask.size / (mask.sum() + 1))
        yield u * mask


def gradient_sign(
    p: Array,
    grads: Iterable[Array],
    *,
    inner: Callable[..., Iterator[Array]],
    descent: bool = False,
) -> Iterator[Array]:
    """Cao, Li & Song, 2024, "Grams", equation 3."""
    kept_grads = [double(g) for g in grads]
    for g, u in zip(kept_grads, inner(p, kept_grads), strict=True):
        yield (-1 if descent else 1) * phase(g) * np.abs(u)


def phase(x: Array) -> Array:
    """The sign of a real number, ``x / |x|`` of a complex one, 0 of 0."""
    size = np.abs(x)
    return x / np.where(size > 0, size, 1.0)


def cautious_weight_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Chen et al., 2025, "Cautious weight decay", algorithm 1."""
    p = double(p)
    for t, g in steps(grads):
        agrees = np.real(g * np.conj(p)) >= 0
        yield g + at(weight_decay, t) * p * agrees


def independent_weight_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar,
    peak_rate: Scalar,
) -> Iterator[Array]:
    """Wortsman et al., 2023, "Small-scale proxies", section 3.2.2."""
    p = double(p)
    for t, g in steps(grads):
        yield g + at(weight_decay, t) * p / at(peak_rate, t)


def corrected_weight_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar,
    rate: Scalar,
    peak_rate: Scalar,
) -> Iterator[Array]:
    """Defazio, 2025, "Why gradients rapidly increase near the end of training"."""
    p = double(p)
    for t, g in steps(grads):
        yield g + at(weight_decay, t) * (at(rate, t) / at(peak_rate, t)) * p


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


def limit_norm_growth(
    p: Array,
    grads: Iterable[Array],
    *,
    max_growth: Scalar = 1.01,
) -> Iterator[Array]:
    """Chen et al., 2024, "Fira", equation 8."""
    before = 0.0
    for t, g in steps(grads):
        norm = np.sqrt(np.sum(np.abs(g) ** 2))
        if before > 0 and norm / before > at(max_growth, t):
            g = g / norm * at(max_growth, t) * before
            norm = at(max_growth, t) * before
        before = norm
        yield g


def mars_correction(
    p: Array,
    grads: Iterable[Array],
    *,
    gamma: Scalar = 0.025,
    b1: Scalar = 0.95,
    max_norm: Scalar | None = 1.0,
) -> Iterator[Array]:
    """Yuan et al., 2024, "MARS", equation 3.1, with the batch before."""
    before = np.zeros_like(double(p))
    for t, g in steps(grads):
        yield mars_corrected(g, before, at(gamma, t), at(b1, t), max_norm, t)
        before = g


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
