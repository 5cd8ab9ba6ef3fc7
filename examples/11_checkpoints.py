"""Stop a run, resume it, and continue it with another optimizer.

    python examples/11_checkpoints.py

A checkpoint goes by name, so the recipe may change. What both recipes have goes on, and
an error lists what does not fit. Here AdamW's first moment becomes Lion's momentum.

    In one go:
      steps 0 to 200: held-out loss 0.3578
    Stopped and resumed:
      steps 0 to 100: held-out loss 0.7125
      steps 100 to 200: held-out loss 0.3578
      the same bits: True
    With another recipe, Lion after clipping:
      missing: 'scale_by_lion/mu/head', and more
      learning_rate: 0.001 in the checkpoint, 0.0003 in the recipe
      steps 100 to 200: held-out loss 0.3995
"""

import argparse
import functools
import re
import tempfile
import warnings
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import load_digits

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
seen = np.flatnonzero(~held_out)


@jax.jit
def loss_fn(params, x, y):
    logits = jax.nn.relu(x @ params["hidden"]) @ params["head"]
    return jopt.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def train_step(tx, params, opt_state, x, y):
    updates, opt_state = tx.update(jax.grad(loss_fn)(params, x, y), opt_state, params)
    return jopt.apply_updates(params, updates), opt_state


def initial_params():
    hidden, head = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(hidden, (64, 128)) / 8
    return {"hidden": hidden, "head": jax.random.normal(head, (128, 10)) / 11}


def train(tx, params, opt_state, first, last):
    for step in range(first, last):
        chosen = np.random.default_rng(step).choice(seen, 64)
        batch = images[chosen], labels[chosen]
        params, opt_state = train_step(tx, params, opt_state, *batch)
    loss = loss_fn(params, images[held_out], labels[held_out])
    print(f"  steps {first} to {last}: held-out loss {loss:.4f}")
    return params, opt_state


print("In one go:")
tx, half = jopt.adamw(1e-3), args.steps // 2
params = initial_params()
straight, _ = train(tx, params, tx.init(params), 0, args.steps)

print("Stopped and resumed:")
path = Path(tempfile.mkdtemp()) / "digits.npz"
params = initial_params()
params, opt_state = train(tx, params, tx.init(params), 0, half)
jopt.checkpoint.save(path, params=params, opt_state=opt_state, tx=tx, step=half)
params, opt_state, step, *_ = jopt.checkpoint.restore(path, params=params, tx=tx)
resumed, _ = train(tx, params, opt_state, step, args.steps)
same = all(jax.tree.leaves(jax.tree.map(np.array_equal, straight, resumed)))
print(f"  the same bits: {same}")

print("With another recipe, Lion after clipping:")
tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.lion(3e-4))
try:
    jopt.checkpoint.restore(path, params=params, tx=tx)
except ValueError as error:
    print(f"  {str(error).splitlines()[1].strip()}, and more")
rules = [jopt.Rename("^scale_by_adam/mu", "scale_by_lion/mu"), jopt.Drop("^scale_by_a")]
with warnings.catch_warnings(record=True, action="always") as caught:
    params, opt_state, step, *_ = jopt.checkpoint.restore(
        path, params=params, tx=tx, migrate=rules, hyperparams="recipe"
    )
print(f"  {re.search('learning_rate: [^;]*', str(caught[0].message))[0]}")
train(tx, params, opt_state, step, args.steps)
