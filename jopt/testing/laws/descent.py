"""It optimizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jopt.core.apply import apply_updates
from jopt.testing.law import law
from jopt.testing.problem import update
from jopt.testing.subject import Subject


@law(
    "descent",
    kind="optimizer",
    fix="the updates are added to the parameters, so they must point against the "
    "gradients: end the chain with jopt.scale_by_learning_rate, which turns the sign.",
)
def it_descends_a_quadratic_and_rosenbrock(subject: Subject) -> None:
    """1,500 steps go down a quadratic and Rosenbrock's valley."""
    start = subject.choose({"x": jnp.array([-1.0, 1.5])})

    def quadratic(p):
        x, _ = ravel_pytree(p)
        curvature = jnp.asarray(np.resize([1.0, 10.0], x.size), x.dtype)
        return jnp.sum(curvature * (x - 0.5) ** 2)

    def rosenbrock(p):
        x, _ = ravel_pytree(p)
        a, b = x[:-1:2], x[1::2]
        return jnp.sum((1 - a) ** 2 + 100 * (b - a**2) ** 2)

    for f, steepness, share in [(quadratic, 1.0, 0.02), (rosenbrock, 100.0, 0.3)]:

        def run(tx, f=f):
            def body(carry, _):
                params, state = carry
                value, g = jax.value_and_grad(f)(params)
                updates, state = update(tx, g, state, params, value=value)
                return (apply_updates(params, updates), state), None

            carry = start, tx.init(start)
            (final, _), _ = jax.lax.scan(body, carry, length=1500)
            return f(final)

        first = float(f(start))
        best = np.inf
        for tx in subject.for_descent(steepness):
            best = np.fmin(best, float(run(tx)))
            if best < share * first:
                break
        # With a single parameter, Rosenbrock's function has no pair of them.
        assert first == 0 or best < share * first, (
            f"1,500 steps on {f.__name__} lead from {first:.3g} to {best:.3g}, where "
            f"less than {share * first:.3g} is expected"
        )
