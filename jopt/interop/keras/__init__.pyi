"""The public names of ``jopt.interop.keras``."""

# Optimizers.
from .optimizers import (
    SGD as SGD,
    Adadelta as Adadelta,
    Adafactor as Adafactor,
    Adagrad as Adagrad,
    Ftrl as Ftrl,
    Lion as Lion,
    RMSprop as RMSprop,
)
from .adams import (
    Adam as Adam,
    AdamW as AdamW,
    Adamax as Adamax,
    Lamb as Lamb,
    Nadam as Nadam,
    ScheduleFreeAdamW as ScheduleFreeAdamW,
)

# Schedules.
from .schedules import (
    CosineDecay as CosineDecay,
    CosineDecayRestarts as CosineDecayRestarts,
    ExponentialDecay as ExponentialDecay,
    InverseTimeDecay as InverseTimeDecay,
    LinearCosineDecay as LinearCosineDecay,
    NoisyLinearCosineDecay as NoisyLinearCosineDecay,
    PiecewiseConstantDecay as PiecewiseConstantDecay,
    PolynomialDecay as PolynomialDecay,
)

# Around an optimizer, and between Keras and jopt.
from .factories import KerasOptimizer as KerasOptimizer, KerasSchedule as KerasSchedule
from .layouts import Layout as Layout
from .loss_scale import LossScaleOptimizer as LossScaleOptimizer
from .multi import MultiOptimizer as MultiOptimizer, OptimizerMap as OptimizerMap
from .muon import Muon as Muon
from .plateau import ReduceLROnPlateau as ReduceLROnPlateau
from .weights import Permuted as Permuted
from .stepping import apply_gradients as apply_gradients
from .models import as_optimizer as as_optimizer
from .custom import (
    custom_object_scope as custom_object_scope,
    register_keras_serializable as register_keras_serializable,
)
from .names import deserialize as deserialize, get as get, serialize as serialize
from .weights import get_weights as get_weights, set_weights as set_weights
from . import legacy as legacy
from .files import load as load
