"""The optimizers of a MultiOptimizer with their states."""

from __future__ import annotations

from typing import NamedTuple

from jopt import tree
from jopt.core import masks
from jopt.core.transformation import Params
from jopt.interop.keras.multi import Groups
from jopt.interop.shared.parameter_order import Permuted
from jopt.interop.shared.state_view import View, joined


class Group(NamedTuple):
    """One optimizer of a MultiOptimizer, with its state and parameters."""

    name: str  # the expression for its paths
    path: str  # path of its state in the whole state
    view: View
    params: Params
    order: list[Permuted]


def multi(view: View, params: Params) -> list[Group]:
    """Return the groups of the MultiOptimizer in a recipe, [] if it has none.

    Raises:
      ValueError: The state keeps arrays outside the groups, which Keras cannot.
    """
    for m in view.members:
        groups = m.tx.recipe.arguments.get("param_labels") if m.tx.recipe else None
        if isinstance(groups, Groups):
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
    labels, result = masks.labels(groups, params), []
    for label, tx in m.tx.children.items():
        group_params = masks.only(params, [x == label for x in labels])
        paths = {path for path, _ in tree.leaves_with_names(group_params)}
        order = [
            Permuted(p.path, p.axes or ()) for p in view.parameters if p.path in paths
        ]
        inner = View(tx, m.state[label], group_params, order)
        path = joined(m.path, label)
        result.append(Group(groups.name(label), path, inner, group_params, order))
    return result
