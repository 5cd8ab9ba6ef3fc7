"""Arrays of a checkpoint as the leaves of a state, on the devices of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from jopt import tree
from jopt.core.transformation import GradientTransformation, OptState, Params


def assembled(
    tx: GradientTransformation,
    params: Params,
    template: OptState,
    values: Mapping[str, Any],
    fresh: set[str],
) -> OptState:
    """The state with these arrays, each where ``tx.init(params)`` would have it.

    Args:
      tx: The transformation.
      params: The parameters, or their shapes and shardings.
      template: What ``jax.eval_shape(tx.init, params)`` gives.
      values: Arrays by path, of the template's shapes and dtypes.
      fresh: The paths of the others, which ``init`` gives.

    Raises:
      ValueError: The parameters are needed for ``init``, and only shapes are given.
    """
    found, treedef = jax.tree_util.tree_flatten_with_path(template)
    places = {tree.path_name(path): i for i, (path, _) in enumerate(found)}
    leaves: list[Any] = [None] * len(found)
    if fresh:
        if abstract := [x for x in jax.tree.leaves(params) if is_abstract(x)]:
            raise ValueError(
                f"{min(fresh)!r} starts from init, for which the parameters are needed "
                f"and not shapes, got {abstract[0]}"
            )
        chosen = [places[name] for name in fresh]
        # Under jit nothing but these is computed, and where the parameters are.
        initial = jax.jit(lambda p: [jax.tree.leaves(tx.init(p))[i] for i in chosen])
        for i, x in zip(chosen, initial(params), strict=True):
            leaves[i] = x
    devices = _devices(params)
    shardings: list[Any] = [jnp.zeros(()).sharding] * len(found)
    if len(devices) == 1:
        shardings = [SingleDeviceSharding(*devices)] * len(found)
    elif devices:
        compiled = jax.jit(tx.init).lower(params).compile()
        shardings = jax.tree.leaves(compiled.output_shardings)
    for name, i in places.items():
        if name in values:
            x = _placed(values[name], shardings[i], bool(devices))
            leaves[i] = _as_key(x, found[i][1]) if is_key(found[i][1]) else x
    return treedef.unflatten(leaves)


def _devices(params: Params) -> set[Any]:
    """The devices that parameters were put on; none if nobody said where."""
    devices = set()
    for x in jax.tree.leaves(params):
        where = getattr(x, "sharding", None)
        if where and (getattr(x, "committed", True) or len(where.device_set) > 1):
            devices |= where.device_set
    return devices


def _placed(value: Any, sharding: Any, commit: bool) -> jax.Array:
    if isinstance(value, jax.Array):
        if value.sharding.is_equivalent_to(sharding, value.ndim):
            return value
        commit = True
    # What is moved may share memory with what it was, and then cannot be donated.
    return _own(jax.device_put(value, sharding) if commit else jnp.asarray(value))


_own = jax.jit(jnp.copy)


def is_abstract(x: Any) -> bool:
    """Whether there are a shape and a dtype only."""
    return isinstance(x, jax.ShapeDtypeStruct)


def is_key(x: Any) -> bool:
    """Whether it is an array of typed random keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_key(data: jax.Array, like: Any) -> jax.Array:
    implementation = []
    jax.eval_shape(lambda key: implementation.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(data, impl=implementation[0])
