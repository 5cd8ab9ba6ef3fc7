"""torch's optimizers that divide by a root mean square; see ``optimizers.py``."""

from __future__ import annotations

from jopt.algorithms.adadelta import adadelta
from jopt.algorithms.adafactor import adafactor
from jopt.algorithms.adagrad import adagrad
from jopt.algorithms.rmsprop import rmsprop
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.groups import Groups, optimizer
from jopt.interop.torch.shared import after, is_zero, times
from jopt.schedules.inverse import inverse_time_decay
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@optimizer
def Adagrad(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: ScalarOrSchedule = 1e-10,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's Adagrad; eps is outside of the root.

    Args:
      params: None for all, or parameter groups.
      lr: The learning rate, >= 0.
      lr_decay: >= 0: the rate is ``lr / (1 + (t - 1) lr_decay)``.
      weight_decay: >= 0, in the gradient.
      initial_accumulator_value: What the sum of squares starts at, >= 0.
      eps: Added to the root, >= 0.
      maximize: Whether to go up.

    Returns:
      A transformation.

    Raises:
      TypeError: A tunable ``lr`` with ``lr_decay``.
      ValueError: A number is out of its range.

    >>> Adagrad().recipe.arguments["eps_in_sqrt"]
    False
    """
    del params
    arguments.nonnegative(
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    if lr_decay and isinstance(lr, float):
        lr = inverse_time_decay(lr, 1, lr_decay)
    elif lr_decay:
        lr = times("lr_decay", lr, inverse_time_decay(1.0, 1, lr_decay))
    tx = adagrad(lr, initial_accumulator_value, eps, eps_in_sqrt=False)
    return after(maximize, weight_decay, tx)


@optimizer
def Adadelta(
    params: Groups = None,
    lr: ScalarOrSchedule = 1.0,
    rho: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's Adadelta.

    Args:
      params: None for all, or parameter groups.
      lr: The learning rate, >= 0.
      rho: Decay of both mean squares, in [0, 1).
      eps: Added to both, > 0.
      weight_decay: >= 0, in the gradient.
      maximize: Whether to go up.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    >>> Adadelta()
    adadelta(learning_rate=1.0)
    """
    del params
    arguments.nonnegative(lr=lr, eps=eps, weight_decay=weight_decay)
    arguments.decay_rate(rho=rho)
    return after(maximize, weight_decay, adadelta(lr, rho, eps))


@optimizer
def RMSprop(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    alpha: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    momentum: ScalarOrSchedule = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's RMSprop; eps is outside of the root, the rate outside of the momentum.

    Args:
      params: None for all, or parameter groups.
      lr: The learning rate, >= 0.
      alpha: Decay of the mean square, in [0, 1).
      eps: Added to the root, >= 0.
      weight_decay: >= 0, in the gradient.
      momentum: In [0, 1), of the steps.
      centered: Whether to divide by the standard deviation.
      maximize: Whether to go up.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of its range.

    >>> RMSprop().recipe.arguments["decay"]
    0.99
    """
    del params
    arguments.nonnegative(lr=lr, eps=eps, weight_decay=weight_decay)
    arguments.decay_rate(alpha=alpha, momentum=momentum)
    tx = rmsprop(
        lr,
        alpha,
        eps,
        eps_in_sqrt=False,
        centered=centered,
        momentum=None if is_zero(momentum) else momentum,
        lr_in_momentum=False,
    )
    return after(maximize, weight_decay, tx)


@optimizer
def Adafactor(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's Adafactor.

    Args:
      params: None for all, or parameter groups.
      lr: The largest relative step size, >= 0; early steps are ``1 / sqrt(t)``.
      beta2_decay: < 0: the second moment decays by ``1 - t^beta2_decay``.
      eps: The least mean square of a gradient, None is the dtype's precision, and the
        least root mean square of a parameter.
      d: Bounds the root mean square of an update, > 0.
      weight_decay: >= 0, decoupled and multiplied by ``lr``: by what it is here, also
        when another learning rate is set in the state.
      maximize: Whether to go up.

    Returns:
      A transformation; it needs params.

    Raises:
      TypeError: A tunable ``lr`` with ``weight_decay``.
      ValueError: A number is out of its range.

    >>> Adafactor(lr=0.1).recipe.arguments["eps_mode"]
    'clamp'
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    arguments.positive(d=d)
    if beta2_decay >= 0:
        raise ValueError(
            f"beta2_decay must be < 0, got beta2_decay={beta2_decay}: it is an "
            "exponent, -0.8 is usual"
        )
    if not isinstance(eps, list | tuple) or len(eps) != 2:
        raise TypeError(f"eps must be two numbers, got eps={eps!r}")
    arguments.positive(**{"eps[0]": eps[0], "eps[1]": eps[1]})
    rate = None
    if weight_decay:
        constant = isinstance(lr, float)
        rate = (
            lr * weight_decay if constant else times("weight_decay", lr, weight_decay)
        )
    tx = adafactor(
        lr,
        min_dim_size_to_factor=1,
        decay_rate=-beta2_decay,
        clipping_threshold=d,
        weight_decay_rate=rate,
        eps=eps[0],
        relative_step=True,
        min_scale=eps[1],
        factored_axes="last",
        eps_mode="clamp",
    )
    return after(maximize, 0.0, tx)
