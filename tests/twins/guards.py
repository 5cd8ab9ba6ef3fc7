"""Guards and loss scales, around gradient descent with momentum 0.9 and rate 0.1."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .base import Array, Scalar, at, double


def dynamic_loss_scale(
    p: Array,
    grads: Iterable[Array],
    *,
    init_scale: float,
    growth_interval: int,
    growth_factor: Scalar = 2.0,
    backoff_factor: Scalar = 0.5,
    **_: Any,
) -> Iterator[Array]:
    """Micikevicius et al., 2018; whole gradients are skipped where one entry is bad."""
    b, scale, good = np.zeros_like(double(p)), init_scale, 0
    for t, g in enumerate(grads, start=1):
        g = double(g) / scale
        if np.all(np.isfinite(g)):
            b = 0.9 * b + g
            yield -0.1 * b
            good += 1
            if good == growth_interval:
                scale, good = scale * at(growth_factor, t), 0
        else:
            yield np.zeros_like(b)
            scale, good = scale * at(backoff_factor, t), 0


def skip_spikes(
    params: dict[str, Array],
    grads: Iterable[dict[str, Array]],
    *,
    z_thresh: Scalar,
    decay: Scalar,
    warmup_steps: int,
    max_consecutive_skips: int,
    of: str = "norm",
    eps: Scalar = 1e-6,
    value: Callable[[Any], Any] | None = None,
    **_: Any,
) -> Iterator[dict[str, Array]]:
    """All norms (or losses) are kept, and averaged anew in every step."""
    b = {n: np.zeros_like(double(p)) for n, p in params.items()}
    seen: list[float] = []
    weights: list[float] = []
    skipped = 0
    for t, tree in enumerate(grads, start=1):
        g = {n: double(x) for n, x in tree.items()}
        if of == "value":
            assert value is not None
            x = float(value({n: double(p) for n, p in params.items()}))
        else:
            x = float(np.sqrt(sum(np.sum(np.abs(v) ** 2) for v in g.values())))
        if len(seen) >= warmup_steps:
            mean = np.average(seen, weights=weights)
            deviation = np.sqrt(
                np.average((np.array(seen) - mean) ** 2, weights=weights)
            )
            z = (x - mean) / (deviation + at(eps, t) * abs(mean))
            if z > at(z_thresh, t):
                skipped += 1
                if skipped <= max_consecutive_skips:
                    yield {n: np.zeros_like(v) for n, v in g.items()}
                    continue
                seen, weights = [], []
        skipped = 0
        seen.append(x)
        share = max(1 / len(seen), 1 - at(decay, t))
        weights = [(1 - share) * w for w in weights] + [share]
        b = {n: 0.9 * b[n] + g[n] for n in g}
        yield {n: -0.1 * b[n] for n in g}


def conditionally_transform(
    p: Array,
    grads: Iterable[Array],
    *,
    should_transform_fn: Callable[[Any], Any],
    **_: Any,
) -> Iterator[Array]:
    """Momentum in the steps that are chosen, the gradient itself in the others."""
    b = np.zeros_like(double(p))
    for step, g in enumerate(grads):
        if should_transform_fn(step):
            b = 0.9 * b + double(g)
            yield -0.1 * b
        else:
            yield double(g)
