"""Weight decay: pull the parameters towards zero.

What it does to a parameter depends on where it stands. With d for an optimizer's
direction, such as ``scale_by_adam()``, eta for the learning rate of the step, eta_max
for its peak, and w for the number given:

    L2            chain(add_decayed_weights(w), d, scale_by_learning_rate(eta))
    decoupled     chain(d, add_decayed_weights(w), scale_by_learning_rate(eta))
    cautious      chain(d, cautious_weight_decay(w), scale_by_learning_rate(eta))
    independent   chain(d, independent_weight_decay(w, eta_max), scale_by_…(eta))
    corrected     chain(d, corrected_weight_decay(w, eta, eta_max), scale_by_…(eta))
    unscaled      chain(d, scale_by_learning_rate(eta, flip_sign=False),
                        add_decayed_weights(w), scale(-1.0))

L2           is a penalty in the loss, which d rescales like any gradient.
decoupled    takes ``eta w p`` from p, beside the update: AdamW. Keras and torch take it
             before the update, which is the same, unless d looks at p.
cautious     does so where the update points away from zero, or nowhere.
independent  takes ``eta / eta_max w p``: another peak leaves the decay as it is.
corrected    takes ``eta^2 / eta_max w p``: AdamC, for layers that are normalized.
unscaled     takes ``w p``, whatever the learning rate.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None
) -> GradientTransformation:
    """Add a multiple of the parameters: ``u <- g + weight_decay * p``.

    Before the learning rate it is AdamW's decoupled decay; before everything else it is
    an L2 penalty.

    Args:
      weight_decay: The multiple, >= 0.
      mask: The leaves to decay: a regular expression on the path, a function
        ``(path, leaf) -> bool``, a tree of bools, or ``params -> tree of bools``. A
        number in the place of a bool multiplies the decay of its leaf: see `rules`.

    Returns:
      A transformation; without state if the decay is a constant. It needs params.

    Raises:
      ValueError: The decay is negative or not finite.

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

    return leafwise(rule, mask=mask)


def decoupled_decay(weight_decay: Any, mask: Mask) -> list[GradientTransformation]:
    """The members of a chain that decay the weights: none if the decay is zero."""
    if isinstance(weight_decay, float) and weight_decay == 0:
        return []
    return [add_decayed_weights(weight_decay, mask)]


@transformation
def cautious_weight_decay(
    weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None
) -> GradientTransformation:
    """Decay the elements that the update moves towards zero too.

        u <- g + weight_decay p [g p >= 0]

    It does not pull against the loss, so it has minima of the loss as its fixed points.
    It stands where AdamW's decay stands, before `scale_by_learning_rate`, and takes the
    same number.

    Args:
      weight_decay: The multiple, >= 0.
      mask: The leaves to decay; see `add_decayed_weights`.

    Returns:
      A transformation; it needs params. An element of a complex leaf decays where the
      update and the parameter are at most 90 degrees apart.

    Raises:
      ValueError: The decay is negative or not finite.

    Chen et al., "Cautious weight decay", 2025. The ``cautious_wd`` of
    adam_atan2_pytorch leaves out elements without an update (> 0).

    >>> import jopt
    >>> tx, params = jopt.cautious_weight_decay(0.1), jnp.array([1.0, 1.0])
    >>> tx.update(jnp.array([0.5, -0.5]), tx.init(params), params)[0]
    Array([ 0.6, -0.5], dtype=float32)
    """
    arguments.nonnegative(weight_decay=weight_decay)

    def rule(g, *, p, multiple):
        cosine = jnp.real(jnp.sign(g) * jnp.conj(jnp.sign(p)))
        return g + jnp.where(cosine >= 0, multiple * weight_decay, 0) * p

    return leafwise(rule, mask=mask)


@transformation
def independent_weight_decay(
    weight_decay: ScalarOrSchedule,
    peak_rate: ScalarOrSchedule,
    mask: Mask = None,
) -> GradientTransformation:
    """Decay by a number that the learning rate's peak does not change.

        u <- g + weight_decay / peak_rate p

    Before `scale_by_learning_rate` a step then takes ``weight_decay p`` from p while
    the learning rate is at its peak, and less as it decays. Peaks that are compared, or
    transferred to wider models, need no new decay.

    Args:
      weight_decay: What a step at the peak takes, >= 0; 1e-4 is usual, AdamW's
        ``weight_decay`` times its learning rate.
      peak_rate: The largest learning rate, > 0.
      mask: The leaves to decay; see `add_decayed_weights`.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019 (so the paper has
    it, but not AdamW in torch, Keras or optax); Wortsman et al., "Small-scale proxies
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
        return g + multiple * weight_decay / peak_rate * p

    return leafwise(rule, mask=mask)


@transformation
def corrected_weight_decay(
    weight_decay: ScalarOrSchedule,
    rate: ScalarOrSchedule,
    peak_rate: ScalarOrSchedule,
    mask: Mask = None,
) -> GradientTransformation:
    """Decay with the square of the learning rate: AdamC.

        u <- g + weight_decay rate / peak_rate p

    Behind a normalization the norm of a layer tends to one that depends on the learning
    rate over the decay. As the rate decays, this keeps that ratio, and so the norm of
    the gradient does not rise towards the end of a run.

    Args:
      weight_decay: AdamW's, >= 0.
      rate: The learning rate, >= 0: the number, schedule or tunable that is given to
        `scale_by_learning_rate` as well. One that is set by hand is set in both.
      peak_rate: The largest learning rate, > 0.
      mask: The leaves to decay; see `add_decayed_weights`. The paper corrects those
        that a normalization follows, and decays the output layer as AdamW does.

    Returns:
      A transformation; it needs params.

    Raises:
      ValueError: A number is out of its range.

    Defazio, "Why gradients rapidly increase near the end of training", 2025. Behind
    Adam it is pytorch_optimizer's AdamC for groups with ``normalized=True``.

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
        return g + multiple * weight_decay * rate / peak_rate * p

    return leafwise(rule, mask=mask)
