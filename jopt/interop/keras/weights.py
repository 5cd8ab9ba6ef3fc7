"""The list of weights of a Keras optimizer, from a state and into one.

Keras has had three orders. For variables k and b, Adam's is

    "legacy"     iter, m_k, m_b, v_k, v_b                              Keras up to 2.10
    "keras2.11"  iteration, m_k, v_k, m_b, v_b                             2.11 to 2.15
    "keras3"     iteration, learning_rate (unless scheduled), m_k, v_k, m_b, v_b
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jopt import checks
from jopt.base import GradientTransformation, OptState, Params
from jopt.interop.keras.counts import counts, iteration
from jopt.interop.keras.rows import ACCUMULATOR, AVERAGE, Row, Slot, row_of
from jopt.interop.order import Parameter, Permuted
from jopt.interop.view import View, joined


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


def get_weights(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    *,
    order: Sequence[str | Permuted] | None = None,
    layout: Layout = "legacy",
) -> list[np.ndarray]:
    """The weights that the same optimizer would have in Keras, in Keras's order.

    Args:
      tx: The optimizer.
      state: Its state.
      params: The parameters.
      order: Their paths in the order of ``model.trainable_variables``. It has to be
        given unless ``params`` is a list of arrays or one array.
      layout: Whose order: ``"legacy"`` is that of ``get_weights`` up to Keras 2.10,
        which later ones do not have; ``"keras3"`` is for ``optimizer.set_weights`` of
        Keras 3, ``"keras2.11"`` for what was in between.

    Returns:
      The number of steps, in Keras 3 the learning rate, and what the optimizer keeps.

    Raises:
      ValueError: Keras has no such optimizer, or the order is not one.

    >>> import jopt, jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((20, 10)), "bias": jnp.ones(10)}
    >>> tx = jopt.rmsprop(1e-3, eps=1e-7)
    >>> weights = get_weights(tx, tx.init(params), params, order=["kernel", "bias"])
    >>> len(weights), weights[0]
    (3, array(0))
    """
    checks.one_of(LAYOUTS, layout=layout)
    view = View(tx, state, params, order)
    row = row_of(view)
    scheduled = view.named("learning_rate") and not view.free_rates()
    listed = entries(view, row, layout, rate=not scheduled)
    if lost := _lost(view, row, listed):
        raise ValueError(f"the layout {layout!r} has no place for {lost[:4]}")
    result = []
    for entry in listed:
        if entry is ITERATION:
            wide = np.int32 if layout == "keras3" else np.int64
            result.append(np.asarray(iteration(view), wide))
        elif entry is LEARNING_RATE:
            result.append(np.asarray(view.first_rate() or 0.0, np.float32))
        else:
            result.append(_theirs(view, entry))
    return result


def set_weights(
    tx: GradientTransformation,
    state: OptState,
    weights: Sequence[Any] | Mapping[str, Any],
    params: Params,
    *,
    order: Sequence[str | Permuted] | None = None,
    layout: Layout | Literal["auto"] = "auto",
) -> OptState:
    """A state with the weights of a Keras optimizer.

    The number of steps goes into every count of the state, a learning rate into every
    one that is not scheduled; several keep their ratios to the first. A momentum that
    has the learning rate inside is converted if the recipe's has not, and so on.

    Args:
      tx: The optimizer: the recipe that gives Keras's numbers, with Keras's eps.
      state: A state of it, such as ``tx.init(params)``.
      weights: What ``get_weights()`` of Keras 2 or ``[np.array(v) for v in
        optimizer.variables]`` of Keras 3 gave, or the latter by number, ``{"0": …}``.
      params: The parameters.
      order: Their paths in the order of ``model.trainable_variables``. It has to be
        given unless ``params`` is a list of arrays or one array.
      layout: Which order the weights have; ``"auto"`` takes the one that fits.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      ValueError: The weights do not fit in number or shape (the error shows both), or
        fit in several layouts that mean different things.

    >>> import jopt, jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((20, 10)), "bias": jnp.ones(10)}
    >>> tx = jopt.rmsprop(1e-3, eps=1e-7)
    >>> new_weights = [np.array(10), np.ones([20, 10]), np.zeros([10])]
    >>> state = tx.init(params)
    >>> state = set_weights(tx, state, new_weights, params, order=["kernel", "bias"])
    >>> state["scale_by_rms"].count
    Array(10, dtype=int32)
    """
    checks.one_of((*LAYOUTS, "auto"), layout=layout)
    arrays = _listed(weights)
    view = View(tx, state, params, order)
    row = row_of(view)
    found = _fitting(view, row, LAYOUTS if layout == "auto" else (layout,), arrays)
    given = dict(zip((e.name for e in found), arrays, strict=True))
    count = checks.whole("iteration", given["iteration"].item())
    checks.at_least(0, iteration=count)
    values = counts(view, count)
    if "learning_rate" in given:
        rate = given["learning_rate"].item()
        if view.named("learning_rate") and not view.free_rates():
            warnings.warn(
                f"the weights have learning_rate={rate:.6g}, but in this recipe it is "
                f"scheduled: the schedule goes on at step {count}",
                UserWarning,
                stacklevel=2,
            )
        values |= view.rate_values(rate)
    # What follows depends on the learning rate.
    view = View(tx, view.replaced(values), params, order)
    values = row.derived(view, count) if row.derived else {}
    for entry, array in zip(found, arrays, strict=True):
        if entry.place is not None:
            values[entry.place] = _ours(view, entry, array)
    return view.replaced(values)


def entries(view: View, row: Row, layout: Layout, rate: bool) -> list[Entry]:
    """The list of weights in a layout; ``rate`` is whether Keras 3 has that in it."""

    def of(slots: Sequence[Slot], parameters: Sequence[Parameter]) -> list[Entry]:
        pairs = [_entry(view, slot, p) for p in parameters for slot in slots]
        return [entry for entry in pairs if entry is not None]

    def by_slot(*slots: Slot) -> list[Entry]:
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
    for m in view.members:
        if m.name == "dynamic_loss_scale":
            own = [Entry(x, (), joined(m.path, f)) for f, x in LOSS_SCALE.items()]
            unused = ["iteration of the loss scale", "learning_rate of the loss scale"]
            head = [*(Entry(x, ()) for x in unused), *own, *head]
    return [*head, *by_slot(AVERAGE, ACCUMULATOR), *turns, *scalars]


def _listed(weights: Any) -> list[np.ndarray]:
    if isinstance(weights, Mapping):
        numbers = [str(i) for i in range(len(weights))]
        if unlike := sorted(set(numbers) ^ set(weights)):
            raise ValueError(
                "weights by number must have the keys '0' to "
                f"{str(len(weights) - 1)!r}; {unlike} are missing or too many"
            )
        weights = [weights[i] for i in numbers]
    if not isinstance(weights, Sequence) or isinstance(weights, str):
        raise TypeError(
            f"weights must be a list of arrays, got {checks.abbreviated(weights)}"
        )
    return [np.asarray(w) for w in weights]


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


def _fitting(
    view: View, row: Row, layouts: Sequence[Layout], arrays: list[np.ndarray]
) -> list[Entry]:
    """The entries of the one layout that the arrays fit into."""
    shapes = [array.shape for array in arrays]
    tried = [(x, entries(view, row, x, rate=True)) for x in layouts]
    if "keras3" in layouts:  # with a schedule
        tried.append(("keras3", entries(view, row, "keras3", rate=False)))
    fit = {}
    for layout, expected in tried:
        if [e.shape for e in expected] == shapes and not _lost(view, row, expected):
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


def _lost(view: View, row: Row, listed: list[Entry]) -> list[str]:
    """What Keras 3 has in its list and this list has not: averages, in legacy."""
    whole = entries(view, row, "keras3", rate=True)
    here = {entry.place for entry in listed}
    # The scalars of a row can be derived.
    own = {view.scalar(s)[0] for s in row.scalars}
    return [x.place for x in whole if x.place and x.place not in here | own]


def _theirs(view: View, entry: Entry) -> np.ndarray:
    if entry.parameter is None or entry.slot is None:
        if entry.place is None:
            return np.zeros(entry.shape, np.float32)
        return np.asarray(view.flat[entry.place])
    if entry.place is None:
        assert entry.slot.instead is not None
        return np.asarray(entry.slot.instead(view, entry.parameter))
    value = np.asarray(view.flat[entry.place])
    value = (value * entry.slot.factor(view, entry.place)).astype(value.dtype)
    return entry.parameter.theirs(value).reshape(entry.shape)


def _ours(view: View, entry: Entry, array: np.ndarray) -> np.ndarray:
    assert entry.place is not None
    if entry.parameter is None or entry.slot is None:
        return array
    array = entry.parameter.ours(array) / entry.slot.factor(view, entry.place)
    return array.reshape(view.flat[entry.place].shape)
