"""Write the training loop: the counterparts of GradientTape and apply_gradients.

    python examples/keras/custom_training_loop.py

In Keras the optimizer changes variables in place. In jopt it returns updates and the
next state, and the loop keeps them:

    with tf.GradientTape() as tape:                loss, gradients = (
        logits = model(x)                              jax.value_and_grad(loss_fn)(…))
        loss_value = loss_fn(y, logits)
    gradients = tape.gradient(loss_value, …)
    optimizer.apply_gradients(zip(…))              updates, state = optimizer.update(…)
                                                   params = jopt.apply_updates(…)

In the Keras version of the original example, `apply_gradients` does not clip, so the
loop clips by hand. Here clipping is part of the optimizer. The script does both, from
the same initial weights and with the same batches:

    epoch 1: loss 2.2467
    epoch 2: loss 2.0611
    epoch 3: loss 1.7773
    epoch 4: loss 1.4497
    epoch 5: loss 1.1437
    clipped by the optimizer and by hand: weights equal to 9.8e-08
"""

import argparse

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import jopt
from jopt.interop.keras import Adam


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--batch-size", type=int, default=64)
args = parser.parse_args()

x_train, labels = load_digits(return_X_y=True)
x_train = x_train.astype(np.float32) / 16
y_train = np.eye(10, dtype=np.float32)[labels]


def uniform(key, shape, dtype=jnp.float32):
    """Initialize like Keras's kernel_initializer="uniform"."""
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(64, kernel_init=uniform)(x))
        return nn.Dense(10, kernel_init=uniform)(x)


model = Model()


def loss_fn(params, x, y):
    logits = model.apply(params, x)
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), -1))


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(len(x_train))
    order = order[: len(order) // args.batch_size * args.batch_size]
    for chosen in order.reshape(-1, args.batch_size):
        yield x_train[chosen], y_train[chosen]


optimizer = Adam(clipnorm=0.1)
unclipped = Adam()


@jax.jit
def train_step(params, state, x, y):
    loss_value, gradients = jax.value_and_grad(loss_fn)(params, x, y)
    updates, state = optimizer.update(gradients, state, params)
    return jopt.apply_updates(params, updates), state, loss_value


@jax.jit
def train_step_by_hand(params, state, x, y):
    gradients = jax.grad(loss_fn)(params, x, y)
    gradients = jax.tree.map(clip_by_norm, gradients)
    updates, state = unclipped.update(gradients, state, params)
    return jopt.apply_updates(params, updates), state


def clip_by_norm(g, clip_norm=0.1):
    norm = jnp.sqrt(jnp.sum(g**2))
    return g * clip_norm / jnp.maximum(norm, clip_norm)


start = model.init(jax.random.key(0), x_train[:1])
params, state = start, optimizer.init(start)
params_by_hand, state_by_hand = start, unclipped.init(start)
for epoch in tqdm(range(1, args.epochs + 1), unit="epoch"):
    losses = []
    for x, y in batches(epoch):
        params, state, loss_value = train_step(params, state, x, y)
        params_by_hand, state_by_hand = train_step_by_hand(
            params_by_hand, state_by_hand, x, y
        )
        losses.append(float(loss_value))
    tqdm.write(f"epoch {epoch}: loss {np.mean(losses):.4f}")
difference = jopt.tree.norm(jax.tree.map(jnp.subtract, params, params_by_hand))
print(
    "clipped by the optimizer and by hand: weights equal to "
    f"{difference / jopt.tree.norm(params):.1e}"
)
