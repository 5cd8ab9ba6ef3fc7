"""Train with 32 learning rates at once, in one compiled program.

    python examples/09_sweep.py

The learning rate is a number in the state, so `vmap` maps over it like over any array:
32 networks train side by side, and nothing compiles 32 times. The rate to take is the
one with the lowest held-out loss.

    1.0e-05   2.268 █████████████████████████████████████████████
    …
    3.8e-03   0.172 ███
    1.2e-02   0.113 ██
    3.5e-02   0.114 ██
    1.1e-01   0.143 ██
    3.3e-01   1.320 ██████████████████████████
    …
    the best rate is 1.7e-02
    compilations: 1
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
train_x, train_y = images[~held_out], labels[~held_out]


def loss_fn(params, batch):
    x, y = batch
    logits = jax.nn.relu(x @ params["hidden"]) @ params["head"]
    return jopt.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(learning_rate=1e-3))


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def train(learning_rate, batches):
    """Return the held-out loss after training with one learning rate."""

    def step(carry, batch):
        params, opt_state = carry
        updates, opt_state = tx.update(
            jax.grad(loss_fn)(params, batch), opt_state, params
        )
        return (jopt.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(keys[0], (64, 64)) / 8,
        "head": jax.random.normal(keys[1], (64, 10)) / 8,
    }
    opt_state = jopt.set_hyperparams(tx, tx.init(params), learning_rate=learning_rate)
    (params, _), _ = jax.lax.scan(step, (params, opt_state), batches)
    return loss_fn(params, (images[held_out], labels[held_out]))


rates = jnp.geomspace(1e-5, 1, 32)
chosen = np.random.default_rng(0).choice(len(train_x), (args.steps, 64))
losses = train(rates, (train_x[chosen], train_y[chosen]))
for rate, loss in zip(rates, losses, strict=True):
    print(f"{rate:.1e} {loss:7.3f} {'█' * min(int(20 * loss), 50)}")
print(f"the best rate is {rates[losses.argmin()]:.1e}")
print(f"compilations: {train._cache_size()}")
