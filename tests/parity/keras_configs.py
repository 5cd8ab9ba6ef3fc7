"""What the real Keras says of its optimizers and schedules, and options in numbers.

`python -m tests.parity.keras_configs` asks it, and keeps in keras_configs.json the
signatures, the configs of all texts in `TEXTS`, and the parameters after each of the
first steps of each text in `STEPPED`, which no row of the parity tables has.
"""

import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tests.catalogue import rows_of

from . import schedules
from .problem import GRADS, PARAMS, flat
from .process import result_of


GOLDEN = Path(__file__).with_name("keras_configs.json")
STEPS = 12
OPTIMIZERS = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb"),
    *("Lion", "Muon", "Nadam", "RMSprop", "SGD", "ScheduleFreeAdamW"),
)
SCHEDULES = (
    *("CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay"),
    *("PiecewiseConstantDecay", "PolynomialDecay"),
)
WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer")
# In low precision: steps of some units in the last place, from 1 down to above 0.5.
LOW = [
    f"{name}({rate})"
    for name in OPTIMIZERS
    for rate in [{"Adadelta": 16.0, "Adafactor": 0.0625}.get(name, 0.03125)]
]
DTYPES = ("bfloat16", "float16")
DECAY = "InverseTimeDecay(0.05, 2, 0.5)"
# Weight decay where the rule looks at the parameters, or has the learning rate inside;
# the method that excludes; and options together.
GROUPED = "OptimizerMap(SGD(0.05, weight_decay=0.5), {'ker.*': Adam(0.01)})"
STEPPED = [
    # Every optimizer with a schedule, weight decay, clipping and accumulation; the
    # default epsilon of Adafactor is too small for columns of zeros.
    *(
        f"{name}({DECAY}, weight_decay=0.1, clipnorm=0.5, "
        f"gradient_accumulation_steps=3{', epsilon_1=1e-8' * (name == 'Adafactor')})"
        for name in OPTIMIZERS
    ),
    f"MultiOptimizer({GROUPED}, loss_scale_factor=2.0)",
    f"SGD({DECAY}, momentum=0.9, nesterov=True, weight_decay=0.5)",
    f"RMSprop({DECAY}, momentum=0.9, weight_decay=0.5)",
    "RMSprop(0.01, centered=True, weight_decay=0.5)",
    f"Adafactor({DECAY}, epsilon_1=1e-8, weight_decay=0.5)",
    "Ftrl(0.05, l1_regularization_strength=0.01, weight_decay=0.5)",
    "ScheduleFreeAdamW(0.05, warmup_steps=5, weight_decay=0.5)",
    f"Adam({DECAY}, amsgrad=True, weight_decay=0.5)",
    "Adadelta(1.0, weight_decay=0.5)",
    "Adagrad(0.05, weight_decay=0.5)",
    f"Adamax({DECAY}, weight_decay=0.5)",
    "Nadam(0.01, weight_decay=0.5)",
    "excluded(SGD(0.05, weight_decay=0.5), ['bias'])",
    f"excluded(Lamb({DECAY}, weight_decay=0.5), ['bias', 'scale'])",
    "excluded(AdamW(0.01, weight_decay=0.5), ['bias'])",
    "excluded(AdamW(0.01, weight_decay=0.5), ['(?i)BIAS'])",
    "excluded(SGD(0.05, momentum=0.5, weight_decay=0.5), [''])",
    f"excluded(Muon({DECAY}, weight_decay=0.5), ['kernel', 'bias', 'scale'])",
    f"excluded(Muon({DECAY}, weight_decay=0.5, adam_weight_decay=0.2), ['bias'])",
    f"Muon({DECAY}, exclude_layers=['ker.*'], adam_lr_ratio=0.5, momentum=0.8)",
    "SGD(0.05, use_ema=True, ema_momentum=0.9, gradient_accumulation_steps=3)",
    "SGD(0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2, "
    "gradient_accumulation_steps=3)",
    # Decays of 1, where Keras does not divide zero by zero.
    "SGD(0.01, momentum=1.0, nesterov=True)",
    "RMSprop(0.0001, rho=1.0, momentum=0.5)",
    "RMSprop(0.01, momentum=1.0, centered=True)",
    "Adadelta(1.0, rho=1.0)",
    "Adamax(0.05, beta_2=1.0)",
    "Lion(0.01, beta_1=1.0, beta_2=0.9)",
    "Lion(0.01, beta_2=1.0, weight_decay=0.5)",
    "ScheduleFreeAdamW(0.05, beta_1=1.0)",
    "SGD(0.05, use_ema=True, ema_momentum=1.0)",
    "SGD(0.05, use_ema=True, ema_momentum=1.0, ema_overwrite_frequency=2, "
    "gradient_accumulation_steps=3)",
    f"Adam({DECAY}, weight_decay=0.5, clipnorm=0.01, gradient_accumulation_steps=3, "
    "loss_scale_factor=8.0)",
]
OPTIONS = (
    "weight_decay=0.1, clipvalue=0.5, use_ema=True, ema_momentum=0.5, "
    "ema_overwrite_frequency=7, loss_scale_factor=2.0, name='mine'"
)
TEXTS = [
    *(f"{name}()" for name in OPTIMIZERS),
    *(f"{name}({OPTIONS})" for name in OPTIMIZERS),
    *(row.oracle for row in rows_of("keras")),
    *(text for text in STEPPED if not text.startswith("excluded")),
    *(row.oracle for row in schedules.KERAS),
    "LossScaleOptimizer(Adam(0.5), initial_scale=4.0, dynamic_growth_steps=2)",
    f"MultiOptimizer({GROUPED}, loss_scale_factor=2.0)",
]


