"""Logistic regression on numbers as they are: without standardization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

from jopt import losses
from jopt.inspect import RaceTask
from tests.benchmarks.arena.problem import Problem, exact


def unscaled(steps: int = 1000) -> RaceTask:
    """Thirty measures of 569 tumours, of which some are 100,000 times others."""
    x, y = load_breast_cancer(return_X_y=True)
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)

    def init(key):
        noise = jax.random.normal(key, (x.shape[1],))
        return {"weights": 1e-4 * noise, "bias": jnp.zeros(())}

    def loss(params):
        products = x @ params["weights"]
        logits = products + jnp.broadcast_to(params["bias"], products.shape)
        return losses.sigmoid_binary_cross_entropy(logits, y).mean()

    return exact(init, loss, steps)


PROBLEMS = {
    "w7": Problem(
        title="Logistic regression without standardization",
        about=(
            "Thirty measures of 569 tumours, some 100,000 times others, 1,000 steps of "
            "all. Those that find a rate on their own begin with 1."
        ),
        task=unscaled,
        solvers=("lbfgs",),
        also={
            "cocob": "cocob(1.0)",
            "dadapt_adamw": "dadapt_adamw(1.0)",
            "dog": "dog(1.0)",
            "dowg": "dowg(1.0)",
            "mechanic": "mechanize(adamw(1.0, weight_decay=0.0), weight_decay=0.0)",
            "momo_adam": "momo_adam(1.0)",
            "polyak_sgd": "polyak_sgd(1.0)",
        },
    ),
}
