"""Slots in formats, for transformations that are not leafwise.

The leaf engine decodes the slots of a rule. A transformation of whole trees, such as a
matrix method, keeps slots as fields of its own state. Where one has a format, it is
decoded before the update and encoded after it: the transformation itself sees float32.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import tree_checks
from jopt.core.changing_numbers import with_count
from jopt.core.kernels import streams
from jopt.core.slots import Chance, Slot
from jopt.core.transformation import GradientTransformation


def with_slots(
    tx: GradientTransformation, state_class: Any, **slots: Slot
) -> GradientTransformation:
    """Declare slots of a transformation, and keep those with a format in it.

    Args:
      tx: A transformation. Its ``init`` makes the slots by `Slot.initial`, its
        ``update`` gets and returns those with a format as float32.
      state_class: The NamedTuple class of its state. It gets a ``count`` if it has none
        and there is a format.
      **slots: Fields of the state that are trees like the parameters.

    >>> import jopt
    >>> tx = jopt.scale_by_muon(mu_dtype="bfloat16_sr")
    >>> tx.init({"w": jnp.ones((2, 2))})._fields
    ('mu', 'count')
    """
    for name, slot in slots.items():
        slot.check(name)
    tx = tx.replace(slots=slots)
    encoded = {name: slot for name, slot in slots.items() if slot.format is not None}
    if not encoded:
        return tx
    kept_class = with_count(state_class, tx.name)
    own_count = kept_class is not state_class

    def init(params):
        state = tx.unchecked_init(params)
        return kept_class(*state, jnp.zeros((), jnp.int32)) if own_count else state

    @functools.wraps(tx.unchecked)
    def update(updates, state, *args, **kwargs):
        fields = {name: getattr(state, name) for name in state_class._fields}
        found = {
            name: _Found(slot, name, fields[name], updates)
            for name, slot in encoded.items()
        }
        wide = {name: x.loaded() for name, x in found.items()}
        given = state_class(**(fields | wide))
        updates, new = tx.unchecked(updates, given, *args, **kwargs)
        fields = new._asdict()
        for name, x in found.items():
            fields[name] = x.stored(fields[name], state.count)
        if own_count:
            fields["count"] = tree.safe_increment(state.count)
        return updates, kept_class(**fields)

    return tx.replace(init=init, update=update, state_class=kept_class)


class _Found:
    """A slot in the state before an update."""

    def __init__(self, slot: Slot, name: str, kept: Any, updates: Any):
        self.slot, self.name = slot, name
        leaves, self.treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
        aligned = functools.partial(tree_checks.aligned, updates, leaves, self.treedef)

        def column(x, shapes):
            return aligned(x, f"the state's {name}", shapes=shapes)

        shapes = [None if g is None else jnp.shape(g) for g in leaves]
        self.values = slot.loaded(name, kept, shapes, column)

    def loaded(self) -> Any:
        """The tree in float32 or wider."""
        return self.treedef.unflatten(
            None if x is None else _load(self.slot, x) for x in self.values
        )

    def stored(self, new: Any, count: jax.Array) -> Any:
        """What to keep of a new tree; the count is that of the updates before."""
        rows = zip(
            self.treedef.flatten_up_to(new),
            self.values,
            streams(self.treedef),
            strict=True,
        )
        values = [
            None if old is None else _store(self.slot, self.name, x, old, count, stream)
            for x, old, stream in rows
        ]
        return self.slot.stored(self.treedef, values)


# One call per leaf, so that leaves of one shape share a trace.
@functools.partial(jax.jit, static_argnums=0)
def _load(slot: Slot, stored: Any) -> jax.Array:
    return slot.load(stored, jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _store(
    slot: Slot, name: str, new: jax.Array, stored: Any, count: jax.Array, stream: Any
) -> Any:
    return slot.store(new, stored, name, Chance(count, stream))
