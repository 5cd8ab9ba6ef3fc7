"""Equal layers as one row: ``h[0..11]/attn/w`` for the twelve ``h/0/attn/w``, ….

Two leaves fold if they are equal in all but the numbers in their paths. A row stands
for all combinations of its numbers, so that nothing is in it that is not in the tree.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import NamedTuple


_NUMBER = re.compile(r"\d+")

Numbers = tuple[frozenset[int], ...]


class Row(NamedTuple):
    """Some leaves that are shown together."""

    path: str
    members: tuple[int, ...]  # their positions, in the tree's order


def template(path: str) -> str:
    """The path with its numbers left out, which equal layers have in common.

    >>> template("h_0/dense/kernel") == template("h_11/dense/kernel")
    True
    """
    return _NUMBER.sub("\0", path)


def folded(paths: Sequence[str], kinds: Sequence[Hashable]) -> list[Row]:
    """Group leaves of the same kind whose paths differ only in numbers.

    Args:
      paths: The path of each leaf.
      kinds: What has to be equal besides.

    Returns:
      The rows, in the order of their first leaves.

    >>> [row.path for row in folded(["h/0/w", "h/1/w", "h/2/w", "ln/w"], [0, 0, 1, 0])]
    ['h[0..1]/w', 'h/2/w', 'ln/w']
    """
    buckets: dict[tuple[str, Hashable], list[int]] = {}
    for i, (path, kind) in enumerate(zip(paths, kinds, strict=True)):
        buckets.setdefault((template(path), kind), []).append(i)
    rows = []
    for (pattern, _), members in buckets.items():
        by_numbers = {tuple(map(int, _NUMBER.findall(paths[i]))): i for i in members}
        # A number with leading zeros would be another path if it were written again.
        if len(members) == 1 or len(by_numbers) < len(members):
            rows += [Row(paths[i], (i,)) for i in members]
            continue
        for box, inside in _boxes(by_numbers):
            one = len(inside) == 1
            path = paths[inside[0]] if one else _shown(pattern, box)
            rows.append(Row(path, tuple(sorted(inside))))
    return sorted(rows, key=lambda row: row.members[0])


def _boxes(members: dict[tuple[int, ...], int]) -> list[tuple[Numbers, list[int]]]:
    """Join what differs in one position at a time; each result is a full product."""
    boxes: dict[Numbers, list[int]] = {
        tuple(frozenset({n}) for n in numbers): [i] for numbers, i in members.items()
    }
    for position in range(len(next(iter(members)))):
        joined: dict[Hashable, tuple[set[int], list[int], Numbers]] = {}
        for box, inside in boxes.items():
            rest = (*box[:position], *box[position + 1 :])
            numbers, all_inside, _ = joined.setdefault(rest, (set(), [], box))
            numbers |= box[position]
            all_inside += inside
        boxes = {
            (*box[:position], frozenset(numbers), *box[position + 1 :]): inside
            for numbers, inside, box in joined.values()
        }
    return list(boxes.items())


def _shown(pattern: str, box: Numbers) -> str:
    """The template with its numbers: ``layers/[0..3]`` is written ``layers[0..3]``."""
    first, *rest = pattern.split("\0")
    text = first
    for numbers, after in zip(box, rest, strict=True):
        several = len(numbers) > 1
        alone = text.endswith("/") and (after == "" or after.startswith("/"))
        if several and alone:
            text = text[:-1]
        text += (f"[{_ranges(sorted(numbers))}]" if several else str(*numbers)) + after
    return text


def _ranges(numbers: list[int]) -> str:
    """Numbers in ascending order as text: ``0..3,7``."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
