"""A pytest plugin that puts jopt behind the names of Keras's optimizers.

With `-p tests.tools.upstream_keras` Keras's own tests get, for every optimizer and
schedule that they name, a stand-in: `as_optimizer` around the transformation of
`jopt.interop.keras` that the same arguments make. Keras's MultiOptimizer and
LossScaleOptimizer stay and are given stand-ins. Each test records how many stand-ins
it has made, as the property "made".
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jopt import tree
from jopt.interop import keras as door
from jopt.interop.keras.model_optimizer import JoptOptimizer, keras


sources: Any = importlib.import_module("keras.src.optimizers")
api_export: Any = importlib.import_module("keras.src.api_export")
OPTIMIZERS = {  # by module
    **{"adadelta": "Adadelta", "adafactor": "Adafactor", "adagrad": "Adagrad"},
    **{"adam": "Adam", "adamax": "Adamax", "adamw": "AdamW", "ftrl": "Ftrl"},
    **{"lamb": "Lamb", "lion": "Lion", "muon": "Muon", "nadam": "Nadam"},
    **{"rmsprop": "RMSprop", "schedule_free_adamw": "ScheduleFreeAdamW", "sgd": "SGD"},
}
SCHEDULES = (
    *("CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay"),
    *("PiecewiseConstantDecay", "PolynomialDecay"),
)
MADE: list[str] = []  # the names of the stand-ins of the running test


def plain(value: Any) -> Any:
    """A stand-in's schedule and a variable's value; anything else as it is."""
    if isinstance(value, ScheduleStandIn):
        return value.schedule
    return value.value if isinstance(value, keras.Variable) else value


def made(name: str, args: Any, kwargs: Any) -> Any:
    """What the door's factory of this name makes of Keras's arguments."""
    MADE.append(name)
    kwargs = {n: plain(x) for n, x in kwargs.items()}
    return getattr(door, name)(*map(plain, args), **kwargs)


class Called(type(JoptOptimizer)):
    """The class of the stand-ins' classes: calling one calls `as_optimizer`."""

    def __call__(cls, *args, **kwargs):
        return cls.of(door.as_optimizer(made(cls.__name__, args, kwargs)))

    def of(cls, optimizer):
        object.__setattr__(optimizer, "__class__", cls)
        return optimizer


class OptimizerStandIn(JoptOptimizer, metaclass=Called):
    """The optimizer of `as_optimizer`, of a class with Keras's name.

    Methods that jopt has as arguments, or that are private in Keras, are translated.
    """

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Read its own configs as `as_optimizer` does, and those of Keras."""
        if "transformation" not in config:
            return cls(**config)
        MADE.append(cls.__name__)
        return cls.of(JoptOptimizer.from_config(config, custom_objects))

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Give the names to the door's argument of this name."""
        names = [f"^{re.escape(v.name)}$" for v in var_list or ()]
        given = {"exclude_from_weight_decay": [*names, *(var_names or ())]}
        spec = self.transformation.spec
        self.transformation = spec.factory(**(spec.arguments | given))

    def update_step(self, gradient, variable, learning_rate):
        """Make a step with this rate, and without weight decay."""
        spec = self.transformation.spec
        given = {"learning_rate": learning_rate, "weight_decay": 0.0}
        if "adam_weight_decay" in spec.arguments:
            given["adam_weight_decay"] = 0.0
        door_optimizer = spec.factory(**(spec.arguments | given))
        door.as_optimizer(door_optimizer).apply([gradient], [variable])

    def _apply_weight_decay(self, variables):
        self.apply([jnp.zeros_like(v.value) for v in variables], variables)

    def _clip_gradients(self, grads):
        # The step of SGD with a learning rate of 1 is minus the clipped gradient.
        clips = ("clipnorm", "clipvalue", "global_clipnorm")
        arguments = self.transformation.spec.arguments
        clip = door.SGD(1.0, **{name: arguments[name] for name in clips})
        grads = [jnp.asarray(g, "float32") for g in grads]
        updates, _ = clip.update(grads, clip.init(grads))
        return [-x for x in updates]


class MuonStandIn(OptimizerStandIn):
    """The stand-in of Muon, with the parts of its step that are methods in Keras."""

    def zeropower_via_newtonschulz5(self, x, steps):
        """Make a step that does only this."""
        return self._first_step(x, ns_steps=steps, rms_rate=None)

    def lr_adjust(self, x):
        """Multiply by the ratio of a step to the same step without `rms_rate`."""
        return x * self._first_step(x) / self._first_step(x, rms_rate=None)

    def _first_step(self, x, **given):
        without = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
        spec = self.transformation.spec
        arguments = spec.arguments | without | {"learning_rate": 1.0} | given
        tx = spec.factory(**arguments)
        updates, _ = tx.update({"x": x}, tx.init({"x": x}), {"x": x})
        return -updates["x"]

    def _should_use_adamw(self, variable):
        # Only Adam's leaves have a second moment.
        state = self.transformation.init({variable.path: variable.value})
        return bool(jax.tree.leaves(tree.get(state, "nu")))


class NadamStandIn(OptimizerStandIn):
    """The stand-in of Nadam, with Keras's name for a number of its state."""

    @property
    def _u_product(self):
        return tree.get(self.state, "mu_product")


class ScheduleStandIn(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of `jopt.interop.keras`, of a class with Keras's name."""

    def __init__(self, *args, **kwargs):
        self.schedule = made(type(self).__name__, args, kwargs)

    def __call__(self, step):
        return self.schedule(jnp.asarray(plain(step), "int32"))  # 3.0 becomes 3

    def get_config(self):
        return self.schedule.get_config()


def put(name: str, base: type, module: str, *places: Any) -> type:
    """Make the class of a stand-in, and put it where Keras has its own."""
    cls = type(base)(name, (base,), {})
    api_export.register_internal_serializable(f"{module}.{name}", cls)
    for place in (sys.modules[__name__], *places):  # pickle looks for it here
        setattr(place, name, cls)
    return cls


BASES = {"Muon": MuonStandIn, "Nadam": NadamStandIn}
for source, name in OPTIMIZERS.items():
    module = importlib.import_module(f"keras.src.optimizers.{source}")
    cls = put(name, BASES.get(name, OptimizerStandIn), "keras.optimizers", module)
    if hasattr(sources, name):  # Lamb is only in its module
        setattr(sources, name, cls)
        sources.ALL_OBJECTS_DICT[name.lower()] = cls
for name in SCHEDULES:
    put(name, ScheduleStandIn, "keras.optimizers.schedules", sources.schedules)


@pytest.fixture(autouse=True)
def count(record_property):
    """Record how many stand-ins a test makes."""
    MADE.clear()
    yield
    record_property("made", len(MADE))
