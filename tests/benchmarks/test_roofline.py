"""What a compiled step may move and keep: the floor of each recipe, and nothing more.

For a CPU always; for an H100 and a TPU v5e where their compilers are installed (see
traffic.py), which need no such device. Nothing is run, and no clock is read.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.benchmarks import traffic
from tests.benchmarks.recipes import FORMATS, RECIPES, fused, of_jopt


KEPT = 0.05  # bytes per parameter: a few numbers for each block of rows
RARE = 8  # where the squares of a norm overflow, its array is read twice more
ADDED = 12  # a gradient and the sum in, the sum out: what is not in a loop
# What misses it, and why. A miss that is mended fails here until it is taken out.
LOOP = "the last gradient is added to the sum first; the step then reads and resets it"
NORM = "the update is written, because its norm has to be known before it is applied"
COLUMNS = "XLA:GPU sums columns in 64 parts, each a row in memory"
MISSES = {
    "CPU": {"lamb": NORM},
    "H100": {
        **dict.fromkeys(["adafactor", "adafactor, unscaled"], COLUMNS),
        "accumulate+adamw": LOOP,
    },
    "v5e": {
        "accumulate+adamw": LOOP,
        "adadelta": "XLA:TPU writes the update, which two outputs need",
    },
}


def recipes(compiler: str) -> list[Any]:
    """Those with a floor."""
    misses = MISSES[compiler]
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.xfail(
                    strict=True, raises=AssertionError, reason=misses[name]
                )
            ]
            if name in misses
            else [],
        )
        for name, recipe in RECIPES.items()
        if recipe.floor
    ]


@pytest.mark.parametrize("name", recipes("CPU"))
def test_on_a_cpu_a_step_works_in_the_memory_that_it_is_given(name: str) -> None:
    tx = of_jopt(RECIPES[name])
    facts = traffic.facts(fused(tx), tx, 1024)
    assert facts.temporary <= KEPT
    assert facts.copied == 0


@functools.cache
def measured(compiler: str) -> dict[str, Any]:
    if not traffic.installed(compiler):
        pytest.skip(f"{traffic.COMPILERS[compiler].module} is not installed")
    return traffic.measured(compiler, "jopt")


def check(compiler: str, name: str) -> None:
    facts = traffic.Facts(**measured(compiler)[name]["jopt"])
    recipe = RECIPES[name]
    whole = recipe.last or recipe.floor
    assert facts.moved <= 1.05 * (ADDED if recipe.last else whole)
    assert facts.moved + facts.perhaps <= 1.05 * whole + RARE
    assert facts.temporary <= KEPT
    assert facts.copied == 0


@pytest.mark.parametrize("name", recipes("H100"))
def test_on_an_h100_a_step_moves_what_it_must(name: str) -> None:
    check("H100", name)


@pytest.mark.parametrize("name", recipes("v5e"))
def test_on_a_tpu_a_step_moves_what_it_must(name: str) -> None:
    check("v5e", name)


# What is scaled by the largest of a block is computed once for that, and once more.
AGAIN = {"H100": {"float8_e4m3", "int8"}, "v5e": {"float8_e4m3"}}


@functools.cache
def measured_formats(compiler: str) -> dict[str, Any]:
    if not traffic.installed(compiler):
        pytest.skip(f"{traffic.COMPILERS[compiler].module} is not installed")
    return traffic.measured(compiler, "formats")


@pytest.mark.parametrize("compiler", ["H100", "v5e"])
@pytest.mark.parametrize("name", FORMATS)
def test_state_in_few_bytes_moves_few_bytes(compiler: str, name: str) -> None:
    facts = traffic.Facts(**measured_formats(compiler)[name]["jopt"])
    again = 10 if name in AGAIN[compiler] else 0
    assert facts.moved <= 1.05 * FORMATS[name].floor + again
    assert facts.temporary <= 0.1
    assert facts.copied == 0


# For ZeRO-1 also: whole gradient and parameter are read, and their parts written; the
# updates of all are received, and added. An update on the chip costs nothing.
OF_PARTS = {"FSDP": 16.06, "ZeRO-1": 12.06 + 2 * (4 * 4 + 4) + 4 * (4 + 12)}


@pytest.mark.parametrize("name", OF_PARTS)
def test_int8_on_four_tpus_moves_few_bytes(name: str) -> None:
    facts = traffic.Facts(**measured_formats("v5e")[name]["jopt"])
    assert facts.moved <= 1.05 * OF_PARTS[name]
    assert facts.temporary <= (16.1 if name == "ZeRO-1" else 0.1)


def test_bfloat16_at_random_is_in_place_on_a_cpu() -> None:
    tx = of_jopt(FORMATS["bfloat16_sr"])
    facts = traffic.facts(fused(tx), tx, 1024)
    assert facts.temporary <= KEPT
    assert facts.copied == 0


def test_a_name_of_a_miss_is_that_of_a_recipe() -> None:
    assert {name for misses in MISSES.values() for name in misses} <= set(RECIPES)


MODULE = """HloModule step, input_output_alias={ {0}: (0, {}, may-alias) }

%inside (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %exp = f32[8]{0} exponential(%p)
}

%wide (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %e = f32[8]{0} fusion(%p), kind=kLoop, calls=%inside
  ROOT %f = f32[8]{0} fusion(%e, %p), kind=kLoop, calls=%inside
}

ENTRY %main (a: f32[8], b: pred[]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = pred[] parameter(1)
  %c = f32[8]{0:S(1)} copy(%a)
  %d = f32[8]{0} fusion(%c, %a), kind=kLoop, calls=%inside
  ROOT %e = f32[8]{0} conditional(%b, %d, %d), true_computation=%inside, \
false_computation=%wide, metadata={op_name="%a"}
}
"""


def test_bytes_of_the_most_expensive_branch_are_counted_apart() -> None:
    copy, fusion = 32, 32 + 32  # an operand that is on the chip costs nothing
    branch = (32 + 32) + (32 + 32 + 32)
    assert traffic.traffic(MODULE) == (copy + fusion, branch)
