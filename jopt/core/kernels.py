"""Kernels: how neighbouring leafwise rules run, in one compiled call per leaf.

One call per step, the prologue, computes the counts, hyperparameters and scalars of all
neighbours; schedules that it cannot compile run before it. One call per leaf, the
kernel, runs their rules one after the other in the compute dtype. Both are cached by
the recipes of the rules, so equal optimizers share them, and leaves of one shape and
dtype share a trace. Calls are expensive to trace and to lower, so in a trace one call
runs the kernels of up to 16 leaves of one kind.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jopt import tree
from jopt.core import cpu_kernels, row_kernels, tpu_shards, tree_checks
from jopt.core.apply import add
from jopt.core.changing_numbers import NO_STATE, is_traceable, scheduled
from jopt.core.declaration import KernelKey, Member, rounds_at_random
from jopt.core.leaves_alike import kind, together
from jopt.core.slots import Chance
from jopt.core.transformation import UPDATE, OptState, Params, Updates
from jopt.native import switch
from jopt.storage.compensation import is_narrow, landed, widened, with_error
from jopt.storage.rounding import random_bits
from jopt.tree import scalar
from jopt.tree.row_sparse import is_rows


# What a kernel that rounds at random is given beside the scalars of its rules. No
# argument of a rule has such a name.
STEP, STREAM = "step of rounding", "stream of rounding"
# Slots that are rounded at random in the same step have streams from 0 on.
LANDINGS = 2**31


class Landing(NamedTuple):
    """How the updates of narrow parameters end, in the kernel that computes them.

    Attributes:
      errors: What each parameter lacks, in the order of the leaves of the updates;
        None where nothing is kept.
      count: The number of the step, if the sums are rounded at random.
      wide: Returns the parameters in float32, for what sees all of them.
    """

    errors: list[Any]
    count: jax.Array | None
    wide: Callable[[], Params]


class Narrow(NamedTuple):
    """A narrow parameter with its error, as one parameter of a kernel."""

    array: Any
    error: Any


def run(
    members: Sequence[Member],
    updates: Updates,
    states: Sequence[OptState],
    params: Params | None,
    extra: Mapping[str, Any],
    take: jax.Array | None = None,
    adds: bool = False,
    landing: Landing | None = None,
) -> tuple[Any, list[OptState]]:
    """One step of neighbouring leafwise transformations.

    Only the first member may look at the tree of updates: the updates that the others
    get exist within the kernels only. A row-sparse leaf is one leaf; rows with equal
    ids are added up before any rule sees them.

    Args:
      members: The transformations.
      updates: What the first of them gets.
      states: The state of each.
      params: The parameters, if there are any.
      extra: Further arguments of ``update``.
      take: One bool: if it is false, the updates are zero and the states stay.
      adds: Whether to return the new parameters instead of the updates.
      landing: For narrow parameters, which the members see in float32. Then the errors
        are returned too, as a pair with the updates or parameters.
    """
    fields = [_fields(m, state) for m, state in zip(members, states, strict=True)]
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    leaves = [g.coalesced() if is_rows(g) else g for g in leaves]
    real_only = [m.name for m in members if m.declaration.real_only]
    any_dtype = all(m.declaration.any_dtype for m in members)
    if not any_dtype:
        tree_checks.leaves(leaves, updates, "updates", real_only)
    aligned = functools.partial(tree_checks.aligned, updates, leaves, treedef)
    at: list[Any] = (
        [None] * len(leaves) if params is None else aligned(params, "params")
    )
    leaf_shapes = [None if g is None else np.shape(g) for g in leaves]

    def loaded(name, slot, kept):
        def column(tree, shapes):
            return aligned(tree, f"the state's {name}", shapes=shapes)

        return slot.loaded(name, kept, leaf_shapes, column)

    slots = [
        [loaded(n, slot, values[n]) for n, slot in m.declaration.slots.items()]
        for m, values in zip(members, fields, strict=True)
    ]
    inputs = frozenset[str]().union(*(m.declaration.inputs for m in members))
    errors: list[Any] = []
    wide, wide_at = leaves, at
    if landing is not None:
        errors, wide = list(landing.errors), [widened(g) for g in leaves]
        if "params" in inputs or any(m.declaration.mask is not None for m in members):
            params = landing.wide()
            wide_at = treedef.flatten_up_to(params)
    # A mask is about the parameters. Without them, the updates have the same paths.
    masked = [
        p if p is not None and g is not None else g
        for p, g in zip(wide_at, leaves, strict=True)
    ]
    multiples = [
        [1.0] * len(leaves)
        if m.declaration.mask is None
        else m.declaration.multiples(treedef.unflatten(masked))
        for m in members
    ]

    keys = tuple(m.kernel_key for m in members)
    old_fields = [
        {name: x for name, x in values.items() if name not in m.declaration.slots}
        for m, values in zip(members, fields, strict=True)
    ]
    scalar_fields = [
        values | (m.changing.arrays if m.changing else {}) | _scheduled_here(m, values)
        for m, values in zip(members, old_fields, strict=True)
    ]
    tree_checks.extra_arguments({n: x for n, x in extra.items() if n in inputs})
    trees = {"updates": treedef.unflatten(wide), "params": params, **extra}
    trees = {name: x for name, x in trees.items() if name in inputs}
    slot_trees = [
        {n: values[n] for n in m.declaration.inputs & m.declaration.slots.keys()}
        for m, values in zip(members, fields, strict=True)
    ]
    new_fields, scalars = _prologue(keys)(scalar_fields, trees, slot_trees)
    if take is not None:
        new_fields = select_trees(take, new_fields, old_fields)

    rounds = [rounds_at_random(m.declaration) for m in members]
    leaf_streams = streams(treedef) if any(rounds) else ()
    of_ending = {}
    if landing is not None and landing.count is not None:
        of_ending = {STEP: landing.count}
    for j, rounded in enumerate(rounds):
        if rounded:
            scalars[j] = {**scalars[j], STEP: old_fields[j]["count"]}
    shardings = tpu_shards.shardings_of(treedef)
    kernels: dict[Any, Callable[..., Any]] = {}
    alike: dict[Any, list[int]] = collections.defaultdict(list)
    for i, g in enumerate(leaves):
        on = tuple(j for j in range(len(keys)) if multiples[j][i] is not None)
        if g is None:
            leaves[i] = at[i] if adds else None
            continue
        lands = landing is not None and is_narrow(at[i])
        if lands:
            at[i] = Narrow(at[i], errors[i])
        if not on and not lands:
            leaves[i] = _untouched(g, at[i], take, adds)
            continue
        if any_dtype and hasattr(g, "dtype") and not tree_checks.can_move(g):
            # Integers, with which no kernel computes.
            for j in on:
                g = members[j].declaration.rule(g)
            leaves[i] = _untouched(g, at[i], take, adds)
            continue
        leaf_slots = [[slot[i] for slot in slots[j]] for j in on]
        for j, values in zip(on, leaf_slots, strict=True):
            declared = members[j].declaration.slots.values()
            for slot, x in zip(declared, values, strict=True):
                arrays = x if slot.each and x is not None else (x,)
                lacks = any(array is None for array in arrays)
                if lacks and slot.shapes(np.shape(g)) is not None:
                    tree_checks.no_slot(updates, i)
        of_one = tuple(multiples[j][i] == 1 for j in on)
        alike[on, shardings[i], of_one, kind(g, at[i], leaf_slots)].append(i)

    for (on, sharding, *_), same in alike.items():
        numbers = [*(scalars[j] for j in on), of_ending]
        which = on, sharding, is_rows(leaves[same[0]])
        if which not in kernels:
            options = which[-1], adds, switch.enabled(), sharding
            kernels[which] = _kernel(tuple(keys[j] for j in on), *options)
        for some in together(same):
            inputs = [
                (leaves[i], at[i], [[slot[i] for slot in slots[j]] for j in on])
                for i in some
            ]
            factors = [
                [
                    *(
                        _factor(multiples[j][i])
                        | ({STREAM: leaf_streams[i]} if rounds[j] else {})
                        for j in on
                    ),
                    {STREAM: np.uint32(LANDINGS + i)} if of_ending else {},
                ]
                for i in some
            ]
            of_each = _of_each(kernels[which], len(some) > 1)
            try:
                results = of_each(inputs, numbers, factors, take)
            except Exception as error:
                tree_checks.note_leaf(error, updates, some[0])
                raise
            for i, (result, leaf_slots) in zip(some, results, strict=True):
                leaves[i] = result
                if isinstance(at[i], Narrow):
                    errors[i], leaf_slots = leaf_slots
                for j, values in zip(on, leaf_slots, strict=True):
                    for slot, x in zip(slots[j], values, strict=True):
                        slot[i] = x

    new_states = [
        NO_STATE
        if m.state_class is None
        else m.state_class(
            **values,
            **{
                name: slot.stored(treedef, columns)
                for (name, slot), columns in zip(
                    m.declaration.slots.items(), member_slots, strict=True
                )
            },
        )
        for m, values, member_slots in zip(members, new_fields, slots, strict=True)
    ]
    new = treedef.unflatten(leaves)
    return (new if landing is None else (new, errors)), new_states


@jax.jit
def select_trees(take: jax.Array, new: Any, old: Any) -> Any:
    """Return one tree or the other, by one bool."""
    return jax.tree.map(lambda x, y: jnp.where(take, x, y), new, old)


def _untouched(u: Any, p: Any, take: Any, adds: bool) -> Any:
    """The result of `run` for an update that no kernel has computed."""
    u, _ = cpu_kernels.select(take, (u, ()), (None, ()))
    return add(p, u) if adds else u


def _scheduled_here(member: Member, values: dict[str, Any]) -> dict[str, Any]:
    """The numbers whose schedules do not run in the prologue, but on the actual step.

    Outside jit that step has a value, which a schedule with an ``if`` needs.
    """
    if member.changing is None or not member.changing.schedules:
        return {}
    compiled = _compiled_schedules(member.kernel_key)
    return {
        name: scheduled(name, f, values["count"])
        for name, f in member.changing.schedules.items()
        if name not in compiled
    }


@functools.lru_cache(maxsize=4096)
def _compiled_schedules(key: KernelKey) -> dict[str, Callable[[Any], Any]]:
    """The schedules that the prologue runs, by the name of their number."""
    return {name: f for name, f in key.schedules.items() if is_traceable(f)}


@functools.lru_cache(maxsize=256)
def streams(treedef: Any) -> list[np.uint32]:
    """A number for each leaf of a tree, by its path: which random bits round it.

    It is an argument of the kernel, so that leaves of one shape share one.
    """
    named = tree.leaves_with_names(treedef.unflatten(range(treedef.num_leaves)))
    return [np.uint32(zlib.crc32(path.encode())) for path, _ in named]


def _factor(multiple: Any) -> dict[str, Any]:
    # The multiple is an argument of the kernel, so that one kernel serves all
    # multiples. A multiple of 1 is left out: then the kernel does not multiply.
    if multiple == 1:
        return {}
    return {"multiple": np.asarray(multiple, tree.scalar_dtype())}


def _fields(member: Member, state: OptState) -> dict[str, Any]:
    """The fields of a state, if it is a state of this member."""
    tree_checks.state_fields(member.name, member.state_class, state, UPDATE)
    return dict(zip(getattr(state, "_fields", ()), state, strict=True))


@functools.lru_cache(maxsize=4096)
def _prologue(keys: tuple[KernelKey, ...]) -> Callable[..., Any]:
    """The call once per step: counts, hyperparameters, and the scalars of the rules."""

    @jax.jit
    def prologue(fields, trees, slot_trees):
        # Scalars that know nothing of rows see one leaf: the ids must not look like
        # another.
        trees = jax.tree.map(
            lambda x: x.as_leaf() if is_rows(x) else x, trees, is_leaf=is_rows
        )
        new_fields, scalars = [], []
        for key, values, slots in zip(keys, fields, slot_trees, strict=True):
            tree_checks.state_numbers(key.name, values)
            numbers = {name: values[name] for name in key.numbers} | {
                name: scheduled(name, f, values["count"])
                for name, f in _compiled_schedules(key).items()
            }
            new = values | numbers
            declared = key.declare(**numbers)
            results = {}
            if "count" in values:
                new["count"] = tree.safe_increment(values["count"])
            if declared.scalars:
                whole = {n: declared.slots[n].whole(x) for n, x in slots.items()}
                inputs = trees | values | whole
                if "t" in declared.inputs:
                    inputs["t"] = scalar(new["count"])
                inputs = {n: inputs[n] for n in declared.inputs}
                try:
                    results = declared.scalars(**inputs)
                except Exception as error:
                    tree_checks.scalars_of_rows(key.name, inputs, error)
                    raise
            names = declared.scalar_names | declared.carry.keys()
            tree_checks.scalars(key.name, results, names - numbers.keys())
            new |= {n: scalar(results[n]) for n in declared.carry}
            new_fields.append(new)
            scalars.append({**results, **numbers})
        return new_fields, scalars

    return prologue


def _mixing_real_and_complex(u: jax.Array) -> Any:
    # Rules multiply a complex leaf by real numbers of its width. Strict promotion, if
    # the user has set it, would reject that as an accident.
    if jnp.iscomplexobj(u):
        return jax.numpy_dtype_promotion("standard")
    return contextlib.nullcontext()


@functools.lru_cache(maxsize=4096)
def _kernel(
    keys: tuple[KernelKey, ...],
    row_sparse: bool,
    adds: bool,
    native: bool,
    sharding: NamedSharding | None,
) -> Callable[..., Any]:
    """The rules with these keys, one after the other, for one leaf.

    ``kernel(g, p, slots, scalars, take)`` returns the update, or the new parameter if
    it ``adds``, and the new slots; of a `Narrow` parameter a pair of the new error and
    the new slots. The last of ``scalars`` are those of its rounding. If ``take`` is
    false, nothing changes. Whether it is ``native`` is read where it is traced; here it
    keeps the two kinds apart. The ``sharding`` is that of the leaf, if it is known.
    """
    rules = _rules(keys)
    if row_sparse:
        rules = row_kernels.kernel(rules, keys, _rules)

    def kernel(g, p, slots, scalars, take=None):
        lands = isinstance(p, Narrow)
        if lands:
            p, error = p
            slots = error, slots

        def outputs(g, old, rest):
            (first, kept), (second, (*numbers, ending)) = old, rest
            p = second if first is None else first
            if lands:
                u, kept = _landed(rules, g, p, kept, numbers, ending)
            else:
                u, kept = rules(g, p, kept, numbers)
            return add(p, u) if adds else u, kept

        old, rest = (
            ((p, slots), (None, scalars)) if adds else ((None, slots), (p, scalars))
        )
        if row_sparse:
            return cpu_kernels.select(take, outputs(g, old, rest), old)
        at_once = lands and slots[0] is not None
        return cpu_kernels.in_place(
            outputs, g, old, rest, take, at_once=at_once, sharding=sharding
        )

    # Profilers and compiled programs show this name.
    kernel.__name__ = rules.__name__
    return jax.jit(kernel)


def _landed(
    rules: Callable[..., Any],
    g: Any,
    p: Any,
    kept: tuple[Any, Any],
    numbers: list[Any],
    ending: Mapping[str, Any],
) -> tuple[jax.Array, tuple[Any, Any]]:
    """The update that leads to a narrow parameter; its error and slots there."""
    error, slots = kept
    wide = with_error(p, error)
    u, new_slots = rules(widened(g), wide, slots, numbers)
    bits = random_bits(p, ending[STEP], ending[STREAM]) if ending else None
    u, left = landed(u, p, error, wide, bits)
    return u, (left, new_slots)


@functools.lru_cache(maxsize=4096)
def _rules(keys: tuple[KernelKey, ...]) -> Callable[..., Any]:
    """Return ``rules(g, p, slots, scalars)``: the update and the new slots."""

    def rules(g, p, slots, scalars, rows=None):
        tree_checks.dtypes(g, p, slots)
        arrays = jax.tree.leaves((g, p, slots))
        # Codes may be integers, which are never wide.
        widths = [jnp.finfo(x.dtype).bits for x in arrays if tree_checks.can_move(x)]
        real = jnp.float64 if max(widths) > 32 else jnp.float32

        def load(x):
            x = jnp.asarray(x)
            return x.astype(np.promote_types(x.dtype, real))

        u = load(g)
        new_slots = []
        for key, stored, results in zip(keys, slots, scalars, strict=True):
            chance = None
            if STEP in results:
                chance = Chance(results[STEP], results[STREAM], rows)
            numbers: dict[str, Any] = {"multiple": 1.0}
            numbers |= {
                name: x.astype(real)
                for name, x in results.items()
                if name not in (STEP, STREAM)
            }
            declared = key.declare(**{name: numbers[name] for name in key.numbers})
            if "p" in declared.keywords:
                numbers["p"] = load(p)
            keywords = {name: numbers[name] for name in declared.keywords}
            values = {
                name: slot.load(x, real)
                for (name, slot), x in zip(declared.slots.items(), stored, strict=True)
            }
            with _mixing_real_and_complex(u):
                out = declared.rule(u, *values.values(), **keywords)
            u, *new = tree_checks.rule_results(
                key.name, out, {"the update": u, **values}
            )
            new_slots.append(
                [
                    slot.store(x, old, name, chance)
                    for (name, slot), x, old in zip(
                        declared.slots.items(), new, stored, strict=True
                    )
                ]
            )
        return u.astype(jnp.asarray(g).dtype), new_slots

    rules.__name__ = "__".join(key.name for key in keys) or "landing"
    return rules


@functools.lru_cache(maxsize=4096)
def _of_each(kernel: Callable[..., Any], several: bool) -> Callable[..., Any]:
    """A kernel for one leaf, or for several leaves of one kind in one call."""

    def leaves_alike(inputs, scalars, factors, take):
        return [
            kernel(*x, [s | f for s, f in zip(scalars, factor, strict=True)], take)
            for x, factor in zip(inputs, factors, strict=True)
        ]

    return jax.jit(leaves_alike) if several else leaves_alike
