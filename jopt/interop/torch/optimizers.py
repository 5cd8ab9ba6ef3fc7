"""torch's optimizers by their names, with their arguments, defaults and numbers.

Each function returns a jopt transformation. Its first argument can be a list of
parameter groups, see `groups.optimizer`. ``lr``, and every number that a scheduler of
torch can change, is a number, a schedule such as those of ``lr_scheduler``, or
`jopt.tunable`. ``weight_decay`` is a multiple of the parameters that is added to the
gradient; decoupled weight decay subtracts ``lr weight_decay p`` from the parameters
instead. ``maximize`` reverses the gradient. As in torch, complex numbers are pairs of
real ones, see `jopt.split_real_and_imaginary`; torch has no SparseAdam, Adafactor and
Muon for them.

``foreach``, ``fused``, ``capturable`` and ``differentiable`` are accepted where torch
has them. They change no number, and have no effect here. A tensor of torch with one
element is read once, as a number. Where ``eps=0`` makes torch divide zero by zero, the
update is 0 instead of NaN.
"""

from __future__ import annotations

from typing import Literal

from jopt.algorithms.asgd import asgd
from jopt.algorithms.matrices import Axes
from jopt.algorithms.muon import scale_by_muon
from jopt.algorithms.polar import UNCHANGED
from jopt.algorithms.rprop import rprop
from jopt.algorithms.sgd import sgd
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype
from jopt.core.transformation import GradientTransformation
from jopt.interop.torch.groups import Groups, optimizer
from jopt.interop.torch.shared import Betas, after, in_pairs, is_zero, pair, unrefused
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import decoupled_decay
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


@optimizer("foreach", "differentiable", "fused")
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
    """torch's SGD, with the learning rate outside the momentum.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      momentum: Decay of the momentum, >= 0; 0 means none.
      dampening: Fraction by which gradients after the first are damped.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      nesterov: Whether to use Nesterov's look-ahead momentum. It needs a momentum and
        no dampening.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      ValueError: A number is out of range.

    >>> SGD(lr=0.1, momentum=0.9)
    sgd(learning_rate=0.1, momentum=0.9)
    >>> groups = [{"params": "bias$", "lr": 0.02}, {"params": ""}]
    >>> import jax.numpy as jnp
    >>> tx, params = SGD(groups, lr=0.1), {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> tx.update(params, tx.init(params))[0]
    {'bias': Array([-0.02], dtype=float32), 'kernel': Array([-0.1], dtype=float32)}
    """
    del params
    arguments.nonnegative(lr=lr, momentum=momentum, weight_decay=weight_decay)
    momentum = unrefused(arguments.decay_rate, momentum=momentum)
    dampening = unrefused(arguments.fraction, dampening=dampening)
    # A schedule may start at 0, so only the constant 0 saves the state of a momentum.
    decay = None if is_zero(momentum) else momentum
    damping = None if is_zero(dampening) else dampening
    if nesterov and (decay is None or damping is not None):
        raise ValueError(
            "nesterov needs a momentum > 0 and no dampening, got "
            f"momentum={text_of(momentum)}, dampening={text_of(dampening)}"
        )
    damping = damping if decay is not None else None
    tx = sgd(lr, decay, nesterov, dampening=damping)
    return after(maximize, weight_decay, tx)


