"""Kernels: how neighbouring leafwise rules run, one compiled call per leaf.

What happens once per step is one call, the prologue; what happens to a leaf is another,
the kernel, which does the rules of all neighbours one after the other in the compute
dtype. Both are kept by the recipes of the rules, so equal optimizers share them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import row_kernels, tree_checks
from jopt.core.changing_numbers import NO_STATE, scheduled
from jopt.core.declaration import KernelKey
from jopt.core.transformation import OptState, Params, Updates
from jopt.tree import scalar
from jopt.tree.row_sparse import is_rows
from jopt.values.arguments import abbreviated


def run(
    members: Sequence[Any],
    updates: Updates,
    states: Sequence[OptState],
    params: Params | None,
    extra: Mapping[str, Any],
) -> tuple[Updates, list[OptState]]:
    """One step of neighbouring leafwise transformations.

    Only the first of them may look at the tree of updates: those that the others get
    exist within the kernels only. A row-sparse leaf is one leaf, and its rows are
    summed up before anything sees them.
    """
    fields = [_fields(m, state) for m, state in zip(members, states, strict=True)]
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    leaves = [g.coalesced() if is_rows(g) else g for g in leaves]
    owners = [m.name for m in members if m.declaration.real_only]
    tree_checks.leaves(leaves, updates, "updates", owners)
    aligned = functools.partial(tree_checks.aligned, updates, leaves, treedef)
    at = [None] * len(leaves) if params is None else aligned(params, "params")
    leaf_shapes = [None if g is None else np.shape(g) for g in leaves]

    def loaded(name, slot, kept):
        def column(tree, shapes):
            return aligned(tree, f"the state's {name}", shapes=shapes)

        return slot.loaded(kept, leaf_shapes, column)

    slots = [
        [loaded(n, slot, own[n]) for n, slot in m.declaration.slots.items()]
        for m, own in zip(members, fields, strict=True)
    ]
    # A mask is about the parameters, where there are any.
    shown = [
        p if p is not None and g is not None else g
        for p, g in zip(at, leaves, strict=True)
    ]
    chosen = [
        [1.0] * len(leaves)
        if m.declaration.mask is None
        else m.declaration.multiples(treedef.unflatten(shown))
        for m in members
    ]

    keys = tuple(m.kernel_key for m in members)
    scalar_fields = [
        {name: x for name, x in own.items() if name not in m.declaration.slots}
        | (m.changing.arrays if m.changing else {})
        for m, own in zip(members, fields, strict=True)
    ]
    inputs = frozenset[str]().union(*(m.declaration.inputs for m in members))
    trees = {"updates": treedef.unflatten(leaves), "params": params, **extra}
    trees = {name: x for name, x in trees.items() if name in inputs}
    slot_trees = [
        {n: own[n] for n in m.declaration.inputs & m.declaration.slots.keys()}
        for m, own in zip(members, fields, strict=True)
    ]
    scalar_fields, scalars = _prologue(keys)(scalar_fields, trees, slot_trees)

    kernels: dict[Any, Callable[..., Any]] = {}
    for i, g in enumerate(leaves):
        on = tuple(j for j in range(len(keys)) if chosen[j][i] is not None)
        if g is None or not on:
            continue
        own = [[slot[i] for slot in slots[j]] for j in on]
        for j, leaf_slots in zip(on, own, strict=True):
            declared = members[j].declaration.slots.values()
            for slot, x in zip(declared, leaf_slots, strict=True):
                found = x if isinstance(x, tuple) else (x,)
                wanted = slot.shapes(np.shape(g)) is not None
                if wanted and any(array is None for array in found):
                    tree_checks.no_slot(updates, i)
        which = on, is_rows(g)
        if which not in kernels:
            kernels[which] = _kernel(tuple(keys[j] for j in on), is_rows(g))
        try:
            given = [_with_multiple(scalars[j], chosen[j][i]) for j in on]
            leaves[i], own = kernels[which](g, at[i], own, given)
        except Exception as error:
            tree_checks.note_leaf(error, updates, i)
            raise
        for j, leaf_slots in zip(on, own, strict=True):
            for slot, new in zip(slots[j], leaf_slots, strict=True):
                slot[i] = new

    new_states = [
        m.state_class(
            **own,
            **{
                name: slot.stored(treedef, values)
                for (name, slot), values in zip(
                    m.declaration.slots.items(), s, strict=True
                )
            },
        )
        if m.state_class
        else NO_STATE
        for m, own, s in zip(members, scalar_fields, slots, strict=True)
    ]
    return treedef.unflatten(leaves), new_states


def _with_multiple(scalars: dict[str, Any], multiple: float) -> dict[str, Any]:
    # As an argument, so that one kernel serves all numbers; 1 costs nothing.
    if multiple == 1:
        return scalars
    return scalars | {"multiple": np.asarray(multiple, tree.scalar_dtype())}


def _fields(member: Any, state: OptState) -> dict[str, Any]:
    """The fields of a state, if it is one of this member."""
    wanted = getattr(member.state_class, "_fields", ())
    if getattr(state, "_fields", ()) == wanted and isinstance(state, tuple):
        return dict(zip(wanted, state, strict=True))
    raise TypeError(
        f"{member.name} expects the state that its init made, a "
        f"{member.state_class.__name__ if wanted else 'tuple ()'} with the fields "
        f"{wanted}, but got {abbreviated(state)}. The order is update(updates, "
        "state, params); a state that was read from a file has to be restored into "
        "tx.init(params)."
    )


@functools.lru_cache(maxsize=4096)
def _prologue(keys: tuple[KernelKey, ...]) -> Callable[..., Any]:
    """What happens once per step: counts, hyperparameters, and the rules' scalars."""

    @jax.jit
    def prologue(fields, trees, slot_trees):
        # One leaf also for what does not know of rows, which must not see their ids.
        trees = jax.tree.map(
            lambda x: x.as_leaf() if is_rows(x) else x, trees, is_leaf=is_rows
        )
        new_fields, scalars = [], []
        for key, own, slots in zip(keys, fields, slot_trees, strict=True):
            tree_checks.state_numbers(key.name, own)
            numbers = {name: own[name] for name in key.numbers} | {
                name: scheduled(name, f, own["count"])
                for name, f in key.schedules.items()
            }
            new = own | numbers
            declared = key.declare(**numbers)
            results = {}
            if "count" in own:
                new["count"] = tree.safe_increment(own["count"])
            if declared.scalars:
                known = trees | own | slots
                if "t" in declared.inputs:
                    known["t"] = scalar(new["count"])
                known = {n: known[n] for n in declared.inputs}
                try:
                    results = declared.scalars(**known)
                except Exception as error:
                    tree_checks.scalars_of_rows(key.name, known, error)
                    raise
            needed = declared.wanted | declared.carry.keys()
            tree_checks.scalars(key.name, results, needed - numbers.keys())
            new |= {n: scalar(results[n]) for n in declared.carry}
            new_fields.append(new)
            scalars.append({**results, **numbers})
        return new_fields, scalars

    return prologue


