"""D-Adaptation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from tests.laws.case import Case
from tests.parity.row import optax, torch_like
from tests.twins.base import Scalar, Tree, as_tree, as_vector, at, double


def dadapt_adamw(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    weight_decay: float = 0.0,
    use_bias_correction: bool = False,
    growth_rate: float = np.inf,
) -> Iterator[Tree]:
    """Defazio & Mishchenko, 2023, "Learning-rate-free learning by D-Adaptation".

    Its variant of Adam, with the authors' decay and options.
    """
    like = {n: double(p) for n, p in params.items()}
    p, b1, b2 = as_vector(like), *betas
    root = np.sqrt(b2)
    m, v, s = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    d, r = estim_lr0, 0.0
    for t, tree in enumerate(grads, start=1):
        g = as_vector({n: double(tree[n]) for n in like})
        step = d * at(learning_rate, t)
        if use_bias_correction:
            step *= np.sqrt(1 - b2**t) / (1 - b1**t)
        r = root * r + (1 - root) * step * np.dot(g, s / (np.sqrt(v) + eps))
        m = b1 * m + (1 - b1) * step * g
        v = b2 * v + (1 - b2) * g**2
        s = root * s + (1 - root) * step * g
        size = np.sum(np.abs(s))
        found = r / ((1 - root) * size) if size > 0 else 0.0
        p = p - m / (np.sqrt(v) + eps) - step * weight_decay * p
        d = max(d, min(found, d * growth_rate))
        yield as_tree(p, like)


whole = partial(Case, looks_at_all_leaves=True, learning_rate=1.0, rate_for_descent=1.0)
# Larger first steps than the default: 1e-6 does not move a parameter of size 1 in
# bfloat16.
CASES = [
    whole("dadapt_adamw", {"estim_lr0": 0.01}, complex_leaves=False),
]

authors = partial(torch_like, "dadaptation")
ROWS = (
    authors("dadapt", "DAdaptAdam(decouple=True)", "dadapt_adamw()"),
    authors(
        "dadapt-decay-growth",
        "DAdaptAdam(d0=1e-3, betas=(0.8, 0.99), weight_decay=0.1, decouple=True, "
        "growth_rate=1.1)",
        "dadapt_adamw(1.0, (0.8, 0.99), 1e-8, 1e-3, 0.1, growth_rate=1.1)",
    ),
    authors(
        "dadapt-l2-correction-schedule",
        "DAdaptAdam(lr=0.05, d0=0.1, weight_decay=0.1, use_bias_correction=True)",
        "chain(add_decayed_weights(0.1), "
        "dadapt_adamw(DECAY, estim_lr0=0.1, use_bias_correction=True))",
    ),
    optax(
        "dadapt",
        "dadapt_adamw(weight_decay=0.1)",
        "dadapt_adamw(weight_decay=0.1, use_bias_correction=True)",
    ),
)
