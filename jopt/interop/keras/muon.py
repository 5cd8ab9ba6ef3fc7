"""Keras's Muon, which tells by shapes and paths what is a hidden matrix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from jopt.algorithms.muon import muon
from jopt.core.masks import expression
from jopt.interop.keras.decay import decayed_first
from jopt.interop.keras.pipeline import (
    Rate,
    WithoutDecay,
    between,
    excluding,
    optimizer,
)
from jopt.schedules.product import multiply_schedules
from jopt.values import arguments


@dataclass(frozen=True)
class ForMuon:
    """Of each leaf, the number if Keras's Muon gives it to Muon, and the other if not.

    As a mask of True and False, or of the multiples of a decay.
    """

    exclude_layers: tuple[str, ...]
    exclude_embeddings: bool
    muon: Any = True
    adam: Any = False
    excluded: str | None = None  # a mask of those that are neither

    def __call__(self, path: str, leaf: Any) -> Any:
        if self.excluded and not re.search(self.excluded, path):
            return False
        embedding = self.exclude_embeddings and "embedding" in path.lower()
        named = any(re.search(x, path) for x in self.exclude_layers)
        return self.muon if leaf.ndim == 2 and not (embedding or named) else self.adam


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
    """Keras's Muon: for matrices, and Adam for everything else.

    Args:
      learning_rate: A number, a schedule, or `jopt.tunable`.
      adam_beta_1: Of Adam, as the next.
      adam_beta_2: In [0, 1).
      adam_weight_decay: Of the leaves that Adam gets, times the learning rate.
      epsilon: Of Adam.
      weight_decay: Of the leaves that Muon gets.
      exclude_layers: Regular expressions for the paths of leaves that Adam gets.
      exclude_embeddings: Whether it gets those with "embedding" in their path.
      muon_a: Coefficient of the iteration, as the next two.
      muon_b: Of the cube.
      muon_c: Of the fifth power.
      adam_lr_ratio: Of Adam's learning rate to Muon's, > 0.
      momentum: Of Muon, in [0, 1).
      ns_steps: Steps of the iteration.
      nesterov: Whether Muon looks one step ahead.
      rms_rate: The size of updates for matrices, as consistent_rms; None is without.
      exclude_from_weight_decay: See `pipeline.Options`.
      **options: See `pipeline.Options`.

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
    rate: Any = learning_rate
    if adam_lr_ratio != 1 and callable(rate):
        rate = multiply_schedules([rate, adam_lr_ratio])
    elif adam_lr_ratio != 1:
        rate *= adam_lr_ratio
    decays = weight_decay or 0.0, adam_weight_decay or 0.0
    for name in exclude_layers:
        expression(name)
    masked = excluding({"exclude_from_weight_decay": exclude_from_weight_decay})
    chosen = ForMuon(tuple(exclude_layers), exclude_embeddings)
    whole = muon(
        learning_rate,
        (muon_a, muon_b, muon_c),
        ns_steps,
        momentum,
        (1 - momentum) * 1e-7,  # Keras's is of the sum, this of the mean
        0.0 if masked else decays[0],
        nesterov=nesterov,
        adam_b1=adam_beta_1,
        adam_b2=adam_beta_2,
        adam_weight_decay=0.0 if masked else decays[1] / adam_lr_ratio,
        adam_learning_rate=None if adam_lr_ratio == 1 else rate,
        consistent_rms=rms_rate,
        hidden=chosen,
        shape_scale=None,
        adam_eps=epsilon,
        adam_eps_mode="before",
    )
    if not masked:
        return whole
    of_each = replace(chosen, muon=decays[0], adam=decays[1], excluded=masked)
    return decayed_first(whole, between(learning_rate)(1.0, of_each))
