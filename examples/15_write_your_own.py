"""Write an optimizer in 20 lines, with all features of jopt's own.

    python examples/15_write_your_own.py

PowerSign (Bello et al., "Neural optimizer search with reinforcement learning", 2017)
takes longer steps where the gradient and its running mean have the same sign:

    m <- b1 m + (1 - b1) g
    p <- p - learning_rate exp(strength sign(g) sign(m)) g

It prints, with one device:

    power_sign(
        learning_rate=0.05,
        strength=linear_schedule(init_value=1.0, end_value=0.0, transition_steps=200),
    )
    loss 22.0 -> 1.6e-14
    {'learning_rate': '0.100', 'strength': '0.005'}
    skipped: Parameters on several devices give a state there, and the same numbers. …
    29 laws hold
"""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jopt


# The optimizer: its state, the rule for one leaf, and the recipe.


class PowerSignState(NamedTuple):
    mu: Any  # running mean of the gradients, like params


@jopt.transformation
def scale_by_power_sign(
    strength: jopt.ScalarOrSchedule = 1.0, b1: jopt.ScalarOrSchedule = 0.9
):
    def rule(g, mu):
        mu = b1 * mu + (1 - b1) * g
        return jnp.exp(strength * jnp.sign(g) * jnp.sign(mu)) * g, mu

    return jopt.leafwise(rule, state=PowerSignState, mu=jopt.zeros())


@jopt.transformation
def power_sign(
    learning_rate: jopt.ScalarOrSchedule,
    strength: jopt.ScalarOrSchedule = 1.0,
    b1: jopt.ScalarOrSchedule = 0.9,
):
    by_sign = scale_by_power_sign(strength, b1)
    return jopt.chain(by_sign, jopt.scale_by_learning_rate(learning_rate))


# It is a value: comparable, registered by name, and convertible to text and JSON.

tx = power_sign(0.05, strength=jopt.linear_schedule(1.0, 0.0, 200))
print(tx)
config, again = json.dumps(jopt.to_config(tx)), jopt.from_config(repr(tx))
assert again == tx == jopt.from_config(json.loads(config)) and hash(again) == hash(tx)
assert jopt.get("power_sign", learning_rate=0.05) == power_sign(0.05)

# Its numbers may be constant, scheduled or tunable. To set one compiles nothing.


def loss_fn(params):
    return 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * (params["w"] - 1.0) ** 2)


params = start = {"w": jnp.array([-1.0, 3.0])}
state = tx.init(params)
for i in range(200):
    if i == 100:
        state = jopt.set_hyperparams(tx, state, learning_rate=0.1)
    params, state = jopt.step(tx, jax.grad(loss_fn)(params), state, params)
print(f"loss {loss_fn(start):.1f} -> {loss_fn(params):.1e}")
print({name: f"{x:.3f}" for name, x in jopt.hyperparams(state).items()})

# The laws that jopt's own optimizers obey. The expected numbers are those of NumPy.


def in_numpy(p, grads, learning_rate, strength=1.0, b1=0.9):
    mu = np.zeros_like(p)
    for g in grads:
        mu = b1 * mu + (1 - b1) * g
        p = p - learning_rate * np.exp(strength * np.sign(g) * np.sign(mu)) * g
        yield p


report = jopt.testing.check(power_sign(0.01, b1=0.8), expected=in_numpy)
for result in report.skipped:
    print(f"skipped: {result.statement} {result.message}")
print(f"{len(report.passed)} laws hold")
