"""The laws hold for an optimizer of one's own, the one of `15_write_your_own.py`."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.laws import test_laws
from tests.laws.case import Case


EXAMPLE = Path(__file__).parents[2] / "examples" / "15_write_your_own.py"


def power_sign(
    p: np.ndarray,
    grads: list[np.ndarray],
    *,
    learning_rate: float,
    strength: float = 1.0,
    b1: float = 0.9,
) -> Iterator[np.ndarray]:
    """Bello et al., 2017, "Neural optimizer search with reinforcement learning"."""
    m = np.zeros_like(p)
    for g in grads:
        m = b1 * m + (1 - b1) * g
        p = p - learning_rate * np.exp(strength * np.sign(g) * np.sign(m)) * g
        yield p


def laws() -> Iterator[Any]:
    """Every law with every combination of its other parameters."""
    for name, law in vars(test_laws).items():
        if (
            not name.startswith("test_")
            or "case" not in inspect.signature(law).parameters
        ):
            continue
        others = [mark.args for mark in law.pytestmark if mark.args[0] != "case"]
        for values in itertools.product(*(values for _, values in others)):
            arguments = dict(zip((name for name, _ in others), values, strict=True))
            yield pytest.param(law, arguments, id="-".join([name, *map(str, values)]))


@pytest.fixture(scope="module")
def case() -> Case:
    spec = importlib.util.spec_from_file_location("write_your_own", EXAMPLE)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])  # which registers power_sign
    return Case("power_sign", {"b1": 0.8}, twin=power_sign, rate_for_descent=0.02)


@pytest.mark.parametrize(("law", "arguments"), list(laws()))
def test_the_law_holds(
    law: Callable[..., None], arguments: dict[str, Any], case: Case, tmp_path: Path
) -> None:
    if "tmp_path" in inspect.signature(law).parameters:
        arguments = arguments | {"tmp_path": tmp_path}
    law(case, **arguments)
