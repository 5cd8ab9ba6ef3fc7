"""torch's ReduceLROnPlateau, which looks at a metric."""

from __future__ import annotations

from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.lr_scheduler.calls import scheduler
from jopt.transforms.plateau import reduce_on_plateau
from jopt.values import arguments


@scheduler
def ReduceLROnPlateau(
    lr: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
    *,
    steps_per_epoch: int = 1,
) -> GradientTransformation:
    """A smaller learning rate when a metric has stopped improving.

        tx = chain(SGD(lr=0.1), ReduceLROnPlateau(0.1))
        updates, state = tx.update(grads, state, params, value=metric)

    It is no schedule but goes behind the optimizer. A value acts on the update that is
    told it, where torch's ``scheduler.step(metric)`` acts on the next one. For a metric
    of epochs tell every update the last one. What it scales are updates: that is a
    smaller rate, but for `ASGD` and `Rprop`; and ``min_lr`` is of ``lr``, also where
    parameter groups have others.

    Args:
      lr: The optimizer's learning rate, > 0.
      mode: ``"min"`` or ``"max"``.
      factor: What the rate is multiplied by, in (0, 1).
      patience: How many values in a row may be no improvement.
      threshold: By how much a value has to be better than the best, >= 0.
      threshold_mode: ``"rel"``, as a share of the best, or ``"abs"``.
      cooldown: How many values after a reduction are not counted.
      min_lr: The lowest rate, at most ``lr``.
      eps: A reduction by no more than this is not made.
      steps_per_epoch: How many updates are told one value.

    Returns:
      A transformation whose update needs ``value``.

    Raises:
      ValueError: A number is out of its range.

    >>> ReduceLROnPlateau(0.1, patience=5).recipe.arguments["rule"]
    'torch'
    """
    arguments.positive(lr=lr)
    arguments.one_of(("rel", "abs"), threshold_mode=threshold_mode)
    arguments.nonnegative(threshold=threshold)
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
