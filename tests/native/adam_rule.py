"""A rule as the engine has it: gradient, parameter and slots of a leaf, and scalars."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.native.calls import kernel_for


NUMBERS = [np.float32(x) for x in (1e-3, 0.9, 0.999, 0.1, 0.001, 0.1, 1e-8)]
IN_PLACE = {1: 0, 2: 1, 3: 2}


def adamw(g: Any, p: Any, mu: Any, nu: Any, *numbers: Any) -> list[Any]:
    """The new parameter and slots."""
    rate, b1, b2, c1, c2, decay, eps = numbers
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * (g * g)
    u = (mu / c1) / (jnp.sqrt(nu / c2) + eps)
    return [p - rate * (u + decay * p), mu, nu]


def leaf(shape: Any = (1000,)) -> list[np.ndarray]:
    """Gradient, parameter and slots; gradients have all magnitudes, and are 0."""
    rng = np.random.default_rng(0)
    g, p, mu, nu = (rng.standard_normal(shape).astype(np.float32) for _ in range(4))
    sizes = np.float32([1, 1e-4, 1e-6, 1e-30, 1e-40, 0])
    return [g * rng.choice(sizes, shape), np.sign(p) + p, mu, nu * nu]


def native(f: Any, *arguments: Any, aliases: Any = IN_PLACE) -> Any:
    """The function as a kernel of arrays like the arguments."""
    return kernel_for(jax.make_jaxpr(f)(*arguments), aliases)
