"""What a transformation does to a leaf, as far as a person asks before a run.

A rule is a function, which nobody can ask whether it decays the weights or multiplies
the learning rate. So those that do say so here. It changes no number; `jopt.describe`
reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Treatment(NamedTuple):
    """What a transformation does to each leaf that it acts on.

    The mask multiplies ``factor`` or ``decay``, and is that of a leafwise rule.
    """

    # Numbers, schedules or tunables, whose product multiplies the updates. NaN stands
    # for a number that only the run decides.
    factor: tuple[Any, ...] = ()
    # The same, for the multiple of the parameter that is added to the updates.
    decay: tuple[Any, ...] = ()
    # Apart from factor and decay, updates come out as they go in: twice the gradients
    # give twice the updates.
    linear: bool = False
    # Updates of zero do not stay zero.
    noise: bool = False
    # The leaves, where the transformation is not leafwise.
    mask: Any = None
    # layouts(params): for each leaf, which of its axes are a matrix's; see `letters`.
    layouts: Callable[[Any], list[str | None]] | None = None
    # A step needs all of each of these matrices, not only sums over their axes.
    whole: bool = False
    # The axis of the mesh over which it spreads them, whole ones on each device.
    mesh_axis: str | None = None
