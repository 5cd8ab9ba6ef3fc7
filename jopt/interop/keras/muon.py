"""Keras's Muon, which recognizes hidden matrices by their shapes and paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from jopt.algorithms.muon import muon
from jopt.core.chain import chain
from jopt.core.masks import expression
from jopt.core.rules import Predicate
from jopt.interop.keras.decay import decayed_first
from jopt.interop.keras.pipeline import (
    Rate,
    WithoutDecay,
    between,
    excluding,
    optimizer,
)
from jopt.transforms.learning_rate import scale
from jopt.values import arguments
from jopt.wrappers.masking import partition


@dataclass(frozen=True)
class ForMuon:
    """A mask with one value for the leaves of Muon and another for those of Adam.

    The values are True and False, the weight decays of the two, or their labels.
    """

    exclude_layers: tuple[str, ...]
    exclude_embeddings: bool
    muon: Any = True
    adam: Any = False
    decaying: Predicate | None = None  # the leaves that it does not choose get False

    def __call__(self, path: str, leaf: Any) -> Any:
        if self.decaying and not self.decaying(path, leaf):
            return False
        embedding = self.exclude_embeddings and "embedding" in path.lower()
        excluded = any(re.search(x, path) for x in self.exclude_layers)
        is_hidden = leaf.ndim == 2 and not (embedding or excluded)
        return self.muon if is_hidden else self.adam


@optimizer
def Muon(
    learning_rate: Rate = 0.001,
    adam_beta_1: float = 0.9,
    adam_beta_2: float = 0.999,
    adam_weight_decay: float | None = 0.004,
    epsilon: float = 1e-7,
    weight_decay: float | None = 0.004,
    exclude_layers: Sequence[str] = (),
    exclude_embeddings: bool = True,
    muon_a: float = 3.4445,
    muon_b: float = -4.775,
    muon_c: float = 2.0315,
    adam_lr_ratio: float = 1,
    momentum: float = 0.95,
    ns_steps: int = 5,
    nesterov: bool = True,
    rms_rate: float | None = 0.2,
    exclude_from_weight_decay: list[str] | None = None,
    **options: Unpack[WithoutDecay],
) -> Any:
    """Keras's Muon: Muon for matrices and Adam for all other leaves.

    Args:
      learning_rate: The step size: a number, a schedule, or `jopt.tunable`.
      adam_beta_1: Decay of Adam's first moment, in [0, 1).
      adam_beta_2: Decay of Adam's second moment, in [0, 1).
      adam_weight_decay: Weight decay of Adam's leaves, >= 0, multiplied by the learning
        rate of Muon; None means 0.
      epsilon: Added to the root of Adam's second moment, > 0.
      weight_decay: Weight decay of Muon's leaves, >= 0, multiplied by the learning
        rate; None means 0.
      exclude_layers: Regular expressions: a matrix goes to Adam if one is found in its
        path.
      exclude_embeddings: Whether matrices with "embedding" in their path go to Adam.
      muon_a: Coefficient of X in the Newton-Schulz iteration.
      muon_b: Coefficient of its cube.
      muon_c: Coefficient of its fifth power.
      adam_lr_ratio: Ratio of Adam's learning rate to Muon's, > 0.
      momentum: Decay of Muon's momentum, in [0, 1).
      ns_steps: Number of Newton-Schulz iterations.
      nesterov: Whether Muon uses Nesterov's look-ahead momentum.
      rms_rate: Root mean square of the updates of matrices, before the learning rate;
        None means that they are not rescaled.
      exclude_from_weight_decay: Regular expressions: a leaf does not decay if one is
        found in its name, the last step of its path: ``kernel`` in ``norm/kernel``.
        This is a method in Keras; like Keras, `serialize` does not write it.
      **options: The options of every optimizer.

    >>> Muon(0.02, exclude_layers=["head"]).get_config()["exclude_layers"]
    ['head']
    """
    arguments.decay_rate(
        adam_beta_1=adam_beta_1, adam_beta_2=adam_beta_2, momentum=momentum
    )
    arguments.positive(epsilon=epsilon, adam_lr_ratio=adam_lr_ratio)
    arguments.nonnegative(
        weight_decay=weight_decay, adam_weight_decay=adam_weight_decay
    )
    decays = weight_decay or 0.0, adam_weight_decay or 0.0
    for pattern in exclude_layers:
        expression(pattern)
    mask = excluding({"exclude_from_weight_decay": exclude_from_weight_decay})
    hidden = ForMuon(tuple(exclude_layers), exclude_embeddings)
    whole: Any = muon(
        learning_rate,
        (muon_a, muon_b, muon_c),
        ns_steps,
        momentum,
        # Keras adds 1e-7 to the norm of a sum of gradients, jopt to that of a mean.
        (1 - momentum) * 1e-7,
        0.0 if mask else decays[0],
        nesterov=nesterov,
        adam_b1=adam_beta_1,
        adam_b2=adam_beta_2,
        # jopt multiplies it by Adam's rate, Keras by Muon's.
        adam_weight_decay=0.0 if mask else decays[1] / adam_lr_ratio,
        consistent_rms=rms_rate,
        hidden=hidden,
        shape_scale=None,
        adam_eps=epsilon,
        adam_eps_mode="before",
    )
    if adam_lr_ratio != 1:
        # A factor after the rate, so that the groups have one rate, as Keras has.
        members = dict(whole.children)
        members["adam"] = chain(members["adam"], scale(adam_lr_ratio))
        whole = partition(members, replace(hidden, muon="muon", adam="adam"))
    if not mask:
        return whole
    decay_mask = replace(hidden, muon=decays[0], adam=decays[1], decaying=mask)
    return decayed_first(whole, between(learning_rate)(1.0, decay_mask))
