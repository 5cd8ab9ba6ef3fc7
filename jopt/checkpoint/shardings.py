"""Shardings of restored arrays: parameters as given, the state as ``init`` has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from jopt import tree
from jopt.core.transformation import GradientTransformation
from jopt.tree.paths import by_name


def as_global(x: Any) -> Any:
    """Return the array as one that all processes hold together.

    An array of this process only, such as a step count made outside ``jit``, is assumed
    to be the same in every process.
    """
    if jax.process_count() == 1 or not getattr(x, "is_fully_addressable", True):
        return x
    values = np.asarray(x)
    return jax.make_array_from_callback(
        values.shape, _over(jax.devices()), lambda index: values[index]
    )


def sharding_of(leaf: Any) -> Sharding | None:
    """Return the sharding of an array or shape; None if it is not committed to one."""
    if isinstance(leaf, jax.Array) and not leaf.committed:
        return None
    sharding: Any = getattr(leaf, "sharding", None)
    if not isinstance(getattr(sharding, "mesh", None), AbstractMesh):
        return sharding
    # jax.eval_shape under a mesh with explicit axes gives a mesh without devices.
    if (mesh := jax.sharding.get_mesh()).abstract_mesh != sharding.mesh:
        raise ValueError(
            f"params have the sharding {sharding}, which names no devices: call this "
            "under jax.set_mesh(mesh), or pass params as arrays"
        )
    return NamedSharding(mesh, sharding.spec)


def replicated(shardings: Iterable[Sharding | None]) -> Sharding | None:
    """Return the replication over the devices of the first sharding that is not None.

    Without such a sharding a single process gets None, which is JAX's default device.
    """
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
    """Return the sharding that the compiled ``tx.init`` gives each array, by name."""

    def abstract(leaf):
        sharding = sharding_of(leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    # Compiling is the only way to learn what XLA propagates from the parameters.
    init = jax.jit(tx.init).lower(jax.tree.map(abstract, params)).compile()
    return by_name(tree.leaves_with_names(init.output_shardings))
