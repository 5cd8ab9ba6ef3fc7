"""Train with a batch that is too large for the memory, in four parts.

    python examples/06_accumulation.py

`accumulate` goes around any optimizer: three steps only add gradients, the fourth takes
the optimizer step, and a schedule counts those. `micro_batch` is for a batch that is
there as a whole: it computes the gradient in parts. Both give the numbers of the large
batch.

    whole batches: accuracy 91.67% after 100 steps
    accumulate: accuracy 91.67% after 100 steps
    micro_batch: accuracy 91.67% after 100 steps
    the parameters differ by at most 1e-07
    the parameters differ by at most 9e-08
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
train_x, train_y = images[~held_out], labels[~held_out]


def initial_params():
    keys = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(keys[0], (64, 128)) / 8,
        "head": jax.random.normal(keys[1], (128, 10)) / 11,
    }


def apply(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["head"]


def loss_fn(params, batch):
    x, y = batch
    logits = apply(params, x)
    return jopt.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def train(name, tx, grad_fn, parts):
    """Train on the same 256 images a step, given to ``tx`` in so many parts."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, opt_state, batch):
        updates, opt_state = tx.update(grad_fn(params, batch), opt_state, params)
        return jopt.apply_updates(params, updates), opt_state

    params = initial_params()
    opt_state = tx.init(params)
    for step in range(args.steps):
        chosen = np.random.default_rng(step).choice(len(train_x), 256, replace=False)
        for part in np.split(chosen, parts):
            batch = train_x[part], train_y[part]
            params, opt_state = train_step(params, opt_state, batch)
    correct = apply(params, images[held_out]).argmax(-1) == labels[held_out]
    steps = jopt.iterations(opt_state)
    print(f"{name}: accuracy {correct.mean():.2%} after {steps} steps")
    return params


schedule = jopt.cosine_decay_schedule(3e-3, decay_steps=args.steps)
tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(schedule))
grad_fn = jax.grad(loss_fn)

whole = train("whole batches", tx, grad_fn, parts=1)
added = train("accumulate", jopt.accumulate(tx, steps=4), grad_fn, parts=4)
split = train("micro_batch", tx, jopt.micro_batch(grad_fn, 4), parts=1)
for params in added, split:
    gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), params, whole)
    print(f"the parameters differ by at most {max(jax.tree.leaves(gaps)):.0e}")
