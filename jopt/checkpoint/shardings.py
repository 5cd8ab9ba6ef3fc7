"""Where restored arrays go: parameters as asked for, the rest as ``init`` puts it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from jopt import tree
from jopt.core.transformation import GradientTransformation


def as_global(x: Any) -> Any:
    """The array, which all processes must hold together if there are several.

    A number that each process has for itself, such as a step count that was made
    outside ``jit``, is taken to be the same everywhere.
    """
    if jax.process_count() == 1 or not getattr(x, "is_fully_addressable", True):
        return x
    values = np.asarray(x)
    return jax.make_array_from_callback(
        values.shape, _over(jax.devices()), lambda index: values[index]
    )


def sharding_of(leaf: Any) -> Sharding | None:
    """Where an array was put, or is to go; None if nobody said."""
    if isinstance(leaf, jax.Array) and not leaf.committed:
        return None
    sharding: Any = getattr(leaf, "sharding", None)
    if not isinstance(getattr(sharding, "mesh", None), AbstractMesh):
        return sharding
    # Of jax.eval_shape, under a mesh whose axes are explicit.
    if (mesh := jax.sharding.get_mesh()).abstract_mesh != sharding.mesh:
        raise ValueError(
            f"params have the sharding {sharding}, which names no devices: call this "
            "under jax.set_mesh(mesh), or give params as arrays"
        )
    return NamedSharding(mesh, sharding.spec)


def replicated(shardings: Iterable[Sharding | None]) -> Sharding | None:
    """A copy on every device of these shardings; None if nobody said where."""
    for sharding in shardings:
        if isinstance(sharding, NamedSharding):
            return NamedSharding(sharding.mesh, PartitionSpec())
        if sharding is not None:
            return _over(sharding.device_set)
    return None if jax.process_count() == 1 else _over(jax.devices())


def _over(devices: Iterable[Any]) -> Sharding:
    ordered = sorted(devices, key=lambda device: device.id)
    return NamedSharding(Mesh(np.array(ordered), ("all",)), PartitionSpec())


def state_shardings(tx: GradientTransformation, params: Any) -> dict[str, Sharding]:
    """Where the compiled ``tx.init`` puts each array of the state, by name."""

    def described(leaf):
        where = sharding_of(leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    init = jax.jit(tx.init).lower(jax.tree.map(described, params)).compile()
    return dict(tree.leaves_with_names(init.output_shardings))
