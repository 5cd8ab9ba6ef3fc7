"""What Keras 2 computes, keeps and writes: the legacy optimizers, and those after them.

`python -m tests.parity.keras2` runs tf_keras, and keeps in keras2.npz the parameters
after every step, in float64, what the optimizers held after six, and the scales of a
LossScaleOptimizer; in keras2.json their configs; and in models/keras2.zip files that it
saved after six steps. It wants the extra ``keras2``.
"""

import json
import os
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .problem import GRADS, PARAMS, flat
from .process import result_of


GOLDEN = Path(__file__).with_name("keras2.npz")
CONFIGS = GOLDEN.with_suffix(".json")
HALF, STEPS = 6, 12
CLIPPED = "clipvalue=0.5, clipnorm=0.8"
LEGACY = (
    "SGD(0.05)",
    "SGD(0.05, momentum=0.9)",
    "SGD(0.05, momentum=0.9, nesterov=True, decay=0.5)",
    f"SGD(0.05, decay=0.1, {CLIPPED})",
    "SGD(0.05, global_clipnorm=0.7)",
    "RMSprop(0.01)",
    "RMSprop(0.01, rho=0.8, momentum=0.8)",
    "RMSprop(0.01, centered=True, epsilon=1e-4)",
    "RMSprop(0.01, momentum=0.8, centered=True, decay=0.5)",
    "Adam(0.01)",
    "Adam(0.01, beta_2=0.8, amsgrad=True)",
    f"Adam(0.01, beta_1=0.8, epsilon=1e-5, decay=0.5, {CLIPPED})",
    "Adam(ExponentialDecay(0.05, 3, 0.5))",
    "Adadelta(1.0)",
    "Adadelta(0.5, rho=0.8, epsilon=1e-5)",
    "Adagrad(0.05)",
    f"Adagrad(0.05, initial_accumulator_value=0.0, epsilon=None, {CLIPPED})",
    "Adagrad(0.05, initial_accumulator_value=0.01, epsilon=1e-4, decay=0.5)",
    "Adamax(0.01)",
    "Adamax(0.01, beta_1=0.8, beta_2=0.9, epsilon=1e-5)",
    "Nadam(0.01)",
    "Nadam(0.01, beta_1=0.8, schedule_decay=0.05)",
    "Ftrl(0.05)",
    "Ftrl(0.05, learning_rate_power=-0.4, l1_regularization_strength=0.01)",
    "Ftrl(0.05, l2_regularization_strength=0.1, beta=0.2, "
    "l2_shrinkage_regularization_strength=0.05)",
)
# Of 2.11 to 2.15, which Keras 3 took over.
LATER = (
    "SGD(0.05, momentum=0.9, weight_decay=0.1)",
    "RMSprop(0.01, momentum=0.8, centered=True)",
    "Adam(0.01, amsgrad=True, clipnorm=0.5)",
    "AdamW(0.01, weight_decay=0.1)",
    "Adadelta(1.0)",
    "Adagrad(0.05)",
    "Adamax(0.01)",
    "Nadam(0.01)",
    "Ftrl(0.05, beta=0.2)",
    "Lion(0.01, weight_decay=0.1)",
    "Adafactor(0.05, epsilon_1=1e-8)",
)
WRAPPED = (
    "mixed_precision.LossScaleOptimizer(optimizers.legacy.SGD(0.5), "
    "initial_scale=4.0, dynamic_growth_steps=2)",
    "mixed_precision.LossScaleOptimizer(optimizers.Adam(0.5), dynamic=False, "
    "initial_scale=8.0)",
)
# Of the files of models: a .keras of a legacy optimizer has no state in it.
SAVED = {
    "legacy.h5": "legacy.RMSprop(0.01, rho=0.8, momentum=0.8)",
    "later.h5": "Adam(0.01, amsgrad=True, clipnorm=0.5)",
    "later.keras": "Adam(0.01, amsgrad=True, clipnorm=0.5)",
}
MODELS = GOLDEN.parent / "models" / "keras2.zip"
TEXTS = [*(f"legacy.{x}" for x in LEGACY), *LATER]
# Of TensorFlow's linear_cosine_decay, whose names these are.
WAVES = ({}, {"num_periods": 1.5, "alpha": 0.1, "beta": 0.01})
# A loss scale that starts at 4 and doubles after two finite steps.
FINITE = (True, True, True, False, True, False, False, False, False, True, True)


