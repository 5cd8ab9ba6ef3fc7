"""What devices send each other in a step with a split state, as compiled.

XLA for the CPU has no reduce-scatter, so the compilers for an H100 and a TPU v5e are
asked, where they are installed; see tests/benchmarks/traffic.py.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.benchmarks import collectives, traffic


MATRICES = 4 * collectives.LAYERS * collectives.WIDTH**2  # bytes


@functools.cache
def measured(compiler: str) -> dict[str, Any]:
    if not traffic.installed(compiler):
        pytest.skip(f"{traffic.COMPILERS[compiler].module} is not installed")
    return collectives.measured(compiler)


@pytest.mark.parametrize("compiler", ["H100", "v5e"])
@pytest.mark.parametrize("name", ["zero1(adamw)", "zero1(clip, adamw)"])
def test_gradients_are_scattered_and_never_summed_on_all_devices(
    name: str, compiler: str
) -> None:
    found, replicated = measured(compiler)[name], measured(compiler)["adamw"]
    assert replicated["all-reduce"] > 0
    assert "all-reduce" not in found
    assert found["reduce-scatter"] > 0
    assert found["all-gather"] == collectives.LAYERS  # of the updates
    assert found["params"] == ["P()"]
    # Two moments, of which seven eighths are elsewhere.
    saved = replicated["arguments"] - found["arguments"]
    assert saved == pytest.approx(2 * MATRICES * 7 / 8, rel=1e-3)


@pytest.mark.parametrize("compiler", ["H100", "v5e"])
def test_muon_takes_two_exchanges_more_where_it_spreads_its_matrices(
    compiler: str,
) -> None:
    found = measured(compiler)["zero1(muon spread)"]
    assert found["all-to-all"] == 2
    assert found["all-gather"] == collectives.LAYERS  # of the updates
    assert "all-reduce" not in found
    whole = measured(compiler)["zero1(muon)"]  # the momentum stays whole
    assert "all-gather" not in whole
    saved = whole["arguments"] - found["arguments"]
    assert saved == pytest.approx(MATRICES * 7 / 8, rel=1e-3)


def test_soap_takes_two_exchanges_more_and_as_many_to_renew_its_bases() -> None:
    found = measured("H100")["zero1(soap spread)"]
    assert found["all-to-all"] == 2 + 2 + 2  # each step; the first; one that renews
    assert found["all-gather"] == collectives.LAYERS  # of the updates
    assert "all-reduce" not in found


MODULE = """HloModule step

%fused_reduce-scatter (p: f32[1024,1024]) -> f32[128,1024] {
  %a = f32[1024,1024]{1,0} all-reduce(%p), to_apply=%add
  ROOT %s = f32[128,1024]{1,0} dynamic-slice(%a, %i, %z)
}

%step.1 (p: f32[128,1024]) -> f32[1024,1024] {
  ROOT %g = f32[1024,1024]{1,0} all-gather(%p), channel_id=7, dimensions={0}
}

%step.2 (p: f32[128,1024]) -> f32[1024,1024] {
  ROOT %g = f32[1024,1024]{1,0} all-gather(%p), channel_id=7, dimensions={0}
}

ENTRY %main (p: f32[1024,1024], b: f32[]) -> f32[1024,1024] {
  %n = f32[] all-reduce(%b), to_apply=%add
  %f = f32[128,1024]{1,0} fusion(%p), calls=%fused_reduce-scatter
  %g = (f32[128,1024], f32[1024,1024]) all-gather-start(%f), channel_id=8
  ROOT %d = f32[1024,1024]{1,0} all-gather-done(%g)
}
"""


def test_large_exchanges_are_counted_by_kind_and_their_steps_once() -> None:
    assert collectives.counts(MODULE) == {"reduce-scatter": 1, "all-gather": 2}
