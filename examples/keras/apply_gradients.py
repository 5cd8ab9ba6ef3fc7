"""Apply a list of gradients to a list of variables, like Keras's core method.

    python examples/keras/apply_gradients.py

    optimizer.apply_gradients(zip(gradients, variables))

is `variables, state = apply_gradients(optimizer, zip(gradients, variables), state)`.
The script checks what Keras's reference says about the method, and prints:

    100 steps, iterations 100, loss 4.4667 -> 6.948e-05
    the same as update and apply_updates: True
    warning: Gradients do not exist for variables ['1']: they are not updated
    bias moved: False, its moments moved: False
    TypeError: grads_and_vars must be pairs of a gradient and a variable, such as …
    ValueError: No gradients provided for any variable: ['0', '1']. The loss does …
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.interop.keras import Adam, apply_gradients


random = np.random.default_rng(0)
x = random.normal(size=(64, 3)).astype(np.float32)
y = x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.7
start = [jnp.zeros(3), jnp.zeros(())]  # kernel and bias: model.trainable_weights
optimizer = Adam(learning_rate=0.05)


def loss_fn(variables):
    kernel, bias = variables
    return jnp.mean((x @ kernel + bias - y) ** 2)


@jax.jit
def step(variables, state):
    gradients = jax.grad(loss_fn)(variables)
    return apply_gradients(optimizer, zip(gradients, variables, strict=True), state)


@jax.jit
def step_of_jopt(variables, state):
    gradients = jax.grad(loss_fn)(variables)
    updates, state = optimizer.update(gradients, state, variables)
    return jopt.apply_updates(variables, updates), state


variables, state = start, optimizer.init(start)
others, other_state = start, optimizer.init(start)
for _ in range(100):
    variables, state = step(variables, state)
    others, other_state = step_of_jopt(others, other_state)
moments = state["scale_by_adam"]
print(
    f"100 steps, iterations {moments.count}, loss {loss_fn(start):.4f} -> "
    f"{loss_fn(variables):.3e}"
)
same = all(bool(jnp.all(a == b)) for a, b in zip(variables, others, strict=True))
print(f"the same as update and apply_updates: {same}")

# A variable without a gradient is not changed, and a warning names it.

gradients = [jax.grad(loss_fn)(variables)[0], None]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    new, new_state = apply_gradients(
        optimizer, zip(gradients, variables, strict=True), state
    )
print(f"warning: {caught[0].message}")
new_moments = new_state["scale_by_adam"]
print(
    f"bias moved: {bool(new[1] != variables[1])}, its moments moved: "
    f"{bool(new_moments.mu[1] != moments.mu[1])}"
)

# The two errors that the reference lists.

for wrong in (gradients, [(None, variable) for variable in variables]):
    try:
        apply_gradients(optimizer, wrong, state)
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")
