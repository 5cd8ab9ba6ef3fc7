"""Write an optimizer in 20 lines, with all features of jopt's own.

    python examples/04_write_your_own.py

PowerSign (Bello et al., "Neural optimizer search with reinforcement learning", 2017)
takes longer steps where the gradient and its running mean have the same sign, and
shorter steps elsewhere:

    m <- b1 m + (1 - b1) g
    p <- p - learning_rate exp(strength sign(g) sign(m)) g

It prints (the first line is wrapped here):

    power_sign(learning_rate=0.05, strength=linear_schedule(init_value=1.0,
        end_value=0.0, transition_steps=200))
    loss 22.0 -> 1.6e-14, compilations: 1
    {'learning_rate': '0.100', 'strength': '0.005'}
    all laws hold

With one device or without Flax, optax or orbax it says which laws were skipped.
"""

import json
import pickle
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
    return jopt.chain(
        scale_by_power_sign(strength, b1), jopt.scale_by_learning_rate(learning_rate)
    )


# It is a value: comparable, registered by name, and convertible to text and JSON.

tx = power_sign(0.05, strength=jopt.linear_schedule(1.0, 0.0, 200))
print(tx)
config = json.dumps(jopt.to_config(tx))
again = jopt.from_config(repr(tx))
assert again == tx and hash(again) == hash(tx)
assert jopt.from_config(json.loads(config)) == tx
assert jopt.get("power_sign", learning_rate=0.05) == power_sign(0.05)
assert pickle.loads(pickle.dumps(tx)) == tx

# Its numbers may be constant, scheduled or tunable. Setting one does not retrace.

start = {"w": jnp.array([-1.0, 3.0])}


def loss_fn(params):
    return 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * (params["w"] - 1.0) ** 2)


compiled = []


@jax.jit
def step(params, state):
    compiled.append("now")  # Python code runs only while JAX traces
    updates, state = tx.update(jax.grad(loss_fn)(params), state, params)
    return jopt.apply_updates(params, updates), state


params, state = start, tx.init(start)
for i in range(200):
    if i == 100:
        state = jopt.set_hyperparams(tx, state, learning_rate=0.1)
    params, state = step(params, state)
first, last = loss_fn(start), loss_fn(params)
print(f"loss {first:.1f} -> {last:.1e}, compilations: {len(compiled)}")
print({name: f"{x:.3f}" for name, x in jopt.hyperparams(state).items()})
assert last < 1e-6 * first and len(compiled) == 1

# The laws that jopt's own optimizers obey: types, precision, memory, errors, wrappers,
# checkpoints and more. A second implementation, in NumPy, says what its numbers are.


def in_numpy(p, grads, learning_rate, strength=1.0, b1=0.9):
    mu = np.zeros_like(p)
    for g in grads:
        mu = b1 * mu + (1 - b1) * g
        p = p - learning_rate * np.exp(strength * np.sign(g) * np.sign(mu)) * g
        yield p


report = jopt.testing.check(power_sign(0.01, b1=0.8), expected=in_numpy)
assert report.ok  # check has raised otherwise, with the report
for result in report.skipped:
    print(f"skipped: {result.statement} {result.message}")
print("all laws hold")
