"""The problem that every optimizer solves here: one small tree, twenty fixed gradients.

Gradients of order one hide where an optimizer adds its eps, so most of these are tiny,
and some entries are exactly zero on every third step, the first included.
"""

import numpy as np


STEPS = 20


def _draw():
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(size=(3, 4)),
        "bias": rng.normal(size=(4,)),
    }
    scales = {
        "kernel": np.array([1.0, 1e-4, 1e-6])[:, None] * np.ones((3, 4)),
        "bias": np.array([1.0, 1e-4, 1e-6, 1.0]),
    }
    scales["kernel"][0, 3] = scales["kernel"][1, 2] = scales["bias"][3] = 1e-5
    grads = {
        name: rng.normal(size=(STEPS, *scale.shape)) * scale
        for name, scale in scales.items()
    }
    grads["kernel"][::3, :, 1] = 0.0
    grads["bias"][::3, :2] = 0.0
    return params, grads


PARAMS, GRADS = _draw()  # float64; GRADS have the steps as their leading axis
# The diagonal of a Hessian, for what takes one.
HESSIAN = {n: 1e-3 * np.abs(p) ** 3 + 1e-8 for n, p in PARAMS.items()}
VALUES = 2.0 / (1 + 0.1 * np.arange(STEPS))  # the loss, for what wants to know it


def flat(tree):
    """All leaves as one float vector (or a row per step), `kernel` before `bias`."""
    leaves = {name: np.asarray(tree[name]) for name in PARAMS if name in tree}
    return np.concatenate(
        [
            x.reshape(*x.shape[: x.ndim - PARAMS[name].ndim], -1)
            for name, x in leaves.items()
        ],
        axis=-1,
    )
