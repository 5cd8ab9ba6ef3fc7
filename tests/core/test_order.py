"""Members of a chain that must be first or last: `chain` says so, through any nesting.

The numbers are those of a loop by hand, and of the same members in the right order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core.leafwise import copied
from jopt.interop import keras


def test_an_average_after_the_last_change_follows_the_parameters() -> None:
    tx, p = jopt.chain(jopt.sgd(1.0), jopt.scale(0.1), jopt.params_ema(0.5)), 1.0
    params, state, average = jnp.ones(1), tx.init(jnp.ones(1)), None
    for g in (1.0, 2.0, 4.0):
        p -= 0.1 * g
        average = p if average is None else 0.5 * average + 0.5 * p
        params, state = jopt.step(tx, jnp.full(1, g), state, params)
    np.testing.assert_allclose(jopt.eval_params(tx, state, params), average, rtol=1e-6)


class Start(NamedTuple):
    start: Any


PARAMS = {"kernel": jnp.ones((2, 2))}
AVERAGES: dict[str, Callable[[], Any]] = {
    "params_ema": lambda: jopt.params_ema(0.5),
    "params_ema, overwriting": lambda: jopt.params_ema(0.5, overwrite_every=3),
    "params_mean": jopt.params_mean,
    "params_lawa": jopt.params_lawa,
    "lookahead": lambda: jopt.lookahead(jopt.sgd(1.0)),
    "scale_by_schedule_free": lambda: jopt.scale_by_schedule_free(1.0),
    "asgd": lambda: jopt.asgd(0.1),
    "catch_up": lambda: jopt.catch_up(jopt.sgd(1.0), ""),
    "Adam of Keras": lambda: keras.Adam(0.1, use_ema=True),
    "ScheduleFreeAdamW of Keras": lambda: keras.ScheduleFreeAdamW(weight_decay=0.1),
    "one's own": lambda: jopt.leafwise(
        lambda g, start, *, p: (g, start),
        state=Start,
        readout=lambda p, start: (p + start) / 2,
        start=copied(),
    ),
}
CHANGES: dict[str, Callable[[], Any]] = {
    "scale": lambda: jopt.scale(0.1),
    "reduce_on_plateau": jopt.reduce_on_plateau,
    "add_decayed_weights": lambda: jopt.add_decayed_weights(0.1),
    "freeze": lambda: jopt.freeze("bias"),
    "a foreign pair": lambda: (lambda params: (), lambda updates, state: (updates, ())),
}
NESTINGS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda tx: tx,
    "chain": lambda tx: jopt.chain(jopt.clip(1.0), tx),
    "named": lambda tx: jopt.chain(inner=tx),
    "masked": lambda tx: jopt.masked(tx, "kernel"),
    "partition": lambda tx: jopt.partition({"a": tx, "b": jopt.sgd(0.1)}, "a"),
    "accumulate": lambda tx: jopt.accumulate(tx, 2),
    "skip_nonfinite": jopt.skip_nonfinite,
    "skip_spikes": jopt.skip_spikes,
    "dynamic_loss_scale": jopt.dynamic_loss_scale,
    "conditionally_transform": lambda tx: jopt.conditionally_transform(tx, bool),
    "conditionally_mask": lambda tx: jopt.conditionally_mask(tx, bool),
    "monitor": jopt.monitor,
    "two": lambda tx: jopt.skip_nonfinite(jopt.chain(jopt.masked(tx, True))),
}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("average", AVERAGES)
def test_nothing_may_change_the_updates_after_an_average(
    average: str, nesting: str
) -> None:
    inner = NESTINGS[nesting](AVERAGES[average]())
    for change in CHANGES.values():
        with pytest.raises(ValueError, match=r"changes the updates after .*Put .* aft"):
            jopt.chain(inner, change())
    # An observer changes nothing, and an average may follow an average.
    tx = jopt.chain(inner, jopt.identity(), jopt.monitor(), jopt.params_ema(0.9))
    with pytest.raises(ValueError, match=r"choose one with name=|several"):
        jopt.eval_params(tx, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("nesting", [n for n in NESTINGS if n != "chain"])
@pytest.mark.parametrize("first", [lambda: jopt.aggregate("data"), jopt.densify])
def test_nothing_may_change_the_updates_before_a_first_member(
    first: Callable[[], Any], nesting: str
) -> None:
    inner = NESTINGS[nesting](first())
    for change in (*CHANGES.values(), lambda: jopt.sgd(0.1)):
        with pytest.raises(ValueError, match=r"has to come before .*Put .* first"):
            jopt.chain(change(), inner)
    if nesting != "partition":  # whose other group changes the updates
        jopt.chain(jopt.monitor(), inner, jopt.densify(), jopt.sgd(0.1))


def test_an_average_that_overwrites_the_parameters_follows_no_other_average() -> None:
    """The other would not see what is overwritten, and may be asked for by its name."""
    average = jopt.params_ema(0.5, overwrite_every=2)
    for other in (jopt.params_ema(0.9), jopt.params_mean(), jopt.params_lawa(2)):
        with pytest.raises(ValueError, match="changes the updates after 'params_"):
            jopt.chain(jopt.sgd(0.1), other, average)
        jopt.chain(jopt.sgd(0.1), average, other)


def test_an_average_that_overwrites_the_parameters_may_follow_schedule_free() -> None:
    """Keras's ScheduleFreeAdamW takes ``ema_overwrite_frequency`` too."""
    average = jopt.params_ema(0.5, overwrite_every=2)
    tx = jopt.chain(jopt.schedule_free_sgd(), average)
    assert list(tx.init(PARAMS)) == ["scale_by_schedule_free", "params_ema"]


