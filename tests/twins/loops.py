"""Optimizers and wrappers as loops would have them: objects that change themselves.

Each has ``update(grads, params) -> updates`` on dicts of NumPy arrays in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np


Tree = dict[str, np.ndarray]


class Adam:
    """Kingma & Ba, algorithm 1, with a learning rate that decays with its own count."""

    def __init__(self, rate: Callable[[int], float]):
        self.rate, self.t, self.m, self.v = rate, 0, {}, {}

    def update(self, grads: Tree, params: Tree) -> Tree:
        self.t += 1
        updates = {}
        for name, g in grads.items():
            self.m[name] = 0.9 * self.m.get(name, 0.0) + 0.1 * g
            self.v[name] = 0.999 * self.v.get(name, 0.0) + 0.001 * g**2
            m = self.m[name] / (1 - 0.9**self.t)
            v = self.v[name] / (1 - 0.999**self.t)
            updates[name] = -self.rate(self.t - 1) * m / (np.sqrt(v) + 1e-8)
        return updates


class Clip:
    def __init__(self, inner: Any, max_norm: float):
        self.inner, self.max_norm = inner, max_norm

    def update(self, grads: Tree, params: Tree) -> Tree:
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        factor = 1.0 if norm < self.max_norm else self.max_norm / norm
        return self.inner.update({n: factor * g for n, g in grads.items()}, params)


class Only:
    """The inner one sees some leaves; the others pass."""

    def __init__(self, inner: Any, names: Collection[str]):
        self.inner, self.names = inner, names

    def update(self, grads: Tree, params: Tree) -> Tree:
        seen = {n: g for n, g in grads.items() if n in self.names}
        return grads | self.inner.update(seen, {n: params[n] for n in seen})


class Accumulate:
    def __init__(self, inner: Any, steps: int):
        self.inner, self.steps, self.seen = inner, steps, []

    def update(self, grads: Tree, params: Tree) -> Tree:
        self.seen.append(grads)
        if len(self.seen) < self.steps:
            return {n: np.zeros_like(g) for n, g in grads.items()}
        mean = {n: sum(g[n] for g in self.seen) / self.steps for n in grads}
        self.seen = []
        return self.inner.update(mean, params)


class SkipNonfinite:
    def __init__(self, inner: Any):
        self.inner = inner

    def update(self, grads: Tree, params: Tree) -> Tree:
        if all(np.isfinite(g).all() for g in grads.values()):
            return self.inner.update(grads, params)
        return {n: np.zeros_like(g) for n, g in grads.items()}


class EverySecond:
    def __init__(self, inner: Any):
        self.inner, self.step = inner, -1

    def update(self, grads: Tree, params: Tree) -> Tree:
        self.step += 1
        if self.step % 2 == 0:
            return self.inner.update(grads, params)
        return {n: np.zeros_like(g) for n, g in grads.items()}


class Lookahead:
    def __init__(self, inner: Any, period: int, share: float):
        self.inner, self.period, self.share = inner, period, share
        self.step, self.slow = 0, None

    def update(self, grads: Tree, params: Tree) -> Tree:
        if self.slow is None:
            self.slow = dict(params)
        updates = self.inner.update(grads, params)
        self.step += 1
        if self.step % self.period:
            return updates
        for name, u in updates.items():
            fast = params[name] + u
            self.slow[name] = self.slow[name] + self.share * (fast - self.slow[name])
        return {n: self.slow[n] - params[n] for n in updates}
