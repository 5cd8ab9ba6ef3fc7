"""The sharding of every array of a state, derived from those of the parameters.

With explicit axes, shardings are a part of the types of arrays in JAX, and every
``init`` here keeps them. So the types of an abstract ``init`` tell which axes of the
mesh a slot gets; and one more axis for each dimension, of one device, tells which of
its dimensions are those of the parameter. Nothing is compiled or allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jopt import tree
from jopt.core import masks, tree_checks
from jopt.core.transformation import GradientTransformation, Params
from jopt.values.arguments import text_of


# Smaller arrays are not split any further: it would save nothing, and cost an exchange.
LEAST_SIZE = 4096
# The elements along the last dimension that share a scale, where a slot has few bits.
BLOCK = 256

Entry = tuple[str, ...]  # the mesh axes that split a dimension
Where = Mesh | AbstractMesh | Any


def state_shardings(
    tx: GradientTransformation,
    params: Params,
    where: Where = None,
    *,
    zero_axis: str | None = None,
    memory_kind: str | None = None,
) -> Any:
    """Return the sharding of every array of an optimizer's state.

    A dimension of a slot that is one of the parameter gets the mesh axes of that one:
    all of them for a moment, all but one for the row means of a factored moment. Counts
    and numbers per tensor are replicated.

    Args:
      tx: Any transformation.
      params: The parameters, or their shapes as ``jax.ShapeDtypeStruct``.
      where: A tree of ``NamedSharding``, or of ``PartitionSpec`` in the mesh of
        ``jax.set_mesh``, like the parameters or a prefix of them. A mesh, or None for
        that of the parameters or of ``jax.set_mesh``, means the shardings that the
        parameters have; those without any are replicated. Or a function from the
        parameters to such a tree.
      zero_axis: The name of a mesh axis that splits the state further, see `zero1`:
        each array of 4,096 or more elements along the first of the parameter's
        dimensions that this axis divides evenly, together with the axes there. The
        matrices of a method that needs them whole, such as Muon, stay whole, unless it
        spreads them itself (``mesh_axis=zero_axis``); a stack is split between them.
      memory_kind: The memory for the arrays of 4,096 or more elements, such as
        ``"pinned_host"``, see `on_host`; None means that of the device.

    Returns:
      A tree like ``tx.init(params)``, with a ``NamedSharding`` for each array, for
      ``out_shardings`` of ``jax.jit``.

    Raises:
      ValueError: There is no mesh, ``zero_axis`` is not an axis of it, or a parameter
        cannot be sharded as ``where`` says.

    >>> import jopt
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> params = {"w": jax.ShapeDtypeStruct((128, 64), jnp.float32)}
    >>> with jax.set_mesh(mesh):
    ...     found = state_shardings(jopt.adam(1e-3), params, {"w": P(None, "data")})
    >>> found["scale_by_adam"].mu["w"].spec, found["scale_by_adam"].count.spec
    (P(None, 'data'), P())
    >>> zero = state_shardings(jopt.adam(1e-3), params, mesh, zero_axis="data")
    >>> zero["scale_by_adam"].mu["w"].spec
    P('data',)
    """
    params = tree_checks.without_functions(params)
    mesh, given = resolved(params, where)
    check_axis("zero_axis", zero_axis, mesh)

    def sharding(spec, x):
        kind = memory_kind if math.prod(x.shape) >= LEAST_SIZE else None
        return NamedSharding(mesh, spec, memory_kind=kind)

    found = layout(tx, params, mesh, given, zero_axis)
    return jax.tree.map(sharding, found.specs, found.types)


class Layout(NamedTuple):
    """Where a state lies, and the parts of the parameters that it is updated with."""

    types: Any  # shape and dtype of each array of the state
    specs: Any  # the PartitionSpec of each
    parts: list[PartitionSpec]  # of the part of each parameter, Nones included


def layout(
    tx: GradientTransformation,
    params: Params,
    mesh: Any,
    given: Sequence[PartitionSpec],
    zero_axis: str | None = None,
) -> Layout:
    """Derive the layout of a state.

    Args:
      tx: The transformation.
      params: The parameters, or anything with their shapes.
      mesh: The mesh.
      given: The spec of each parameter, Nones included, in the order of the tree.
      zero_axis: See `state_shardings`.
    """
    leaves, treedef = jax.tree.flatten(params, is_leaf=tree.is_leaf)
    sizes = {n: mesh.shape[n] for n in mesh.axis_names if not _is_mark(n)}
    whole = _whole(tx, params, zero_axis)
    marked = _marked_mesh(sizes, max(map(np.ndim, leaves), default=0))
    entries = [
        None
        if x is None
        else [
            (*_Dim.of(entry).axes, (_WHOLE if k in whole[i] else _FREE).format(k))
            for k, entry in enumerate(entries_of(spec, np.ndim(x)))
        ]
        for i, (x, spec) in enumerate(zip(leaves, given, strict=True))
    ]

    def typed(x, axes):
        if x is None:
            return None
        spec = NamedSharding(marked, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x), sharding=spec)

    shapes = treedef.unflatten(map(typed, leaves, entries))
    with jax.sharding.use_abstract_mesh(marked):
        try:
            types = jax.eval_shape(tx.init, shapes)
        except Exception as error:
            error.add_note(
                "state_shardings runs init on shapes, on a mesh with explicit axes. "
                "There jnp.zeros_like(p) has the sharding of p."
            )
            raise
    owners = {
        _names(path): (np.shape(x), axes)
        for (path, x), axes in zip(
            jax.tree_util.tree_leaves_with_path(params, is_leaf=tree.is_leaf),
            entries,
            strict=True,
        )
        if x is not None
    }

    def spec(path, x):
        axes = entries_of(_spec_of(x), len(x.shape))
        if not any(axes):
            axes = _by_path(_names(path), x.shape, owners, sizes) or axes
        return split(x.shape, x.dtype, axes)

    def split(shape, dtype, axes):
        found = [_Dim.of(entry) for entry in axes]
        free = sorted(
            (dim.of_param, k) for k, dim in enumerate(found) if dim.of_param is not None
        )
        own = [dim.axes for dim in found]
        if zero_axis is not None:
            block = BLOCK if _few_bits(dtype) else 1
            dims = [k for _, k in free]
            own = further_split(shape, own, dims, sizes, zero_axis, block)
        return spec_from(own)

    parts = [
        PartitionSpec() if x is None else split(np.shape(x), jnp.float32, axes)
        for x, axes in zip(leaves, entries, strict=True)
    ]
    specs = jax.tree_util.tree_map_with_path(spec, types)
    return Layout(types, specs, parts)


def further_split(
    shape: Sequence[int],
    entries: Sequence[Entry],
    free: Sequence[int],
    sizes: dict[str, int],
    axis: str,
    block: int = 1,
) -> list[Entry]:
    """Return the mesh axes of each dimension, with one more for the first that it fits.

    Args:
      shape: The shape of an array.
      entries: The mesh axes that split its dimensions.
      free: The dimensions that may be split, first choice first.
      sizes: The number of devices along each mesh axis.
      axis: The mesh axis to add.
      block: The number of elements along the last dimension that stay together.
    """
    entries = list(entries)
    used = {name for entry in entries for name in entry}
    if axis in used or math.prod(shape) < LEAST_SIZE:
        return entries
    for k in free:
        parts = sizes[axis] * math.prod(sizes[name] for name in entries[k])
        together = block if k == len(shape) - 1 else 1
        if shape[k] % (parts * together) == 0:
            entries[k] = (*entries[k], axis)
            break
    return entries


# The mesh axes, one device long, that mark the dimensions of the parameters; those of
# matrices that stay whole have others.
_FREE, _WHOLE = "dimension {}", "matrix dimension {}"


def _is_mark(name: str) -> bool:
    return name.startswith((_FREE.format(""), _WHOLE.format("")))


def _marked_mesh(sizes: dict[str, int], ndim: int) -> AbstractMesh:
    marks = [text.format(k) for k in range(ndim) for text in (_FREE, _WHOLE)]
    names = (*sizes, *marks)
    return AbstractMesh(
        (*sizes.values(), *[1] * len(marks)),
        names,
        axis_types=(AxisType.Explicit,) * len(names),
    )


class _Dim(NamedTuple):
    """A dimension of an array of the state."""

    axes: Entry  # of the mesh
    of_param: int | None  # which dimension of the parameter it is, if it may be split

    @staticmethod
    def of(entry: Entry) -> _Dim:
        axes = tuple(name for name in entry if not _is_mark(name))
        found = [n for n in entry if n.startswith(_FREE.format(""))]
        return _Dim(axes, int(found[0].split()[-1]) if found else None)


def _whole(
    tx: GradientTransformation, params: Params, axis: str | None
) -> list[set[int]]:
    """Return the dimensions of each parameter that are not to be split over the axis.

    They are those of matrices that a method needs whole, but does not put together
    itself by an exchange over this axis.
    """
    found = [set() for _ in jax.tree.leaves(params, is_leaf=tree.is_leaf)]
    treatment = tx.treatment
    if axis and treatment and treatment.whole and treatment.mesh_axis != axis:
        assert treatment.layouts is not None
        for dims, layout in zip(found, treatment.layouts(params), strict=True):
            dims |= {k for k, letter in enumerate(layout or "") if letter != "b"}
    reach = tx.reach(params) if tx.reach else {}
    for name, child in tx.children.items():
        seen = masks.only(params, reach[name]) if name in reach else params
        for dims, more in zip(found, _whole(child, seen, axis), strict=True):
            dims |= more
    return found


def _by_path(
    names: tuple[str, ...],
    shape: tuple[int, ...],
    owners: dict[tuple[str, ...], Any],
    sizes: dict[str, int],
) -> list[Entry] | None:
    """Return the axes of an array whose ``init`` gave it none, from its parameter.

    Its path contains the parameter's, and it has as many dimensions, none of them
    longer: as the scales of blocks, or what ``jnp.zeros(p.shape)`` makes.
    """
    ends = range(len(names), 0, -1)
    parts = (names[i:end] for end in ends for i in range(end))
    owner = next((owners[part] for part in parts if part in owners), None)
    if owner is None or len(owner[0]) != len(shape):
        return None
    if any(n > m for n, m in zip(shape, owner[0], strict=True)):
        return None
    found = []
    for n, m, entry in zip(shape, *owner, strict=True):
        own = _Dim.of(entry).axes
        divides = n > 1 and n % math.prod(sizes[name] for name in own) == 0
        found.append(entry if n == m else own if divides else ())
    return found


def _names(path: Any) -> tuple[str, ...]:
    return tuple(tree.path_name((key,)) for key in path)


def _few_bits(dtype: Any) -> bool:
    """Return whether elements of a dtype are codes, which share a scale."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):  # random keys
        return False
    return jnp.dtype(dtype).itemsize == 1


