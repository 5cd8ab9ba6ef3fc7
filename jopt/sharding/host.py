"""The state in the host's memory, from where a step fetches it and puts it back."""

from __future__ import annotations

import math
from typing import Any

import jax

from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.transformation import GradientTransformation
from jopt.sharding.derivation import LEAST_SIZE


@transformation
def on_host(inner: GradientTransformation) -> GradientTransformation:
    """Keep the state in the host's memory; an update is computed on the device.

    The arrays of 4,096 or more elements are in pinned memory of the host between two
    steps. They keep their shardings, and the numbers are those of ``inner``. A step
    needs memory for all of the state on the device, unless it is a ``lax.scan`` over
    stacked layers with an update in its body: then for a few layers only.

    Args:
      inner: A transformation. Where `zero1` is one, it goes inside.

    Returns:
      A transformation. Under jit without ``out_shardings``, or with those of
      `state_shardings` with ``memory_kind="pinned_host"``.

    >>> import jax.numpy as jnp, jopt
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

    return GradientTransformation(
        init,
        update,
        children=inner.children,
        needs=inner.needs,
        state_class=inner.state_class,
        reach=inner.reach,
        readout=readout if has_readout(inner) else None,
        changing=inner.changing,
        gain=inner.gain,
        place=inner.place,
        treatment=inner.treatment,
    )


def fetched(state: Any) -> Any:
    """Return a state whose arrays are all in the device's memory.

    Those that are there already are not touched: to move an array to where it is makes
    a copy.

    Args:
      state: A state, under jit or not.

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
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
