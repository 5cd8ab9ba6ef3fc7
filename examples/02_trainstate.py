"""Use jopt in Flax's TrainState, and set the learning rate in jopt's TrainState.

    python examples/02_trainstate.py

The first half changes only the optimizer of a Flax program. The second half halves the
learning rate when the held-out loss has not fallen for two epochs. The rate is a number
in the state, so nothing compiles again.

    Flax's TrainState: learning rate 3.0e-03, accuracy 97.22%
    epoch 7: the learning rate is now 5.00e-03
    epoch 15: the learning rate is now 2.50e-03
    …
    jopt's TrainState: 440 steps, accuracy 98.06%
    compilations of its step: 1
"""

import argparse
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.training import train_state
from sklearn.datasets import load_digits
from tqdm import tqdm

import jopt
from jopt.interop.flax import TrainState


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
test_x, test_y = images[held_out], labels[held_out]
train_x, train_y = images[~held_out], labels[~held_out]

model = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(10)])
cross_entropy = jopt.losses.softmax_cross_entropy_with_integer_labels


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state, x, y):
    def loss_fn(params):
        return cross_entropy(state.apply_fn({"params": params}, x), y).mean()

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


@jax.jit
def evaluate(state):
    logits = state.apply_fn({"params": state.params}, test_x)
    return cross_entropy(logits, test_y).mean(), jnp.mean(logits.argmax(-1) == test_y)


def train_epoch(state, epoch):
    order = np.random.default_rng(epoch).permutation(len(train_x))
    for chosen in np.split(order, range(64, len(order), 64))[:-1]:
        state = train_step(state, train_x[chosen], train_y[chosen])
    return state


def created_by(kind, learning_rate):
    params = model.init(jax.random.key(0), train_x[:1])["params"]
    tx = jopt.adamw(learning_rate, weight_decay=0.01, mask="kernel")
    return kind.create(apply_fn=model.apply, params=params, tx=tx)


# 1. Flax's own TrainState. The learning rate can be read from the state.

state = created_by(train_state.TrainState, 3e-3)
for epoch in tqdm(range(args.epochs), unit="epoch"):
    state = train_epoch(state, epoch)
rate, (_, accuracy) = (
    jopt.hyperparams(state.opt_state)["learning_rate"],
    evaluate(state),
)
print(f"Flax's TrainState: learning rate {rate:.1e}, accuracy {accuracy:.2%}")

# 2. jopt's TrainState, a subclass. The learning rate can also be set.

state = created_by(TrainState, 1e-2)
compiled_before = train_step._cache_size()
best, best_epoch = np.inf, 0
for epoch in tqdm(range(args.epochs), unit="epoch"):
    state = train_epoch(state, epoch)
    loss, accuracy = evaluate(state)
    if loss < best:
        best, best_epoch = loss, epoch
    elif epoch - best_epoch >= 2:
        state = state.set_hyperparams(learning_rate=state.learning_rate / 2)
        best_epoch = epoch
        print(f"epoch {epoch + 1}: the learning rate is now {state.learning_rate:.2e}")
print(f"jopt's TrainState: {state.step} steps, accuracy {accuracy:.2%}")
print(f"compilations of its step: {train_step._cache_size() - compiled_before}")
