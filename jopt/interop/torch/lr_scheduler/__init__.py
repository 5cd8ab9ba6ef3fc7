"""torch's learning rate schedulers by their names, as schedules.

Where torch takes the optimizer, whose rates it changes, these take the learning rate:

    torch     StepLR(SGD(parameters, lr=0.1), step_size=30)
    here      SGD(lr=StepLR(0.1, step_size=30))

They count updates. Where torch's ``scheduler.step()`` is called once an epoch, count
epochs: ``SGD(lr=jopt.epoch_schedule(StepLR(0.1, step_size=30), steps_per_epoch))``.
"""

from jopt.interop.torch.lr_scheduler.cycles import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    CyclicMomentum,
    OneCycleLR,
    OneCycleMomentum,
)
from jopt.interop.torch.lr_scheduler.decays import (
    SWALR,
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from jopt.interop.torch.lr_scheduler.plateau import ReduceLROnPlateau


__all__ = [
    "SWALR",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "CyclicMomentum",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "OneCycleMomentum",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
