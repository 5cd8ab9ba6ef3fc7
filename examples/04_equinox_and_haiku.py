"""The same optimizer and the same step train an Equinox model and a Haiku function.

    python examples/04_equinox_and_haiku.py

To jopt, parameters are any tree of arrays. Of an Equinox model, whose leaves also are
functions, `eqx.partition` splits off the arrays. Each leaf has a path by which masks
name it: here neither biases nor norms decay.

    equinox: layers/0/weight, layers/0/bias, layers/1/weight, layers/1/bias
    equinox: accuracy 96.67%
    haiku: mlp/~/linear_0/b, mlp/~/linear_0/w, mlp/~/linear_1/b, mlp/~/linear_1/w
    haiku: accuracy 96.39%
"""

import argparse
import functools

import equinox as eqx
import haiku as hk
import jax
import numpy as np
from sklearn.datasets import load_digits

import jopt


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=400, help="default: %(default)s")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
held_out = np.arange(len(images)) % 5 == 0
train_x, train_y = images[~held_out], labels[~held_out]
tx = jopt.adamw(3e-3, weight_decay=0.01, mask=jopt.not_bias_or_norm)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def train_step(apply, params, opt_state, x, y):
    def loss_fn(params):
        logits = apply(params, x)
        return jopt.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
    return jopt.apply_updates(params, updates), opt_state


def train(name, apply, params):
    opt_state = tx.init(params)
    print(f"{name}: {', '.join(jopt.state_dict(params))}")
    for step in range(args.steps):
        chosen = np.random.default_rng(step).choice(len(train_x), 64)
        params, opt_state = train_step(
            apply, params, opt_state, train_x[chosen], train_y[chosen]
        )
    correct = apply(params, images[held_out]).argmax(-1) == labels[held_out]
    print(f"{name}: accuracy {correct.mean():.2%}")


# Equinox: a model is a tree; what is no array is kept apart and put back.

model = eqx.nn.MLP(64, 10, width_size=128, depth=1, key=jax.random.key(0))
params, functions = eqx.partition(model, eqx.is_inexact_array)
train("equinox", lambda params, x: jax.vmap(eqx.combine(params, functions))(x), params)

# Haiku: a transformed function makes a dict of parameters.

network = hk.transform(lambda x: hk.nets.MLP([128, 10])(x))
network = hk.without_apply_rng(network)
train("haiku", network.apply, network.init(jax.random.key(0), train_x[:1]))
