"""The state in the host's memory, from where a step fetches it and puts it back."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jopt import tree
from jopt.core.apply import apply_updates
from jopt.core.around import in_place_of
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation, Updates
from jopt.sharding.derivation import LEAST_SIZE


P = TypeVar("P")
S = TypeVar("S")


@transformation
def on_host(inner: GradientTransformation) -> GradientTransformation:
    """Keep the state in the host's memory; an update is computed on the device.

    The arrays of 4,096 or more elements are in pinned memory of the host between two
    steps. They keep their shardings, and the numbers are those of ``inner``. A step
    needs memory for all of the state on the device; that of `step_layers` for a few
    layers.

    Args:
      inner: A transformation. Where `zero1` is one, it goes inside.

    Returns:
      A transformation. Where a compiled step donates its arguments, its
      ``out_shardings`` have to name the memories, as those of the arguments do, or
      `state_shardings` with ``memory_kind="pinned_host"``: JAX pairs donated arrays and
      results by their shapes otherwise. On a CPU do not donate the state: JAX aborts.

    >>> import jopt
    >>> tx, params = on_host(jopt.adam(1e-3)), jnp.ones((64, 64))
    >>> state = tx.init(params)
    >>> _, state = tx.update(params, state, params)
    >>> state["scale_by_adam"].mu.sharding.memory_kind
    'pinned_host'
    """
    inner = as_transformation(inner, "on_host: inner")

    def init(params):
        def put(x):
            if isinstance(x, jax.ShapeDtypeStruct) or math.prod(x.shape) < LEAST_SIZE:
                return x
            return jax.device_put(x, jax.memory.Space.Host)

        return jax.tree.map(put, inner.init(params))

    def update(updates, state, params=None, **extra):
        if params is not None:
            extra["params"] = params
        new, fresh = inner.update(updates, fetched(state), **extra)
        return new, put_back(fresh, state)

    def readout(state, params, name=None):
        return eval_params(inner, fetched(state), params, name=name)

    return in_place_of(inner, init, update, readout if has_readout(inner) else None)


def step_layers(tx: Any, grads: Updates, state: S, params: P) -> tuple[P, S]:
    """Take a step for each of stacked layers, one layer after the other.

    With `on_host`, the device holds the state of a few layers at a time. The arrays are
    updated in place, in a loop: XLA for the TPU cannot write the results of a
    ``lax.scan`` to the host's memory.

    Args:
      tx: A transformation. It sees one layer at a time: put what looks at all
        gradients, such as `clip_by_global_norm`, before this.
      grads: The gradients, whose first axis is that of the layers.
      state: The state of all layers, ``jax.vmap(tx.init)(params)``.
      params: The parameters, with the same first axis.

    Returns:
      The new ``(params, state)``.

    Raises:
      ValueError: The parameters differ in the number of layers.

    >>> import jopt
    >>> tx, params = on_host(jopt.adam(0.1)), {"w": jnp.ones((3, 64, 64))}
    >>> state = jax.vmap(tx.init)(params)
    >>> params, state = jax.jit(step_layers, static_argnums=0)(
    ...     tx, params, state, params
    ... )
    >>> params["w"][:, 0, 0], state["scale_by_adam"].count
    (Array([0.9, 0.9, 0.9], dtype=float32), Array([1, 1, 1], dtype=int32))
    """
    counts = {path: (*jnp.shape(x), 0)[0] for path, x in tree.leaves_with_names(params)}
    if len({*counts.values()}) != 1:
        raise ValueError(
            "step_layers: the first axis of every parameter must be that of the "
            f"layers, got lengths {counts}. Update other parameters apart from these"
        )
    count = next(iter(counts.values()))

    def one_layer(i, carry):
        def of_layer(x):
            return lax.dynamic_index_in_dim(x, i, keepdims=False)

        def put(whole, layer):
            return lax.dynamic_update_index_in_dim(whole, layer, i, 0)

        g, (p, old) = jax.tree.map(of_layer, (grads, carry))
        updates, new = tx.update(g, old, p)
        return jax.tree.map(put, carry, (apply_updates(p, updates), new))

    return lax.fori_loop(0, count, one_layer, (params, state))


def fetched(state: Any) -> Any:
    """Return a state whose arrays are all in the device's memory.

    Those that are there already are not touched: to move an array to where it is makes
    a copy.

    Args:
      state: A state, under jit or not.

    >>> fetched({"mu": jnp.ones(2)})
    {'mu': Array([1., 1.], dtype=float32)}
    """
    return jax.tree.map(
        lambda x: jax.device_put(x, jax.memory.Space.Device) if _is_on_host(x) else x,
        state,
    )


def put_back(new: Any, old: Any) -> Any:
    """Return a state whose arrays are in the memory in which an earlier one has them.

    Args:
      new: A state.
      old: A state of the same structure, such as the one before `fetched`.

    >>> old = jax.device_put(jnp.ones(2), jax.memory.Space.Host)
    >>> put_back(jnp.zeros(2), old).sharding.memory_kind
    'pinned_host'
    """
    return jax.tree.map(
        lambda x, y: jax.device_put(x, jax.memory.Space.Host) if _is_on_host(y) else x,
        new,
        old,
    )


def _is_on_host(x: Any) -> bool:
    return (
        isinstance(x, jax.Array) and jax.typeof(x).memory_space == jax.memory.Space.Host
    )
