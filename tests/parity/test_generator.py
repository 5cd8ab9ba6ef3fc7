"""A new row gets golden numbers in a file of its own, and nothing else changes."""

import numpy as np
import pytest

from tests.parity import numbers
from tests.parity.row import WIDTHS, optax
from tests.tools import parity


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of golden numbers."""
    monkeypatch.setattr(numbers, "GOLDEN", tmp_path)
    numbers.golden.cache_clear()
    yield tmp_path
    numbers.golden.cache_clear()


def test_the_rows_of_a_file_that_are_not_recorded_are_recorded(folder, monkeypatch):
    old, new = optax("old", "sgd(0.1)"), optax("new", "sgd(0.5)", leaves=("kernel",))
    np.savez(
        folder / "others.npz",
        **{"optax.rows": [old.recipe]},
        **{f"optax.{width}": np.zeros((1, 20, 16), width) for width in WIDTHS},
    )
    monkeypatch.setattr(parity, "GROUPS", {"mine": (old, new)})
    with pytest.raises(LookupError, match=r"python -m tests\.tools\.parity"):
        numbers.recorded(new, "float32")
    assert parity.record("mine") == folder / "mine.npz"
    assert parity.record("mine") is None
    for width in WIDTHS:
        assert not np.any(numbers.recorded(old, width))
        actual, expected = numbers.both(new, width)
        numbers.assert_same(actual, expected, new, width)
    with np.load(folder / "mine.npz") as file:
        assert file["optax.rows"].tolist() == [new.recipe]
        assert "optax" in file["optax.versions"][0]


def test_a_row_in_two_golden_files_is_an_error(folder):
    row = optax("row", "sgd(0.1)")
    for name in ("a", "b"):
        np.savez(
            folder / f"{name}.npz",
            **{"optax.rows": [row.recipe]},
            **{f"optax.{width}": np.zeros((1, 20, 16), width) for width in WIDTHS},
        )
    with pytest.raises(ValueError, match="a second time"):
        numbers.recorded(row, "float32")
