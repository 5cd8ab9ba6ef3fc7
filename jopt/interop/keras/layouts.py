"""The list of weights of one Keras optimizer: what is in it, in which order.

Keras has had three orders. For variables k and b, Adam's is

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


Layout = Literal["keras3", "keras2.11", "legacy"]
LAYOUTS: tuple[Layout, ...] = ("keras3", "keras2.11", "legacy")


class Entry(NamedTuple):
    """One array of the list."""

    name: str
    shape: tuple[int, ...]
    place: str | None = None  # in our state, if it is there
    slot: Slot | None = None
    parameter: Parameter | None = None


ITERATION, LEARNING_RATE = Entry("iteration", ()), Entry("learning_rate", ())
# Of LossScaleOptimizer, before the weights of the optimizer in it; it uses the last two
# only. By the fields of the state here.
LOSS_SCALE = {"growth_count": "step_counter", "loss_scale": "dynamic_scale"}


def entries(view: View, row: Row, layout: Layout, rate: bool) -> list[Entry]:
    """The list of weights in a layout; ``rate`` is whether Keras 3 has that in it."""

    def of(slots, parameters):
        pairs = [_entry(view, slot, p) for p in parameters for slot in slots]
        return [entry for entry in pairs if entry is not None]

    def by_slot(*slots):
        return [entry for slot in slots for entry in of([slot], view.parameters)]

    scalars = [Entry(s, (), view.scalar(s)[0]) for s in row.scalars]
    turns = [entry for group in row.groups for entry in of(group, view.parameters)]
    if layout == "legacy":
        slots = [slot for group in row.groups for slot in group]
        own = turns if row.turns_in_legacy else by_slot(*slots)
        return [ITERATION, *scalars, *own]
    if layout == "keras2.11":
        if row.classes == ("SGD",) and not turns:  # has them, momentum or not
            turns = [Entry(f"momentum of {p.path}", p.shape) for p in view.parameters]
        # Adafactor's single numbers for what it does not factor were not in the list.
        turns = [entry for entry in turns if entry.place or entry.shape]
        return [ITERATION, *by_slot(AVERAGE), *turns]
    head = [ITERATION, LEARNING_RATE] if rate else [ITERATION]
    return [*loss_scale(view), *head, *by_slot(AVERAGE, ACCUMULATOR), *turns, *scalars]


def loss_scale(view: View) -> list[Entry]:
    """What Keras 3's LossScaleOptimizer has before the weights of the one in it."""
    found = [m for m in view.members if m.name == "dynamic_loss_scale"]
    own = [
        Entry(x, (), joined(m.path, f)) for m in found for f, x in LOSS_SCALE.items()
    ]
    unused = ["iteration of the loss scale", "learning_rate of the loss scale"]
    return [*(Entry(x, ()) for x in unused), *own] if own else []


def fitting(
    view: View, row: Row, layouts: Sequence[Layout], arrays: list[np.ndarray]
) -> list[Entry]:
    """The entries of the one layout that the arrays fit into."""
    shapes = [array.shape for array in arrays]
    tried = [(x, entries(view, row, x, rate=True)) for x in layouts]
    if "keras3" in layouts:  # with a schedule
        tried.append(("keras3", entries(view, row, "keras3", rate=False)))
    fit = {}
    for layout, expected in tried:
        if [e.shape for e in expected] == shapes and not lost(
            view, row, expected, scale=False
        ):
            fit.setdefault(tuple(e.name for e in expected), (layout, expected))
    if len(fit) == 1:
        return next(iter(fit.values()))[1]
    if fit:
        names = sorted({layout for layout, _ in fit.values()})
        raise ValueError(
            f"these {len(arrays)} weights fit in the layouts {names}, which mean "
            f"different things: give layout={names[0]!r} or another"
        )
    known = dict(reversed(tried)).items()
    raise ValueError(
        f"there are {len(arrays)} weights, of the shapes {shapes}. "
        + " ".join(
            f"{layout!r} has {len(expected)}: {[(e.name, e.shape) for e in expected]}."
            for layout, expected in known
        )
        + " Is the order of the parameters that of model.trainable_variables?"
    )


def lost(view: View, row: Row, listed: list[Entry], *, scale: bool = True) -> list[str]:
    """What Keras 3 has in its list and this list has not: averages, in legacy.

    Before Keras 3 a loss scale was in no file; ``scale=False`` does not miss it.
    """
    whole = entries(view, row, "keras3", rate=True)
    here = {entry.place for entry in listed}
    here |= set() if scale else {entry.place for entry in loss_scale(view)}
    # The scalars of a row can be derived.
    own = {view.scalar(s)[0] for s in row.scalars}
    return [x.place for x in whole if x.place and x.place not in here | own]


def _entry(view: View, slot: Slot, parameter: Parameter) -> Entry | None:
    place = view.place(slot.sources, parameter.path)
    if place is None and slot.instead is None:
        return None
    if slot.shape and parameter.axes:
        raise ValueError(
            f"{parameter.path!r} is Permuted, but factors of a second moment belong to "
            "rows and columns as they are"
        )
    shape = slot.shape(parameter.shape) if slot.shape else parameter.shape
    return Entry(f"{slot.name} of {parameter.path}", shape, place, slot, parameter)
