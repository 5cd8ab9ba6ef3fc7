"""THE table of optimizers in files that Keras saved; and how they went on in Keras.

`python -m tests.parity.keras_files` trains a layer of the kernel and the bias of the
problem in Keras, saves the model after six of twelve steps, and keeps all files, as
they are, in models/optimizers.zip, with the parameters at the end in ends.json. The
other files in models/ are one model in each of Keras's formats.
"""

import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from .problem import GRADS, PARAMS, flat
from .process import result_of
from .states import HALF, MODELS, STEPS


GOLDEN = MODELS / "optimizers.zip"
TEXTS = [
    "SGD(PolynomialDecay(0.1, 20), momentum=0.9, nesterov=True)",
    "RMSprop(0.01, momentum=0.9, centered=True)",
    "Adam(CosineDecay(0.05, 9, warmup_target=0.1, warmup_steps=3), amsgrad=True)",
    "AdamW(0.01, weight_decay=0.1, clipnorm=0.01)",
    "Adadelta(1.0, rho=0.9)",
    "Adagrad(0.05, initial_accumulator_value=0.01, clipvalue=0.01)",
    "Adamax(PiecewiseConstantDecay([3, 8], [0.05, 0.02, 0.01]))",
    "Nadam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4)",
    "Ftrl(0.05, l1_regularization_strength=0.01, beta=0.2, weight_decay=0.1)",
    "Lion(ExponentialDecay(0.05, 4, 0.5), gradient_accumulation_steps=4)",
    "Lamb(0.01, weight_decay=0.1, global_clipnorm=0.01)",
    "Adafactor(0.05, epsilon_1=1e-8, clip_threshold=0.5)",
    "Muon(0.05, adam_lr_ratio=0.5, momentum=0.8)",
    "ScheduleFreeAdamW(0.05, beta_1=0.95, warmup_steps=7)",
    "LossScaleOptimizer(Adam(0.01), initial_scale=4.0, dynamic_growth_steps=4)",
    "MultiOptimizer(OptimizerMap(SGD(0.05, 0.9), {'.*kernel': Nadam(0.01), 'a': Lion()"
    "}), loss_scale_factor=2.0)",
]


def name_of(text):
    """The file of an optimizer."""
    return f"{text.partition('(')[0]}.keras"


def trained(text, path):
    """The end of twelve steps, after the sixth of which the model is saved."""
    import keras

    keras.backend.clear_session()  # which numbers the names anew
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="dense")])
    known = vars(keras.optimizers) | vars(keras.optimizers.schedules)
    model.compile(eval(text, dict(known)), "mse")
    optimizer, variables = model.optimizer, model.trainable_variables
    model.set_weights([PARAMS[n] for n in PARAMS])
    optimizer.build(variables)
    for i in range(STEPS):
        if i == HALF:
            model.save(path)
        grads = [keras.ops.convert_to_tensor(GRADS[n][i], "float32") for n in PARAMS]
        kept = optimizer.variables
        given = [v.value for v in kept], grads, [v.value for v in variables]
        params, new = optimizer.stateless_apply(*given)
        for v, x in zip([*variables, *kept], [*params, *new], strict=True):
            v.assign(x)
    return [float(f"{x:.9g}") for x in flat(dict(zip(PARAMS, variables, strict=True)))]


def save_optimizers(golden):
    """All files of the table, in one."""
    ends = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(golden, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for text in TEXTS:
            path = Path(folder, name_of(text))
            ends[text] = trained(text, path)
            archive.write(path, path.name)
        archive.writestr("ends.json", json.dumps(ends))


def save_formats(folder):
    """A model with a trained optimizer, in each of Keras's formats."""
    import keras

    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    model.compile(keras.optimizers.Adam(0.01, amsgrad=True), "mse")
    model.fit(inputs, targets, batch_size=4, epochs=3, verbose=0)
    for name in ("model.keras", "model.h5", "model.weights.h5"):
        save = model.save_weights if ".weights" in name else model.save
        save(Path(folder, name))
    variables = {str(i): np.array(v) for i, v in enumerate(model.optimizer.variables)}
    np.savez(Path(folder, "variables.npz"), **variables)


def opened(golden):
    """The bytes of each file, by optimizer, and the parameters at the end."""
    with zipfile.ZipFile(golden) as archive:
        ends = json.loads(archive.read("ends.json"))
        return {text: archive.read(name_of(text)) for text in ends}, ends


def layer(content):
    """The kernel and the bias in a file."""
    import h5py

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        found = file["layers/dense/vars"]
        return {"kernel": found["0"][()], "bias": found["1"][()]}


def main(arguments):
    """Renew the files."""
    if arguments[:1] == ["--run"]:
        {"optimizers": save_optimizers, "formats": save_formats}[arguments[1]](
            arguments[2]
        )
        np.save(arguments[3], 0)
        return
    MODELS.mkdir(exist_ok=True)
    result_of("keras_files", "formats", str(MODELS), x64=False)
    result_of("keras_files", "optimizers", str(GOLDEN), x64=False)


if __name__ == "__main__":
    main(sys.argv[1:])