def made(text):
    """The optimizer of tf_keras that a text stands for."""
    import tf_keras

    known = vars(tf_keras.optimizers) | vars(tf_keras.optimizers.schedules)
    return eval(text, dict(known))


def run(text):
    """The parameters after every step, and what the optimizer held after six."""
    import tensorflow as tf

    variables = [tf.Variable(PARAMS[n], dtype="float64", name=n) for n in PARAMS]
    optimizer = made(text)
    if not text.startswith("legacy."):
        optimizer.build(variables)
    found, held = [], None
    for step in range(STEPS):
        grads = [tf.constant(GRADS[n][step]) for n in PARAMS]
        optimizer.apply_gradients(zip(grads, variables, strict=True))
        found.append(flat({v.name.partition(":")[0]: v.numpy() for v in variables}))
        if step + 1 == HALF:
            legacy = text.startswith("legacy.")
            held = optimizer.get_weights() if legacy else optimizer.variables
            held = [np.asarray(w) for w in held]
    return np.array(found), held


def scales():
    """The scale before each step, with the number of steps that were counted."""
    import tensorflow as tf
    import tf_keras

    variable = tf.Variable([1.0])
    inner = tf_keras.optimizers.legacy.SGD(0.5)
    optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
        inner, initial_scale=4.0, dynamic_growth_steps=2
    )
    found = []
    for finite in FINITE:
        found.append(float(optimizer.loss_scale))
        scaled = tf.constant([1.0 if finite else np.inf]) * optimizer.loss_scale
        (grad,) = optimizer.get_unscaled_gradients([scaled])
        optimizer.apply_gradients([(grad, variable)])
    return found


def saved(name, folder):
    """A file with a model of one layer, trained for six steps."""
    import tensorflow as tf
    import tf_keras

    layer = tf_keras.layers.Dense(4, input_shape=(3,))
    model = tf_keras.Sequential([layer])
    layer.set_weights([PARAMS["kernel"], PARAMS["bias"]])
    optimizer = made(SAVED[name])
    model.compile(optimizer, "mse")
    for step in range(HALF):
        grads = [tf.constant(GRADS[n][step], tf.float32) for n in PARAMS]
        optimizer.apply_gradients(zip(grads, layer.trainable_weights, strict=True))
    model.save(folder / name)
    return folder / name


def waves():
    """TensorFlow's linear_cosine_decay at every step of each setting."""
    import tensorflow as tf

    decay = tf.compat.v1.train.linear_cosine_decay
    return [[float(decay(0.1, t, 30, **x)()) for t in range(40)] for x in WAVES]


def main(arguments):
    """Renew the golden values."""
    if arguments[:1] == ["--run"]:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import tf_keras

        found = {"scales": np.array(scales()), "waves": np.array(waves())}
        configs = {}
        for text in TEXTS:
            steps, held = run(text)
            found[text] = steps
            found |= {f"{text}: {i}": w for i, w in enumerate(held)}
            tf_keras.backend.clear_session()
            configs[text] = tf_keras.optimizers.serialize(made(text))
        for text in WRAPPED:
            wrapped = eval(text, dict(vars(tf_keras)))
            configs[text] = tf_keras.optimizers.serialize(wrapped)
        found["configs"] = np.array(json.dumps(configs, default=float))
        with open(arguments[1], "wb") as file:  # .npy by name, but an archive
            np.savez_compressed(file, **found)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(MODELS, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in SAVED:
            archive.write(saved(name, Path(folder)), name)
    found = oracle()
    release = [f"{p} {version(p)}" for p in ("tf_keras", "tensorflow_cpu")]
    configs = json.loads(str(found.pop("configs")))
    lines = [f"{json.dumps(n)}: {json.dumps(x)}" for n, x in configs.items()]
    text = ",\n".join([f'"versions": {json.dumps(release)}', *lines])
    CONFIGS.write_text("{\n" + text + "\n}\n")
    np.savez_compressed(GOLDEN, **found)


def oracle():
    """All that the installed tf_keras says, by name."""
    return result_of("keras2", x64=False)


if __name__ == "__main__":
    main(sys.argv[1:])
