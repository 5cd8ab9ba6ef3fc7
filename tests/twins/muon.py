"""Orthogonalized momentum, by singular value decompositions."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from .base import Array, EpsMode, Scalar, at, double, steps
from .core import adamw


SIMPLE = [(3.4445, -4.7750, 2.0315)] * 5
POLAR_EXPRESS = [
    (8.2373125, -23.1577474, 16.6805684),
    (4.0824420, -2.8930477, 0.5252849),
    (3.9263480, -2.8547468, 0.5318022),
    (3.2982187, -2.4245420, 0.4863201),
    (2.2970369, -1.6366256, 0.4002628),
]
TRIPLES = {"simple": SIMPLE, "polar_express": POLAR_EXPRESS}


def polar(u: Array, ns_coeffs: str, eps: float = 0.0) -> Array:
    """What the iteration does to the singular values of ``u / (|u| + eps)``."""
    norm = np.sqrt(np.sum(np.abs(u) ** 2))
    if norm == 0:
        return u
    p, s, qh = np.linalg.svd(u, full_matrices=False)
    s = s / (norm + eps)
    for a, b, c in TRIPLES[ns_coeffs]:
        s = a * s + b * s**3 + c * s**5
    return (p * s) @ qh


def muon(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    ns_coeffs: str = "simple",
    beta: Scalar = 0.95,
    eps: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = True,
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: Scalar = 0.0,
    adam_learning_rate: Scalar,
    consistent_rms: Scalar | None = None,
    shape_scale: str = "kj",
    equilibrate: bool = False,
    adam_eps: Scalar = 1e-8,
    adam_eps_mode: EpsMode = "after",
    b2: Scalar | None = None,
) -> Iterator[Array]:
    """Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks".

    Kernels are (inputs, outputs). ``consistent_rms`` is Liu et al., 2025, "Muon is
    scalable for LLM training", ``b2`` Li et al., 2025, "NorMuon: making Muon more
    efficient and scalable".
    """
    p = double(p)
    if p.ndim < 2:
        yield from adamw(
            p,
            grads,
            learning_rate=adam_learning_rate,
            b1=adam_b1,
            b2=adam_b2,
            eps=adam_eps,
            eps_root=adam_eps_root,
            weight_decay=adam_weight_decay,
            eps_mode=adam_eps_mode,
        )
        return
    inputs, outputs = p.shape
    buffer = np.zeros_like(p)
    v = np.zeros(outputs)
    for t, g in steps(grads):
        b = at(beta, t)
        buffer = b * buffer + (1 - b) * g
        u = b * buffer + (1 - b) * g if nesterov else buffer
        if equilibrate:
            norms = np.sqrt(np.sum(np.abs(u) ** 2, axis=0))
            u = np.divide(u, norms, out=np.zeros_like(u), where=norms > 0)
        scale = {
            "kj": math.sqrt(max(1, outputs / inputs)),
            "spectral": math.sqrt(outputs / inputs),
        }[shape_scale]
        if consistent_rms is not None:
            scale = at(consistent_rms, t) * math.sqrt(max(inputs, outputs))
        direction = scale * polar(u, ns_coeffs, at(eps, t))
        if b2 is not None:
            v = at(b2, t) * v + (1 - at(b2, t)) * np.mean(
                np.abs(direction) ** 2, axis=0
            )
            before = np.linalg.norm(direction)
            direction = direction / (np.sqrt(v) + 1e-10)
            norm = np.linalg.norm(direction)
            direction = direction * (before / norm if norm else 0.0)
        decay = at(weight_decay, t) * p
        p = p - at(learning_rate, t) * (direction + decay)
        yield p
