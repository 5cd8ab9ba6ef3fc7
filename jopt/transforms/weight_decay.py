"""Weight decay: pull the parameters towards zero.

Its effect depends on its place in the chain. With d an optimizer's direction, such as
``scale_by_adam()``, eta the learning rate of the step, eta_max its peak, and w the
``weight_decay`` argument:

    L2            chain(add_decayed_weights(w), d, scale_by_learning_rate(eta))
    decoupled     chain(d, add_decayed_weights(w), scale_by_learning_rate(eta))
    cautious      chain(d, cautious_weight_decay(w), scale_by_learning_rate(eta))
    independent   chain(d, independent_weight_decay(w, eta_max), scale_by_…(eta))
    corrected     chain(d, corrected_weight_decay(w, eta, eta_max), scale_by_…(eta))
    unscaled      chain(d, scale_by_learning_rate(eta, flip_sign=False),
                        add_decayed_weights(w), scale(-1.0))

L2           is a penalty in the loss; d rescales it like any gradient.
decoupled    subtracts ``eta w p`` besides the update: AdamW. Keras and torch subtract
             it before the update, which is the same unless d uses p.
cautious     does so only where the update moves p towards zero, or not at all.
independent  subtracts ``eta / eta_max w p``: changing the peak does not change it.
corrected    subtracts ``eta^2 / eta_max w p``: AdamC, for normalized layers.
unscaled     subtracts ``w p``, whatever the learning rate.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt.core import masks
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.tree import ratio
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


class StepThenDecayState(NamedTuple):
    """State of `step_then_decay`."""

    count: jax.Array  # int32 scalar, updates so far


@transformation
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None
) -> GradientTransformation:
    """Add a multiple of the parameters: ``u <- g + weight_decay * p``.

    Directly before the learning rate it is AdamW's decoupled decay; first in the chain
    it is an L2 penalty.

    Args:
      weight_decay: Multiple of the parameters, >= 0.
      mask: The leaves to decay: a regular expression on the path, a function
        ``(path, leaf) -> bool``, a tree of bools, or a function ``params -> tree of
        bools``. A number instead of a bool multiplies the decay of its leaf; see
        `rules`.

    Returns:
      A transformation that needs params, without state if the decay is a constant.

    Raises:
      ValueError: ``weight_decay`` is negative or not finite.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

    >>> import jopt
    >>> tx = jopt.add_decayed_weights(0.1, mask="kernel")
    >>> params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> zero = {"bias": jnp.zeros(1), "kernel": jnp.zeros(1)}
    >>> tx.update(zero, tx.init(params), params)[0]
    {'bias': Array([0.], dtype=float32), 'kernel': Array([0.1], dtype=float32)}
    """
    arguments.nonnegative(weight_decay=weight_decay)

    def rule(g, *, p, multiple):
        return g + (multiple * weight_decay) * p

    treatment = Treatment(decay=(weight_decay,), linear=True)
    return leafwise(rule, mask=mask, treatment=treatment)


def decoupled_decay(weight_decay: Any, mask: Mask) -> list[GradientTransformation]:
    """Return the chain members that decay the weights; none for zero or None."""
    # A schedule or a tunable may become nonzero later, so only a constant is left out.
    if weight_decay is None or (isinstance(weight_decay, float) and weight_decay == 0):
        return []
    return [add_decayed_weights(weight_decay, mask)]


@transformation
def cautious_weight_decay(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None
) -> GradientTransformation:
    """Decay only the elements that the update also moves towards zero.

        u <- g + weight_decay p [g p >= 0]

    It never works against the update, so its fixed points are minima of the loss. Put
    it where AdamW's decay goes, before `scale_by_learning_rate`; the usual values are
    AdamW's.

    Args:
      weight_decay, mask: See `add_decayed_weights`.

    Returns:
      A transformation that needs params. An element of a complex leaf decays if the
      update and the parameter are at most 90 degrees apart.

    Raises:
      ValueError: ``weight_decay`` is negative or not finite.

    Chen et al., "Cautious weight decay", 2025. The ``cautious_wd`` of
    adam_atan2_pytorch does not decay elements with a zero update (> instead of >=).

    >>> import jopt
    >>> tx, params = jopt.cautious_weight_decay(0.1), jnp.array([1.0, 1.0])
    >>> tx.update(jnp.array([0.5, -0.5]), tx.init(params), params)[0]
    Array([ 0.6, -0.5], dtype=float32)
    """
    arguments.nonnegative(weight_decay=weight_decay)

    def rule(g, *, p, multiple):
        # Signs before the product: g p of small numbers would underflow to zero.
        cosine = jnp.real(jnp.sign(g) * jnp.conj(jnp.sign(p)))
        return g + jnp.where(cosine >= 0, multiple * weight_decay, 0) * p

    treatment = Treatment(decay=(weight_decay,), linear=True)
    return leafwise(rule, mask=mask, treatment=treatment)


@transformation
def independent_weight_decay(
    weight_decay: ScalarOrSchedule,
    peak_rate: ScalarOrSchedule,
    mask: Mask = None,
) -> GradientTransformation:
    """Decay independently of the peak learning rate.

        u <- g + weight_decay / peak_rate p

    Before `scale_by_learning_rate`, each step subtracts ``weight_decay p`` while the
    learning rate is at its peak, and less as it decays. The decay need not be tuned
    again for another peak, or when a peak is transferred to a wider model.

    Args:
      weight_decay: Fraction that a step at the peak subtracts, >= 0; 1e-4 is usual. It
        equals AdamW's ``weight_decay`` times the learning rate.
      peak_rate: The largest learning rate, > 0.
      mask: See `add_decayed_weights`.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``weight_decay`` is negative, or ``peak_rate`` is not positive.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019 (the paper's
    form, unlike AdamW in torch, Keras or optax); Wortsman et al., "Small-scale proxies
    for large-scale transformer training instabilities", 2023. optimi's
    ``decouple_lr=True``.

    >>> import jopt
    >>> tx = jopt.chain(
    ...     jopt.scale_by_adam(),
    ...     jopt.independent_weight_decay(1e-4, peak_rate=3e-3),
    ...     jopt.scale_by_learning_rate(jopt.cosine_decay_schedule(3e-3, 1000)),
    ... )
    """
    arguments.nonnegative(weight_decay=weight_decay)
    arguments.positive(peak_rate=peak_rate)

    def rule(g, *, p, multiple):
        return g + ratio(multiple * weight_decay, peak_rate, peak_rate) * p

    treatment = Treatment(decay=(weight_decay, _inverse(peak_rate)), linear=True)
    return leafwise(rule, mask=mask, treatment=treatment)


@transformation
def corrected_weight_decay(
    weight_decay: ScalarOrSchedule,
    rate: ScalarOrSchedule,
    peak_rate: ScalarOrSchedule,
    mask: Mask = None,
) -> GradientTransformation:
    """Decay with the square of the learning rate: AdamC.

        u <- g + weight_decay rate / peak_rate p

    The norm of a layer followed by a normalization converges to a value that depends on
    the ratio of learning rate and decay. This keeps the ratio constant as the rate
    decays, so the gradient norm does not rise towards the end of a run.

    Args:
      weight_decay: AdamW's ``weight_decay``, >= 0.
      rate: The learning rate, >= 0: the same number, schedule or tunable as in
        `scale_by_learning_rate`. If you set it by hand, set both.
      peak_rate: The largest learning rate, > 0.
      mask: The leaves to decay; see `jopt.Mask`. The paper corrects the layers that a
        normalization follows, and decays the output layer as AdamW does.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: ``weight_decay`` or ``rate`` is negative, or ``peak_rate`` is not
        positive.

    Defazio, "Why gradients rapidly increase near the end of training", 2025. After Adam
    it is pytorch_optimizer's AdamC for groups with ``normalized=True``.

    >>> import jopt
    >>> rate = jopt.cosine_decay_schedule(1e-3, 1000)
    >>> tx = jopt.chain(
    ...     jopt.scale_by_adam(),
    ...     jopt.corrected_weight_decay(0.1, rate, peak_rate=1e-3),
    ...     jopt.scale_by_learning_rate(rate),
    ... )
    """
    arguments.nonnegative(weight_decay=weight_decay, rate=rate)
    arguments.positive(peak_rate=peak_rate)

    def rule(g, *, p, multiple):
        return g + ratio(multiple * weight_decay * rate, peak_rate, peak_rate) * p

    treatment = Treatment(decay=(weight_decay, rate, _inverse(peak_rate)), linear=True)
    return leafwise(rule, mask=mask, treatment=treatment)


@transformation
def step_then_decay(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    skip: int = 0,
) -> GradientTransformation:
    """Multiply by minus the learning rate, and decay what the step has left.

        p <- (p - learning_rate g) (1 - learning_rate weight_decay)

    It takes the place of `add_decayed_weights` and `scale_by_learning_rate`, which
    decay the parameter from before the step. The two differ by
    ``learning_rate^2 weight_decay g``.

    Args:
      learning_rate: The step size, >= 0.
      weight_decay: Decay coefficient, >= 0.
      mask: The leaves to decay; see `jopt.Mask`.
      skip: Number of first steps without decay, >= 0.

    Returns:
      A transformation that needs params.

    Raises:
      ValueError: A number is out of range.

    What the authors of SOAP, KL-Shampoo and SPlus do.

    >>> import jopt
    >>> tx, p = jopt.step_then_decay(0.5, 0.2), jnp.array([2.0])
    >>> p + tx.update(jnp.array([2.0]), tx.init(p), p)[0]  # (2 - 0.5 * 2) * 0.9
    Array([0.9], dtype=float32)
    """
    arguments.nonnegative(learning_rate=learning_rate, weight_decay=weight_decay)
    arguments.at_least(0, skip=skip)

    def scalars(t):
        factor = learning_rate * weight_decay
        return {"decay": jnp.where(t > skip, factor, 0).astype(t.dtype)}

    def rule(g, *, p, multiple, decay):
        u = -learning_rate * g
        return u - (multiple * decay) * (p + u)

    treatment = Treatment(
        factor=(-1.0, learning_rate), decay=(learning_rate, weight_decay)
    )

    def numbers(params):
        # A leaf that a mask leaves out would keep its update as it is.
        multiples = masks.multiples(mask, params)
        treedef = jax.tree.structure(params, is_leaf=lambda x: x is None)
        return treedef.unflatten(0.0 if x is None else x for x in multiples)

    return leafwise(
        rule,
        scalars,
        StepThenDecayState,
        mask=None if mask is None else numbers,
        treatment=treatment,
    )


def _inverse(peak_rate: Any) -> float:
    """Return 1 / peak_rate, or NaN if it changes in the run."""
    return 1 / peak_rate if isinstance(peak_rate, float) else math.nan
