"""Keras by its own names; Keras itself is not needed.

Optimizers and schedules with Keras's arguments and numbers, `get` and `serialize` for
its configs, and the weights of its optimizers as states, and back.
"""

from jopt.interop.keras import legacy
from jopt.interop.keras.adams import (
    Adam,
    Adamax,
    AdamW,
    Lamb,
    Nadam,
    ScheduleFreeAdamW,
)
from jopt.interop.keras.custom import (
    custom_object_scope,
    register_keras_serializable,
)
from jopt.interop.keras.factories import KerasOptimizer, KerasSchedule
from jopt.interop.keras.files import load
from jopt.interop.keras.layouts import Layout
from jopt.interop.keras.loss_scale import LossScaleOptimizer
from jopt.interop.keras.multi import MultiOptimizer, OptimizerMap
from jopt.interop.keras.muon import Muon
from jopt.interop.keras.names import (
    deserialize,
    get,
    serialize,
)
from jopt.interop.keras.optimizers import (
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Ftrl,
    Lion,
    RMSprop,
)
from jopt.interop.keras.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LinearCosineDecay,
    NoisyLinearCosineDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)
from jopt.interop.keras.stepping import apply_gradients
from jopt.interop.keras.weights import get_weights, set_weights
from jopt.interop.order import Permuted


__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "Ftrl",
    "InverseTimeDecay",
    "KerasOptimizer",
    "KerasSchedule",
    "Lamb",
    "Layout",
    "LinearCosineDecay",
    "Lion",
    "LossScaleOptimizer",
    "MultiOptimizer",
    "Muon",
    "Nadam",
    "NoisyLinearCosineDecay",
    "OptimizerMap",
    "Permuted",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "RMSprop",
    "ScheduleFreeAdamW",
    "apply_gradients",
    "custom_object_scope",
    "deserialize",
    "get",
    "get_weights",
    "legacy",
    "load",
    "register_keras_serializable",
    "serialize",
    "set_weights",
]
