"""Formats: how an array of the state is kept in fewer bytes than float32.

A format is given where a dtype is given (``nu_dtype="int8"``). It decodes a stored
array to float32 and encodes the new one, in the kernel of a leaf. An average with decay
0.999 changes by 0.1 % of itself in a step, less than the distance between two codes.
Rounded to nearest it moves only where a square is several times the average: of normal
gradients it ends 1.30 times too large in bfloat16, and 1.37 times in int8. Rounded at
random its mean is right within 1 %, so all formats do so, by the bits of
`rounding.random_bits`.

`Rounded` is one array, bfloat16. `Blocks` are codes of 8 or 4 bits and a float32 scale
for each block along the last axis, the largest magnitude in it. Codes have the shape of
the parameter, so they are sharded as it is, and blocks of 256 need no communication.
float8 spans as many powers of two as a whole row needs, and one scale for a row is what
XLA for the TPU can compute without writing it to memory for every element.

What decides is not the error of a number but that of an update, m / sqrt(v). If v is
kept as zero where m is not, the update is m / eps ("the zero point", Li, Chen & Zhu,
"Memory efficient optimizers with 4-bit states", 2023). So a slot that updates are
divided by has no code for zero, and the root of its smallest number is as far below the
largest as the smallest m: 1e-4 in int8. An m that is rounded up from nothing then meets
a v of its size, never one that is far smaller. Codes of integers are powers,

    int8   m = ((k + 13) / 140)^4, k = 1 … 127, a sign, and zero
           v = ((k + 118) / 373)^16, k = 0 … 255
    int4   m = (k / 7)^2, k = 1 … 7, a sign, and zero
           v = ((k + 4) / 19)^4, k = 0 … 15

which need square roots only. The neighbours of a large m are 3 % apart and those of v
4 %, the smallest 28 % and 14 %. Squares and fourth powers have a finer top and a
coarser end: elements that are small in their block got updates 4 times too large.

Dettmers et al., "8-bit optimizers via block-wise quantization", 2021 (blocks).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt.storage.blocks import block_count, largest, spread
from jopt.storage.rounding import stochastic_bfloat16
from jopt.tree.like import spread_like


Shape = tuple[int, ...]

# Arrays with fewer elements, or a shorter last axis, are kept as they are: blocks would
# save nothing that counts.
LEAST_SIZE, LEAST_LENGTH = 4096, 32
WHOLE = 2**31  # the size of blocks that are whole rows
_TINY = float(np.finfo(np.float32).tiny)


class Encoded(NamedTuple):
    """An array in blocks, or a tree of such arrays.

    Attributes:
      codes: Like the parameter. An array that is not worth encoding is here as it is.
      scales: float32, with one number for each block along the last axis; None for an
        array that is not encoded.
    """

    codes: Any
    scales: Any


def is_encoded(x: Any) -> bool:
    """Whether a value is one array in blocks.

    >>> is_encoded(jnp.ones(2))
    False
    """
    return isinstance(x, Encoded)


class Rounded(NamedTuple):
    """bfloat16 with stochastic rounding."""

    name: str

    def shapes(self, shape: Shape) -> Any:
        """The shapes of what is stored for an array of this shape."""
        return shape

    def start(self, like: jax.Array, fill: float, dtype: Any) -> Any:
        """What is stored for an array of ``fill``, shaped and sharded like another."""
        del dtype
        return spread_like(jnp.full_like(like, fill, dtype=jnp.bfloat16), like)

    def decode(self, stored: jax.Array) -> jax.Array:
        """The array in float32."""
        return stored.astype(jnp.float32)

    def encode(self, x: jax.Array, stored: Any, bits: jax.Array | None) -> Any:
        """What to store for a new array in the place of the old one.

        Without random bits it is rounded to nearest.
        """
        del stored
        x = x.astype(jnp.float32)
        return x.astype(jnp.bfloat16) if bits is None else stochastic_bfloat16(x, bits)


class Blocks(NamedTuple):
    """Codes, and a scale for each block along the last axis."""

    name: str
    dtype: Any
    size: int
    code: Code

    def holds(self, shape: Shape) -> bool:
        """Whether an array of this shape is encoded."""
        return math.prod(shape) >= LEAST_SIZE and shape[-1] >= LEAST_LENGTH

    def shapes(self, shape: Shape) -> Encoded:
        """The shapes of what is stored for an array of this shape.

        Every axis of a stored array is the axis of the array at the same place: all of
        it, or in the last axis of the scales the number of its blocks.
        """
        if not self.holds(shape):
            return Encoded(shape, None)
        return Encoded(shape, (*shape[:-1], block_count(shape[-1], self.size)))

    def start(self, like: jax.Array, fill: float, dtype: Any) -> Encoded:
        """What is stored for an array of ``fill``, shaped and sharded like another.

        Nothing is encoded: XLA would do so for constants while it compiles.
        """
        if not self.holds(like.shape):
            x = jnp.full_like(like, fill, dtype=dtype)
            return Encoded(spread_like(x, like), None)
        code = self.code.largest if fill else 0
        codes = jnp.full_like(like, -code if fill < 0 else code, dtype=self.dtype)
        per_block = largest(jnp.real(like), self.size)
        scales = jnp.full_like(per_block, abs(fill), dtype=jnp.float32)
        return Encoded(spread_like(codes, like), spread_like(scales, per_block))

    def decode(self, stored: Encoded) -> jax.Array:
        """The array in float32."""
        if stored.scales is None:
            return stored.codes
        y = self.code.value(stored.codes.astype(jnp.float32))
        return y * spread(stored.scales, y, self.size)

    def encode(self, x: jax.Array, stored: Encoded, bits: jax.Array | None) -> Encoded:
        """What to store for a new array in the place of the old one."""
        if stored.scales is None:
            return Encoded(x.astype(stored.codes.dtype), None)
        x = x.astype(jnp.float32)
        scales = largest(x, self.size)
        # A NaN stays: it makes its block NaN.
        scales = jnp.where(scales < _TINY, 0.0, scales)
        factors = jnp.where(scales == 0, 0.0, 1 / scales)
        y = x * spread(factors, x, self.size)
        return Encoded(self.code.of(y, bits).astype(self.dtype), scales)


class Code(NamedTuple):
    """How numbers in [-1, 1], or [0, 1], are written as codes."""

    largest: float  # the code of 1
    value: Callable[[jax.Array], jax.Array]  # of a code, both as float32
    # The codes next to a number, the one nearer to zero first.
    neighbours: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    signed: bool

    def of(self, y: jax.Array, bits: jax.Array | None) -> jax.Array:
        """The codes of numbers, as float32; of the two next to a number, one at random.

        The probability is such that the expectation of the value is the number.
        """
        size = jnp.abs(y) if self.signed else y
        low, high = self.neighbours(size)
        at_low, at_high = self.value(low), self.value(high)
        share = (size - at_low) / (at_high - at_low)
        if bits is None:
            chosen = jnp.where(share > 0.5, high, low)
        else:
            chance = (bits >> 8).astype(jnp.float32) * np.float32(2**-24)
            chosen = jnp.where(chance < share, high, low)
        return jnp.where(y < 0, -chosen, chosen) if self.signed else chosen


def _powers(largest: int, signed: bool, doublings: int, first: int) -> Code:
    """Codes for powers of (k + first) / end: with a sign and zero, or without them.

    Args:
      largest: The largest k.
      signed: Whether there are numbers below zero, and zero.
      doublings: How often a number is squared.
      first: What is added to k, and to the largest k for the end.
    """
    end = np.float32(largest + first)

    def value(code):
        y = (jnp.abs(code) + first) * np.float32(1 / end)
        for _ in range(doublings):
            y = y * y
        if not signed:
            return y
        return jnp.where(code == 0, 0.0, jnp.where(code < 0, -y, y))

    def neighbours(y):
        for _ in range(doublings):
            y = jnp.sqrt(y)
        low = jnp.clip(jnp.floor(y * end) - first, 0, largest - 1)
        return low, low + 1

    return Code(largest, value, neighbours, signed)


def _e4m3(signed: bool) -> Code:
    """Codes are float8_e4m3fn, for numbers with a sign, or for roots without zero."""
    largest, least = 448.0, np.float32(2**-9)

    def value(code):
        x = code * np.float32(1 / largest)
        return x if signed else x * x

    def neighbours(y):
        x = (y if signed else jnp.sqrt(y)) * np.float32(largest)
        # The distance of the codes at x: an eighth of the power of two below x.
        power = lax.bitcast_convert_type(
            lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0x7F800000),
            jnp.float32,
        )
        step = jnp.maximum(power * np.float32(1 / 8), least)
        low = jnp.floor(x / step) * step
        low = jnp.clip(low, 0 if signed else least, largest - 32)
        return low, low + step

    return Code(largest, value, neighbours, signed)


def named(name: str, positive: bool) -> Rounded | Blocks | None:
    """The format with a name; None if it is the name of a dtype.

    Args:
      name: What `values.arguments.storage_dtype` returned.
      positive: Whether updates are divided by the array: then it has no number below
        zero, and must not become zero.

    >>> named("int8", positive=True).shapes((4096, 1000))
    Encoded(codes=(4096, 1000), scales=(4096, 4))
    """
    return _FORMATS.get((name, positive))


def _formats() -> dict[tuple[str, bool], Rounded | Blocks]:
    formats: dict[tuple[str, bool], Rounded | Blocks] = {}
    for positive in (False, True):
        signed = not positive
        for made in (
            Rounded("bfloat16_sr"),
            Blocks("float8_e4m3", jnp.float8_e4m3fn, WHOLE, _e4m3(signed)),
            Blocks(
                "int8",
                jnp.int8 if signed else jnp.uint8,
                256,
                _powers(127, True, 2, 13) if signed else _powers(255, False, 4, 118),
            ),
            Blocks(
                "int4",
                jnp.int4 if signed else jnp.uint4,
                128,
                _powers(7, True, 1, 0) if signed else _powers(15, False, 2, 4),
            ),
        ):
            formats[made.name, positive] = made
    return formats


_FORMATS = _formats()
BLOCKS = {name for name, _ in _FORMATS if isinstance(_FORMATS[name, True], Blocks)}
