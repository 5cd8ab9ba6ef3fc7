"""Get and set the weights of an optimizer: its step count and its slots.

    python examples/keras/get_and_set_weights.py

Keras's `get_weights()` and `set_weights(weights)` are functions of the state here.
Keras takes the order of the parameters from the model; here it is an argument. Without
layout="legacy", the list is that of Keras 3, which has the learning rate too. After
one step of RMSprop on a Dense layer of ten units:

    3 weights: () int64, (20, 10) float32, (10,) float32
    iterations: 1
    set: iterations 10, mean square of kernel 1.0, of bias 0.0
    set, then got: the same numbers
    a list of 2: ValueError
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt.interop.keras import RMSprop, get_weights, set_weights


# RMSprop and one Dense layer.

opt = RMSprop()
model = nn.Dense(10)
data = np.arange(100, dtype=np.float32).reshape(5, 20)
labels = np.zeros((5, 1), np.float32)
params = model.init(jax.random.key(0), data)["params"]
order = ["kernel", "bias"]  # model.trainable_weights
state = opt.init(params)

# One training step.


def loss_fn(params):
    return jnp.mean((model.apply({"params": params}, data) - labels) ** 2)


updates, state = opt.update(jax.grad(loss_fn)(params), state, params)
params = jopt.apply_updates(params, updates)

# opt.get_weights()

weights = get_weights(opt, state, params, order=order, layout="legacy")
kinds = ", ".join(f"{w.shape} {w.dtype}" for w in weights)
print(f"{len(weights)} weights: {kinds}")
print(f"iterations: {weights[0]}")

# opt.set_weights(new_weights)

new_weights = [np.array(10), np.ones([20, 10]), np.zeros([10])]
state = set_weights(opt, state, new_weights, params, order=order)
rms = state["scale_by_rms"]
print(
    f"set: iterations {rms.count}, mean square of kernel {rms.nu['kernel'].mean()}, "
    f"of bias {rms.nu['bias'].mean()}"
)
again = get_weights(opt, state, params, order=order, layout="legacy")
for new, got in zip(new_weights, again, strict=True):
    np.testing.assert_array_equal(got, new)
print("set, then got: the same numbers")

# A list of the wrong length is an error; Keras 3 accepts it silently.

try:
    set_weights(opt, state, new_weights[:2], params, order=order)
except ValueError as error:
    print(f"a list of 2: {type(error).__name__}")
