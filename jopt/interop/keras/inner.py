"""The optimizers in a MultiOptimizer, with their states."""

from __future__ import annotations

from typing import NamedTuple

from jopt import tree
from jopt.core import masks
from jopt.core.transformation import Params
from jopt.interop.keras.multi import Groups
from jopt.interop.shared.parameter_order import Permuted
from jopt.interop.shared.state_view import View, joined


class Group(NamedTuple):
    """An optimizer in a MultiOptimizer, with what it is for."""

    name: str  # the expression for its paths
    path: str  # of its state in the whole one
    view: View
    params: Params
    order: list[Permuted]


def multi(view: View, params: Params) -> list[Group]:
    """The optimizers of the MultiOptimizer in a recipe; none if there is none.

    Raises:
      ValueError: There is more in the state than Keras has beside it.
    """
    for m in view.members:
        told = m.tx.recipe.arguments.get("param_labels") if m.tx.recipe else None
        if isinstance(told, Groups):
            break
    else:
        return []
    scalars = {
        joined(x.path, field)
        for x in view.members
        for field in getattr(x.state, "_fields", ())
    }
    inside = f"{m.path}/" if m.path else ""
    rest = [n for n in view.flat if not n.startswith(inside) and n not in scalars]
    if rest:
        raise ValueError(f"Keras's MultiOptimizer keeps nothing like {rest[:4]}")
    labels, found = masks.labels(told, params), []
    for label, tx in m.tx.children.items():
        own = masks.only(params, [x == label for x in labels])
        paths = {path for path, _ in tree.leaves_with_names(own)}
        order = [
            Permuted(p.path, p.axes or ()) for p in view.parameters if p.path in paths
        ]
        inner = View(tx, m.state[label], own, order)
        found.append(Group(told.name(label), joined(m.path, label), inner, own, order))
    return found
