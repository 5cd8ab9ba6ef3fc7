"""What a device holds of a tree."""

from __future__ import annotations

import math
from typing import Any

import jax


def bytes_per_device(types: Any, shardings: Any) -> int:
    """What a device holds, by the shardings."""
    return sum(
        math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize
        for x, s in zip(jax.tree.leaves(types), jax.tree.leaves(shardings), strict=True)
    )


def measured(tree: Any) -> int:
    """What the first device holds."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
