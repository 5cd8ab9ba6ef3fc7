"""ZeRO: the state is split over the devices that hold the same parameters.

Where devices share the parameters, each would keep the whole state and do the same
update. Here each keeps and updates its part, and receives the updates of the others:
the sum of the gradients over devices becomes a reduce-scatter, and an all-gather
follows, which move as many bytes together. Rajbhandari et al., "ZeRO: memory
optimizations toward training trillion parameter models", 2020; Xu et al., "Automatic
cross-replica sharding of weight update in data-parallel training", 2020.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jopt import tree
from jopt.core import tpu_shards
from jopt.core.around import in_place_of
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.sharding.derivation import (
    Layout,
    check_axis,
    current_mesh,
    layout,
    resolved,
    sharding_of,
)
from jopt.tree.row_sparse import is_rows
from jopt.values.arguments import text_of


@transformation
def zero1(
    inner: GradientTransformation,
    mesh: Mesh | AbstractMesh | None = None,
    axis: str = "data",
    *,
    specs: Any = None,
) -> GradientTransformation:
    """Split the state and the update over a mesh axis; parameters stay as they are.

    The numbers are those of ``inner``, and so is the structure of the state. The
    shardings of both are constraints inside of ``init`` and ``update``: ``jax.jit``
    needs no ``out_shardings``, and parameters are never split by them.

    Args:
      inner: A whole optimizer: what stands around this transformation is not split.
      mesh: The mesh; None means the mesh of the parameters or of ``jax.set_mesh``. A
        transformation with a mesh cannot be pickled or written to a config, as devices
        cannot. With an ``AbstractMesh``, the parameters name the devices.
      axis: The mesh axis over which the batch is split.
      specs: The ``PartitionSpec`` of each parameter, if they are split too: a tree like
        the parameters, or a prefix of it, or a function from the parameters to it. None
        means replicated parameters; with explicit axes, their types.

    Returns:
      A transformation; see `state_shardings` for what it splits.

    Raises:
      ValueError: ``axis`` is not an axis of the mesh, there is no mesh, or the axis is
        one that ``jax.shard_map`` splits by hand.

    >>> import jopt
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> tx = zero1(jopt.adam(1e-3), mesh, "data")
    >>> params = {"w": jnp.ones((64, 64))}
    >>> tx.init(params)["scale_by_adam"].mu["w"].sharding.spec
    P('data', None)
    """
    inner = as_transformation(inner, "zero1: inner")
    if mesh is not None:
        check_axis("axis", axis, mesh)

    def plan(params):
        return _Plan.of(inner, params, mesh, axis, specs)

    def init(params):
        leaves = jax.tree.leaves(params)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return inner.init(params)
        found = plan(params)

        def parts(params):
            return found.placed(inner.init(params), found.of_state)

        if any(isinstance(x, Tracer) for x in leaves):
            return parts(params)
        # Compiled, so that no device ever holds the whole state.
        with jax.set_mesh(found.mesh):
            return jax.jit(parts)(params)

    def update(updates, state, params=None, **extra):
        found = plan(updates if params is None else params)
        structure = jax.tree.structure(updates, is_leaf=tree.is_leaf)

        def is_like(x):
            return jax.tree.structure(x, is_leaf=tree.is_leaf) == structure

        if params is not None:
            # The compiler would split the parameters too, if nothing held them.
            extra["params"] = found.placed(params, found.given)
        if not jax.tree_util.treedef_is_leaf(structure):
            trees = [name for name, x in extra.items() if is_like(x)]
        else:
            trees = [name for name in extra if name == "params"]
        extra |= {name: found.placed(extra[name], found.parts) for name in trees}
        parts = found.placed(updates, found.parts)
        of_parts = jax.tree.map(found.sharding, found.parts, is_leaf=tree.is_leaf)
        with tpu_shards.placed(of_parts):
            new, state = inner.update(parts, state, **extra)
        state = found.placed(state, found.of_state)
        return found.placed(new, found.given), state

    def readout(state, params, name=None):
        found = plan(params)
        held = found.placed(params, found.given)
        parts = found.placed(held, found.parts)
        new = eval_params(inner, state, parts, name=name)
        return found.placed(new, found.given)

    return in_place_of(inner, init, update, readout if has_readout(inner) else None)


class _Plan(NamedTuple):
    """Where the arrays of a step lie."""

    mesh: Any
    explicit: bool  # whether shardings are types
    given: Any  # the spec of each parameter
    parts: Any  # of the part of it that a device updates
    of_state: Any

    @staticmethod
    def of(
        inner: GradientTransformation, params: Any, mesh: Any, axis: str, specs: Any
    ) -> _Plan:
        """Derive it from the parameters; equal ones have it derived once."""
        mesh, given = resolved(params, specs, _mesh_of(params, mesh))
        check_axis("axis", axis, mesh)
        if axis in getattr(mesh, "manual_axes", ()):
            raise ValueError(
                f"zero1: the axis {text_of(axis)} is split by hand in a shard_map, "
                "where each device sees its own gradients. Compute those in the "
                "shard_map, sum them, and call update outside of it"
            )
        leaves, treedef = jax.tree.flatten(params, is_leaf=tree.is_leaf)
        shapes = tuple(
            None if x is None else (jnp.shape(x), jnp.result_type(x)) for x in leaves
        )
        found = _layout(inner, treedef, shapes, mesh, tuple(given), axis)
        explicit = axis in getattr(mesh, "explicit_axes", ())
        parts = treedef.unflatten(found.parts)
        return _Plan(mesh, explicit, treedef.unflatten(given), parts, found.specs)

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """The sharding of an array."""
        return NamedSharding(self.mesh, spec)

    def placed(self, arrays: Any, specs: Any) -> Any:
        """The arrays, sharded so."""

        def one(spec, x):
            if x is None or is_rows(x) or (self.explicit and not jnp.ndim(x)):
                return x
            place = jax.reshard if self.explicit else lax.with_sharding_constraint
            return place(x, self.sharding(spec))

        leaf = tree.is_leaf
        return jax.tree.map(one, specs, arrays, is_leaf=leaf)


@functools.lru_cache(maxsize=128)
def _layout(
    inner: GradientTransformation,
    treedef: Any,
    shapes: tuple[Any, ...],
    mesh: Any,
    given: tuple[PartitionSpec, ...],
    axis: str,
) -> Layout:
    leaves = [None if x is None else jax.ShapeDtypeStruct(*x) for x in shapes]
    return layout(inner, treedef.unflatten(leaves), mesh, given, axis)


def _mesh_of(params: Any, mesh: Any) -> Any:
    """Return the mesh to name in a step; None if nothing says which.

    What JAX traces has the mesh of the arguments or of ``jax.set_mesh``, which tells
    which axes are explicit or split by hand.
    """
    shardings = map(sharding_of, jax.tree.leaves(params))
    meshes = [x.mesh for x in shardings if isinstance(x, NamedSharding)]
    found = next((m for m in meshes if not m.empty), current_mesh())
    if found.empty or (isinstance(mesh, Mesh) and isinstance(found, Mesh)):
        return mesh
    return found
