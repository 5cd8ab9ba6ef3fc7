"""torch's optimizers by their names, with their arguments, defaults and numbers.

Each is a function that returns one of jopt's transformations. The first argument may be
a list of parameter groups, see `groups.optimizer`; ``lr`` may be a number, a schedule
such as those of ``lr_scheduler.py``, or `jopt.tunable`, and so may the numbers that
torch lets a scheduler change. ``weight_decay`` is a multiple of the parameters that is
added to the gradient, unless it is said to be decoupled: then the step takes
``lr weight_decay p``. ``maximize`` turns the gradient around. A complex number has one
second moment here, of its magnitude, and two in torch, of its parts.
"""

from __future__ import annotations

from typing import Any

from jopt.algorithms.asgd import asgd
from jopt.algorithms.matrices import Axes
from jopt.algorithms.muon import scale_by_muon
from jopt.algorithms.rprop import rprop
from jopt.algorithms.sgd import sgd
from jopt.core.chain import chain
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.groups import Groups, optimizer
from jopt.interop.torch.shared import Betas, after, is_zero, pair
from jopt.schedules.decay import constant_schedule
from jopt.schedules.join import join_schedules
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@optimizer
def SGD(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    momentum: ScalarOrSchedule = 0.0,
    dampening: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's SGD; the learning rate is outside of the momentum.

    Args:
      params: None for all, or parameter groups.
      lr: The learning rate, >= 0.
      momentum: In [0, 1).
      dampening: What share of a gradient, but the first, does not enter the momentum.
      weight_decay: >= 0, in the gradient.
      nesterov: Whether momentum looks one step ahead; it needs one, and no dampening.
      maximize: Whether to go up.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    >>> SGD(lr=0.1, momentum=0.9)
    sgd(learning_rate=0.1, momentum=0.9)
    >>> groups = [{"params": "bias$", "lr": 0.02}, {"params": ""}]
    >>> import jax.numpy as jnp
    >>> tx, params = SGD(groups, lr=0.1), {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> tx.update(params, tx.init(params))[0]
    {'bias': Array([-0.02], dtype=float32), 'kernel': Array([-0.1], dtype=float32)}
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    arguments.decay_rate(momentum=momentum)
    heavy = None if is_zero(momentum) else momentum
    damped = None if is_zero(dampening) else dampening
    if nesterov and (heavy is None or damped is not None):
        raise ValueError(
            "nesterov needs a momentum > 0 and no dampening, got "
            f"momentum={momentum!r}, dampening={dampening!r}"
        )
    damped = damped if heavy is not None else None
    tx = sgd(lr, heavy, nesterov, dampening=damped)
    return after(maximize, weight_decay, tx)


@optimizer
def Rprop(
    params: Groups = None,
    lr: float = 1e-2,
    etas: Betas = (0.5, 1.2),
    step_sizes: Betas = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's Rprop.

    Args:
      params: None for all, or parameter groups.
      lr: The first step size, > 0.
      etas: What a step size is multiplied by where the sign changes, and where not.
      step_sizes: The least and the largest.
      maximize: Whether to go up.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    >>> Rprop()
    rprop(learning_rate=0.01)
    """
    del params
    arguments.positive(lr=lr)
    etas, step_sizes = pair("etas", etas), pair("step_sizes", step_sizes)
    if not 0 < etas[0] < 1 < etas[1] or not 0 < step_sizes[0] <= step_sizes[1]:
        raise ValueError(
            "etas must be below and above 1, and step_sizes in order, got "
            f"etas={etas}, step_sizes={step_sizes}"
        )
    return after(maximize, 0.0, rprop(lr, *etas, *step_sizes))


@optimizer
def ASGD(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: ScalarOrSchedule = 0.0,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's ASGD; `jopt.eval_params` has the averages.

    A schedule acts one step late, as in torch.

    Args:
      params: None for all, or parameter groups.
      lr: The learning rate, >= 0.
      lambd: Decay of the parameters, >= 0.
      alpha: Power of the rate's decay, >= 0.
      t0: The step that averaging starts at.
      weight_decay: >= 0, in the gradient.
      maximize: Whether to go up.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range.

    >>> ASGD()
    asgd(learning_rate=0.01)
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    if callable(lr):
        first: Any = lr(0)
        lr = join_schedules([constant_schedule(float(first)), lr], [1])
    return after(maximize, weight_decay, asgd(lr, lambd, alpha, t0))


@optimizer
def Muon(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    weight_decay: ScalarOrSchedule = 0.1,
    momentum: ScalarOrSchedule = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    *,
    axes: Axes = None,
) -> GradientTransformation:
    """torch's Muon, for matrices only: give other leaves another optimizer.

        partition({"matrix": Muon(), "rest": AdamW()}, labels)

    The iteration is in float32; torch's, which is always in bfloat16, is followed as
    far as that goes.

    Args:
      params: None for all, or parameter groups.
      lr: The learning rate, >= 0.
      weight_decay: >= 0, decoupled and multiplied by the learning rate.
      momentum: In [0, 1).
      nesterov: Whether momentum looks one step ahead.
      ns_coefficients: Of the iteration that orthogonalizes.
      eps: Without effect: torch's smallest norm of a matrix, while here an update does
        not depend on the magnitude of the gradients.
      ns_steps: Of the iteration.
      adjust_lr_fn: ``"original"``, which is None, or ``"match_rms_adamw"``.
      axes: ``"oi"`` for weights that are (outputs, inputs), as in torch; None is
        (inputs, outputs), as in Flax.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range, or a leaf no matrix.

    >>> import jax.numpy as jnp
    >>> list(Muon().init(jnp.ones((2, 3))))
    ['scale_by_muon', 'scale_by_learning_rate']
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay, eps=eps)
    arguments.decay_rate(momentum=momentum)
    adjust = adjust_lr_fn or "original"
    arguments.one_of(("original", "match_rms_adamw"), adjust_lr_fn=adjust)
    direction = scale_by_muon(
        ns_coefficients,
        ns_steps,
        momentum,
        nesterov=nesterov,
        axes=axes,
        shape_scale="kj" if adjust == "original" else "match_rms_adamw",
    )
    rate = scale_by_learning_rate(lr)
    return chain(direction, *decoupled_decay(weight_decay, None), rate)
