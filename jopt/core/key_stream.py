"""Random keys in a state, as plain numbers that every checkpoint format can hold."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


class KeyStream:
    """The sequence of keys of a transformation that draws random numbers.

    Args:
      key: A key of ``jax.random``, or the seed of one.

    Raises:
      ValueError: ``key`` holds more than one key.

    >>> stream = KeyStream(0)
    >>> data, keys = stream.split(stream.initial(), 2)
    >>> data.dtype, len(keys)
    (dtype('uint32'), 2)
    """

    def __init__(self, key: int | jax.Array):
        typed = jax.random.key(key) if isinstance(key, int) else key
        if not jnp.issubdtype(typed.dtype, jax.dtypes.prng_key):
            typed = jax.random.wrap_key_data(typed)
        if typed.shape:
            raise ValueError(f"key must be one key, got {len(typed)} of them")
        self._key, self._impl = typed, jax.random.key_impl(typed)

    def initial(self) -> jax.Array:
        """The numbers of the first key, in their own buffer."""
        return jnp.copy(jax.random.key_data(self._key))

    def split(self, data: jax.Array, n: int) -> tuple[jax.Array, Sequence[jax.Array]]:
        """The numbers to keep in the state, and ``n`` keys to use now."""
        key = jax.random.wrap_key_data(data, impl=self._impl)
        kept, *keys = jax.random.split(key, n + 1)
        return jax.random.key_data(kept), keys
