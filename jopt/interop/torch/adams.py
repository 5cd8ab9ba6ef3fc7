"""torch's Adam and its relatives; conventions are in ``optimizers.py``."""

from __future__ import annotations

from jopt.algorithms.adam import adam, adamw
from jopt.algorithms.adamax import adamax
from jopt.algorithms.amsgrad import amsgrad as _amsgrad
from jopt.algorithms.amsgrad import scale_by_amsgrad
from jopt.algorithms.nadam import nadam, nadamw
from jopt.algorithms.radam import radam
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.groups import Groups, optimizer
from jopt.interop.torch.shared import (
    Betas,
    after,
    decays,
    in_pairs,
    is_zero,
    unrefused,
)
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@optimizer("foreach", "capturable", "differentiable", "fused")
def Adam(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> GradientTransformation:
    """torch's Adam.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      betas: Decays of the first and second moment, each in [0, 1).
      eps: Added to the root of the second moment, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      amsgrad: Whether to divide by the root of the largest second moment so far.
      maximize: Whether to maximize instead of minimize.
      decoupled_weight_decay: Whether the decay bypasses the gradient, as in `AdamW`.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> Adam(lr=3e-4, betas=(0.9, 0.95))
    split_real_and_imaginary(inner=adam(learning_rate=0.0003, b2=0.95))
    >>> Adam(weight_decay=0.1).recipe.arguments["inner"]
    chain(add_decayed_weights(weight_decay=0.1), adam(learning_rate=0.001))
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    arguments.nonnegative(eps=eps)
    eps = unrefused(arguments.positive, eps=eps)
    b1, b2 = decays(betas)
    l2 = 0.0 if decoupled_weight_decay else weight_decay
    if not decoupled_weight_decay or is_zero(weight_decay):
        tx = adam(lr, b1, b2, eps)
        if amsgrad:
            tx = _amsgrad(lr, b1, b2, eps, maximum="raw")
        return in_pairs(maximize, l2, tx)
    if not amsgrad:
        return in_pairs(maximize, l2, adamw(lr, b1, b2, eps, weight_decay=weight_decay))
    direction = scale_by_amsgrad(b1, b2, eps, maximum="raw")
    decay, rate = add_decayed_weights(weight_decay), scale_by_learning_rate(lr)
    return in_pairs(maximize, l2, direction, decay, rate)


@optimizer("foreach", "capturable", "differentiable", "fused")
def AdamW(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's AdamW.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      betas: Decays of the first and second moment, each in [0, 1).
      eps: Added to the root of the second moment, >= 0.
      weight_decay: Decoupled weight decay, >= 0, multiplied by the learning rate.
      amsgrad: Whether to divide by the root of the largest second moment so far.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of range.

    >>> AdamW()
    split_real_and_imaginary(inner=adamw(learning_rate=0.001, weight_decay=0.01))
    >>> AdamW([{"params": "bias$|scale$", "weight_decay": 0.0}, {"params": ""}], 3e-4)
    partition(
        transforms={
            'group_0': split_real_and_imaginary(inner=adam(learning_rate=0.0003)),
            'group_1': split_real_and_imaginary(
                inner=adamw(learning_rate=0.0003, weight_decay=0.01),
            ),
        },
        param_labels=rules(('bias$|scale$', 'group_0'), ('', 'group_1')),
    )
    """
    del params
    return Adam(
        None,
        lr,
        betas,
        eps,
        weight_decay,
        amsgrad,
        maximize=maximize,
        decoupled_weight_decay=True,
    )


@optimizer()
def SparseAdam(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's SparseAdam: for `jopt.RowSparse` gradients, and Adam for all others.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, > 0.
      betas: Decays of the first and second moment, each in [0, 1).
      eps: Added to the root of the second moment before bias correction, > 0.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation; a sparse gradient changes only its own rows.

    Raises:
      ValueError: A number is out of range.

    >>> SparseAdam(lr=0.1)
    adam(learning_rate=0.1, eps_mode='before')
    """
    del params
    arguments.positive(lr=lr, eps=eps)
    return after(maximize, 0.0, adam(lr, *decays(betas), eps, eps_mode="before"))


@optimizer("foreach", "capturable", "differentiable")
def NAdam(
    params: Groups = None,
    lr: ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's NAdam.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      betas: Decays of the first and second moment, each in [0, 1).
      eps: Added to the root of the second moment, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      momentum_decay: How fast the momentum warms up, >= 0.
      decoupled_weight_decay: Whether the decay bypasses the gradient, as in `AdamW`.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> NAdam()
    split_real_and_imaginary(inner=nadam(learning_rate=0.002, momentum_decay=0.004))
    """
    del params
    arguments.nonnegative(
        lr=lr, weight_decay=weight_decay, momentum_decay=momentum_decay
    )
    arguments.nonnegative(eps=eps)
    eps = unrefused(arguments.positive, eps=eps)
    b1, b2 = decays(betas)
    if not decoupled_weight_decay:
        tx = nadam(lr, b1, b2, eps, momentum_decay=momentum_decay)
        return in_pairs(maximize, weight_decay, tx)
    tx = nadamw(
        lr, b1, b2, eps, weight_decay=weight_decay, momentum_decay=momentum_decay
    )
    return in_pairs(maximize, 0.0, tx)


@optimizer("foreach", "capturable", "differentiable")
def RAdam(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's RAdam, which adds ``eps`` before bias correction.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      betas: Decays of the first and second moment, each in [0, 1).
      eps: Added to the root of the second moment, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      decoupled_weight_decay: Whether the decay bypasses the gradient, as in `AdamW`.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> RAdam()
    split_real_and_imaginary(inner=radam(learning_rate=0.001, eps_mode='before'))
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    arguments.nonnegative(eps=eps)
    eps = unrefused(arguments.positive, eps=eps)
    b1, b2 = decays(betas)
    l2, decay = weight_decay, 0.0
    if decoupled_weight_decay:
        l2, decay = 0.0, weight_decay
    tx = radam(lr, b1, b2, eps, weight_decay=decay, eps_mode="before")
    return in_pairs(maximize, l2, tx)


@optimizer("foreach", "capturable", "differentiable")
def Adamax(
    params: Groups = None,
    lr: ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's Adamax.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      betas: Decays of the mean and of the largest magnitude, each in [0, 1).
      eps: Added to every magnitude, >= 0.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> Adamax()
    split_real_and_imaginary(inner=adamax(learning_rate=0.002))
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    arguments.nonnegative(eps=eps)
    eps = unrefused(arguments.positive, eps=eps)
    return in_pairs(maximize, weight_decay, adamax(lr, *decays(betas), eps))
