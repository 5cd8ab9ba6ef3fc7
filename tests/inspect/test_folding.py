"""Equal layers are one row, and a row stands for nothing that is not there."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jopt.inspect.folding import folded


def rows(paths: list[str]) -> list[str]:
    return [row.path for row in folded(paths, [0] * len(paths))]


@pytest.mark.parametrize(
    "paths, expected",
    [
        (["h/0/w", "h/1/w", "h/10/w"], ["h[0..1,10]/w"]),
        (["layers/0/w", "layers/1/w"], ["layers[0..1]/w"]),
        (["Dense_0/kernel", "Dense_1/kernel"], ["Dense_[0..1]/kernel"]),
        (["h_0/a", "h_0/b", "h_1/a", "h_1/b"], ["h_[0..1]/a", "h_[0..1]/b"]),
        (["0/w", "1/w"], ["[0..1]/w"]),
        (["h/0", "h/1"], ["h[0..1]"]),
        (["h0/ln1", "h0/ln2", "h1/ln1", "h1/ln2"], ["h[0..1]/ln[1..2]"]),
        (["h0/ln1", "h0/ln2", "h1/ln1"], ["h[0..1]/ln1", "h0/ln2"]),
        (["x01/w", "x1/w"], ["x01/w", "x1/w"]),
        (["w"], ["w"]),
        ([""], [""]),
    ],
)
def test_paths_fold(paths: list[str], expected: list[str]) -> None:
    assert rows(paths) == expected


def test_different_leaves_do_not_fold() -> None:
    paths = ["h/0/w", "h/1/w", "h/2/w"]
    assert [r.path for r in folded(paths, ["a", "b", "a"])] == ["h[0,2]/w", "h/1/w"]


def unfolded(path: str) -> list[str]:
    """All paths that a row stands for."""
    parts = re.split(r"\[([^]]*)\]", path)
    choices = []
    for numbers in parts[1::2]:
        ends = [x.split("..") for x in numbers.split(",")]
        choices.append([n for x in ends for n in range(int(x[0]), int(x[-1]) + 1)])
    return [
        "".join(itertools.chain(*zip(parts[::2], [*map(str, chosen), ""], strict=True)))
        for chosen in itertools.product(*choices)
    ]


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1))
def test_rows_stand_for_exactly_the_leaves(numbers: set[tuple[int, int]]) -> None:
    paths = [f"h_{i}/ln_{j}/w" for i, j in numbers]
    result = folded(paths, [0] * len(paths))
    assert sorted(x for row in result for x in unfolded(row.path)) == sorted(paths)
    for row in result:
        assert sorted(unfolded(row.path)) == sorted(paths[i] for i in row.members)