@optimizer("foreach", "capturable", "differentiable")
def Rprop(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    etas: Betas = (0.5, 1.2),
    step_sizes: Betas = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's Rprop.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The first step size, >= 0; at least the smallest one. Of a schedule only
        step 0 counts, as in torch.
      etas: Factors of a step size where the sign of the gradient changes, in (0, 1),
        and where it stays, > 1.
      step_sizes: Smallest and largest step size. In reversed order, every step size is
        the second, as in torch.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation.

    Raises:
      TypeError: ``lr`` is tunable: later steps do not use it.
      ValueError: A number is out of range.

    >>> Rprop()
    split_real_and_imaginary(inner=rprop(learning_rate=0.01))
    """
    del params
    if callable(lr):
        lr = float(lr(0))
    if not isinstance(lr, float):
        raise TypeError(
            "lr of Rprop is the first step size, which later steps do not use, so it "
            f"must be a number or a schedule, got lr={text_of(lr)}"
        )
    arguments.nonnegative(lr=lr)
    etas, step_sizes = pair("etas", etas), pair("step_sizes", step_sizes)
    if not 0 < etas[0] < 1 < etas[1]:
        raise ValueError(f"etas must be below and above 1, and > 0, got etas={etas}")
    # Every step size is at least the smallest, the first one too.
    first = lr or step_sizes[0]
    if not first > 0:
        raise ValueError(
            "no step size would leave 0: lr or step_sizes[0] must be > 0, got "
            f"lr={text_of(lr)}, step_sizes={step_sizes}"
        )
    bounds = [unrefused(arguments.positive, step_size=x) for x in step_sizes]
    return in_pairs(maximize, 0.0, rprop(first, *etas, *bounds))


@optimizer("foreach", "capturable", "differentiable")
def ASGD(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> GradientTransformation:
    """torch's ASGD; `jopt.eval_params` returns the averages.

    A new learning rate takes effect one step late, as in torch.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      lambd: Decay of the parameters.
      alpha: Exponent of the decay of the rate.
      t0: The step at which averaging starts.
      weight_decay: Multiple of the parameters added to the gradient, >= 0.
      maximize: Whether to maximize instead of minimize.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of range.

    >>> ASGD()
    asgd(learning_rate=0.01, late_rate=True)
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay)
    lambd = unrefused(arguments.nonnegative, lambd=lambd)
    alpha = unrefused(arguments.nonnegative, alpha=alpha)
    t0 = unrefused(arguments.nonnegative, t0=t0)
    tx = asgd(lr, lambd, alpha, t0, late_rate=True)
    return after(maximize, weight_decay, tx)


@optimizer()
def Muon(
    params: Groups = None,
    lr: ScalarOrSchedule = 1e-3,
    weight_decay: ScalarOrSchedule = 0.1,
    momentum: ScalarOrSchedule = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None,
    *,
    axes: Axes = None,
    ns_dtype: PlainDtype | None = None,
) -> GradientTransformation:
    """torch's Muon, for matrices only; give other leaves another optimizer.

        partition({"matrix": Muon(), "rest": AdamW()}, labels)

    The iteration runs in float32. torch always runs it in bfloat16, which moves every
    step by about 1 %. ``ns_dtype="bfloat16"`` rounds where torch does, and adds in
    float32 between, as torch does. Small matrices then have torch's bits. From about 50
    rows on, products that add in another order round one of 10,000 elements the other
    way, which the iteration spreads: measured on CPUs, up to 2 % of the largest
    element, and 0.8 % of the norm.

    Args:
      params: Parameter groups; None means one group of all parameters.
      lr: The learning rate, >= 0.
      weight_decay: Decoupled weight decay, >= 0, multiplied by the learning rate.
      momentum: Decay of the momentum, >= 0.
      nesterov: Whether to use Nesterov's look-ahead momentum.
      ns_coefficients: Coefficients of the Newton-Schulz iteration.
      eps: Lower bound of the norm of a matrix, with ``ns_dtype``. Without, it has no
        effect: updates do not depend on the magnitude of the gradients.
      ns_steps: Number of Newton-Schulz iterations, < 100. Without any, a matrix is
        divided by its norm.
      adjust_lr_fn: Scale of the updates by shape: ``"original"`` or
        ``"match_rms_adamw"``; None means ``"original"``.
      axes: ``"oi"`` for weights of shape (outputs, inputs), as in torch; None means
        (inputs, outputs), as in Flax.
      ns_dtype: ``"bfloat16"`` rounds where torch does; None means float32 or wider.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of range, or a leaf is not a matrix.

    >>> import jax.numpy as jnp
    >>> list(Muon().init(jnp.ones((2, 3))))
    ['scale_by_muon', 'scale_by_learning_rate']
    """
    del params
    arguments.nonnegative(lr=lr, weight_decay=weight_decay, momentum=momentum, eps=eps)
    momentum = unrefused(arguments.decay_rate, momentum=momentum)
    adjust = adjust_lr_fn or "original"
    arguments.one_of(("original", "match_rms_adamw"), adjust_lr_fn=adjust)
    if ns_steps < 1:
        ns_coefficients, ns_steps = UNCHANGED, 1
    direction = scale_by_muon(
        ns_coefficients,
        ns_steps,
        momentum,
        eps=0.0 if ns_dtype is None else eps,
        nesterov=nesterov,
        axes=axes,
        ns_dtype=ns_dtype,
        ns_start="divide" if ns_dtype is None else "round",
        shape_scale="kj" if adjust == "original" else "match_rms_adamw",
    )
    rate = scale_by_learning_rate(lr)
    return chain(direction, *decoupled_decay(weight_decay, None), rate)
