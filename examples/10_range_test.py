"""Find a learning rate by a short run in which the rate grows.

    python examples/10_range_test.py

`lr_range_test` raises the rate step by step, sees where the loss falls and where it
rises again, and suggests a rate for a schedule that decays, or says why it cannot. Here
the rate is compared with a tenth and ten times of it.

    sgd: 1e+00, as 90% of the fall of the loss is done at 0.35, …
      held-out loss 0.14; at a tenth 0.60, tenfold 1.86
    lion: 8e-03, as 90% of the fall of the loss is done at 0.0035, …
      held-out loss 0.23; at a tenth 0.70, tenfold 1.03
    adamw: 2e-02, as 90% of the fall of the loss is done at 0.0054, …
      held-out loss 0.11; at a tenth 0.34, tenfold 0.15
    wrote out/range_test.png
"""

import argparse
import functools
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import load_digits

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
parser.add_argument("--out", type=Path, default="out", help="default: %(default)s")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
train_x, train_y = images[~held_out], labels[~held_out]
chosen = np.random.default_rng(0).choice(len(train_x), (args.steps, 64))
batches = train_x[chosen], train_y[chosen]  # stacked along the first axis

keys = jax.random.split(jax.random.key(0))
params = {
    "hidden": jax.random.normal(keys[0], (64, 128)) / 8,
    "head": jax.random.normal(keys[1], (128, 10)) / 11,
}


def loss_fn(params, batch):
    x, y = batch
    logits = jax.nn.relu(x @ params["hidden"]) @ params["head"]
    return jopt.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0))
def train(tx, factor):
    """Return the held-out loss after training with a factor of the learning rate."""

    def step(carry, batch):
        params, opt_state = carry
        grads = jax.grad(loss_fn)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (jopt.apply_updates(params, updates), opt_state), None

    opt_state = jopt.set_hyperparams(tx, tx.init(params), step_size=factor)
    (trained, _), _ = jax.lax.scan(step, (params, opt_state), batches)
    return loss_fn(trained, (images[held_out], labels[held_out]))


for factory in jopt.sgd, jopt.lion, jopt.adamw:
    found = jopt.lr_range_test(factory(1.0), loss_fn, params, batches)
    if found.suggestion is None:
        raise SystemExit(found.reason)
    schedule = jopt.warmup_cosine_decay_schedule(
        0.0, found.suggestion, args.steps // 10, args.steps
    )
    tx = jopt.chain(factory(schedule), jopt.scale(jopt.tunable(1.0)))
    tenth, once, tenfold = train(tx, np.array([0.1, 1.0, 10.0], np.float32))
    print(f"{factory.__name__}: {found.suggestion:.0e}, as {found.reason}")
    print(f"  held-out loss {once:.2f}; at a tenth {tenth:.2f}, tenfold {tenfold:.2f}")

args.out.mkdir(parents=True, exist_ok=True)
found.plot().figure.savefig(args.out / "range_test.png", dpi=150)
print(f"wrote {args.out / 'range_test.png'}")
