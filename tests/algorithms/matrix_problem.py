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


# Of microsoft/dion, which divides by 1.02 times the norm before the first step.
POLAR_EXPRESS = [
    (
        8.156554524902461 / 1.02,
        -22.48329292557795 / 1.02**3,
        15.878769915207462 / 1.02**5,
    ),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]
GOLDEN = Path(__file__).parent / "golden" / "muon_family.npz"


def close_to_golden(
    name: str,
    tx: Any,
    leaves: Any = None,
    extra: Any = None,
    average: bool = False,
    atol: float = 1e-7,
) -> None:
    """Assert that a transformation takes the recorded steps, in float64.

    Args:
      name: The name in the golden file.
      tx: The transformation.
      leaves: The leaves that it is recorded for, if not all.
      extra: ``extra(grads)``, further arguments of the update, which is not compiled.
      average: Whether the parameters to evaluate with are recorded.
      atol: The absolute tolerance; the relative one is 1e-6.
    """
    with np.load(GOLDEN) as file:
        expected = file[name]
    sizes = np.cumsum([w.size for w in MATRICES.values()])[:-1]
    with jax.enable_x64(True):
        params = {n: jnp.asarray(w) for n, w in MATRICES.items()}
        state = tx.init(params)
        update = tx.update if extra else jax.jit(tx.update)
        for t, row in enumerate(expected):
            grads = {
                n: jnp.asarray(gradient(np.asarray(w), t)) for n, w in params.items()
            }
            more = extra(grads) if extra else {}
            updates, state = update(grads, state, params, **more)
            params = jopt.apply_updates(params, updates)
            found = jopt.eval_params(tx, state, params) if average else params
            parts = dict(zip(MATRICES, np.split(row, sizes), strict=True))
            for n in leaves or MATRICES:
                np.testing.assert_allclose(
                    found[n].ravel(),
                    parts[n],
                    rtol=1e-6,
                    atol=atol,
                    err_msg=f"{n} in step {t}",
                )
