"""Leaves of one kind, which one call serves together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from jax.core import Tracer

from jopt.tree.row_sparse import is_rows


T = TypeVar("T")

# A call for more leaves saves little more.
MOST = 16


def kind(first: Any, *others: Any) -> Hashable:
    """What one compiled call for several leaves depends on.

    Args:
      first: An array of one leaf.
      *others: Its other arrays, in any structure.

    Returns:
      Equal values for leaves that one call may serve. A row-sparse leaf is like no
      other, and outside a trace no leaf is: there a call for several leaves compiles
      more and is not faster.

    >>> kinds = []
    >>> f = jax.jit(lambda x, y, z: kinds.extend([kind(x), kind(y), kind(z)]))
    >>> f(jax.numpy.ones(2), jax.numpy.zeros(2), 1.0)
    >>> kinds[0] == kinds[1], kinds[0] == kinds[2]
    (True, False)
    """
    if not isinstance(first, Tracer):
        return object()
    leaves, treedef = jax.tree.flatten(others, is_leaf=is_rows)
    if not all(isinstance(x, Tracer) for x in leaves):
        return object()
    return treedef, tuple(map(jax.typeof, (first, *leaves)))


def together(alike: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield parts of at most 16 leaves.

    >>> [len(part) for part in together(range(40))]
    [16, 16, 8]
    """
    return (alike[i : i + MOST] for i in range(0, len(alike), MOST))
