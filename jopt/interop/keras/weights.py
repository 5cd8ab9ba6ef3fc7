"""The list of weights of a Keras optimizer, from a state and into one.

The list of a MultiOptimizer starts with its own iteration and learning rate, which mean
nothing. The lists of its optimizers follow in the order of the map, the default last.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jopt import tree
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.keras.counts import counts, iteration
from jopt.interop.keras.inner import Group, multi
from jopt.interop.keras.layouts import (
    ITERATION,
    LAYOUTS,
    LEARNING_RATE,
    Entry,
    Layout,
    entries,
    fitting,
    loss_scale,
    lost,
)
from jopt.interop.keras.weights_table import row_of
from jopt.interop.shared.parameter_order import Permuted
from jopt.interop.shared.state_view import View, joined
from jopt.values import arguments
from jopt.values.arguments import abbreviated


def get_weights(
    tx: GradientTransformation,
    state: OptState,
    params: Params,
    *,
    order: Sequence[str | Permuted] | None = None,
    layout: Layout = "keras3",
) -> list[np.ndarray]:
    """Return the weights of the same optimizer in Keras, in Keras's order.

    Args:
      tx: The optimizer.
      state: Its state.
      params: The parameters.
      order: Their paths in the order of ``model.trainable_variables``; optional if
        ``params`` is a list of arrays or one array.
      layout: The order of the weights: ``"keras3"`` for ``optimizer.set_weights`` of
        Keras 3, ``"keras2.11"`` for Keras 2.11 to 2.15, ``"legacy"`` for older ones. A
        MultiOptimizer needs ``"keras3"``.

    Returns:
      The number of steps, in Keras 3 an unscheduled learning rate, and the arrays that
      the optimizer keeps.

    Raises:
      ValueError: Keras has no such optimizer, ``order`` does not name every parameter
        once, or the layout has no place for an array of the state.

    >>> import jopt, jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((20, 10)), "bias": jnp.ones(10)}
    >>> tx = jopt.rmsprop(1e-3, eps=1e-7)
    >>> weights = get_weights(tx, tx.init(params), params, order=["kernel", "bias"])
    >>> [w.shape for w in weights]
    [(), (), (20, 10), (10,)]
    """
    arguments.one_of(LAYOUTS, layout=layout)
    view = View(tx, state, params, order)
    if groups := multi(view, params):
        return _of_all(view, groups, layout)
    row = row_of(view)
    listed = entries(view, row, layout, rate=_has_rate(view))
    if missing := lost(view, row, listed):
        raise ValueError(f"the layout {layout!r} has no place for {missing[:4]}")
    result = []
    for entry in listed:
        if entry is ITERATION:
            wide = np.int32 if layout == "keras3" else np.int64
            result.append(np.asarray(iteration(view), wide))
        elif entry is LEARNING_RATE:
            result.append(np.asarray(view.first_rate() or 0.0, np.float32))
        else:
            result.append(_keras_value(view, entry))
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
    """Return a state with the weights of a Keras optimizer.

    The number of steps goes into every count of the state, and a learning rate into
    every learning rate without a schedule; several keep their ratios to the first. A
    momentum is converted if only one side has the learning rate inside it, and likewise
    for other units.

    Args:
      tx: The optimizer: the recipe that gives Keras's numbers, with Keras's eps.
      state: A state of it, such as ``tx.init(params)``.
      weights: The result of ``get_weights()`` in Keras 2 or of ``[np.array(v) for v in
        optimizer.variables]`` in Keras 3, or the latter by number, ``{"0": …}``.
      params: The parameters.
      order: Their paths in the order of ``model.trainable_variables``; optional if
        ``params`` is a list of arrays or one array.
      layout: The order of the weights; ``"auto"`` means the only one that fits.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      ValueError: The weights do not fit in number or shape (the error shows both), or
        fit several layouts that mean different things.

    Warns:
      UserWarning: The weights have no loss scale, or a learning rate that the recipe
        schedules.

    >>> import jopt, jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((20, 10)), "bias": jnp.ones(10)}
    >>> tx = jopt.rmsprop(1e-3, eps=1e-7)
    >>> new_weights = [np.array(10), np.ones([20, 10]), np.zeros([10])]
    >>> state = tx.init(params)
    >>> state = set_weights(tx, state, new_weights, params, order=["kernel", "bias"])
    >>> state["scale_by_rms"].count
    Array(10, dtype=int32)
    """
    arguments.one_of((*LAYOUTS, "auto"), layout=layout)
    arrays = _listed(weights)
    view = View(tx, state, params, order)
    if groups := multi(view, params):
        return view.replaced(_into_all(view, groups, arrays, layout))
    row = row_of(view)
    listed = fitting(view, row, LAYOUTS if layout == "auto" else (layout,), arrays)
    if lost(view, row, listed):
        warnings.warn(
            "these weights have no loss scale, which Keras 2 did not save: the loss "
            "scale of the state is kept",
            UserWarning,
            stacklevel=2,
        )
    by_name = dict(zip((e.name for e in listed), arrays, strict=True))
    if by_name["iteration"].dtype.kind not in "iu":
        raise ValueError(
            "the first weight must be the number of steps, an integer in Keras, got "
            f"{by_name['iteration']!r}: is that the learning rate?"
        )
    count = by_name["iteration"].item()
    arguments.at_least(0, iteration=count)
    values = counts(view, count)
    if "learning_rate" in by_name:
        rate = by_name["learning_rate"].item()
        if view.named("learning_rate") and not view.free_rates():
            warnings.warn(
                f"the weights have learning_rate={rate:.6g}, but this recipe schedules "
                f"it: the schedule continues at step {count}",
                UserWarning,
                stacklevel=2,
            )
        values |= view.rate_values(rate)
    # The units of a momentum depend on the learning rate, so that goes in first.
    view = View(tx, view.replaced(values), params, order)
    values = row.derived(view, count) if row.derived else {}
    for entry, array in zip(listed, arrays, strict=True):
        if entry.place is not None:
            places = view.scalars(entry.name) if entry.name in row.scalars else None
            value = _jopt_value(view, entry, array)
            values |= dict.fromkeys(places or [entry.place], value)
    return view.replaced(values)


def _of_all(view: View, groups: list[Group], layout: Layout) -> list[np.ndarray]:
    """Return the weights of a MultiOptimizer."""
    _check_keras3(layout)
    lists = [
        get_weights(g.view.tx, g.view.state, g.params, order=g.order, layout="keras3")
        for g in groups
    ]
    for group, weights in zip(groups, lists, strict=True):
        if not group.order:  # Keras never runs an optimizer without variables
            weights[0] = np.zeros_like(weights[0])
    count = max(weights[0] for weights in lists)
    scale = [_keras_value(view, entry) for entry in loss_scale(view)]
    return [*scale, count, np.zeros((), np.float32), *(w for x in lists for w in x)]


def _into_all(
    view: View, groups: list[Group], arrays: list[np.ndarray], layout: str
) -> dict[str, Any]:
    """Return the values of a MultiOptimizer's weights by their places in the state."""
    _check_keras3("keras3" if layout == "auto" else layout)
    head = [*loss_scale(view), ITERATION, LEARNING_RATE]
    lists = [
        entries(g.view, row_of(g.view), "keras3", rate=_has_rate(g.view))
        for g in groups
    ]
    if len(arrays) != (total := sum(map(len, [head, *lists]))):
        each = {g.name: [e.name for e in x] for g, x in zip(groups, lists, strict=True)}
        raise ValueError(
            f"there are {len(arrays)} weights, but this MultiOptimizer has {total}: "
            f"its own {[e.name for e in head]}, then {each}"
        )
    rest = iter(arrays)
    head_pairs = zip(head, rest, strict=False)
    values: dict[str, Any] = {e.place: x for e, x in head_pairs if e.place is not None}
    for group, listed in zip(groups, lists, strict=True):
        inner = group.view
        weights = [next(rest) for _ in listed]
        try:
            new = set_weights(
                *(inner.tx, inner.state, weights, group.params),
                order=group.order,
                layout="keras3",
            )
        except ValueError as error:
            raise ValueError(f"the optimizer of {group.name!r}: {error}") from None
        for name, x in tree.leaves_with_names(new):
            values[joined(group.path, name)] = x
    return values


