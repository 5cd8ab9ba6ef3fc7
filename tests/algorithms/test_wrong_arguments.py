"""Arguments that optimizers and transformations refuse, by name."""

from __future__ import annotations

import re

import pytest

import jopt
from tests.public import public


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("cautious(0.1)", TypeError, "cautious: inner is 0.1, not a transformation"),
        ("cautious(adam)", TypeError, r"It is a function: call it, adam\("),
        ("gradient_sign(None)", TypeError, "gradient_sign: inner is None"),
        ("cautious(sgd(0.1), 'lion')", ValueError, "normalizer must be one of 'mean'"),
        ("cautious(sgd(0.1), descent=1)", TypeError, "descent must be True or False"),
        ("cautious_weight_decay(-1.0)", ValueError, "weight_decay must be >= 0"),
        ("independent_weight_decay(0.1, 0.0)", ValueError, "peak_rate must be > 0"),
        ("corrected_weight_decay(0.1, 0.1, 0.0)", ValueError, "peak_rate must be > 0"),
        ("corrected_weight_decay(0.1, -0.1, 0.1)", ValueError, "rate must be >= 0"),
        ("mars_adamw(0.1, gamma=-1.0)", ValueError, "gamma must be >= 0"),
        ("mars_lion(0.1, b1=1.0)", ValueError, r"b1 must be in \[0, 1\)"),
        ("mars_correction(max_norm=0.0)", ValueError, "max_norm must be > 0"),
        ("stable_adamw(0.1, eps=0.0)", ValueError, "eps must be > 0"),
        ("adam_atan2(0.1, b=0.0)", ValueError, "b must be > 0"),
        ("grams(0.1, b2=1.0)", ValueError, r"b2 must be in \[0, 1\)"),
        ("zclip(warmup_steps=0)", ValueError, "warmup_steps must be >= 1"),
        ("zclip(alpha=1.0)", ValueError, r"alpha must be in \[0, 1\)"),
        ("zclip(max_norm=-1.0)", ValueError, "max_norm must be > 0"),
        ("limit_norm_growth(0.0)", ValueError, "max_growth must be > 0"),
        ("grokfast_ma(0)", ValueError, "window_size must be >= 1"),
        ("grokfast_ma(2, 1.0, 'max')", ValueError, "filter_type must be one of"),
        ("grokfast_ema(lamb=-1.0)", ValueError, "lamb must be >= 0"),
    ],
)
def test_wrong_numbers_are_refused_by_name(
    call: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        eval(call, public(jopt))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("adafactor(0.1, 0)", "min_dim_size_to_factor must be >= 1"),
        ("adafactor(0.1, decay_rate=0.0)", "decay_rate must be > 0"),
        ("adafactor(0.1, decay_offset=-1)", "step_offset must be >= 0"),
        ("adafactor(0.1, eps=None)", "epsilon=None needs eps_mode='clamp'"),
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
