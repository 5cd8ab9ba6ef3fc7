"""The public names of ``jopt.interop.torch.lr_scheduler``."""

from .decays import (
    SWALR as SWALR,
    ConstantLR as ConstantLR,
    ExponentialLR as ExponentialLR,
    LambdaLR as LambdaLR,
    LinearLR as LinearLR,
    MultiStepLR as MultiStepLR,
    MultiplicativeLR as MultiplicativeLR,
    PolynomialLR as PolynomialLR,
    SequentialLR as SequentialLR,
    StepLR as StepLR,
)
from .chained import ChainedScheduler as ChainedScheduler
from .cycles import (
    CosineAnnealingLR as CosineAnnealingLR,
    CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts,
    CyclicLR as CyclicLR,
    CyclicMomentum as CyclicMomentum,
    OneCycleLR as OneCycleLR,
    OneCycleMomentum as OneCycleMomentum,
)
from .plateau import ReduceLROnPlateau as ReduceLROnPlateau