def _spec_of(x: Any) -> PartitionSpec:
    spec = getattr(getattr(x, "sharding", None), "spec", None)
    return PartitionSpec() if spec is None else spec


def entries_of(spec: PartitionSpec, ndim: int) -> list[Entry]:
    """Return the mesh axes that split each dimension.

    >>> entries_of(PartitionSpec("data", None, ("x", "y")), 4)
    [('data',), (), ('x', 'y'), ()]
    """
    entries = [*spec, *[None] * (ndim - len(spec))]
    return [() if e is None else (e,) if isinstance(e, str) else (*e,) for e in entries]


def spec_from(entries: Sequence[Entry]) -> PartitionSpec:
    """Return the spec of these mesh axes; the inverse of `entries_of`.

    >>> spec_from([("data",), (), ("x", "y"), ()])
    P('data', None, ('x', 'y'))
    """
    shown = [e[0] if len(e) == 1 else e or None for e in entries]
    while shown and shown[-1] is None:
        shown.pop()
    return PartitionSpec(*shown)


def check_axis(name: str, axis: str | None, mesh: Any) -> None:
    """Raise unless the mesh has the axis."""
    if axis is not None and axis not in mesh.shape:
        raise ValueError(
            f"{name}={text_of(axis)} is not an axis of the mesh, whose axes are "
            f"{list(mesh.shape)}"
        )


