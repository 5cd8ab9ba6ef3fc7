"""torch's ReduceLROnPlateau, which depends on a metric."""

from __future__ import annotations

from typing import Literal

from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.lr_scheduler.calls import scheduler
from jopt.transforms.plateau import reduce_on_plateau
from jopt.values import arguments


@scheduler
def ReduceLROnPlateau(
    lr: float,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
    *,
    steps_per_epoch: int = 1,
) -> GradientTransformation:
    """Reduce the learning rate when a metric stops improving.

        tx = chain(SGD(lr=0.1), ReduceLROnPlateau(0.1))
        updates, state = tx.update(grads, state, params, value=metric)

    It is a transformation for the end of a chain, not a schedule. A value acts on the
    update that gets it, while torch's ``scheduler.step(metric)`` acts on the next one.
    Pass the latest value of a metric of epochs to every update. The updates are scaled,
    which equals a smaller rate except for `ASGD` and `Rprop`. ``min_lr`` is relative to
    ``lr``, even if parameter groups have other rates.

    Args:
      lr: The optimizer's learning rate.
      mode: Whether a smaller (``"min"``) or larger (``"max"``) value is better.
      factor: Factor of each reduction, in [0, 1).
      patience: Number of values in a row without improvement that are tolerated.
      threshold: Amount by which a value must improve on the best, >= 0.
      threshold_mode: Unit of the threshold: ``"rel"``, a fraction of the best, or
        ``"abs"``. As in torch, ``"rel"`` never reduces while values are negative.
      cooldown: Number of values after a reduction that are not counted.
      min_lr: The lowest rate, at most ``lr``.
      eps: A reduction by no more than this is skipped.
      steps_per_epoch: Number of updates whose mean value counts as one value.

    Returns:
      A transformation whose update needs ``value``.

    Raises:
      ValueError: A number is out of range.

    >>> ReduceLROnPlateau(0.1, patience=5).recipe.arguments["rule"]
    'torch'
    """
    arguments.one_of(("rel", "abs"), threshold_mode=threshold_mode)
    arguments.nonnegative(threshold=threshold)
    if not lr:  # it never changes
        min_lr, eps, lr = 1.0, 0.0, 1.0
    if min_lr > lr:
        raise ValueError(f"min_lr must be <= lr={lr}, got min_lr={min_lr}")
    relative = threshold_mode == "rel"
    return reduce_on_plateau(
        factor,
        patience,
        rtol=threshold if relative else 0.0,
        atol=0.0 if relative else threshold,
        cooldown=cooldown,
        accumulation_size=steps_per_epoch,
        min_scale=min_lr / lr,
        rule="torch",
        mode=mode,
        eps=eps / lr,
    )
