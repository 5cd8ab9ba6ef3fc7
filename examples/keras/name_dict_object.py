"""Choose an optimizer as in Keras: by name, by dict, or as an object.

    python examples/keras/name_dict_object.py

The arguments of Keras's `model.compile(optimizer=…)` become:

    "rmsprop"                                             get("rmsprop")
    {"class_name": "rmsprop", "config": {…}}              get({"class_name": …})
    keras.optimizers.RMSprop(learning_rate=0.0001)        RMSprop(learning_rate=0.0001)

A name, in upper or lower case, stands for Keras's defaults. The dict and the object
give equal optimizers, so the training step compiles once for both. On the digits of
scikit-learn:

    by name:   rmsprop                        0.001  test accuracy 90.3%
    by dict:   rmsprop at 0.0001             0.0001  test accuracy 85.6%
    by object: RMSprop(learning_rate=0.0001) 0.0001  test accuracy 85.6%
    by name:   adam                           0.001  test accuracy 89.4%
    by object: Adam(learning_rate=0.01)        0.01  test accuracy 90.3%
    optimizers: 5, compilations of the training step: 4

Then the script prints Keras's table of names and classes, with the call in jopt:

    nadam                 keras.optimizers.nadam.Nadam
                          nadam(learning_rate=0.001, eps=1e-07, momentum_decay=1.0)
"""

import argparse
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import jopt
from jopt.interop.keras import Adam, RMSprop, get, serialize


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images, labels = images.astype(np.float32) / 16, labels.astype(np.int32)
train, test = slice(0, 1437), slice(1437, None)


class SimpleDense(nn.Module):
    units: int = 32

    @nn.compact
    def __call__(self, x):
        random_normal = nn.initializers.normal(0.05)
        w = self.param("w", random_normal, (x.shape[-1], self.units))
        b = self.param("b", random_normal, (self.units,))
        return x @ w + b


model = nn.Sequential([SimpleDense(512), nn.Dense(10)])


def loss_fn(params, x, y):
    logits = model.apply(params, x)
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])


@functools.partial(jax.jit, static_argnums=0)
def train_step(tx, params, state, x, y):
    grads = jax.grad(loss_fn)(params, x, y)
    updates, state = tx.update(grads, state, params)
    return jopt.apply_updates(params, updates), state


def fit(tx, epochs, batch_size=128):
    """Train, and return the accuracy on the test set."""
    params = model.init(jax.random.key(0), images[:1])
    state = tx.init(params)
    random = np.random.default_rng(0)
    for _ in tqdm(range(epochs), unit="epoch", leave=False):
        order = random.permutation(1437)
        for i in range(0, 1437 - batch_size + 1, batch_size):
            chosen = order[i : i + batch_size]
            params, state = train_step(
                tx, params, state, images[train][chosen], labels[train][chosen]
            )
    predicted = model.apply(params, images[test]).argmax(-1)
    return float(jnp.mean(predicted == labels[test]))


slower = {"class_name": "rmsprop", "config": {"learning_rate": 0.0001}}
optimizers = {
    "by name:   rmsprop": get("rmsprop"),
    "by dict:   rmsprop at 0.0001": get(slower),
    "by object: RMSprop(learning_rate=0.0001)": RMSprop(learning_rate=0.0001),
    "by name:   adam": get("adam"),
    "by object: Adam(learning_rate=0.01)": Adam(learning_rate=0.01),
}
for name, tx in optimizers.items():
    rate = serialize(tx)["config"]["learning_rate"]
    accuracy = fit(tx, args.epochs)
    print(f"{name:<40}{rate:>7g}  test accuracy {accuracy:.1%}")
print(
    f"optimizers: {len(optimizers)}, compilations of the training step: "
    f"{train_step._cache_size()}"
)

# Keras's table of names and classes. As in Keras, a LossScaleOptimizer wraps another
# optimizer.

CLASSES = {
    "adadelta": "keras.optimizers.adadelta.Adadelta",
    "adagrad": "keras.optimizers.adagrad.Adagrad",
    "adam": "keras.optimizers.adam.Adam",
    "adamax": "keras.optimizers.adamax.Adamax",
    "experimentaladadelta": "keras.optimizers.adadelta.Adadelta",
    "experimentaladagrad": "keras.optimizers.adagrad.Adagrad",
    "experimentaladam": "keras.optimizers.adam.Adam",
    "experimentalsgd": "keras.optimizers.sgd.SGD",
    "nadam": "keras.optimizers.nadam.Nadam",
    "rmsprop": "keras.optimizers.rmsprop.RMSprop",
    "sgd": "keras.optimizers.sgd.SGD",
    "ftrl": "keras.optimizers.Ftrl",
    "lossscaleoptimizer": (
        "keras.mixed_precision.loss_scale_optimizer.LossScaleOptimizerV3"
    ),
    "lossscaleoptimizerv3": (
        "keras.mixed_precision.loss_scale_optimizer.LossScaleOptimizerV3"
    ),
    "lossscaleoptimizerv1": (
        "keras.mixed_precision.loss_scale_optimizer.LossScaleOptimizer"
    ),
}
print(f"\n{'name':<21} class in Keras, and the call in jopt")
for name, keras_class in CLASSES.items():
    config = {}
    if "lossscale" in name:
        inner = {"class_name": "adam", "config": {"learning_rate": 0.001}}
        config = {"inner_optimizer": inner}
    call = get({"class_name": name, "config": config})
    print(f"{name:<21} {keras_class}\n{'':<21} {call}")