def resolved(
    params: Params, where: Where, mesh: Any = None
) -> tuple[Any, list[PartitionSpec]]:
    """Return the mesh, and the spec of each parameter, Nones included.

    Args:
      params: The parameters.
      where: See `state_shardings`.
      mesh: The mesh; None finds it.
    """
    named = tree.leaves_with_names(params, none=True)
    is_mesh = isinstance(where, Mesh | AbstractMesh)
    if where is None or is_mesh:
        given = [sharding_of(x) for _, x in named]
    else:
        given = _broadcast(where, params)
    if mesh is None:
        meshes = [x.mesh for x in given if isinstance(x, NamedSharding)]
        mesh = where if is_mesh else next((m for m in meshes if not m.empty), None)
        current = current_mesh()
        # Types name an abstract mesh, whose devices are those of jax.set_mesh.
        if mesh is None or getattr(current, "abstract_mesh", None) == mesh:
            mesh = current
    if mesh.empty:
        raise ValueError(
            "the parameters have no mesh: pass a mesh or a tree of NamedSharding, or "
            "call this under jax.set_mesh(mesh)"
        )
    specs = []
    for (name, leaf), x in zip(named, given, strict=True):
        spec = x if isinstance(x, PartitionSpec) else getattr(x, "spec", None)
        spec = PartitionSpec() if spec is None else spec
        if leaf is not None:
            _check(name, np.shape(leaf), spec, mesh)
        specs.append(spec)
    return mesh, specs


