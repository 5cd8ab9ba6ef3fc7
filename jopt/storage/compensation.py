"""What a 16-bit array lacks of a float32 one, kept in 8, 16 or 32 bits beside it.

    wide = narrow + error,    |error| <= half of the distance to the next narrow number

As a float, an error has the precision of its dtype: this is the compensation of Kahan's
sum. As an integer it counts parts of its largest value, ``half a distance / 127`` in 8
bits, which follows from the narrow number: no scale is kept. 8 bits then give 16
significant bits of the wide number, and 16 bits all 24.

Compilers for GPUs and TPUs leave out a cast to bfloat16 and back, to keep digits, which
makes ``x - float32(bfloat16(x))`` zero. They never leave out `lax.reduce_precision`,
which rounds a float32 to the digits of another dtype: that is how everything is rounded
here.

Zamirai et al., "Revisiting bfloat16 training", 2020 (Kahan); "FlashOptim", 2026
(integers).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jopt.storage.blocks import current_tile
from jopt.storage.rounding import stochastic_bfloat16
from jopt.tree.row_sparse import is_rows


NARROW = (jnp.bfloat16, jnp.float16)


def is_narrow(x: Any) -> bool:
    """Whether an array or shape has 16 bits.

    >>> is_narrow(jnp.ones(1, jnp.bfloat16)), is_narrow(1.0)
    (True, False)
    """
    return getattr(x, "dtype", None) in NARROW


def widened(x: Any) -> Any:
    """A leaf of 16 bits in float32; any other as it is.

    >>> widened(jnp.ones(1, jnp.bfloat16))
    Array([1.], dtype=float32)
    """
    if is_rows(x):
        return x.with_rows(widened(x.rows))
    if not is_narrow(x):
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(dtype=jnp.dtype("float32"))
    return x.astype(jnp.float32)


def rounded(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Round float32 to the nearest number of a narrower dtype; the result is float32.

    Args:
      x: An array of float32.
      dtype: ``"bfloat16"`` or ``"float16"``.

    >>> x = jnp.float32(1.001)
    >>> rounded(x, "bfloat16"), rounded(x, "float16")
    (Array(1., dtype=float32), Array(1.0009766, dtype=float32))
    """
    if current_tile().in_pallas:
        return _rounded_bits(x)
    info = jnp.finfo(dtype)
    return lax.reduce_precision(x, info.nexp, info.nmant)


def _rounded_bits(x: jax.Array) -> jax.Array:
    """The nearest bfloat16, by whole numbers: Pallas cannot reduce the precision."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    # Half of the lower part is added; if that is the middle, it carries to an even one.
    odd = (bits >> 16) & 1
    nearest = (bits + 0x7FFF + odd) & np.int32(-0x10000)
    return jnp.where(x != x, x, lax.bitcast_convert_type(nearest, jnp.float32))


def with_error(narrow: jax.Array, error: jax.Array | None) -> jax.Array:
    """Return the float32 numbers that narrow ones and their errors stand for.

    Args:
      narrow: An array of bfloat16 or float16.
      error: What it lacks, from `error_of`; None means nothing.

    >>> x, narrow = jnp.float32(1.001), jnp.bfloat16(1.0)
    >>> with_error(narrow, error_of(x, narrow, "int8"))
    Array(1.0010151, dtype=float32)
    """
    wide = narrow.astype(jnp.float32)
    if error is None:
        return wide
    if jnp.issubdtype(error.dtype, jnp.floating):
        return wide + error.astype(jnp.float32)
    # In two steps: half a distance may be less than the least normal float32.
    halves = error.astype(jnp.float32) * (1 / _LARGEST[error.dtype.name])
    half = 0.5 ** (jnp.finfo(narrow.dtype).nmant + 1)
    return wide + halves * half * _power(wide, narrow.dtype, halves < 0)


def error_of(wide: jax.Array, narrow: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return what a narrow array lacks of a wide one.

    Args:
      wide: An array of float32.
      narrow: The narrow array, of bfloat16 or float16.
      dtype: How to keep it: ``"int8"``, ``"int16"``, ``"bfloat16"`` or ``"float32"``.

    >>> error_of(jnp.float32(1.001), jnp.bfloat16(1.0), "int8")
    Array(33, dtype=int8)
    """
    error = wide - narrow.astype(jnp.float32)
    if dtype == jnp.float32:
        return error
    if jnp.issubdtype(dtype, jnp.floating):
        return rounded(error, dtype).astype(dtype)
    power = _power(narrow.astype(jnp.float32), narrow.dtype, error < 0)
    info = jnp.iinfo(dtype)
    bits = lax.bitcast_convert_type(power, jnp.int32)
    twice_inverse = lax.bitcast_convert_type(_INFINITY - bits, jnp.float32)
    halves = error * 2.0 ** jnp.finfo(narrow.dtype).nmant * twice_inverse
    parts = jnp.round(halves * _LARGEST[jnp.dtype(dtype).name])
    # An infinite parameter has no error.
    parts = jnp.where(jnp.isnan(parts), 0, jnp.clip(parts, info.min, info.max))
    return parts.astype(dtype)


def landed(
    u: jax.Array,
    narrow: jax.Array,
    error: jax.Array | None,
    wide: jax.Array,
    bits: jax.Array | None,
) -> tuple[jax.Array, jax.Array | None]:
    """Return the update that leads to a narrow number, and what is lacking there.

    Args:
      u: What to add to the wide array.
      narrow: The array now, of bfloat16 or float16.
      error: What it lacks, or None.
      wide: What both stand for, from `with_error`.
      bits: Random bits, to round at random; None rounds to nearest.

    >>> p = jnp.bfloat16(1.0)
    >>> landed(jnp.float32(0.005), p, jnp.int8(0), jnp.float32(1), None)
    (Array(0.0078125, dtype=float32), Array(-91, dtype=int8))
    """
    new, old = wide + u.astype(jnp.float32), narrow.astype(jnp.float32)
    target = rounded(new, narrow.dtype)
    if bits is not None:
        target = stochastic_bfloat16(new, bits).astype(jnp.float32)
    # A parameter in the middle of two numbers stays at its own if it does not move.
    stays = new == wide
    # -0.0 is the number that changes no other: 0.0 would make 0.0 of -0.0.
    step = jnp.where(stays, -0.0, target - old)
    if error is None:
        return step, None
    # The difference of a large and a tiny number is rounded, and may not lead to the
    # target; so what is kept is counted from where it leads.
    there = rounded(old + step, narrow.dtype).astype(narrow.dtype)
    return step, jnp.where(stays, error, error_of(new, there, error.dtype))


_INFINITY = 0x7F800000  # as bits: all bits of the exponent
# How many units half a distance has. 2**15 of them are float32's own last digits.
_LARGEST = {"int8": 127.0, "int16": 2.0**15}


def _power(wide: jax.Array, dtype: DTypeLike, down: jax.Array) -> jax.Array:
    """The power of 2 below the numbers between ``wide`` and its neighbour.

    Args:
      wide: Narrow numbers, in float32.
      dtype: Their narrow dtype.
      down: Whether the neighbour is the lower one. The one on the side of 0 of a power
        of 2 is half as far away.
    """
    bits = lax.bitcast_convert_type(wide, jnp.int32) & _INFINITY
    power = lax.bitcast_convert_type(bits, jnp.float32)
    closer = (jnp.abs(wide) == power) & (down != (wide < 0))
    power = jnp.where(closer, 0.5 * power, power)
    # Below normal numbers, all distances are equal.
    return jnp.clip(power, float(jnp.finfo(dtype).tiny), 2.0**127)
