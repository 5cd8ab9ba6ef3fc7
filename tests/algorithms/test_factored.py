"""Second moments that take little memory: what the laws and the parity do not say."""

from __future__ import annotations

import re

import pytest

import jopt
from tests.public import public


# Adafactor.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("adafactor(0.1, 0)", "min_dim_size_to_factor must be >= 1"),
        ("adafactor(0.1, decay_rate=0.0)", "decay_rate must be > 0"),
        ("adafactor(0.1, decay_offset=-1)", "step_offset must be >= 0"),
        ("adafactor(0.1, eps=None)", "epsilon=None is for eps_mode='clamp'"),
        ("adafactor(0.1, eps_mode='inside')", "eps_mode must be one of"),
        ("adafactor(0.1, factored_axes='all')", "factored_axes must be one of"),
        ("adafactor(0.1, clipping_threshold=0.0)", "clipping_threshold must be > 0"),
        ("came(0.1, eps2=0.0)", "eps2 must be > 0"),
        ("sm3(0.1, b2=1.5)", r"b2 must be in [0, 1], got b2=1.5"),
        ("adam_mini(0.1, head_dim=0)", "head_dim must be >= 1"),
        ("galore(0.1, rank=0)", "rank must be >= 1"),
        ("galore(0.1, side='left')", "side must be one of"),
        ("galore(0.1, base_optimizer=adamw(0.1))", "needs params, but it sees"),
    ],
)
def test_wrong_arguments_are_refused(call: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        eval(call, public(jopt))


# CAME and SM3.


# Adam-mini.


# GaLore.
