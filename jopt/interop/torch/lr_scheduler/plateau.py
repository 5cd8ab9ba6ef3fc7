"""torch's ReduceLROnPlateau, which depends on a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.interop.shared.plateau import reducing
from jopt.interop.torch.lr_scheduler.calls import scheduler
from jopt.interop.torch.lr_scheduler.chained import change_of
from jopt.transforms.plateau import reduce_on_plateau
from jopt.values import arguments
from jopt.values.arguments import abbreviated


def ReduceLROnPlateau(
    optimizer: Any,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float | Sequence[float] = 0.0,
    eps: float = 1e-8,
    *,
    steps_per_epoch: int = 1,
) -> Any:
    """Reduce the learning rate when a metric stops improving.

        tx = ReduceLROnPlateau(SGD(lr=0.1), "min", patience=5)
        updates, state = tx.update(grads, state, params, value=metric)

    Around an optimizer it changes the rate itself, as in torch: the rate of every
    parameter group, inside a momentum, an average or iterations too, and after another
    scheduler, which goes on from the reduced rate if it multiplies the rate, and sets
    it again if it sets the rate; see `ChainedScheduler`. `hyperparams` shows the rate
    that was used. On `Rprop`, whose steps do not use the rate, it has no effect.

    With a learning rate in place of the optimizer it is a transformation for the end of
    a chain, ``chain(SGD(lr=0.1), ReduceLROnPlateau(0.1))``, which scales the updates;
    ``min_lr`` is then relative to that rate.

    A value acts on the update that gets it, while torch's ``scheduler.step(metric)``
    acts on the next one. Pass the latest value of a metric of epochs to every update.
    For `LBFGS`, whose ``value`` is the loss, pass another metric as ``metric``.

    Args:
      optimizer: The optimizer; or a learning rate, or one for each parameter group.
      mode: Whether a smaller (``"min"``) or larger (``"max"``) value is better.
      factor: Factor of each reduction, in [0, 1).
      patience: Number of values in a row without improvement that are tolerated.
      threshold: Amount by which a value must improve on the best, >= 0.
      threshold_mode: Unit of the threshold: ``"rel"``, a fraction of the best, or
        ``"abs"``. As in torch, ``"rel"`` never reduces while values are negative.
      cooldown: Number of values after a reduction that are not counted.
      min_lr: The lowest rate, or a list with that of each parameter group.
      eps: A reduction by no more than this is skipped.
      steps_per_epoch: Number of updates whose mean value counts as one value.

    Returns:
      A transformation whose update needs ``value``; a list of them for a list of rates.

    Raises:
      KeyError: From ``init``: the optimizer has no learning rate.
      ValueError: A number is out of range, or ``min_lr`` is a list and has not one
        number for each parameter group.

    >>> import jax.numpy as jnp, jopt
    >>> from jopt.interop.torch import ASGD
    >>> from jopt.interop.torch.lr_scheduler import StepLR
    >>> tx = ReduceLROnPlateau(ASGD(lr=StepLR(1.0, 2, 0.5)), factor=0.5, patience=0)
    >>> params, rates = jnp.zeros(1), []
    >>> state = tx.init(params)
    >>> for loss in [3.0, 3.0, 2.0]:
    ...     _, state = tx.update(jnp.ones(1), state, params, value=loss)
    ...     rates.append(float(jopt.hyperparams(state)["learning_rate"]))
    >>> rates
    [1.0, 0.5, 0.25]
    """
    options: dict[str, Any] = {
        "mode": mode,
        "factor": factor,
        "patience": patience,
        "threshold": threshold,
        "threshold_mode": threshold_mode,
        "cooldown": cooldown,
        "min_lr": min_lr,
        "eps": eps,
        "steps_per_epoch": steps_per_epoch,
    }
    if isinstance(optimizer, GradientTransformation):
        return reduce_torch_rate(optimizer, **options)
    return _at_the_end(optimizer, **options)


@transformation
def reduce_torch_rate(
    optimizer: GradientTransformation,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: Any = 0.0,
    eps: float = 1e-8,
    *,
    steps_per_epoch: int = 1,
) -> GradientTransformation:
    """Reduce the rate of an optimizer as `ReduceLROnPlateau` does.

    Args:
      optimizer: The optimizer.
      mode, factor, patience, threshold, threshold_mode: See `ReduceLROnPlateau`.
      cooldown, min_lr, eps, steps_per_epoch: See `ReduceLROnPlateau`.

    Returns:
      A transformation.
    """
    arguments.decay_rate(factor=factor)
    arguments.nonnegative(eps=eps)
    rtol, atol = _tolerances(threshold, threshold_mode)
    return reducing(
        optimizer,
        factor,
        patience,
        rtol=rtol,
        atol=atol,
        cooldown=cooldown,
        steps_per_epoch=steps_per_epoch,
        lowest=_lowest(optimizer, min_lr),
        rule="torch",
        mode=mode,
        eps=eps,
        change_of=change_of,
        # The steps of Rprop do not use their rate.
        needs_rate=not _has(optimizer, "scale_by_rprop"),
    )


def _tolerances(threshold: float, threshold_mode: str) -> tuple[float, float]:
    """Return the relative and the absolute improvement that counts."""
    arguments.one_of(("rel", "abs"), threshold_mode=threshold_mode)
    arguments.nonnegative(threshold=threshold)
    return (threshold, 0.0) if threshold_mode == "rel" else (0.0, threshold)


def _lowest(optimizer: GradientTransformation, min_lr: Any) -> Callable[[str], float]:
    """Return the lowest rate as a function of the path of a rate."""
    if not isinstance(min_lr, list | tuple):
        arguments.nonnegative(min_lr=min_lr)
        return lambda path: min_lr
    labels = _groups(optimizer) or [""]
    if len(labels) != len(min_lr):
        raise ValueError(
            f"min_lr must have one value for each of the {len(labels)} parameter "
            f"groups, got {len(min_lr)}: {abbreviated(min_lr)}"
        )
    for x in min_lr:
        arguments.nonnegative(min_lr=x)
    by_label = dict(zip(labels, map(float, min_lr), strict=True))
    return lambda path: next(
        (by_label[step] for step in path.split("/") if step in by_label),
        min_lr[0],
    )


def _groups(tx: GradientTransformation) -> list[str]:
    """Return the names of the parameter groups of an optimizer; none if it has none."""
    if tx.recipe is not None and tx.recipe.name == "partition":
        return list(tx.recipe.arguments["transforms"])
    return next((found for x in tx.children.values() if (found := _groups(x))), [])


def _has(tx: GradientTransformation, name: str) -> bool:
    return tx.name == name or any(_has(x, name) for x in tx.children.values())


@scheduler
def _at_the_end(
    lr: float,
    mode: Literal["min", "max"],
    factor: float,
    patience: int,
    threshold: float,
    threshold_mode: Literal["rel", "abs"],
    cooldown: int,
    min_lr: float,
    eps: float,
    steps_per_epoch: int,
) -> GradientTransformation:
    """Return the transformation for the end of a chain."""
    rtol, atol = _tolerances(threshold, threshold_mode)
    if not lr:  # it never changes
        min_lr, eps, lr = 1.0, 0.0, 1.0
    if min_lr > lr:
        raise ValueError(f"min_lr must be <= lr={lr}, got min_lr={min_lr}")
    return reduce_on_plateau(
        factor,
        patience,
        rtol=rtol,
        atol=atol,
        cooldown=cooldown,
        accumulation_size=steps_per_epoch,
        min_scale=min_lr / lr,
        rule="torch",
        mode=mode,
        eps=eps / lr,
    )
