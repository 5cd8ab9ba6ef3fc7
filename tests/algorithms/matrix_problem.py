"""A problem of matrices for trajectories of other libraries: gradients that depend on
the parameters, with no zeros and all singular values well apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt


STEPS = 12


def _matrix(seed: int, *shape: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=shape)
    return 2.0 * x / np.linalg.norm(x)


# (inputs, outputs): more outputs, more inputs, as many.
MATRICES = {
    "wide": _matrix(0, 4, 6),
    "tall": _matrix(1, 6, 4),
    "square": _matrix(2, 5, 5),
}


def gradient(w: np.ndarray, t: int) -> np.ndarray:
    """The gradient of the step ``t``."""
    return np.sin(3.0 * w + t) + 0.3 * w


GOLDEN = Path(__file__).parent / "golden" / "muon_family.npz"


def close_to_golden(name: str, tx: Any, leaves: Any = None) -> None:
    """Assert that a transformation takes the recorded steps, in float64."""
    with np.load(GOLDEN) as file:
        expected = file[name]
    sizes = np.cumsum([w.size for w in MATRICES.values()])[:-1]
    with jax.enable_x64(True):
        params = {n: jnp.asarray(w) for n, w in MATRICES.items()}
        state = tx.init(params)
        update = jax.jit(tx.update)
        for t, row in enumerate(expected):
            grads = {
                n: jnp.asarray(gradient(np.asarray(w), t)) for n, w in params.items()
            }
            updates, state = update(grads, state, params)
            params = jopt.apply_updates(params, updates)
            parts = dict(zip(MATRICES, np.split(row, sizes), strict=True))
            for n in leaves or MATRICES:
                np.testing.assert_allclose(
                    params[n].ravel(),
                    parts[n],
                    rtol=1e-6,
                    atol=1e-7,
                    err_msg=f"{n} in step {t}",
                )
