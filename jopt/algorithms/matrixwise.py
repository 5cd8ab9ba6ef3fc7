"""From a rule for stacks of matrices to a transformation of a tree.

A matrix method with Kronecker factors is a rule for a stack of leaves of one shape.
Everything else is here: which leaves have which sides, the state with its dtypes and
shardings, stacks, and which step decomposes matrices.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jopt import tree
from jopt.algorithms import stacks
from jopt.algorithms.kronecker import Sides, Which
from jopt.algorithms.matrices import Axes, letters
from jopt.core import masks, tree_checks
from jopt.core.factory import PlainDtype
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.slots import Slot
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.core.wide_slots import with_slots
from jopt.tree.like import spread_like


KEEP, REFRESH, FIRST = 0, 1, 2  # the phases of a stack

Row = dict[str, Any]


class PerSide(NamedTuple):
    """What is kept for each side of a leaf: a matrix (d, d), or d numbers."""

    fill: float | None  # None is the identity matrix
    square: bool = True
    dtype: PlainDtype | None = None  # of storage; None is float32 or wider


class Method(NamedTuple):
    """A rule, what it keeps, and how leaves become matrices.

    ``rule(rows, phase, numbers, sides, mesh_axis, **options)`` gets a list of rows, one
    for each leaf of a stack: dicts with the gradient ``g`` and the slots, in the
    compute dtype. Slots per side are tuples with None for sides without statistics. It
    returns as many dicts, with the update ``u`` and the new slots. ``phase`` is an
    integer that may be traced: KEEP, REFRESH or FIRST.
    """

    name: str
    rule: Callable[..., list[Row]]
    state: Any  # a NamedTuple class with ``count`` and the slots
    slots: Mapping[str, Slot | PerSide]
    axes: Axes
    max_dim: int
    which: Which = "both"
    merge: bool = True
    block: int | None = None
    every: int = 1
    first: int = 0  # the number of updates before the first decomposition
    shift: int = 0  # a refresh is due when count + shift is a multiple of ``every``
    staggered: bool = False
    mesh_axis: str | None = None
    hidden: Mask = True  # the leaves that are matrices, of those with two or more axes

    def sides(self, leaves: Leaves) -> list[Sides | None]:
        """Return the sides of each leaf; None for a None."""
        return [
            None
            if x is None
            else Sides.of(
                a,
                np.shape(x),
                self.max_dim,
                self.which,
                merge=self.merge,
                block=self.block,
            )
            for x, a in zip(leaves.values, self.layouts(leaves), strict=True)
        ]

    def layouts(self, leaves: Leaves) -> list[str | None]:
        """Return the layout of each leaf; None for one that is not a matrix."""
        chosen = masks.select(self.hidden, leaves.whole)
        matrices = [
            x if on and jnp.ndim(x) > 1 else None
            for x, on in zip(leaves.values, chosen, strict=True)
        ]
        return letters(self.axes, leaves.tree(matrices))


def matrixwise(
    method: Method, numbers: Callable[[jax.Array], Mapping[str, Any]], **options: Any
) -> GradientTransformation:
    """Return the transformation of a method.

    Args:
      method: See `Method`.
      numbers: From the number of updates so far, what the rule is given as ``numbers``:
        Python numbers, or arrays that may be traced.
      **options: What the rule is compiled for; hashable.
    """
    like_leaves = {n: x for n, x in method.slots.items() if isinstance(x, Slot)}

    def init(params):
        leaves = Leaves(params, "params", real_only=method.name)
        sides = method.sides(leaves)
        fields: dict[str, Any] = {"count": jnp.zeros((), jnp.int32)}
        for name, slot in method.slots.items():
            if isinstance(slot, Slot):
                fields[name] = slot.initial(params)
            else:
                made = [
                    ()
                    if x is None or s is None
                    else _per_side(slot, x, s, method.mesh_axis)
                    for x, s in zip(leaves.values, sides, strict=True)
                ]
                fields[name] = _as_trees(leaves, made)
        return method.state(**fields)

    def update(updates, state, params=None):
        leaves = Leaves(updates, real_only=method.name)
        if params is not None:
            leaves.aligned(params, "params")
        sides = method.sides(leaves)
        slots = {
            name: _loaded(leaves, getattr(state, name), name, slot, sides)
            for name, slot in method.slots.items()
        }
        given = {n: tree.scalar(x) for n, x in numbers(state.count).items()}
        present = [i for i in leaves.present if leaves.values[i].size]
        rows = [
            {"g": leaves.values[i], **{name: slots[name][i] for name in slots}}
            for i in present
        ]
        for row in rows:
            tree_checks.dtypes(row["g"], None, row)
        run = functools.partial(
            _run,
            method=method,
            sides=[sides[i] for i in present],
            options=options,
        )
        run = stacks.placed(run, [_results_like(row) for row in rows])
        new = leaves.values
        for i, row in zip(present, run(rows, state.count, given), strict=True):
            new[i] = row["u"]
            for name, column in slots.items():
                column[i] = row[name]
        count = tree.safe_increment(state.count)
        fields = {
            name: leaves.tree(slots[name])
            if isinstance(slot, Slot)
            else _as_trees(leaves, [x or () for x in slots[name]])
            for name, slot in method.slots.items()
        }
        return leaves.tree(new), method.state(count=count, **fields)

    treatment = Treatment(
        layouts=lambda params: method.layouts(Leaves(params, "params")),
        whole=True,
        mesh_axis=method.mesh_axis,
    )
    tx = GradientTransformation(init, update, treatment=treatment)
    return with_slots(tx, method.state, **like_leaves)


def _run(
    rows: list[Row],
    count: jax.Array,
    numbers: dict[str, jax.Array],
    *,
    method: Method,
    sides: Sequence[Sides],
    options: dict[str, Any],
) -> list[Row]:
    groups = collections.defaultdict(list)
    for i, s in enumerate(sides):
        groups[s].append(i)
    lists = [
        (s, [group[i] for i in stack])
        for s, group in groups.items()
        for stack in stacks.stacks([rows[i] for i in group], method.mesh_axis)
    ]
    decomposed = [i for i, (s, _) in enumerate(lists) if any(s.kept)]
    results: list[Row] = list(rows)
    for i, (s, stack) in enumerate(lists):
        turn = decomposed.index(i) if i in decomposed else 0
        phase = _phase(method, count, turn, len(decomposed))
        new = stacks.together(
            _rule,
            [rows[j] for j in stack],
            phase,
            numbers,
            rule=method.rule,
            sides=s,
            mesh_axis=method.mesh_axis,
            options=tuple(sorted(options.items())),
        )
        for j, row in zip(stack, new, strict=True):
            results[j] = row
    return results


def _phase(method: Method, count: jax.Array, turn: int, turns: int) -> jax.Array:
    """Return what a stack does in the step after ``count`` updates."""
    # Turns are spread evenly over the steps between two refreshes of a stack.
    offset = turn * method.every // max(1, turns) if method.staggered else 0
    due = (count + method.shift + offset) % method.every == 0
    later = jnp.where(due & (count > method.first), REFRESH, KEEP)
    return jnp.where(count == method.first, FIRST, later)


def _rule(
    rows: list[Row],
    phase: jax.Array,
    numbers: dict[str, jax.Array],
    *,
    rule: Callable[..., list[Row]],
    sides: Sides,
    mesh_axis: str | None,
    options: tuple[tuple[str, Any], ...],
) -> list[Row]:
    """Run the rule of a method on leaves of one shape."""
    dtypes = [tree.compute_dtype(x.dtype) for x in jax.tree.leaves(rows[0])]
    wide = functools.reduce(np.promote_types, dtypes)
    like_leaf = {n for n, x in rows[0].items() if isinstance(x, jax.Array)}

    def loaded(name, x):
        if x is None:
            return None
        if name in like_leaf:
            return sides.stack(x.astype(wide))
        return tuple(None if y is None else y.astype(wide) for y in x)

    inputs = [{name: loaded(name, x) for name, x in row.items()} for row in rows]
    numbers = {name: x.astype(wide) for name, x in numbers.items()}
    new = rule(inputs, phase, numbers, sides, mesh_axis, **dict(options))

    def stored(x, old):
        if old is None:
            return None
        if isinstance(old, jax.Array):
            # The compiler may have spread the matrices over devices in another way.
            return spread_like(sides.leaf(x).astype(old.dtype), old)
        return tuple(
            None if y is None else x[i].astype(y.dtype) for i, y in enumerate(old)
        )

    return [
        {name: stored(x, row["g" if name == "u" else name]) for name, x in out.items()}
        for out, row in zip(new, rows, strict=True)
    ]


def _results_like(row: Row) -> Row:
    return {"u": row["g"], **{name: x for name, x in row.items() if name != "g"}}


def _per_side(
    slot: PerSide, param: Any, sides: Sides, mesh_axis: str | None
) -> tuple[Any, ...]:
    """Return what is kept for each side.

    It is sharded as the axes of the parameter are; or over the mesh axis by which the
    matrices are spread, so that each device keeps its share of all of it: whole
    matrices, if there are enough, which then stay where they are.
    """
    if isinstance(param, jax.ShapeDtypeStruct):
        param = jnp.zeros(param.shape, param.dtype, device=param.sharding)
    param = jnp.asarray(param)
    sharding = jax.typeof(param).sharding

    def one(side):
        over = stacks.share((sides.dims[0], sides.dims[side + 1]), mesh_axis)
        run = functools.partial(_filled, slot=slot, sides=sides, side=side, over=over)
        if not sharding.mesh.explicit_axes:
            return run(param)
        run = functools.partial(run, over=None)
        spec = [sharding.spec[i] for i in sides.order]
        batch = spec[0] if sides.starts[0] and not sides.blocked else None
        rows = None if sides.blocked else spec[sides.starts[side]]
        spec = [batch, rows] if over is None else [*over]
        spec = PartitionSpec(*spec, *[None] * (2 + slot.square - len(spec)))
        auto_axes: Any = jax.sharding.auto_axes
        return auto_axes(run, out_sharding=NamedSharding(sharding.mesh, spec))(param)

    return tuple(one(i) if kept else None for i, kept in enumerate(sides.kept))


@functools.partial(jax.jit, static_argnames=("slot", "sides", "side", "over"))
def _filled(
    param: jax.Array,
    *,
    slot: PerSide,
    sides: Sides,
    side: int,
    over: PartitionSpec | None,
) -> jax.Array:
    dtype = slot.dtype or tree.compute_dtype(param.dtype)
    x = sides.stack(param)
    others = [i for i in range(1, x.ndim) if i != side + 1]
    like = jnp.sum(x, axis=others)
    count, d = like.shape
    new = jnp.full((count, d), slot.fill or 0.0, dtype)
    if slot.square:
        matrix = jnp.eye(d, dtype=dtype) if slot.fill is None else new[:1].mT
        new = jnp.broadcast_to(matrix, (count, d, d))
        like = jnp.broadcast_to(like[..., None], new.shape)
    if over is not None:
        return lax.with_sharding_constraint(new, over)
    return spread_like(new, like)


def _as_trees(leaves: Leaves, values: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return a tree per side, because not every container takes tuples for leaves."""
    most = max((len(x) for x in values), default=0)
    padded = [(*x, *[None] * most) for x in values]
    return tuple(leaves.tree([x[k] for x in padded]) for k in range(most))


def _loaded(
    leaves: Leaves,
    kept: Any,
    name: str,
    slot: Slot | PerSide,
    sides: Sequence[Sides | None],
) -> list[Any]:
    """Return a slot of all leaves from the field of the state, checked."""
    if isinstance(slot, Slot):
        shapes = slot.shapes if slot.over else None
        return leaves.aligned(kept, f"the state's {name}", shapes=shapes)
    most = max((len(s.kept) for s in sides if s is not None), default=0)
    if len(kept) != most:
        raise ValueError(
            f"the state's {name} has trees for {len(kept)} sides, but the leaves have "
            f"{most}. The state was made by other arguments, or for other parameters"
        )

    def expected(s, k):
        if s is None or k >= len(s.kept) or not s.kept[k]:
            return None
        count, d = s.dims[0], s.dims[k + 1]
        shape = (count, d, d) if slot.square else (count, d)
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    columns = [
        tree_checks.aligned(
            leaves.whole,
            [expected(s, k) for s in sides],
            leaves.treedef,
            field,
            f"the state's {name}[{k}]",
        )
        for k, field in enumerate(kept)
    ]
    return [
        None if s is None else tuple(column[i] for column in columns)[: len(s.kept)]
        for i, s in enumerate(sides)
    ]
