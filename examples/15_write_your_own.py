"""Write an optimizer in 20 lines, with all features of jopt's own.

    python examples/15_write_your_own.py

PowerSign (Bello et al., "Neural optimizer search with reinforcement learning", 2017)
takes longer steps where the gradient and its running mean have the same sign:

    m <- b1 m + (1 - b1) g
    p <- p - learning_rate exp(strength sign(g) sign(m)) g

It prints (the first line is longer):

    power_sign(learning_rate=0.05, strength=linear_schedule(init_value=1.0, …))
    loss 22.0 -> 1.6e-14, compiled: 1
    {'learning_rate': '0.100', 'strength': '0.005'}
    dtypes: kept
"""

import json
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
assert pickle.loads(pickle.dumps(tx)) == tx

# Its numbers may be constant, scheduled or tunable. Setting one does not retrace.


def loss_fn(params):
    return 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * (params["w"] - 1.0) ** 2)


start, compiled = {"w": jnp.array([-1.0, 3.0])}, []


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
print(f"loss {loss_fn(start):.1f} -> {loss_fn(params):.1e}, compiled: {len(compiled)}")
print({name: f"{x:.3f}" for name, x in jopt.hyperparams(state).items()})

# The state keeps its dtypes: moments are float32 even for narrower parameters.

for dtype in jnp.float16, jnp.bfloat16, jnp.float32:
    params = {"w": jnp.zeros(2, dtype)}
    before = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, before, params)
    assert after == before and updates["w"].dtype == dtype
    assert after["scale_by_power_sign"].mu["w"].dtype == jnp.float32
print("dtypes: kept")
