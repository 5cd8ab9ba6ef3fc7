"""The list of weights of one Keras optimizer: its entries and their order.

There have been three orders in Keras. For variables k and b, Adam's is

    "legacy"     iter, m_k, m_b, v_k, v_b                              Keras up to 2.10
    "keras2.11"  iteration, m_k, v_k, m_b, v_b                             2.11 to 2.15
    "keras3"     iteration, learning_rate (unless scheduled), m_k, v_k, m_b, v_b
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jopt.interop.keras.weights_table import ACCUMULATOR, AVERAGE, Row, Slot
from jopt.interop.shared.parameter_order import Parameter
from jopt.interop.shared.state_view import View, joined
from jopt.wrappers.loss_scale import DynamicLossScaleState


Layout = Literal["keras3", "keras2.11", "legacy"]
LAYOUTS: tuple[Layout, ...] = ("keras3", "keras2.11", "legacy")


class Entry(NamedTuple):
    """One array of the list."""

    name: str
    shape: tuple[int, ...]
    place: str | None = None  # path in jopt's state; None if the state does not keep it
    slot: Slot | None = None
    parameter: Parameter | None = None


ITERATION, LEARNING_RATE = Entry("iteration", ()), Entry("learning_rate", ())
# The weights of LossScaleOptimizer that matter, by the field of jopt's state. They and
# two unused weights come before those of the inner optimizer.
LOSS_SCALE = {"growth_count": "step_counter", "loss_scale": "dynamic_scale"}


def entries(view: View, row: Row, layout: Layout, rate: bool) -> list[Entry]:
    """Return the entries of a layout; with ``rate`` Keras 3 lists a learning rate."""

    def by_parameter(*slots):
        pairs = [_entry(view, slot, p) for p in view.parameters for slot in slots]
        return [entry for entry in pairs if entry is not None]

    def by_slot(*slots):
        return [entry for slot in slots for entry in by_parameter(slot)]

    scalars = [Entry(s, (), view.scalar(s)[0]) for s in row.scalars]
    alternating = [entry for group in row.groups for entry in by_parameter(*group)]
    if layout == "legacy":
        slots = [slot for group in row.groups for slot in group]
        listed = alternating if row.turns_in_legacy else by_slot(*slots)
        return [ITERATION, *scalars, *listed]
    if layout == "keras2.11":
        if row.classes == ("SGD",) and not alternating:
            # Keras 2.11 keeps a momentum for every variable, even if it is not used.
            alternating = [
                Entry(f"momentum of {p.path}", p.shape) for p in view.parameters
            ]
        # Where Adafactor does not factor, only Keras 3 lists a scalar in place of the
        # factors.
        alternating = [entry for entry in alternating if entry.place or entry.shape]
        return [ITERATION, *by_slot(AVERAGE), *alternating]
    head = [ITERATION, LEARNING_RATE] if rate else [ITERATION]
    head = [*loss_scale(view), *head, *by_slot(AVERAGE, ACCUMULATOR)]
    return [*head, *alternating, *scalars]


def loss_scale(view: View) -> list[Entry]:
    """Return the entries of a LossScaleOptimizer, listed before the inner ones."""
    members = view.holding(DynamicLossScaleState)
    scales = [
        Entry(x, (), joined(m.path, f)) for m in members for f, x in LOSS_SCALE.items()
    ]
    unused = ["iteration of the loss scale", "learning_rate of the loss scale"]
    return [*(Entry(x, ()) for x in unused), *scales] if scales else []


def fitting(
    view: View, row: Row, layouts: Sequence[Layout], arrays: list[np.ndarray]
) -> list[Entry]:
    """Return the entries of the only layout that the arrays fit.

    Raises:
      ValueError: The arrays fit no layout, or layouts with different meanings.
    """
    shapes = [array.shape for array in arrays]
    candidates = [(x, entries(view, row, x, rate=True)) for x in layouts]
    if "keras3" in layouts:  # a scheduled learning rate is not in the list
        candidates.append(("keras3", entries(view, row, "keras3", rate=False)))
    # Keyed by the names of the entries: layouts that agree on them are not ambiguous.
    matches = {}
    for layout, expected in candidates:
        if [e.shape for e in expected] == shapes and not lost(
            view, row, expected, scale=False
        ):
            matches.setdefault(tuple(e.name for e in expected), (layout, expected))
    if len(matches) == 1:
        return next(iter(matches.values()))[1]
    if matches:
        names = sorted({layout for layout, _ in matches.values()})
        raise ValueError(
            f"these {len(arrays)} weights fit the layouts {names}, which mean "
            f"different things: give layout={names[0]!r} or another"
        )
    by_layout = dict(reversed(candidates)).items()
    raise ValueError(
        f"there are {len(arrays)} weights of the shapes {shapes}. "
        + " ".join(
            f"{layout!r} has {len(expected)}: {[(e.name, e.shape) for e in expected]}."
            for layout, expected in by_layout
        )
        + " Give order the order of model.trainable_variables"
    )


def lost(view: View, row: Row, listed: list[Entry], *, scale: bool = True) -> list[str]:
    """Return the places that Keras 3 lists and this list does not.

    Such are the averages in legacy. With ``scale=False`` a missing loss scale does not
    count, because no file had it before Keras 3.
    """
    complete = entries(view, row, "keras3", rate=True)
    present = {entry.place for entry in listed}
    present |= set() if scale else {entry.place for entry in loss_scale(view)}
    # The step count gives the scalars of a row, so they may be absent.
    present |= {view.scalar(s)[0] for s in row.scalars}
    return [x.place for x in complete if x.place and x.place not in present]


def _entry(view: View, slot: Slot, parameter: Parameter) -> Entry | None:
    place = view.place(slot.sources, parameter.path)
    if place is None and slot.instead is None:
        return None
    if slot.shape and parameter.axes:
        raise ValueError(
            f"{parameter.path!r} is Permuted, but a factored second moment cannot be: "
            "its factors belong to the rows and columns of one order of axes"
        )
    shape = slot.shape(parameter.shape) if slot.shape else parameter.shape
    return Entry(f"{slot.name} of {parameter.path}", shape, place, slot, parameter)
