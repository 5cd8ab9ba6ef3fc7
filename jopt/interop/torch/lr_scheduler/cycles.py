"""torch's periodic schedulers: waves, restarts, one cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from jopt.core.factory import Schedule
from jopt.interop.torch.lr_scheduler.calls import scheduler
from jopt.interop.torch.lr_scheduler.powers import signed_decay
from jopt.schedules.cosine import cosine_decay_restarts
from jopt.schedules.cyclic import cyclic_schedule
from jopt.schedules.onecycle import onecycle_schedule
from jopt.values import arguments


@scheduler
def CosineAnnealingLR(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """A cosine wave between ``lr`` and ``eta_min``, starting at ``lr``.

    Args:
      lr: The highest learning rate.
      T_max: Number of steps from the highest rate to the lowest, > 0.
      eta_min: The lowest learning rate.

    >>> [float(CosineAnnealingLR(0.5, 4)(t)) for t in (0, 2, 4, 8)]
    [0.5, 0.25, 0.0, 0.5]
    """
    return cyclic_schedule(lr, eta_min, T_max, shape="cosine")


@scheduler
def CosineAnnealingWarmRestarts(
    lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """Half a cosine wave from ``lr`` down to ``eta_min``, with restarts.

    Args:
      lr: The learning rate at every restart.
      T_0: Number of steps before the first restart, > 0.
      T_mult: Factor of that number at each restart, an integer >= 1.
      eta_min: The lowest learning rate.

    >>> [float(CosineAnnealingWarmRestarts(0.5, 2)(t)) for t in (0, 1, 2)]
    [0.5, 0.25, 0.5]
    """
    if arguments.known(lr) == 0:  # it rises, and no height is a fraction of lr
        return cosine_decay_restarts(1.0, T_0, T_mult).linear(-eta_min, eta_min)
    return cosine_decay_restarts(lr, T_0, T_mult, alpha=eta_min / lr)


@scheduler
def CyclicLR(
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
) -> Schedule:
    """Triangular waves of the learning rate.

    torch also moves the momentum the other way: use `CyclicMomentum`.

    Args:
      base_lr: The lowest learning rate.
      max_lr: The highest learning rate.
      step_size_up: Number of steps up, > 0.
      step_size_down: Number of steps down; None means ``step_size_up``.
      mode: ``"triangular"``; ``"triangular2"``, which halves the height at each wave;
        or ``"exp_range"``, which multiplies the height by ``gamma`` at each step.
      gamma: Factor for ``"exp_range"``.
      scale_fn: The height as a function of the cycle, 1, 2, …, in place of ``mode``.
        Under ``jit`` it needs ``jnp.where`` in place of ``if``.
      scale_mode: ``"cycle"``, or ``"iterations"`` if it is a function of the step.

    >>> [float(CyclicLR(0.0, 0.5, 2)(t)) for t in (0, 1, 2, 4)]
    [0.0, 0.25, 0.5, 0.0]
    """
    gamma, scale_fn, scale_mode = _height(mode, gamma, scale_fn, scale_mode)
    return cyclic_schedule(
        base_lr,
        max_lr,
        step_size_up,
        step_size_down,
        mode=mode,
        gamma=gamma,
        scale_fn=scale_fn,
        scale_mode=scale_mode,
    )


@scheduler
def CyclicMomentum(
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
) -> Schedule:
    """The momentum that torch's CyclicLR sets unless ``cycle_momentum=False``.

    Args:
      base_momentum: The momentum at the highest learning rate.
      max_momentum: The momentum at the lowest learning rate.
      step_size_up: Number of steps in which the learning rate rises, > 0.
      step_size_down: Number of steps in which it falls; None means ``step_size_up``.
      mode: ``"triangular"``; ``"triangular2"``, which halves the height at each wave;
        or ``"exp_range"``, which multiplies the height by ``gamma`` at each step.
      gamma: Factor for ``"exp_range"``.
      scale_fn: The height as a function of the cycle, 1, 2, …, in place of ``mode``.
        Under ``jit`` it needs ``jnp.where`` in place of ``if``.
      scale_mode: ``"cycle"``, or ``"iterations"`` if it is a function of the step.

    >>> [round(float(CyclicMomentum(step_size_up=2)(t)), 4) for t in (0, 1, 2)]
    [0.9, 0.85, 0.8]
    """
    gamma, scale_fn, scale_mode = _height(mode, gamma, scale_fn, scale_mode)
    return cyclic_schedule(
        max_momentum,
        base_momentum,
        step_size_up,
        step_size_down,
        mode=mode,
        gamma=gamma,
        scale_fn=scale_fn,
        scale_mode=scale_mode,
    )


def _height(mode: str, gamma: float, scale_fn: Any, scale_mode: Any) -> Any:
    """Return what `cyclic_schedule` takes for a ``gamma`` that torch allows."""
    if mode != "exp_range":  # as in torch, where it has no effect then
        return 1.0, scale_fn, scale_mode
    negative = arguments.known(gamma) is not None and gamma <= 0
    if scale_fn is None and negative:
        return 1.0, signed_decay(1.0, 1, gamma), "iterations"
    return (1.0 if negative else gamma), scale_fn, scale_mode


@scheduler
def OneCycleLR(
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """One cycle of the learning rate: up, then down.

    torch also moves the momentum the other way: use `OneCycleMomentum`. After the last
    step the value stays, where torch raises an error.

    Args:
      max_lr: The highest learning rate.
      total_steps: Number of steps, > 0; None means ``epochs * steps_per_epoch``.
      epochs: Number of epochs, > 0, without ``total_steps``.
      steps_per_epoch: Number of steps per epoch, > 0.
      pct_start: Fraction of the steps in which the rate rises.
      anneal_strategy: Shape of the rise and fall: ``"cos"`` or ``"linear"``.
      div_factor: The first learning rate is ``max_lr / div_factor``.
      final_div_factor: The last one is ``max_lr / div_factor / final_div_factor``.
      three_phase: Whether to fall to the first rate as fast as it rose, then to the
        last one; ``pct_start`` must then be at most 0.5.

    Raises:
      ValueError: Neither ``total_steps`` nor both of ``epochs`` and ``steps_per_epoch``
        are given.

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
    anneal_strategy: Literal["cos", "linear"] = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The momentum that torch's OneCycleLR sets unless ``cycle_momentum=False``.

    Use it as the ``momentum`` of SGD, or as the first of Adam's ``betas``.

    Args:
      base_momentum: The momentum at the highest learning rate, > 0.
      max_momentum: The momentum at the start and at the end, > 0.
      total_steps: Number of steps, > 0; None means ``epochs * steps_per_epoch``.
      epochs: Number of epochs, > 0, without ``total_steps``.
      steps_per_epoch: Number of steps per epoch, > 0.
      pct_start: Fraction of the steps in which the momentum falls.
      anneal_strategy: Shape of the fall and rise: ``"cos"`` or ``"linear"``.
      three_phase: Whether the momentum returns to ``max_momentum`` as fast as it fell
        and then stays there.

    Raises:
      ValueError: Neither ``total_steps`` nor both of ``epochs`` and ``steps_per_epoch``
        are given.

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
    """Return the number of steps from one of the two ways in which it is given."""
    if total_steps is not None:  # as in torch, whatever the others are
        return total_steps
    if epochs is not None and steps_per_epoch is not None:
        return epochs * steps_per_epoch
    raise ValueError(
        "give total_steps, or epochs and steps_per_epoch; got total_steps="
        f"{total_steps}, epochs={epochs}, steps_per_epoch={steps_per_epoch}"
    )