def signature(function):
    """Names and defaults; what has none is null, as None is."""
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.name != "self" and p.kind is not p.VAR_KEYWORD
    }


def excluded(optimizer, names):
    """An optimizer of Keras whose weight decay leaves out these variables."""
    optimizer.exclude_from_weight_decay(var_names=names)
    return optimizer


def ask():
    """What the Keras of this process says; what it computes is `steps`."""
    import keras

    known = vars(keras.optimizers) | vars(keras.optimizers.schedules)
    configs = {}
    for text in dict.fromkeys(TEXTS):
        keras.backend.clear_session()  # which numbers the names anew
        made = eval(text, dict(known))
        schedule = isinstance(made, keras.optimizers.schedules.LearningRateSchedule)
        module = keras.optimizers.schedules if schedule else keras.optimizers
        configs[text] = module.serialize(made)
    classes = (*OPTIMIZERS, *WRAPPERS, *SCHEDULES)
    return {
        "versions": [f"{p} {version(p)}" for p in ("keras", "jax", "numpy")],
        "signatures": {n: signature(known[n].__init__) for n in classes},
        "configs": configs,
        "low": {
            dtype: {x: low(eval(x, dict(known)), dtype) for x in LOW}
            for dtype in DTYPES
        },
    }


def low(optimizer, dtype):
    """Parameters that are 1 before, after one step and after ten, as texts (nan).

    The gradient of the first is 1, of the second 0.
    """
    import keras

    ones = keras.ops.ones((2, 2), dtype)
    grads = [ones, keras.ops.zeros_like(ones)]
    variables = [keras.Variable(ones, dtype=dtype, name=n) for n in ("one", "zero")]
    found = []
    for step in range(10):
        optimizer.apply(grads, variables)
        if step in (0, 9):
            found += [str(float(v[0, 0])) for v in variables]
    return found


def steps():
    """What it computes."""
    import keras

    known = vars(keras.optimizers) | vars(keras.optimizers.schedules)
    known |= {"excluded": excluded}
    return {text: list(run(eval(text, dict(known)))) for text in STEPPED}


def run(optimizer):
    """Yield the parameters, and the averages if it keeps some, after every step."""
    import keras

    variables = [keras.Variable(PARAMS[n].astype("float32"), name=n) for n in PARAMS]
    for step in range(STEPS):
        grads = [GRADS[n][step].astype("float32") for n in PARAMS]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], variables)
        averages = (
            optimizer._model_variables_moving_average if optimizer.use_ema else []
        )
        both = [*flat(dict(zip(PARAMS, variables, strict=True)))]
        if averages:
            both += [*flat(dict(zip(PARAMS, averages, strict=True)))]
        yield [float(f"{x:.9g}") for x in both]


def asked(what):
    """What a Keras in a process of its own says, or computes."""
    return json.loads(str(result_of("keras_configs", what, x64=False)))


def main(arguments):
    """Renew the golden values."""
    if arguments[:1] == ["--run"]:
        found = {"ask": ask, "steps": steps}[arguments[1]]()
        np.save(arguments[2], np.array(json.dumps(found)))
        return
    golden = asked("ask") | {"steps": asked("steps")}
    parts = {n: json.dumps(x) for n, x in golden.items()}
    lines = [f"{json.dumps(n)}: {json.dumps(x)}" for n, x in golden["configs"].items()]
    parts["configs"] = "{\n" + ",\n".join(lines) + "\n}"
    text = ",\n".join(f'"{n}": {x}' for n, x in parts.items())
    GOLDEN.write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
