"""Every optimizer of every door has one learning rate to set, and counts its steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import keras, torch
from jopt.interop.shared.plateau import without_schedules
from jopt.state.hyperparams import changing_numbers_of
from jopt.testing.problem import as_dtype, draw, stack, update
from tests.catalogue import OPTIMIZERS


PARAMS, GRADS = as_dtype(draw(steps=3), jnp.float32)
MATRICES = {"0": PARAMS["kernel"], "kernel": PARAMS["kernel"]}

# Options that change which rates are in the state, given to each factory that has them.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]},
    {"adam_lr_ratio": 0.5},
    {"adam_lr_ratio": 0.5, "exclude_from_weight_decay": ["bias"]},
    {"exclude_layers": ["kernel"]},
    {
        "weight_decay": 0.1,
        "clipnorm": 1.0,
        "use_ema": True,
        "loss_scale_factor": 2.0,
        "gradient_accumulation_steps": 2,
    },
]

# Elements have step sizes of their own, which only start at the learning rate.
WITHOUT_RATE = {"rprop", "Rprop"}
# It needs the loss as a function; its rate is in tests/interop/torch/test_lbfgs.py.
WITHOUT_RATE |= {"LBFGS"}
# Its decay is a number of the recipe that contains lr, as its docstring says.
DECAY_STAYS = {"interop.torch.Adafactor({'weight_decay': 0.1})"}


def door(module: Any) -> Iterator[tuple[str, Callable[[float], Any]]]:
    """Every factory of a door that has a learning rate, with all options it takes."""
    for name in sorted(module.__all__):
        factory = getattr(module, name)
        if inspect.isclass(factory) or not callable(factory) or name in WITHOUT_RATE:
            continue
        parameters = inspect.signature(factory).parameters
        rate = next((n for n in ("lr", "learning_rate") if n in parameters), None)
        if rate is None:
            continue
        for options in OPTIONS:
            if options.keys() <= parameters.keys():
                text = f"{module.__name__}.{name}({options})".removeprefix("jopt.")
                yield text, with_rate(factory, rate, options)
        if "params" in parameters:
            # torch's Muon takes matrices only.
            first = "0" if name == "Muon" else "bias"
            groups = [{"params": first}, {"params": "", "name": "rest"}]
            yield (
                f"{module.__name__}.{name} in groups".removeprefix("jopt."),
                with_rate(factory, rate, {"params": groups}),
            )


def with_rate(factory: Any, name: str, options: Any) -> Callable[[float], Any]:
    return lambda rate: factory(**options, **{name: rate})


def in_map(rate: float) -> Any:
    return keras.OptimizerMap(keras.SGD(rate), {"bias": keras.Adam(rate)})


RECIPES: dict[str, Callable[[float], Any]] = {
    **{  # one case of each
        case.name: functools.partial(
            lambda case, rate: case.make(learning_rate=rate), case
        )
        for case in OPTIMIZERS
        if case.name not in WITHOUT_RATE and "adam_learning_rate" not in case.options
    },
    **{name: make for x in (torch, keras, keras.legacy) for name, make in door(x)},
    "MultiOptimizer": lambda rate: keras.MultiOptimizer(in_map(rate)),
    "LossScaleOptimizer": lambda rate: keras.LossScaleOptimizer(keras.Muon(rate)),
    "legacy.LossScaleOptimizer": lambda rate: keras.legacy.LossScaleOptimizer(
        keras.legacy.SGD(rate)
    ),
    "muon": jopt.muon,
    "partition": lambda rate: jopt.partition(
        {
            "matrix": jopt.adamw(rate),
            "rest": jopt.sgd(rate),
            "frozen": jopt.set_to_zero(),
        },
        jopt.rules(("kernel", "matrix"), ("scalar", "frozen"), ("", "rest")),
    ),
    "selective_transform": lambda rate: jopt.selective_transform(
        jopt.muon(rate), freeze_mask="bias"
    ),
    "accumulate": lambda rate: jopt.accumulate(jopt.muon(rate), 2),
}


def params_of(name: str) -> Any:
    # torch's Muon takes matrices only.
    return MATRICES if name.startswith("interop.torch.Muon") else PARAMS


def run(tx: Any, state: Any, params: Any) -> Any:
    """The state after three steps; their updates, counts and rates inside jit."""
    steps = stack([{n: g.get(n, g["kernel"]) for n in params} for g in GRADS])

    def body(state: Any, grads: Any) -> Any:
        new, state = update(tx, grads, state, params)
        rate = jopt.hyperparams(state)["learning_rate"]
        return state, (new, jopt.iterations(state), rate)

    state, found = jax.jit(lambda state: jax.lax.scan(body, state, steps))(state)
    return state, *found


@pytest.mark.parametrize("name", RECIPES)
def test_the_learning_rate_is_one_number_to_set_and_steps_are_counted(
    name: str,
) -> None:
    tx, params = RECIPES[name](0.01), params_of(name)
    state = tx.init(params)
    for found in (jopt.hyperparams(state), jopt.metrics(state)):
        assert "learning_rate" in found
        assert found["learning_rate"].shape == ()
        np.testing.assert_allclose(found["learning_rate"], 0.01, rtol=1e-6)
    changed = jopt.set_hyperparams(tx, state, learning_rate=0.02)
    chex.assert_trees_all_equal_shapes_and_dtypes(changed, state)
    np.testing.assert_allclose(
        jopt.hyperparams(changed)["learning_rate"], 0.02, rtol=1e-6
    )
    after, updates, counts, rates = run(tx, changed, params)
    np.testing.assert_allclose(rates, 0.02, rtol=1e-6)

    in_pairs = "gradient_accumulation_steps" in name or name == "accumulate"
    steps = [0, 1, 1] if in_pairs else [1, 2, 3]
    assert jopt.iterations(state) == 0
    np.testing.assert_array_equal(counts, steps)
    assert counts.dtype == jnp.int32
    assert jopt.iterations(after) == steps[-1]
    assert jopt.iterations(jopt.set_counts(after, 7)) == 7

    if name not in DECAY_STAYS:
        other = RECIPES[name](0.02)
        _, expected, _, _ = run(other, other.init(params), params)
        chex.assert_trees_all_close(updates, expected, rtol=3e-5, atol=1e-9)


def test_every_scheduled_rate_can_be_reduced_by_a_plateau() -> None:
    """A plateau runs the recipe with tunable rates, in the same places of the state."""
    schedule = jopt.exponential_decay(0.01, 1, 0.9)
    takes_none = "interop.keras.legacy.Nadam({})"
    for name in RECIPES.keys() - {takes_none}:
        made: Any = RECIPES[name]  # each takes a schedule, too
        free, schedules = without_schedules(made(schedule))
        found = {path.rpartition("/")[2] for path in schedules}
        assert found == {"learning_rate"}, name
        rates = {n: x.sources for n, x in changing_numbers_of(free)}
        for path in schedules:
            holder = path.removesuffix("learning_rate")
            assert not callable(rates[holder]["learning_rate"]), name


def test_the_doors_are_complete() -> None:
    """The optimizers that the other libraries have are in the law."""
    for module, wanted in {torch: 13, keras: 14, keras.legacy: 8}.items():
        names = {name.partition("(")[0] for name, _ in door(module)}
        names = {name for name in names if not name.endswith(" in groups")}
        assert len(names) == wanted, sorted(names)
    assert RECIPES.keys() >= DECAY_STAYS


def test_an_optimizer_without_a_learning_rate_says_what_it_has() -> None:
    for tx in (jopt.rprop(0.1), torch.Rprop()):
        with pytest.raises(KeyError, match=r"no number 'learning_rate'. It has \[\]"):
            jopt.hyperparams(tx.init(PARAMS))["learning_rate"]


def test_rates_that_were_given_apart_are_listed_and_set_together_by_a_pattern() -> None:
    tx = jopt.muon(0.01, adam_learning_rate=0.02)
    state = tx.init(PARAMS)
    listed = (
        r"'learning_rate' is ambiguous, because these differ: "
        r"adam/scale_by_learning_rate/learning_rate = 0\.02, "
        r"muon/scale_by_learning_rate/learning_rate = 0\.01"
    )
    with pytest.raises(KeyError, match=listed):
        jopt.hyperparams(state)["learning_rate"]
    with pytest.raises(KeyError, match=listed + r".*\*/learning_rate"):
        jopt.set_hyperparams(tx, state, learning_rate=0.5)
    state = jopt.set_hyperparams(tx, state, **{"*/learning_rate": 0.5})
    assert jopt.hyperparams(state)["learning_rate"] == 0.5
