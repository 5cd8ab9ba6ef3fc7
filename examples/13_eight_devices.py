"""Spread parameters, optimizer state and batches over eight devices.

    python examples/13_eight_devices.py

JAX splits this machine's CPU into eight devices; on eight GPUs the program is the same
without that line. The state of the optimizer lies where the parameters lie, so that
each device holds an eighth of both, and the numbers are those of one device.

    devices: 1, bytes of parameters and state on each: 227,340
    devices: 8, bytes of parameters and state on each: 28,428
    the parameters differ by at most 4e-07
    held-out accuracy 96.39%
"""

import argparse
import functools

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
args = parser.parse_args()

jax.config.update("jax_num_cpu_devices", 8)  # before anything runs on a device
mesh = jax.make_mesh((8,), ("devices",))

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
train_x, train_y = images[~held_out], labels[~held_out]
tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(3e-3))


def initial_params():
    keys = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(keys[0], (64, 256)) / 8,
        "head": jax.random.normal(keys[1], (256, 10)) / 16,
    }


def apply(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["head"]


def loss_fn(params, x, y):
    logits = apply(params, x)
    return jopt.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, opt_state, x, y):
    updates, opt_state = tx.update(jax.grad(loss_fn)(params, x, y), opt_state, params)
    return jopt.apply_updates(params, updates), opt_state


def train(place):
    """Train with parameters and batches that are spread as ``place`` says."""
    params = jax.device_put(initial_params(), place)
    # Compiled, `init` puts the moments where their parameters are.
    opt_state = jax.jit(tx.init)(params)
    for step in range(args.steps):
        chosen = np.random.default_rng(step).choice(len(train_x), 64)
        batch = jax.device_put((train_x[chosen], train_y[chosen]), place)
        params, opt_state = train_step(params, opt_state, *batch)
    parts = [x.addressable_shards for x in jax.tree.leaves((params, opt_state))]
    size = sum(part[0].data.nbytes for part in parts)
    print(f"devices: {len(parts[0])}, bytes of parameters and state on each: {size:,}")
    return params


one = train(jax.devices()[0])
eight = train(NamedSharding(mesh, PartitionSpec("devices")))
gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), *jax.device_get((one, eight)))
print(f"the parameters differ by at most {max(jax.tree.leaves(gaps)):.0e}")
correct = apply(eight, images[held_out]).argmax(-1) == labels[held_out]
print(f"held-out accuracy {correct.mean():.2%}")