def sharding_of(x: Any) -> Any:
    """Return the sharding of an array or a shape, or what of it is its type."""
    if isinstance(x, Tracer):
        return jax.typeof(x).sharding
    return getattr(x, "sharding", None)


def current_mesh() -> Any:
    """Return the mesh of ``jax.set_mesh``, which under jit is an abstract one."""
    abstract = jax.sharding.get_abstract_mesh()
    try:
        found = jax.sharding.get_mesh()
    except ValueError:  # under jit
        return abstract
    return abstract if abstract.empty or found.empty else found


def _broadcast(where: Any, params: Params) -> list[Any]:
    """Return the sharding or spec of each parameter, from a prefix of their tree."""
    if callable(where):
        where = where(params)

    def is_spec(x):
        return x is None or isinstance(x, NamedSharding | PartitionSpec)

    try:
        whole = jax.tree.broadcast(where, params, is_leaf=tree.is_leaf)
    except ValueError as error:
        raise ValueError(
            f"the shardings are neither a mesh nor like the parameters: {error}"
        ) from None
    found = jax.tree.leaves(whole, is_leaf=is_spec)
    if wrong := [x for x in found if not is_spec(x)]:
        raise TypeError(
            "the shardings of the parameters are a mesh, or a tree of NamedSharding or "
            f"PartitionSpec, got {text_of(wrong[0])}"
        )
    return found


def _check(name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Any) -> None:
    """Raise unless a parameter of this shape can have the spec."""
    for entry in entries_of(spec, len(shape)):
        for axis in entry:
            check_axis(f"{spec} of parameter {name!r}: the axis", axis, mesh)
    if len(spec) > len(shape):
        raise ValueError(
            f"parameter {name!r} has shape {shape}, but its sharding {spec} has "
            f"{len(spec)} dimensions"
        )
    for n, entry in zip(shape, entries_of(spec, len(shape)), strict=True):
        parts = math.prod(mesh.shape[axis] for axis in entry)
        if n % parts:
            raise ValueError(
                f"parameter {name!r} has shape {shape}, and its sharding {spec} splits "
                f"{n} into {parts}, which leaves a rest. Choose another dimension"
            )