def test_what_changes_the_steps_of_its_inner_transformation_takes_no_average() -> None:
    average = jopt.skip_nonfinite(jopt.chain(jopt.sgd(1.0), jopt.params_ema(0.5)))
    for wrap in (jopt.lookahead, jopt.mechanize, jopt.cautious, jopt.gradient_sign):
        with pytest.raises(ValueError, match=r"Put .* after .* Got skip_nonfinite"):
            wrap(average)


def test_the_message_names_both_members_and_where_they_are() -> None:
    guarded = jopt.skip_nonfinite(jopt.chain(jopt.sgd(1.0), jopt.params_ema(0.5)))
    with pytest.raises(
        ValueError,
        match=r"^chain: 'scale' changes the updates after params_ema in "
        r"'skip_nonfinite', .* Put params_ema after 'scale', at the end of the chain$",
    ):
        jopt.chain(guarded, jopt.scale(0.1))
    with pytest.raises(
        ValueError,
        match=r"^chain: 'reduce_on_plateau' changes the updates after 'asgd', .* Put "
        r"asgd after 'reduce_on_plateau'; to scale its steps, change its learning "
        r"rate$",
    ):
        jopt.chain(jopt.asgd(0.1), jopt.reduce_on_plateau())
    with pytest.raises(
        ValueError,
        match=r"^chain: aggregate in 'masked' has to come before 'clip'. Put "
        r"aggregate first in the chain$",
    ):
        jopt.chain(jopt.clip(1.0), jopt.masked(jopt.aggregate("data"), "w"))


@pytest.mark.parametrize(
    "frozen",
    [
        jopt.freeze("bias"),
        jopt.masked(jopt.set_to_zero(), "bias"),
        jopt.selective_transform(jopt.sgd(0.1), freeze_mask="bias"),
    ],
    ids=["freeze", "masked", "selective"],
)
@pytest.mark.parametrize(
    "decays",
    [
        jopt.adamw(0.1),
        jopt.add_decayed_weights(0.1),
        jopt.add_decayed_weights(jopt.tunable(0.1)),
        jopt.skip_nonfinite(jopt.lion(0.1, weight_decay=0.1)),
        jopt.adafactor(0.1, weight_decay_rate=0.1),
        jopt.independent_weight_decay(0.1, 0.1),
    ],
    ids=["adamw", "decay", "tunable", "lion in a guard", "adafactor", "independent"],
)
def test_a_weight_decay_after_freezing_is_an_error(frozen, decays):
    name = "freeze" if frozen.name == "freeze" else "set_to_zero"
    with pytest.raises(ValueError, match=f"that {name} before it has frozen. Put"):
        jopt.chain(frozen, jopt.clip(1.0), decays)


def test_what_does_not_decay_frozen_leaves_may_follow_freeze():
    params = {"bias": jnp.ones(2), "kernel": jnp.ones(2)}
    masked = jopt.masked(jopt.adamw(0.1), "kernel")
    for tx in (
        jopt.chain(jopt.freeze("bias"), jopt.adam(0.1)),
        jopt.chain(jopt.freeze("bias"), jopt.adamw(0.1, weight_decay=0.0)),
        jopt.chain(jopt.freeze("bias"), jopt.adamw(0.1, mask="kernel")),
        jopt.chain(jopt.freeze("bias"), masked),
        jopt.chain(jopt.freeze("bias"), jopt.split_real_and_imaginary(masked)),
        jopt.chain(jopt.adamw(0.1), jopt.freeze("bias")),
    ):
        updates, _ = tx.update(params, tx.init(params), params)
        assert not updates["bias"].any() and updates["kernel"].all()
