"""A state of another transformation is a clear error, in every wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jopt
from jopt.interop.keras.decay import decayed_first


PARAMS = {"kernel": jnp.ones((2, 2))}
ADAM = jopt.adam(0.1)
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "masked": lambda tx: jopt.masked(tx, True),
    "accumulate": lambda tx: jopt.accumulate(tx, 2),
    "skip_nonfinite": jopt.skip_nonfinite,
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 2),
    "skip_spikes": jopt.skip_spikes,
    "skip_spikes, scheduled": lambda tx: jopt.skip_spikes(tx, eps=jopt.tunable(0.1)),
    "dynamic_loss_scale": jopt.dynamic_loss_scale,
    "conditionally_transform": lambda tx: jopt.conditionally_transform(
        tx, lambda step: step >= 0
    ),
    "conditionally_mask": lambda tx: jopt.conditionally_mask(
        tx, lambda step: step >= 0
    ),
    "monitor": jopt.monitor,
    "lookahead": jopt.lookahead,
    "lookahead, tunable": lambda tx: jopt.lookahead(
        tx, slow_step_size=jopt.tunable(0.5)
    ),
    "ema_nesterov": jopt.ema_nesterov,
    "catch_up": lambda tx: jopt.catch_up(tx, ""),
    "mechanize": jopt.mechanize,
    "bf16_params": lambda tx: jopt.bf16_params(tx, "ecc8"),
    "partition": lambda tx: jopt.partition({"a": tx}, "a"),
    "selective_transform": lambda tx: jopt.selective_transform(tx, freeze_mask=False),
    "decayed_first": lambda tx: decayed_first(tx, jopt.scale(-0.1)),
    "scale_by_galore": lambda tx: jopt.scale_by_galore(1, base_optimizer=tx),
}
STATES: dict[str, Any] = {
    "the state before it was wrapped": ADAM.init(PARAMS),
    "that of a rule": jopt.scale_by_adam().init(PARAMS),
    "that of another wrapper": jopt.freeze("kernel").init(PARAMS),
    "that of a monitor": jopt.chain(jopt.monitor(ADAM)).init(PARAMS),
    "parameters": PARAMS,
    "nothing": None,
    "no state": (),
}


def test_every_wrapper_with_a_state_of_its_own_is_here() -> None:
    wrappers = {*jopt.names(kind="wrapper")} & {*dir(jopt)}
    without = {"chain", "cautious", "gradient_sign", "multi_transform", "schedule_free"}
    without |= {"split_real_and_imaginary", "hyperball"}  # a partition
    assert wrappers - without <= {name.split(",")[0] for name in WRAPPERS}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_names_the_state_that_it_expects(wrapper: str, kind: str) -> None:
    tx, state = WRAPPERS[wrapper](ADAM), STATES[kind]
    if wrapper in ("partition", "selective_transform"):
        expected = r"the state of \w+ is a dict|does not belong to \w+: it lacks"
    else:
        made = rf"an? {tx.state_class.__name__}"
        expected = f"{tx.name} expects the state that its init made, {made}"
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises((TypeError, ValueError), match=expected) as caught:
            update(PARAMS, state, PARAMS)
        assert "update(updates, state, params)" in str(caught.value)


def test_the_message_says_how_to_keep_the_old_state() -> None:
    old = ADAM.init(PARAMS)
    _, old = ADAM.update(PARAMS, old, PARAMS)
    expected = ADAM.update(PARAMS, old, PARAMS)
    for wrapper in ("masked", "skip_nonfinite", "dynamic_loss_scale", "monitor"):
        tx = WRAPPERS[wrapper](ADAM)
        with pytest.raises(TypeError, match=r"init\(params\)._replace\(inner_state=st"):
            tx.update(PARAMS, old, PARAMS)
        kept = tx.init(PARAMS)._replace(inner_state=old)
        scale = getattr(kept, "loss_scale", 1.0)
        grads = {name: scale * g for name, g in PARAMS.items()}
        updates, _ = tx.update(grads, kept, PARAMS)
        assert jnp.array_equal(updates["kernel"], expected[0]["kernel"])


def test_halves_of_an_accumulation_name_the_state_that_they_expect() -> None:
    tx, state = jopt.accumulate(ADAM, 2), ADAM.init(PARAMS)
    message = r"accumulate expects the state that its init made.*The order is "
    with pytest.raises(TypeError, match=message + "accumulate_grads"):
        jopt.accumulate_grads(tx, PARAMS, state, PARAMS)
    with pytest.raises(TypeError, match=message + "emit"):
        jopt.emit(tx, state, PARAMS)


AVERAGED = jopt.chain(ADAM, jopt.params_ema(0.5))


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("wrapper", [n for n in WRAPPERS if n != "scale_by_galore"])
def test_eval_params_recognizes_a_state_of_something_else(
    wrapper: str, kind: str
) -> None:
    wrap = WRAPPERS[wrapper]
    having = ("lookahead", "mechanize", "catch_up", "ema_nesterov")
    averages = wrapper.split(",")[0] in having
    tx = wrap(ADAM if averages else AVERAGED)
    for default in (None, PARAMS):
        with pytest.raises((TypeError, ValueError), match=r"eval_params\(tx, state, "):
            jopt.eval_params(tx, STATES[kind], PARAMS, default=default)
        with pytest.raises((TypeError, ValueError), match=r"eval_params\(tx, state, "):
            jopt.eval_params(tx, PARAMS, tx.init(PARAMS), default=default)


def test_eval_params_recognizes_the_average_of_another_optimizer() -> None:
    for tx in (ADAM, jopt.chain(ADAM, jopt.params_mean())):
        with pytest.raises(ValueError, match=r"no member knows its .*params_ema"):
            jopt.eval_params(tx, AVERAGED.init(PARAMS), PARAMS, default=PARAMS)
