"""Put the arrays of a checkpoint into a state, on the devices of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from jopt import tree
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.tree.paths import by_name, difference
from jopt.tree.variables import without_variables


def assembled(
    tx: GradientTransformation,
    params: Params,
    template: OptState,
    values: Mapping[str, Any],
    fresh: set[str],
    given: Any = None,
) -> OptState:
    """Build a state from arrays, each with the sharding ``tx.init(params)`` gives it.

    Args:
      tx: The transformation.
      params: The parameters, or their shapes and shardings.
      template: The result of ``jax.eval_shape(tx.init, params)``.
      values: Arrays by path, with the template's shapes and dtypes.
      fresh: The paths of all other arrays, which come from ``init``.
      given: A tree of other shardings; None means those of ``tx.init(params)``.

    Raises:
      ValueError: ``fresh`` is not empty, and ``params`` has only shapes; or the given
        shardings are not like the state.
    """
    treedef = jax.tree.structure(template)
    like = jax.tree_util.tree_leaves_with_path(without_variables(template))
    positions = by_name((tree.path_name(path), i) for i, (path, _) in enumerate(like))
    leaves: list[Any] = [None] * len(like)
    if fresh:
        if abstract := [x for x in jax.tree.leaves(params) if is_abstract(x)]:
            raise ValueError(
                f"{min(fresh)!r} starts from init, which needs parameters with values, "
                f"got {abstract[0]}"
            )
        chosen = [positions[name] for name in fresh]
        # Under jit XLA computes only the chosen leaves, where the parameters are.
        initial = jax.jit(lambda p: [jax.tree.leaves(tx.init(p))[i] for i in chosen])
        for i, x in zip(chosen, initial(params), strict=True):
            leaves[i] = x
    devices = _devices(params)
    shardings: list[Any] = [jnp.zeros(()).sharding] * len(like)
    if given is not None:
        if jax.tree.structure(given) != treedef:
            where = difference("the state", template, "the shardings", given)
            raise ValueError(f"the shardings are not those of this state; {where}")
        shardings, devices = jax.tree.leaves(given), {None}
        leaves = [
            x if x is None else jax.device_put(x, where)
            for x, where in zip(leaves, shardings, strict=True)
        ]
    elif len(devices) == 1:
        shardings = [SingleDeviceSharding(*devices)] * len(like)
    elif devices:
        # Only the compiler knows how it shards slots that are not shaped like params.
        compiled = jax.jit(tx.init).lower(params).compile()
        shardings = jax.tree.leaves(compiled.output_shardings)
    for name, i in positions.items():
        if name in values:
            x = _placed(values[name], shardings[i], bool(devices))
            leaves[i] = _as_key(x, like[i][1]) if is_key(like[i][1]) else x
    return treedef.unflatten(leaves)


def _devices(params: Params) -> set[Any]:
    """Return the devices of committed parameters; the empty set if none is."""
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
    # device_put and asarray may share the buffer of their source, which then cannot be
    # donated.
    return _copy(jax.device_put(value, sharding) if commit else jnp.asarray(value))


_copy = jax.jit(jnp.copy)


def is_abstract(x: Any) -> bool:
    """Return whether ``x`` has only a shape and a dtype."""
    return isinstance(x, jax.ShapeDtypeStruct)


def is_key(x: Any) -> bool:
    """Return whether ``x`` is an array of typed random keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _as_key(data: jax.Array, like: Any) -> jax.Array:
    implementation = []
    # key_impl takes no ShapeDtypeStruct, but it takes a tracer.
    jax.eval_shape(lambda key: implementation.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(data, impl=implementation[0])
