"""torch's schedulers that come back: waves, restarts, one cycle."""

from __future__ import annotations

from jopt.core.factory import Schedule
from jopt.interop.torch.lr_scheduler.calls import scheduler
from jopt.schedules.cosine import cosine_decay_restarts
from jopt.schedules.cyclic import cyclic_schedule
from jopt.schedules.onecycle import onecycle_schedule
from jopt.values import arguments


@scheduler
def CosineAnnealingLR(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """Half a cosine wave from ``lr`` down to ``eta_min``, and up again, for ever.

    Args:
      lr: The learning rate.
      T_max: Steps from the top to the bottom, > 0.
      eta_min: The bottom.

    >>> [float(CosineAnnealingLR(0.5, 4)(t)) for t in (0, 2, 4, 8)]
    [0.5, 0.25, 0.0, 0.5]
    """
    return cyclic_schedule(lr, eta_min, T_max, shape="cosine")


@scheduler
def CosineAnnealingWarmRestarts(
    lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """Half a cosine wave from ``lr`` down to ``eta_min``, again and again.

    Args:
      lr: The learning rate, > 0.
      T_0: Steps of the first wave, > 0.
      T_mult: How many times longer each is than the one before, a whole number >= 1.
      eta_min: The bottom.

    >>> [float(CosineAnnealingWarmRestarts(0.5, 2)(t)) for t in (0, 1, 2)]
    [0.5, 0.25, 0.5]
    """
    arguments.positive(lr=lr)
    return cosine_decay_restarts(lr, T_0, T_mult, alpha=eta_min / lr)


@scheduler
def CyclicLR(
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """Up and down, for ever; torch turns the momentum around too: `CyclicMomentum`.

    Args:
      base_lr: The bottom.
      max_lr: The top.
      step_size_up: Steps up, > 0.
      step_size_down: Steps down; None is as many.
      mode: ``"triangular"``, ``"triangular2"``, whose waves are half as high each time,
        or ``"exp_range"``, whose height is multiplied by ``gamma`` at every step.
      gamma: In (0, 1].

    >>> [float(CyclicLR(0.0, 0.5, 2)(t)) for t in (0, 1, 2, 4)]
    [0.0, 0.25, 0.5, 0.0]
    """
    return cyclic_schedule(
        base_lr, max_lr, step_size_up, step_size_down, mode=mode, gamma=gamma
    )


@scheduler
def CyclicMomentum(
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """The momentum that torch's CyclicLR sets unless ``cycle_momentum=False``.

    Args:
      base_momentum: Where the learning rate is at its top.
      max_momentum: Where it is at its bottom.
      step_size_up: See `CyclicLR`, as for the rest.
      step_size_down: Steps down.
      mode: The shape.
      gamma: In (0, 1].

    >>> [round(float(CyclicMomentum(step_size_up=2)(t)), 4) for t in (0, 1, 2)]
    [0.9, 0.85, 0.8]
    """
    return cyclic_schedule(
        max_momentum,
        base_momentum,
        step_size_up,
        step_size_down,
        mode=mode,
        gamma=gamma,
    )


@scheduler
def OneCycleLR(
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Up once and down; torch turns the momentum around too: `OneCycleMomentum`.

    After the last step the value stays, where torch raises.

    Args:
      max_lr: The top.
      total_steps: > 0, or ``epochs`` and ``steps_per_epoch``.
      epochs: > 0.
      steps_per_epoch: > 0.
      pct_start: The share of the way up.
      anneal_strategy: ``"cos"`` or ``"linear"``.
      div_factor: It begins at ``max_lr / div_factor``.
      final_div_factor: It ends at ``max_lr / div_factor / final_div_factor``.
      three_phase: Whether it first comes down to where it began.

    Raises:
      ValueError: The number of steps is given in no way, or in two.

    >>> float(OneCycleLR(0.5, epochs=2, steps_per_epoch=10)(5))
    0.5
    """
    return onecycle_schedule(
        max_lr,
        total_steps=_total(total_steps, epochs, steps_per_epoch),
        pct_start=pct_start,
        anneal_strategy=anneal_strategy,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        three_phase=three_phase,
    )


@scheduler
def OneCycleMomentum(
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The momentum that torch's OneCycleLR sets unless ``cycle_momentum=False``.

    It is SGD's ``momentum``, and the first of Adam's ``betas``.

    Args:
      base_momentum: Where the learning rate is at its top, > 0.
      max_momentum: Where it begins and ends.
      total_steps: See `OneCycleLR`, as for the rest.
      epochs: > 0.
      steps_per_epoch: > 0.
      pct_start: The share of the way up.
      anneal_strategy: ``"cos"`` or ``"linear"``.
      three_phase: Whether there are three.

    Raises:
      ValueError: The number of steps is given in no way, or in two.

    >>> [round(float(OneCycleMomentum(total_steps=20)(t)), 4) for t in (0, 5, 19)]
    [0.95, 0.85, 0.95]
    """
    arguments.positive(base_momentum=base_momentum, max_momentum=max_momentum)
    return onecycle_schedule(
        base_momentum,
        total_steps=_total(total_steps, epochs, steps_per_epoch),
        pct_start=pct_start,
        anneal_strategy=anneal_strategy,
        div_factor=base_momentum / max_momentum,
        final_div_factor=1.0,
        three_phase=three_phase,
    )


def _total(
    total_steps: int | None, epochs: int | None, steps_per_epoch: int | None
) -> int:
    """The number of steps, which is given in one of two ways."""
    if total_steps is not None and epochs is None and steps_per_epoch is None:
        return total_steps
    if total_steps is None and epochs is not None and steps_per_epoch is not None:
        return epochs * steps_per_epoch
    raise ValueError(
        "give total_steps, or epochs and steps_per_epoch; got total_steps="
        f"{total_steps}, epochs={epochs}, steps_per_epoch={steps_per_epoch}"
    )
