"""What compilers make of `bf16_params`: its rounding stays, and nothing else moves.

For a CPU always; for an H100 and a TPU v5e where their compilers are installed.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from jopt.wrappers.narrow_params import KEPT
from tests.benchmarks import narrow, traffic


WITH_ERROR = [kind for kind, kept in KEPT.items() if kept]


def check_rounding(facts: dict[str, float]) -> None:
    # To the target, and to where the update leads.
    assert facts["rounded"] >= 2
    assert facts["nothing"] == 0


@pytest.mark.parametrize("kind", WITH_ERROR)
def test_on_a_cpu_the_rounding_stays(kind: str) -> None:
    check_rounding(narrow.facts(kind, "CPU", 128, 128))


@pytest.mark.parametrize("kind", KEPT)
def test_on_a_cpu_a_step_copies_the_error_and_nothing_else(kind: str) -> None:
    copied = (narrow.floor(kind) - narrow.FLOOR) / 2
    assert narrow.facts(kind, "CPU", 512, 512)["temporary"] <= copied + 0.01


@functools.cache
def measured(compiler: str) -> dict[str, Any]:
    if not traffic.installed(compiler):
        pytest.skip(f"{traffic.COMPILERS[compiler].module} is not installed")
    return narrow.measured(compiler)


@pytest.mark.parametrize("kind", WITH_ERROR)
@pytest.mark.parametrize("compiler", ["H100", "v5e"])
def test_on_an_accelerator_the_rounding_stays(compiler: str, kind: str) -> None:
    check_rounding(measured(compiler)[f"{kind}, by XLA"])


def test_on_an_h100_casts_alone_would_be_left_out() -> None:
    assert measured("H100")["casts"] == 1


@pytest.mark.parametrize("kind", KEPT)
def test_on_an_h100_a_step_moves_what_it_must(kind: str) -> None:
    facts = measured("H100")[kind]
    assert facts["moved"] <= 1.05 * narrow.floor(kind)
    assert facts["temporary"] <= 0.05


@pytest.mark.parametrize("kind", KEPT)
def test_on_a_tpu_a_step_moves_what_it_must(kind: str) -> None:
    facts = measured("v5e")[kind]
    assert facts["moved"] <= 1.05 * narrow.floor(kind)
    assert facts["temporary"] <= 0.05
