"""torch's optimizers that divide by a root mean square; see ``optimizers.py``."""

from __future__ import annotations

from jopt.algorithms.adadelta import adadelta
from jopt.algorithms.adafactor import adafactor
from jopt.algorithms.adagrad import adagrad
from jopt.algorithms.rmsprop import rmsprop
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.groups import Groups, optimizer
from jopt.interop.torch.shared import after, in_pairs, is_zero, times, unrefused
from jopt.schedules.inverse import inverse_time_decay
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


@optimizer("foreach", "differentiable", "fused")
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
    """torch's Adagrad, whose ``eps`` is outside the root.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      lr_decay: Decay of the rate, ``lr / (1 + (t - 1) lr_decay)``, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      initial_accumulator_value: Start of the sum of squares, >= 0.
      eps: Added to the root of the sum of squares, >= 0.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      TypeError: ``lr`` is tunable and ``lr_decay`` is not 0.
      ValueError: A number is out of range.

    >>> Adagrad().recipe.arguments["inner"].recipe.arguments["eps_in_sqrt"]
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
    return in_pairs(maximize, weight_decay, tx)


@optimizer("foreach", "capturable", "differentiable")
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
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      rho: Decay of both mean squares, in [0, 1].
      eps: Added to both mean squares, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> Adadelta()
    split_real_and_imaginary(inner=adadelta(learning_rate=1.0))
    """
    del params
    arguments.nonnegative(lr=lr, eps=eps, weight_decay=weight_decay)
    arguments.fraction(rho=rho)
    rho = unrefused(arguments.decay_rate, rho=rho)
    eps = unrefused(arguments.positive, eps=eps)
    return in_pairs(maximize, weight_decay, adadelta(lr, rho, eps))


@optimizer("foreach", "capturable", "differentiable")
def RMSprop(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    alpha: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    momentum: ScalarOrSchedule = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's RMSprop: ``eps`` is outside the root, the rate outside the momentum.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      alpha: Decay of the mean square, >= 0. At 1 or more the square is not a mean.
      eps: Added to the root of the mean square, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      momentum: Decay of a momentum of the steps, >= 0; 0 means none.
      centered: Whether to divide by the standard deviation instead.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> RMSprop().recipe.arguments["inner"]
    rmsprop(learning_rate=0.01, decay=0.99, eps_in_sqrt=False, lr_in_momentum=False)
    """
    del params
    arguments.nonnegative(
        lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
    )
    alpha = unrefused(arguments.decay_rate, alpha=alpha)
    momentum = unrefused(arguments.decay_rate, momentum=momentum)
    eps = unrefused(arguments.positive, eps=eps)
    tx = rmsprop(
        lr,
        alpha,
        eps,
        eps_in_sqrt=False,
        centered=centered,
        momentum=None if is_zero(momentum) else momentum,
        lr_in_momentum=False,
    )
    return in_pairs(maximize, weight_decay, tx)


@optimizer("foreach")
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
      params: Parameter groups; None means one group of all parameters.
      lr: The largest relative step size, >= 0. Early steps use ``1 / sqrt(t)`` if that
        is smaller.
      beta2_decay: Exponent <= 0: the second moment decays by ``1 - t^beta2_decay``.
      eps: Two lower bounds: on the mean square of a gradient (None means the precision
        of the dtype), and on the root mean square of a parameter.
      d: Bound on the root mean square of an update, >= 1.
      weight_decay: Decoupled weight decay, >= 0, multiplied by this ``lr`` even after
        another learning rate is set in the state.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation; it needs params.

    Raises:
      TypeError: ``lr`` is tunable and ``weight_decay`` is not 0, or ``eps`` is not a
        pair.
      ValueError: A number is out of range.

    >>> Adafactor(lr=0.1).recipe.arguments["eps_mode"]
    'clamp'
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    if not d >= 1:
        raise ValueError(f"d must be >= 1, got d={d}")
    if beta2_decay > 0:
        raise ValueError(
            f"beta2_decay must be <= 0, got beta2_decay={beta2_decay}: it is an "
            "exponent; -0.8 is usual"
        )
    if not isinstance(eps, list | tuple) or len(eps) != 2:
        raise TypeError(f"eps must be two numbers, got eps={text_of(eps)}")
    arguments.nonnegative(**{"eps[0]": eps[0], "eps[1]": eps[1]})
    decay = None
    if weight_decay and isinstance(lr, float):
        decay = lr * weight_decay
    elif weight_decay:
        decay = times("weight_decay", lr, weight_decay)
    tx = adafactor(
        lr,
        min_dim_size_to_factor=1,
        decay_rate=unrefused(arguments.positive, decay_rate=-beta2_decay),
        clipping_threshold=d,
        weight_decay_rate=decay,
        eps=unrefused(arguments.positive, eps=eps[0]),
        relative_step=True,
        min_scale=eps[1],
        factored_axes="last",
        eps_mode="clamp",
    )
    return after(maximize, 0.0, tx)