def _check_keras3(layout: str) -> None:
    if layout != "keras3":
        raise ValueError(
            "only Keras 3 has MultiOptimizer: give layout='keras3', got "
            f"layout={layout!r}"
        )


def _has_rate(view: View) -> bool:
    """Whether Keras 3 lists the learning rate: it does unless there is a schedule."""
    return not view.named("learning_rate") or bool(view.free_rates())


def _listed(weights: Any) -> list[np.ndarray]:
    if isinstance(weights, Mapping):
        numbers = [str(i) for i in range(len(weights))]
        if mismatched := sorted(set(numbers) ^ set(weights)):
            raise ValueError(
                "weights by number must have the keys '0' to "
                f"{str(len(weights) - 1)!r}; {mismatched} are missing or superfluous"
            )
        weights = [weights[i] for i in numbers]
    if not isinstance(weights, Sequence) or isinstance(weights, str):
        raise TypeError(f"weights must be a list of arrays, got {abbreviated(weights)}")
    return [np.asarray(w) for w in weights]


def _keras_value(view: View, entry: Entry) -> np.ndarray:
    """Return the weight of an entry in Keras's units and shape."""
    if entry.parameter is None or entry.slot is None:
        if entry.place is None:
            is_integer = entry.name.startswith("iteration")
            return np.zeros(entry.shape, np.int32 if is_integer else np.float32)
        return np.asarray(view.flat[entry.place])
    if entry.place is None:
        assert entry.slot.instead is not None
        return np.asarray(entry.slot.instead(view, entry.parameter))
    value = np.asarray(view.flat[entry.place])
    value = (value * entry.slot.factor(view, entry.place)).astype(value.dtype)
    return entry.parameter.to_other(value).reshape(entry.shape)


def _jopt_value(view: View, entry: Entry, array: np.ndarray) -> np.ndarray:
    """Return the value of an entry in jopt's units and shape."""
    assert entry.place is not None
    if entry.parameter is None or entry.slot is None:
        return array
    array = entry.parameter.to_jopt(array) / entry.slot.factor(view, entry.place)
    return array.reshape(view.flat[entry.place].shape)
