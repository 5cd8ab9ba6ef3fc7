"""Write Adam as Keras's four methods, and as jopt's slots and rule.

    python examples/keras/custom_optimizer.py

A subclass of `tf.keras.optimizers.Optimizer` implements four methods:

    _create_slots             the state of each variable     in jopt: the slots
    _resource_apply_dense     the update                     in jopt: the rule
    _resource_apply_sparse    the update of some rows        comes with the rule
    get_config                the arguments, for saving      comes with the decorator

The script has the class with those four methods, in plain NumPy so that it runs without
TensorFlow, and the jopt version. Both get the same gradients, of sizes from 1 to 1e-6:

    dense, 50 steps: the largest difference is 1.8e-14 of the way moved
    sparse, 50 steps: 2.4e-14; rows without a gradient moved by 0.0
    config: {"name": "my_adam", "config": {"learning_rate": {"name": "expone…
    and back: my_adam(learning_rate=exponential_decay(init_value=0.01, transition_st…

Both leave rows without a gradient unchanged. With `jopt.densify()` before it in a
chain, the moments of those rows decay, as in Keras's own Adam.
"""

import json
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.tree import one_minus_power


jax.config.update("jax_enable_x64", True)  # to compare in double precision

# Keras's four methods, in float64.


class KerasAdam:
    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.learning_rate, self.epsilon = learning_rate, epsilon
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.iterations = 0

    def _create_slots(self, var_list):
        self.m = [np.zeros_like(var) for var in var_list]
        self.v = [np.zeros_like(var) for var in var_list]

    def _resource_apply_dense(self, grad, var, m, v):
        t = self.iterations + 1
        m[...] = self.beta_1 * m + (1 - self.beta_1) * grad
        v[...] = self.beta_2 * v + (1 - self.beta_2) * np.square(grad)
        lr = self.learning_rate * np.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        var -= lr * m / (np.sqrt(v) + self.epsilon)

    def _resource_apply_sparse(self, grad, var, indices, m, v):
        rows = var[indices], m[indices], v[indices]
        self._resource_apply_dense(grad, *rows)
        var[indices], m[indices], v[indices] = rows

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }

    def apply_gradients(self, grads_and_vars):  # inherited in Keras
        for (grad, var), m, v in zip(grads_and_vars, self.m, self.v, strict=True):
            if isinstance(grad, tuple):
                self._resource_apply_sparse(grad[1], var, grad[0], m, v)
            else:
                self._resource_apply_dense(grad, var, m, v)
        self.iterations += 1


# jopt: the state, and the rule for one leaf.


class AdamState(NamedTuple):
    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # first moment, like params
    nu: Any  # second moment, like params


@jopt.transformation
def scale_by_my_adam(
    b1: jopt.ScalarOrSchedule = 0.9,
    b2: jopt.ScalarOrSchedule = 0.999,
    eps: jopt.ScalarOrSchedule = 1e-8,
):
    def scalars(t):
        # 1 - b**t loses digits in float32 if b is close to 1; one_minus_power does not.
        size = jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
        return {"size": size}

    def rule(g, mu, nu, *, size):
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        return size * mu / (jnp.sqrt(nu) + eps), mu, nu

    return jopt.leafwise(rule, scalars, AdamState, mu=jopt.zeros(), nu=jopt.zeros())


@jopt.transformation
def my_adam(
    learning_rate: jopt.ScalarOrSchedule = 0.001,
    b1: jopt.ScalarOrSchedule = 0.9,
    b2: jopt.ScalarOrSchedule = 0.999,
    eps: jopt.ScalarOrSchedule = 1e-8,
):
    return jopt.chain(
        scale_by_my_adam(b1, b2, eps), jopt.scale_by_learning_rate(learning_rate)
    )


# Both, side by side.

random = np.random.default_rng(0)
table, bias = random.normal(size=(6, 4)), random.normal(size=4)
sizes = 10.0 ** random.integers(-6, 1, size=(50, 1, 1))
table_grads = sizes * random.normal(size=(50, 6, 4))
bias_grads = sizes[:, 0] * random.normal(size=(50, 4))
rows = np.array([[1, 4], [4, 2]] * 25)  # of the sparse gradients; never 0, 3 or 5


def with_keras(sparse):
    variables = [table.copy(), bias.copy()]
    optimizer = KerasAdam()
    optimizer._create_slots(variables)
    for i in range(50):
        grad = (rows[i], table_grads[i][rows[i]]) if sparse else table_grads[i]
        grads = [grad, bias_grads[i]]
        optimizer.apply_gradients(zip(grads, variables, strict=True))
    return variables


def with_jopt(sparse):
    params = [jnp.array(table), jnp.array(bias)]
    tx = my_adam()
    state = tx.init(params)
    for i in range(50):
        grad = jnp.array(table_grads[i])
        if sparse:
            grad = jopt.RowSparse(jnp.array(rows[i]), grad[rows[i]], num_rows=6)
        grads = [grad, jnp.array(bias_grads[i])]
        params, state = jopt.step(tx, grads, state, params)
    return params


def relative_error(params, expected):
    """Return the largest difference relative to the largest movement of a weight."""
    moved = max(np.abs(expected[0] - table).max(), np.abs(expected[1] - bias).max())
    return (
        max(np.abs(a - b).max() for a, b in zip(params, expected, strict=True)) / moved
    )


dense, sparse = with_jopt(sparse=False), with_jopt(sparse=True)
difference = relative_error(dense, with_keras(sparse=False))
print(f"dense, 50 steps: the largest difference is {difference:.1e} of the way moved")
still = np.abs(sparse[0][np.array([0, 3, 5])] - table[[0, 3, 5]])
print(
    f"sparse, 50 steps: {relative_error(sparse, with_keras(sparse=True)):.1e}; "
    f"rows without a gradient moved by {still.max()}"
)

# The decorator adds get_config and its counterpart, equality and pickling.

tx = my_adam(learning_rate=jopt.exponential_decay(1e-2, 10_000, 0.9))
config = json.loads(json.dumps(jopt.to_config(tx)))
assert jopt.from_config(config) == tx == pickle.loads(pickle.dumps(tx))
print(f"config: {json.dumps(config)}")
print(f"and back: {jopt.from_config(config)}")
