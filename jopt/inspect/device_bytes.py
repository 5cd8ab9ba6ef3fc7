"""``memory``: the bytes that each device will hold, before anything is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jopt.core import tree_checks
from jopt.core.chain import as_transformation
from jopt.core.fused import lowered_step
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.inspect.facts import fields, nbytes, parts_of
from jopt.inspect.tables import size
from jopt.tree.variables import sees_arrays


# The part of the state below which an entry has no line of its own.
SMALL = 1e-3


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """What `memory` returns: bytes on each device.

    Args:
      devices: The number of devices.
      params: Those of the parameters.
      gradients: Those of the gradients, which are like the parameters.
      state: Those of the optimizer's state.
      slots: Those of each field of the state, by its path.
      temporaries: What the compiled step needs besides these; None if it was not
        compiled.
    """

    devices: int
    params: int
    gradients: int
    state: int
    slots: dict[str, int]
    temporaries: int | None = None

    @property
    def total(self) -> int:
        """The sum of all that is known."""
        return self.params + self.gradients + self.state + (self.temporaries or 0)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        rows = [("parameters", self.params), ("gradients", self.gradients)]
        rows.append(("state", self.state))
        large = {n: x for n, x in self.slots.items() if x > SMALL * self.state}
        rows += [(f"  {name}", x) for name, x in large.items()]
        if large and len(large) < len(self.slots):
            rows.append(("  the rest", self.state - sum(large.values())))
        if self.temporaries is not None:
            rows.append(("temporaries of a step", self.temporaries))
        rows.append(("total", self.total))
        width = max(len(name) for name, _ in rows)
        sizes = [size(x) for _, x in rows]
        where = f"each of {self.devices} devices" if self.devices > 1 else "one device"
        yield f"on {where}"
        for (name, _), text in zip(rows, sizes, strict=True):
            yield f"{name.ljust(width)}  {text.rjust(max(map(len, sizes)))}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers as data for ``json.dumps``."""
        return dataclasses.asdict(self)


@sees_arrays()
def memory(
    tx: GradientTransformation,
    params: Params,
    mesh: Mesh | None = None,
    *,
    compiled: bool = False,
    **extra: Any,
) -> MemoryUse:
    """Count the bytes that training needs on each device, without allocating them.

    Parameters, gradients and state are counted as they lie on the devices: of an array
    that is sharded, a device has a part. The activations of the model are not in it.

    Args:
      tx: A transformation.
      params: The parameters, or their shapes (``jax.ShapeDtypeStruct``). If they have
        shardings over several devices, the state is where a compiled ``init`` puts it.
      mesh: The devices of the parameters that have no sharding, which are replicated.
      compiled: Whether to compile the step that updates in place, as ``jopt.step`` does
        with ``donate=True``, and to ask the compiler what it needs besides.
      **extra: Further arguments of ``tx.update``, to compile it; shapes will do.

    Returns:
      The bytes, which print as a table.

    Raises:
      TypeError: ``tx`` is not a transformation, or its update needs an argument that is
        missing.

    >>> import jopt
    >>> shapes = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.bfloat16)}
    >>> jopt.memory(jopt.adam(1e-3, mu_dtype="bfloat16"), shapes)
    on one device
    parameters           2.0 MB
    gradients            2.0 MB
    state                6.0 MB
      scale_by_adam/mu   2.0 MB
      scale_by_adam/nu   4.0 MB
      the rest             12 B
    total               10.0 MB
    >>> jopt.memory(jopt.sgd(0.1), shapes).slots
    {'scale_by_learning_rate/count': 4, 'scale_by_learning_rate/learning_rate': 4}
    """
    tx = as_transformation(tx, "memory: tx")
    shapes = _placed(tree_checks.without_functions(params), mesh)
    state = _state(tx, shapes)
    slots: dict[str, int] = {}
    for part in parts_of(tx, shapes):
        for name, value in fields(part, state):
            path = "/".join(filter(None, [*part.path, name]))
            if found := sum(map(on_device, jax.tree.leaves(value))):
                slots[path] = found
    gradients = jax.tree.map(lambda x: x if _moves(x) else None, shapes)
    needed = None
    if compiled:
        step = lowered_step(tx, gradients, state, shapes, extra).compile()
        found: Any = step.memory_analysis()
        # A result that takes no argument's memory needs its own.
        needed = found.temp_size_in_bytes
        needed += found.output_size_in_bytes - found.alias_size_in_bytes
    return MemoryUse(
        max((_devices(x) for x in jax.tree.leaves(shapes)), default=1),
        sum(map(on_device, jax.tree.leaves(shapes))),
        sum(map(on_device, jax.tree.leaves(gradients))),
        sum(map(on_device, jax.tree.leaves(state))),
        slots,
        needed,
    )


def is_spread(params: Params) -> bool:
    """Whether parameters are on several devices."""
    return any(_devices(x) > 1 for x in jax.tree.leaves(params))


def on_device(x: Any) -> int:
    """The bytes of an array, or of its shape, on each of its devices."""
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return nbytes(x)
    shape = sharding.shard_shape(np.shape(x))
    return nbytes(jax.ShapeDtypeStruct(shape, x.dtype))


def _devices(x: Any) -> int:
    sharding = getattr(x, "sharding", None)
    return 1 if sharding is None else len(sharding.device_set)


def _moves(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _placed(params: Params, mesh: Mesh | None) -> Params:
    """The shapes of parameters with the shardings over several devices."""
    if mesh is None:
        meshes = (getattr(_sharding(x), "mesh", None) for x in jax.tree.leaves(params))
        mesh = next(filter(None, meshes), None)
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    def shape(x):
        dtype = getattr(x, "dtype", None) or jnp.result_type(x)
        where = _sharding(x) or everywhere
        return jax.ShapeDtypeStruct(np.shape(x), dtype, sharding=where)

    return jax.tree.map(shape, params)


def _sharding(x: Any) -> Any:
    """Where an array is, if on several devices: on one it may just happen to be."""
    return x.sharding if _devices(x) > 1 else None


def _state(tx: GradientTransformation, shapes: Params) -> OptState:
    """The shapes of a state, with their shardings if there are several devices."""
    state = jax.eval_shape(tx.init, shapes)
    if not is_spread(shapes):
        return state
    shardings = jax.jit(tx.init).lower(shapes).compile().output_shardings
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        state,
        shardings,
    )