def _mixing_real_and_complex(u: jax.Array) -> Any:
    # A complex leaf is multiplied by real numbers of its width, which strict promotion,
    # if the user has set it, takes for an accident.
    if jnp.iscomplexobj(u):
        return jax.numpy_dtype_promotion("standard")
    return contextlib.nullcontext()


@functools.lru_cache(maxsize=4096)
def _kernel(
    keys: tuple[KernelKey, ...], row_sparse: bool = False
) -> Callable[..., Any]:
    """The rules of these keys, one after the other, for one leaf."""
    if row_sparse:
        return row_kernels.kernel(_kernel(keys), keys, _kernel)

    def kernel(g, p, slots, scalars):
        tree_checks.dtypes(g, p, slots)
        widths = [jnp.finfo(x.dtype).bits for x in jax.tree.leaves((g, p, slots))]
        real = jnp.float64 if max(widths) > 32 else jnp.float32

        def load(x):
            x = jnp.asarray(x)
            return x.astype(np.promote_types(x.dtype, real))

        u = load(g)
        new_slots = []
        for key, own, results in zip(keys, slots, scalars, strict=True):
            given: dict[str, Any] = {"multiple": 1.0}
            given |= {name: x.astype(real) for name, x in results.items()}
            declared = key.declare(**{name: given[name] for name in key.numbers})
            if "p" in declared.asks:
                given["p"] = load(p)
            asked = {name: given[name] for name in declared.asks}
            loaded = dict(zip(declared.slots, jax.tree.map(load, own), strict=True))
            with _mixing_real_and_complex(u):
                out = declared.rule(u, *loaded.values(), **asked)
            u, *new = tree_checks.rule_results(
                key.name, out, {"the update": u, **loaded}
            )
            new_slots.append(jax.tree.map(lambda x, old: x.astype(old.dtype), new, own))
        return u.astype(jnp.asarray(g).dtype), new_slots

    kernel.__name__ = "__".join(key.name for key in keys)
    return jax.jit(kernel)
