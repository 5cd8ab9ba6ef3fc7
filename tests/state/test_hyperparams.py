"""Hyperparameters: what the state holds, what changes it, and what compiles again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch as torch_door
from tests.algorithms.test_adam import adam


PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
GRADS = jax.tree.map(lambda p: 0.1 * p + 0.2, PARAMS)
RATES = jnp.array([0.1, 0.2, 0.5])


@jopt.schedule
def halving(start: float) -> Any:
    return lambda count: start * 0.5 ** jnp.asarray(count, jnp.float32)


def run(tx: Any, steps: int = 3, state: Any = None, params: Any = PARAMS) -> Any:
    """Parameters and state after some steps with the same gradient."""
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, params)
        params = jopt.apply_updates(params, updates)
    return params, state


def values(state: Any) -> dict[str, float]:
    return {name: float(x) for name, x in jopt.hyperparams(state).items()}


def adam_by_numpy(learning_rate: Any, steps: int = 3, **options: Any) -> Any:
    """The parameters after some steps, from the slow twin in float64."""
    found = {}
    for name, p in PARAMS.items():
        p, grads = np.float64(p), [np.float64(GRADS[name])] * steps
        found[name] = list(adam(p, grads, learning_rate=learning_rate, **options))[-1]
    return found


TUNED = jopt.adam(jopt.tunable(0.1), b1=jopt.tunable(0.8), b2=halving(0.5))
TWO = jopt.chain(slow=jopt.sgd(0.1), fast=jopt.sgd(jopt.tunable(0.2)), adam=TUNED)

# A transformation, and the numbers in its state at the start.
HELD = [
    (jopt.sgd(0.5), {"learning_rate": 0.5}),
    (jopt.sgd(halving(0.5)), {"learning_rate": 0.5}),
    (jopt.sgd(jopt.tunable(0.5)), {"learning_rate": 0.5}),
    (jopt.sgd(jnp.float32(0.5)), {"learning_rate": 0.5}),
    (jopt.adam(0.5, b1=0.25), {"learning_rate": 0.5}),
    (TUNED, {"learning_rate": 0.1, "b1": 0.8, "b2": 0.5}),
    (jopt.clip(1.0), {}),
    (jopt.clip(halving(1.0)), {"max_delta": 1.0}),
    (jopt.chain(jopt.clip_by_norm(jopt.tunable(2.0)), jopt.ema(0)), {"max_norm": 2.0}),
    (jopt.adamw(0.5, weight_decay=halving(0.25)),
     {"learning_rate": 0.5, "weight_decay": 0.25}),
    (jopt.chain(a=jopt.sgd(0.5), b=jopt.chain(c=jopt.sgd(0.25))), {
        "a/scale_by_learning_rate/learning_rate": 0.5,
        "b/c/scale_by_learning_rate/learning_rate": 0.25,
    }),
    (jopt.chain(jopt.scale(halving(0.5)), jopt.scale(halving(0.25))), {
        "scale/step_size": 0.5,
        "scale_2/step_size": 0.25,
    }),
    (jopt.ftrl(0.5, l1=jopt.tunable(0.25)), {"learning_rate": 0.5, "l1": 0.25}),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "held"), HELD, ids=[repr(tx)[:60] for tx, _ in HELD])
def test_the_state_holds_the_rate_and_every_number_that_is_no_constant(
    tx: Any, held: dict[str, float]
) -> None:
    state = tx.init(PARAMS)
    found = jopt.hyperparams(state)
    assert found.keys() == held.keys()
    for name, value in held.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-7)
    for x in found.values():
        assert (x.shape, x.dtype, x.weak_type) == ((), jnp.float32, False)
    _, after = tx.update(GRADS, state, PARAMS)
    assert jopt.hyperparams(after).keys() == held.keys()
    under_jit = jax.jit(lambda s: jopt.hyperparams(s))(state)
    chex.assert_trees_all_equal(under_jit, found)


def test_a_scheduled_number_is_stored_as_it_was_last_used() -> None:
    tx = jopt.chain(jopt.clip(halving(8.0)), jopt.sgd(halving(0.5)))
    assert values(tx.init(PARAMS)) == {"max_delta": 8.0, "learning_rate": 0.5}
    for steps, factor in [(1, 1), (2, 0.5), (3, 0.25), (4, 0.125)]:
        _, state = run(tx, steps)
        held = {"max_delta": 8.0 * factor, "learning_rate": 0.5 * factor}
        assert values(state) == held


def test_a_schedule_is_evaluated_at_each_step() -> None:
    params, _ = run(jopt.sgd(halving(0.5)))
    for name, p in PARAMS.items():
        expected = p - (0.5 + 0.25 + 0.125) * GRADS[name]
        np.testing.assert_allclose(params[name], expected, rtol=1e-6)
    params, _ = run(jopt.adam(halving(0.5), b1=halving(0.8)))
    expected = adam_by_numpy(lambda t: 0.5 * 0.5**t, b1=lambda t: 0.8 * 0.5**t)
    chex.assert_trees_all_close(params, jax.tree.map(jnp.float32, expected), rtol=1e-5)


def test_a_tunable_number_means_what_the_constant_does() -> None:
    tunable = jopt.adam(jopt.tunable(0.1), b1=jopt.tunable(0.8), eps=jopt.tunable(1e-3))
    for tx in (jopt.adam(0.1, b1=0.8, eps=1e-3), tunable):
        chex.assert_trees_all_close(
            run(tx)[0],
            jax.tree.map(jnp.float32, adam_by_numpy(0.1, b1=0.8, eps=1e-3)),
            rtol=1e-5,
        )


# Changing them.


def test_a_number_that_is_set_is_used_from_the_next_step_on() -> None:
    tx = jopt.sgd(0.1)
    params, state = run(tx, 2)
    state = jopt.set_hyperparams(tx, state, learning_rate=0.5)
    params, state = run(tx, 3, state, params)
    for name, p in PARAMS.items():
        expected = np.float64(p) - (2 * 0.1 + 3 * 0.5) * np.float64(GRADS[name])
        np.testing.assert_allclose(params[name], expected, rtol=1e-6)
    assert values(state) == {"learning_rate": 0.5}


SETTINGS: list[tuple[Any, dict[str, Any], dict[str, float]]] = [
    (jopt.adam(0.1), {"learning_rate": 1}, {"learning_rate": 1.0}),
    (jopt.adam(0.1), {"learning_rate": np.float16(0.5)}, {"learning_rate": 0.5}),
    (jopt.adam(0.1), {"learning_rate": np.array(2)}, {"learning_rate": 2.0}),
    (jopt.adam(0.1), {"learning_rate": jnp.bfloat16(0.5)}, {"learning_rate": 0.5}),
    (TUNED, {"b1": 0.5, "learning_rate": 0.25}, {"b1": 0.5, "learning_rate": 0.25}),
    (jopt.chain(opt=jopt.adam(0.1)), {"learning_rate": 0.5}, {"learning_rate": 0.5}),
    (TWO, {"fast/scale_by_learning_rate/learning_rate": 0.5, "b1": 0.25},
     {"fast/scale_by_learning_rate/learning_rate": 0.5, "b1": 0.25}),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "given", "held"), SETTINGS)
def test_setting_changes_the_value_and_nothing_else(
    tx: Any, given: dict[str, Any], held: dict[str, float]
) -> None:
    _, state = run(tx, 2)
    changed = jopt.set_hyperparams(tx, state, **given)
    assert values(changed) == values(state) | held
    chex.assert_trees_all_equal_structs(changed, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(changed, state)
    assert all(x.weak_type is False for x in jopt.hyperparams(changed).values())
    # Set back, it is what it was.
    back = {name: jopt.hyperparams(state)[name] for name in given}
    chex.assert_trees_all_equal(jopt.set_hyperparams(tx, changed, **back), state)


def test_a_parameter_may_have_the_name_of_a_hyperparameter() -> None:
    params = {"learning_rate": jnp.ones(2), "b1": jnp.ones(2)}
    tx = jopt.adam(0.5)
    state = tx.init(params)
    assert values(state) == {"learning_rate": 0.5}
    changed = jopt.set_hyperparams(tx, state, learning_rate=0.25)
    chex.assert_trees_all_equal(changed["scale_by_adam"], state["scale_by_adam"])


def test_a_state_on_another_device_stays_there() -> None:
    device = jax.devices()[3]
    tx = jopt.adam(0.1)
    state = jax.device_put(tx.init(PARAMS), device)
    changed = jopt.set_hyperparams(tx, state, learning_rate=0.5)
    assert jopt.hyperparams(changed)["learning_rate"].devices() == {device}


def test_the_state_is_the_truth_and_not_the_recipe() -> None:
    _, state = run(jopt.sgd(0.5), 1)
    after, _ = run(jopt.sgd(0.1), 1, state)
    for name, p in PARAMS.items():
        np.testing.assert_allclose(after[name], p - 0.5 * GRADS[name], rtol=1e-6)


def test_an_array_given_as_rate_is_used_as_it_is() -> None:
    loss = lambda rate: jnp.sum(run(jopt.sgd(rate), 2)[0]["bias"])  # noqa: E731
    total = 2 * float(jnp.sum(GRADS["bias"]))
    np.testing.assert_allclose(loss(jnp.float32(0.5)), 3 - 0.5 * total, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(loss)(0.5), 3 - 0.5 * total, rtol=1e-6)
    # So the loss can be differentiated by it.
    np.testing.assert_allclose(jax.grad(loss)(0.5), -total, rtol=1e-6)
    # It is used instead of what the state holds, which then holds it.
    _, state = run(jopt.sgd(0.1), 1)
    params, state = run(jopt.sgd(jnp.float32(0.5)), 1, state)
    np.testing.assert_allclose(params["bias"], 1 - 0.5 * GRADS["bias"], rtol=1e-6)
    assert values(state) == {"learning_rate": 0.5}


# Numbers that multiply the learning rate.

STILL = jopt.reduce_on_plateau(0.5, patience=1)
# The names of the effective learning rates, and what they are after four steps.
EFFECTIVE = "effective_learning_rate"
GROUPS = jopt.rules(("bias", "vector"), ("", "matrix"))
MULTIPLIED: list[tuple[Any, dict[str, float]]] = [
    (jopt.chain(jopt.sgd(0.8), STILL), {EFFECTIVE: 0.1}),
    (jopt.chain(STILL, jopt.sgd(0.8)), {EFFECTIVE: 0.1}),
    (jopt.chain(jopt.sgd(halving(0.8)), plateau=STILL), {EFFECTIVE: 0.0125}),
    (jopt.chain(jopt.sgd(0.8), jopt.scale(jopt.tunable(0.5)), STILL),
     {EFFECTIVE: 0.05}),
    (jopt.chain(jopt.sgd(0.8), jopt.scale_by_schedule(halving(1.0))), {EFFECTIVE: 0.1}),
    (jopt.monitor(jopt.chain(jopt.skip_nonfinite(jopt.sgd(0.8)), STILL), keep=True),
     {EFFECTIVE: 0.1}),
    (jopt.chain(jopt.sgd(0.8), jopt.reduce_on_plateau(jopt.tunable(0.5), 1)),
     {EFFECTIVE: 0.1}),
    (jopt.chain(jopt.sgd(0.8), torch_door.lr_scheduler.ReduceLROnPlateau(
        0.8, factor=0.5, patience=0)), {EFFECTIVE: 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "rates"), MULTIPLIED)
def test_the_effective_learning_rate_is_the_size_of_the_step(
    tx: Any, rates: dict[str, float]
) -> None:
    state, updates = tx.init(PARAMS), None
    names = jopt.hyperparams(state).keys()
    for _ in range(4):
        updates, state = tx.update(GRADS, state, PARAMS, value=1.0)
    for found in (jopt.hyperparams(state), jopt.metrics(state)):
        shown = {n: x for n, x in found.items() if n.endswith(EFFECTIVE)}
        chex.assert_trees_all_close(shown, rates, rtol=1e-6)
    assert jopt.hyperparams(state).keys() == names
    expected = jax.tree.map(lambda g: -found[EFFECTIVE] * g, GRADS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_a_multiple_counts_only_in_its_own_chain() -> None:
    members = {
        "vector": jopt.chain(jopt.sgd(0.8), STILL),
        "matrix": jopt.sgd(0.8),
    }
    tx = jopt.partition(members, GROUPS)
    state = tx.init(PARAMS)
    for _ in range(4):
        _, state = tx.update(GRADS, state, PARAMS, value=1.0)
    rate = "scale_by_learning_rate/learning_rate"
    expected = {f"matrix/{rate}": 0.8, f"vector/{rate}": 0.8, "scale": 0.125}
    assert values(state) == pytest.approx(expected | {EFFECTIVE: 0.1})
    both = jopt.chain(tx, jopt.scale(jopt.tunable(0.5)))
    state = both.init(PARAMS)
    shown = values(state)
    expected = {"matrix": 0.4, "vector": 0.4}
    assert {
        name: shown[f"partition/{name}/scale_by_learning_rate/{EFFECTIVE}"]
        for name in expected
    } == pytest.approx(expected)


def test_numbers_that_multiply_are_set_in_their_range_and_their_product_is_not() -> (
    None
):
    tx = jopt.chain(jopt.sgd(0.8), STILL)
    state = jopt.set_hyperparams(tx, tx.init(PARAMS), scale=0.25)
    expected = {"learning_rate": 0.8, "scale": 0.25, EFFECTIVE: 0.2}
    assert values(state) == pytest.approx(expected)
    for bad in (-0.5, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"scale must be in \[0, 1\], got scale="):
            jopt.set_hyperparams(tx, state, scale=bad)
    with pytest.raises(ValueError, match=r"is a product and cannot be set. Set one of"):
        jopt.set_hyperparams(tx, state, **{EFFECTIVE: 0.1})

    @jopt.transformation
    def of_a_user(scale: jopt.ScalarOrSchedule) -> Any:
        return jopt.leafwise(lambda g: scale * g)

    own = of_a_user(jopt.tunable(2.0))
    state = jopt.set_hyperparams(own, own.init(PARAMS), scale=-3.0)
    assert values(state) == {"scale": -3.0}


# Names for several numbers.

NESTED = jopt.chain(
    body=jopt.muon(0.1),
    head=jopt.chain(
        jopt.adam(0.1, b1=jopt.tunable(0.9)), jopt.scale(jopt.tunable(2.0))
    ),
)
RATE = "scale_by_learning_rate/learning_rate"
RATES_OF = {f"body/adam/{RATE}", f"body/muon/{RATE}", f"head/{RATE}"}
# A name, and the rates that it stands for.
NAMES = {
    "learning_rate": RATES_OF,
    "*/learning_rate": RATES_OF,
    "*learning_rate": RATES_OF,
    "scale_by_learning_rate/learning_rate": RATES_OF,
    "body/learning_rate": {f"body/adam/{RATE}", f"body/muon/{RATE}"},
    "body/*": {f"body/adam/{RATE}", f"body/muon/{RATE}"},
    "body/muon/learning_rate": {f"body/muon/{RATE}"},
    "muon/learning_rate": {f"body/muon/{RATE}"},
    "*/muon/*": {f"body/muon/{RATE}"},
    "head/learning_rate": {f"head/{RATE}"},
    f"head/{RATE}": {f"head/{RATE}"},
}


@pytest.mark.parametrize(("name", "rates"), NAMES.items())
def test_a_name_stands_for_all_numbers_that_it_fits(name: str, rates: set[str]) -> None:
    state = NESTED.init(PARAMS)
    if name != "*learning_rate":  # which is the effective one too
        assert float(jopt.hyperparams(state)[name]) == np.float32(0.1)
    changed = jopt.set_hyperparams(NESTED, state, **{name: 0.5})
    before, after = values(state), values(changed)
    assert {n for n in RATES_OF if after[n] == 0.5} == rates
    same = RATES_OF - rates | {"b1", "step_size"}
    assert all(after[n] == before[n] for n in same)
    # The names listed are as before.
    assert after.keys() == RATES_OF | {"b1", "step_size", EFFECTIVE}


def test_a_number_has_the_name_of_its_group_even_if_it_is_the_only_one() -> None:
    tx = jopt.partition({"vector": jopt.set_to_zero(), "matrix": jopt.sgd(0.1)}, GROUPS)
    state = tx.init(PARAMS)
    assert values(state).keys() == {"learning_rate"}
    for name in ("matrix/learning_rate", f"matrix/{RATE}", "matrix/*", "*/*rate"):
        assert float(jopt.hyperparams(state)[name]) == np.float32(0.1)
        changed = jopt.set_hyperparams(tx, state, **{name: 0.5})
        assert values(changed) == {"learning_rate": 0.5}
    backwards = "scale_by_learning_rate/matrix/learning_rate"
    for name in ("vector/learning_rate", "vector/*", "rate", "matrix", backwards):
        assert name not in jopt.hyperparams(state)
        with pytest.raises(KeyError, match="no hyperparameter"):
            jopt.set_hyperparams(tx, state, **{name: 0.5})


def test_numbers_are_a_dict_that_goes_through_jit_with_its_names() -> None:
    state = NESTED.init(PARAMS)
    found = jopt.metrics(state)
    inside = jax.jit(jopt.metrics)(state)
    copies = [inside, copy.deepcopy(found), pickle.loads(pickle.dumps(found))]
    for again in (*copies, jax.tree.map(lambda x: x, found)):
        assert again == found
        assert list(again) in (list(found), sorted(found))
        assert float(again["learning_rate"]) == np.float32(0.1)
        assert again.get("body/learning_rate") == found["body/learning_rate"]
        assert again["head/scale_by_adam/b1"] == found["b1"]
    assert "b2" not in found
    assert found.get("b2") is None
    assert found.get("b2", 1.0) == 1.0
    assert 3 not in found


def test_several_numbers_that_differ_are_no_number() -> None:
    state = jopt.set_hyperparams(
        NESTED, NESTED.init(PARAMS), **{"head/learning_rate": 0.25}
    )
    found = jopt.hyperparams(state)
    assert "learning_rate" not in found
    assert found.get("learning_rate") is None
    assert "body/learning_rate" in found
    differ = f"because these differ: body/adam/{RATE} = 0.1, .*head/{RATE} = 0.25"
    with pytest.raises(KeyError, match=differ):
        _ = found["learning_rate"]
    # Inside jit their values are not known.
    read = jax.jit(lambda s, name: jopt.hyperparams(s)[name], static_argnums=1)
    assert np.isnan(read(state, "*/learning_rate"))
    assert read(state, "body/learning_rate") == np.float32(0.1)
    assert read(state, "head/learning_rate") == 0.25
    with pytest.raises(KeyError, match="may differ, which is not known inside jit"):
        jax.jit(lambda s: jopt.set_hyperparams(NESTED, s, learning_rate=0.5))(state)
    # They all get one value, in any case, by a pattern.
    by_pattern = lambda s: jopt.set_hyperparams(  # noqa: E731
        NESTED, s, **{"*/learning_rate": 0.5}
    )
    for change in (by_pattern, jax.jit(by_pattern)):
        assert jopt.hyperparams(change(state))["learning_rate"] == 0.5


def test_every_number_of_a_name_is_checked() -> None:
    tx = jopt.chain(a=jopt.sgd(0.1), b=jopt.sgd(halving(0.1)))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"'learning_rate' is scheduled by halving"):
        jopt.set_hyperparams(tx, state, learning_rate=0.5)
    with pytest.raises(ValueError, match="learning_rate must be >= 0"):
        jopt.set_hyperparams(tx, state, **{"a/*": -0.5})
    # As the message says, a factor of what is scheduled can be set.
    tx = jopt.chain(tx, jopt.scale(jopt.tunable(1.0)))
    state = jopt.set_hyperparams(tx, tx.init(PARAMS), step_size=0.5)
    assert values(state)[f"b/scale_by_learning_rate/{EFFECTIVE}"] == np.float32(0.05)


def test_the_rates_of_a_vmapped_state_agree_one_by_one() -> None:
    tx = jopt.muon(0.1)
    states = jax.vmap(
        lambda r: jopt.set_hyperparams(tx, tx.init(PARAMS), **{"*/learning_rate": r})
    )(RATES)
    np.testing.assert_array_equal(jopt.hyperparams(states)["learning_rate"], RATES)
    changed = jopt.set_hyperparams(tx, states, learning_rate=RATES / 2)
    np.testing.assert_array_equal(jopt.hyperparams(changed)["learning_rate"], RATES / 2)


# Compilation and vmap.


def counted(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[None]]:
    """The function under jit, and an entry for each time it is traced."""
    traces: list[None] = []

    @jax.jit
    def wrapped(*args: Any) -> Any:
        traces.append(None)
        return function(*args)

    return wrapped, traces


@pytest.mark.parametrize("make", [jopt.sgd, jopt.adam, jopt.ftrl, jopt.lion])
def test_a_hundred_learning_rates_take_one_compilation(make: Any) -> None:
    tx = make(0.1)
    step, traces = counted(lambda state, params: run(tx, 1, state, params))
    params, state = step(tx.init(PARAMS), PARAMS)
    for rate in np.linspace(0.01, 1.0, 100):
        state = jopt.set_hyperparams(tx, state, learning_rate=rate)
        params, state = step(state, params)
    assert len(traces) == 1
    assert values(state) == {"learning_rate": 1.0}


def test_a_hundred_optimizers_with_other_tunables_compile_no_kernel_again() -> None:
    run(jopt.adam(jopt.tunable(0.1), b1=jopt.tunable(0.9)), 1)
    with jax.no_tracing():
        for rate in np.linspace(0.01, 1.0, 100):
            run(jopt.adam(jopt.tunable(rate), b1=jopt.tunable(rate / 2)), 1)


def test_numbers_are_set_inside_jit_without_tracing_again() -> None:
    def set_and_run(state: Any, rate: Any) -> Any:
        state = jopt.set_hyperparams(TUNED, state, learning_rate=rate, b1=rate)
        return run(TUNED, 1, state)

    step, traces = counted(set_and_run)
    for rate in (0.1, 0.25):
        _, state = step(TUNED.init(PARAMS), rate)
        np.testing.assert_allclose(values(state)["b1"], rate, rtol=1e-6)
    assert len(traces) == 1


MAKERS = [
    jopt.sgd,
    lambda rate: jopt.sgd(jopt.tunable(rate)),
    lambda rate: jopt.adam(jopt.tunable(rate), b1=rate),
    lambda rate: jopt.chain(jopt.clip(rate), opt=jopt.lion(rate)),
    lambda rate: jopt.sgd(lambda count: rate / (1 + count.astype(jnp.float32))),
]


@pytest.mark.parametrize("make", MAKERS)
def test_vmap_over_a_rate_makes_an_ensemble(make: Any) -> None:
    """One optimizer for each rate, made and run inside of vmap."""
    together, states = jax.vmap(lambda rate: run(make(rate)))(RATES)
    for i, rate in enumerate(RATES):
        alone, state = run(make(rate))
        mine = jax.tree.map(lambda x, i=i: x[i], (together, states))
        chex.assert_trees_all_close(mine, (alone, state), rtol=1e-6)


def test_an_ensemble_is_made_from_one_state() -> None:
    """Rates set under vmap, and then again for all members, or for each."""
    tx = jopt.adam(0.1)
    one = tx.init(PARAMS)
    states = jax.vmap(lambda r: jopt.set_hyperparams(tx, one, learning_rate=r))(RATES)
    chex.assert_trees_all_equal(jopt.hyperparams(states)["learning_rate"], RATES)
    for rates in (jnp.float32(0.3), RATES[::-1]):
        again = jopt.set_hyperparams(tx, states, learning_rate=rates)
        found = jopt.hyperparams(again)["learning_rate"]
        np.testing.assert_array_equal(found, jnp.broadcast_to(rates, 3))
    together, _ = jax.vmap(lambda s: run(tx, 2, s))(states)
    for i, rate in enumerate(RATES):
        alone = adam_by_numpy(float(rate), steps=2)
        np.testing.assert_allclose(together["bias"][i], alone["bias"], atol=1e-6)
    for given, held in [(0.25, [0.25] * 3), (RATES / 2, RATES / 2)]:
        changed = jopt.set_hyperparams(tx, states, learning_rate=given)
        chex.assert_trees_all_equal_shapes_and_dtypes(changed, states)
        np.testing.assert_array_equal(jopt.hyperparams(changed)["learning_rate"], held)


# inject_hyperparams.


INJECTED = [
    (jopt.inject_hyperparams(jopt.sgd)(0.1), "sgd(learning_rate=tunable(value=0.1))"),
    (jopt.inject_hyperparams(jopt.trace)(0, nesterov=True),
     "trace(decay=tunable(value=0.0), nesterov=True)"),
    (jopt.inject_hyperparams(jopt.sgd)(halving(0.1)),
     "sgd(learning_rate=halving(start=0.1))"),
    (jopt.inject_hyperparams(jopt.add_decayed_weights)(0.1, mask="kernel"),
     "add_decayed_weights(weight_decay=tunable(value=0.1), mask='kernel')"),
    (jopt.inject_hyperparams(jopt.trace, static_args="decay")(0.5), "trace(decay=0.5)"),
    (jopt.inject_hyperparams(jopt.adam, static_args=("eps", "eps_root", "b2"))(0.1),
     "adam(learning_rate=tunable(value=0.1), b1=tunable(value=0.9))"),
    (jopt.inject_hyperparams(jopt.ema)(0.9, debias=False, accumulator_dtype="float16"),
     "ema(decay=tunable(value=0.9), debias=False, accumulator_dtype='float16')"),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "shown"), INJECTED)
def test_inject_hyperparams_makes_the_declared_numbers_tunable(
    tx: Any, shown: str
) -> None:
    assert repr(tx) == shown


def test_what_inject_hyperparams_makes_can_be_set_by_name() -> None:
    tx = jopt.inject_hyperparams(jopt.adam)(learning_rate=0.1, b1=0.8)
    state = jopt.set_hyperparams(
        tx, tx.init(PARAMS), learning_rate=0.5, b2=0.5, eps=0.1
    )
    params, _ = run(tx, 3, state)
    expected = adam_by_numpy(0.5, b1=0.8, b2=0.5, eps=0.1)
    for name, p in expected.items():
        np.testing.assert_allclose(params[name], p, rtol=1e-5)


OPTIMIZER = jopt.chain(
    jopt.clip_by_norm(jopt.tunable(1.0)), jopt.adam(0.1, b1=jopt.tunable(0.9))
)
OUT_OF_RANGE = [
    ("learning_rate", -1.0, ">= 0 and finite"),
    ("learning_rate", np.nan, ">= 0 and finite"),
    ("learning_rate", np.inf, ">= 0 and finite"),
    ("b1", 1.5, r"in \[0, 1\)"),
    ("max_norm", 0.0, "> 0"),
]
KINDS = [float, np.float32, np.array, jnp.float32, jnp.array]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "value", "wanted"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_in_every_form(
    kind: Any, name: str, value: float, wanted: str
) -> None:
    state = OPTIMIZER.init(PARAMS)
    with pytest.raises(ValueError, match=f"{name} must be {wanted}, got {name}="):
        jopt.set_hyperparams(OPTIMIZER, state, **{name: kind(value)})


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_one_bad_number_among_those_of_a_vmapped_state_is_refused(bad: float) -> None:
    tx = jopt.sgd(0.1)
    states = jax.vmap(lambda rate: jopt.sgd(jopt.tunable(rate)).init(PARAMS))(RATES)
    with pytest.raises(ValueError, match=r"learning_rate must be >= 0 and finite"):
        jopt.set_hyperparams(tx, states, learning_rate=jnp.array([0.1, bad, 0.3]))
    changed = jopt.set_hyperparams(tx, states, learning_rate=2 * RATES)
    np.testing.assert_array_equal(jopt.hyperparams(changed)["learning_rate"], 2 * RATES)


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_the_least_and_the_largest_of_several_numbers_are_in_the_interval(
    bad: float,
) -> None:
    tx = jopt.adam(0.1, b1=jopt.tunable(0.5))
    states = jax.vmap(lambda rate: tx.init(PARAMS))(RATES)
    with pytest.raises(ValueError, match=rf"b1 must be in \[0, 1\), got b1={bad}"):
        jopt.set_hyperparams(tx, states, b1=jnp.array([0.5, bad, 0.6]))
    after = jopt.set_hyperparams(tx, states, b1=jnp.array([0.5, 0.0, 0.6]))
    assert jopt.hyperparams(after)["b1"].shape == (3,)


@pytest.mark.parametrize("value", [jnp.array(1j), jnp.array(True), jnp.ones(2)])
def test_an_array_that_is_not_like_the_number_is_refused(value: Any) -> None:
    tx = jopt.sgd(0.1)
    with pytest.raises(TypeError, match=r"must be a number like the state's float32"):
        jopt.set_hyperparams(tx, tx.init(PARAMS), learning_rate=value)


def test_a_pattern_for_every_path_is_for_a_number_at_the_top_too() -> None:
    state = jopt.scale_by_adam(b1=jopt.tunable(0.5)).init(PARAMS)
    assert jopt.hyperparams(state)["*/b1"] == 0.5
