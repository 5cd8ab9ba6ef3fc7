"""Averages of the parameters are those of a loop by hand."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.testing.problem import as_dtype, draw, updates_of
from tests.laws.case import transform
from tests.parity.row import keras
from tests.twins.base import Array, Scalar, at, double, steps


def params_ema(
    p: Array,
    grads: Iterable[Array],
    *,
    decay: Scalar,
    debias: bool = False,
    overwrite_every: int | None = None,
    from_init: bool = False,
) -> Iterator[Array]:
    """Keras's ``use_ema``: the first average is the first new parameters."""
    p = double(p)
    total, filled = np.zeros_like(p), 0.0
    avg = p
    for t, u in steps(grads):
        d = at(decay, t)
        if debias:
            # An average of p_1, ..., p_t that starts at zero, and the same of ones.
            total, filled = d * total + (1 - d) * (p + u), d * filled + (1 - d)
            avg = total / filled
        else:
            first = t == 1 and not from_init
            avg = p + u if first else d * avg + (1 - d) * (p + u)
        yield avg - p if overwrite_every and t % overwrite_every == 0 else u


def params_mean(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Izmailov et al., 2018: the mean of the parameters changes no update."""
    yield from (double(g) for g in grads)


CASES = [
    transform("params_ema", decay=0.9, debias=True),
    transform("params_ema", decay=0.9, from_init=True, overwrite_every=2),
    transform("params_mean", start=2),
]

ADAM = 'adam(0.01, eps=1e-7, eps_mode="before")'
# Keras computes its averages in float32.
FLOAT32 = 5e-8
ROWS = (
    keras(
        "use-ema",
        "Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3)",
        f"chain({ADAM}, params_ema(0.9, overwrite_every=3))",
        tol64=FLOAT32,
    ),
    keras(
        "use-ema-sgd",
        "SGD(DECAY, momentum=0.9, use_ema=True, ema_overwrite_frequency=2)",
        "chain(sgd(DECAY, 0.9, lr_in_momentum=True), "
        "params_ema(0.99, overwrite_every=2))",
        tol64=FLOAT32,
    ),
)


def run(tx: Any, params: Any, grads: Any) -> list[tuple[Any, Any]]:
    """The parameters and the state after each step."""
    state, found = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = jopt.apply_updates(params, updates)
        found.append((params, state))
    return found


PARAMS, GRADS = draw(steps=12)


def ema_by_hand(points: list[Any], decay: float, debias: bool) -> Any:
    total, filled, avg = 0.0, 0.0, points[0]
    for p in points:
        total, filled = decay * total + (1 - decay) * p, decay * filled + 1 - decay
        avg = decay * avg + (1 - decay) * p
    return total / filled if debias else avg


@pytest.mark.parametrize("debias", [False, True])
def test_eval_params_of_an_ema_is_the_average_of_the_parameters(debias: bool) -> None:
    with jax.enable_x64(True):
        tx = jopt.chain(jopt.sgd(0.5, 0.9), jopt.params_ema(0.8, debias=debias))
        params, grads = as_dtype(PARAMS, jnp.float64), as_dtype(GRADS, jnp.float64)
        found = run(tx, params, grads)
        for t, (p, state) in enumerate(found, start=1):
            points = [np.asarray(q["kernel"]) for q, _ in found[:t]]
            averages = jopt.eval_params(tx, state, p)
            chex.assert_trees_all_close(
                averages["kernel"], ema_by_hand(points, 0.8, debias), rtol=1e-12
            )


@pytest.mark.parametrize(("start", "every"), [(0, 1), (3, 1), (2, 4)])
def test_eval_params_of_a_mean_is_the_mean_of_those_taken(
    start: int, every: int
) -> None:
    with jax.enable_x64(True):
        tx = jopt.chain(jopt.adam(0.1), jopt.params_mean(start, every))
        params, grads = as_dtype(PARAMS, jnp.float64), as_dtype(GRADS, jnp.float64)
        found = run(tx, params, grads)
        for t, (p, state) in enumerate(found, start=1):
            taken = [q for q, _ in found[start:t:every]] or [p]
            mean = jax.tree.map(lambda *xs: sum(xs) / len(xs), *taken)
            chex.assert_trees_all_close(
                jopt.eval_params(tx, state, p), mean, rtol=1e-12, atol=1e-14
            )


def test_an_ema_overwrites_the_parameters_as_often_as_it_is_told() -> None:
    with jax.enable_x64(True):
        params, grads = as_dtype(PARAMS, jnp.float64), as_dtype(GRADS, jnp.float64)
        for options in ({}, {"debias": True}):
            tx = jopt.params_ema(0.9, overwrite_every=3, **options)
            twins = {
                n: params_ema(
                    PARAMS[n],
                    [g[n] for g in GRADS],
                    decay=0.9,
                    overwrite_every=3,
                    **options,
                )
                for n in PARAMS
            }
            found = updates_of(tx, params, grads)
            for name, twin in twins.items():
                chex.assert_trees_all_close(
                    found[name], np.stack(list(twin)), rtol=1e-12, atol=1e-13
                )


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
@pytest.mark.parametrize("decay", [None, 0.9])
def test_averages_are_those_of_torch(decay: float | None) -> None:
    import torch
    from torch.optim import swa_utils

    model = torch.nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(PARAMS["kernel"]))
    average = swa_utils.AveragedModel(
        model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay) if decay else None
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    member = jopt.params_ema(decay) if decay else jopt.params_mean()
    tx = jopt.chain(jopt.sgd(0.5, 0.9), member)
    with jax.enable_x64(True):
        params = jnp.asarray(PARAMS["kernel"])
        found = run(tx, params, [jnp.asarray(g["kernel"]) for g in GRADS])
        for g, (p, state) in zip(GRADS, found, strict=True):
            model.weight.grad = torch.tensor(g["kernel"])
            optimizer.step()
            average.update_parameters(model)
            np.testing.assert_allclose(
                jopt.eval_params(tx, state, p),
                average.module.weight.detach().numpy(),
                rtol=1e-12,
            )


def test_eval_params_goes_through_every_nesting() -> None:
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS, jnp.float32)
    averaged = jopt.chain(jopt.sgd(0.5), jopt.params_mean())
    p, own = run(averaged, params, grads)[-1]
    expected = jopt.eval_params(averaged, own, p)
    for tx, times in (
        (jopt.chain(jopt.clip(1e3), jopt.masked(averaged, True)), 1),
        (jopt.partition({"a": averaged}, "a"), 1),
        (jopt.accumulate(jopt.accumulate(averaged, 1), 2), 2),
    ):
        p, state = run(tx, params, [g for g in grads for _ in range(times)])[-1]
        found = jopt.eval_params(tx, state, p)
        chex.assert_trees_all_close(found, expected, rtol=1e-6)
    plain = jopt.adam(0.1)
    state = plain.init(params)
    assert jopt.eval_params(plain, state, params, default=params) is params
    with pytest.raises(ValueError, match=r"adam.*params_ema"):
        jopt.eval_params(plain, state, params)


def test_only_a_group_that_averages_has_other_parameters_to_evaluate() -> None:
    tx = jopt.partition(
        {"avg": jopt.chain(jopt.sgd(0.5), jopt.params_mean()), "sgd": jopt.sgd(0.5)},
        {"kernel": "avg", "bias": "sgd", "scalar": "sgd"},
    )
    params, grads = as_dtype(PARAMS, jnp.bfloat16), as_dtype(GRADS, jnp.bfloat16)
    p, state = run(tx, params, grads)[-1]
    found = jopt.eval_params(tx, state, p)
    chex.assert_trees_all_equal(found["bias"], p["bias"])
    assert jnp.max(jnp.abs(found["kernel"] - p["kernel"])) > 0.1
    chex.assert_trees_all_equal_dtypes(found, p)


def test_two_averages_are_ambiguous() -> None:
    tx = jopt.chain(jopt.params_mean(), jopt.params_ema(0.9))
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"\['params_ema', 'params_mean'\]: choose"):
        jopt.eval_params(tx, tx.init(params), params)
    with pytest.raises(TypeError, match=r"eval_params\(tx, state, params\)"):
        jopt.eval_params(tx.init(params), tx, params)


def test_an_average_may_start_at_the_initial_parameters() -> None:
    """As timm's ModelEmaV2, and as a target network that follows each step."""
    tx = jopt.chain(jopt.sgd(0.5, 0.9), jopt.params_ema(0.8, from_init=True))
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS, jnp.float32)
    target = params
    for p, state in run(tx, params, grads):
        target = jopt.incremental_update(p, target, 0.2)
        found = jopt.eval_params(tx, state, p)
        chex.assert_trees_all_close(found, target, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="debias=True leaves out what from_init=True"):
        jopt.params_ema(0.8, debias=True, from_init=True)


FAST, SLOW = jopt.params_ema(0.5), jopt.params_ema(0.9)
SEVERAL = {
    "chain": jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW),
    "accumulate": jopt.accumulate(jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW), 1),
    "guard": jopt.skip_nonfinite(jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW)),
    "masked": jopt.masked(jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW), True),
    "partition": jopt.partition(
        {
            "a": jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW),
            "b": jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW),
        },
        {"kernel": "a", "bias": "b", "scalar": "b"},
    ),
}


@pytest.mark.parametrize("nesting", SEVERAL)
def test_one_of_several_averages_is_chosen_by_its_name(nesting: str) -> None:
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS, jnp.float32)
    tx = SEVERAL[nesting]
    p, state = run(tx, params, grads)[-1]
    for name, average in {"fast": FAST, "slow": SLOW}.items():
        alone = jopt.chain(jopt.sgd(0.5), average)
        q, own = run(alone, params, grads)[-1]
        expected = jopt.eval_params(alone, own, q)
        found = jopt.eval_params(tx, state, p, name=name)
        chex.assert_trees_all_close(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\['fast', 'slow'\]: none is called 'ema'"):
        jopt.eval_params(tx, state, p, name="ema")
    with pytest.raises(ValueError, match=r"\['fast', 'slow'\]: choose one with name="):
        jopt.eval_params(tx, state, p)


def test_averages_without_a_name_are_numbered() -> None:
    params = {"w": jnp.ones(2)}
    tx = jopt.chain(jopt.sgd(0.5), FAST, SLOW)
    p, state = run(tx, params, [params, params])[-1]
    found = jopt.eval_params(tx, state, p, name="params_ema_2")
    chex.assert_trees_all_close(found, {"w": jnp.full(2, 0.45)})
    plain = jopt.sgd(0.1)
    default = jopt.eval_params(plain, plain.init(p), p, name="slow", default=p)
    assert default is p


def test_an_average_inside_a_wrapper_has_its_own_name() -> None:
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS, jnp.float32)
    masked = jopt.masked(jopt.params_mean(), "kernel")
    tx = jopt.chain(jopt.sgd(0.5), masked, slow=SLOW)
    p, state = run(tx, params, grads)[-1]
    found = jopt.eval_params(tx, state, p, name="params_mean")
    alone = jopt.chain(jopt.sgd(0.5), masked)
    q, own = run(alone, params, grads)[-1]
    chex.assert_trees_all_close(found, jopt.eval_params(alone, own, q), rtol=1e-6)


def test_a_group_without_the_average_of_this_name_is_evaluated_as_it_is() -> None:
    params, grads = as_dtype(PARAMS, jnp.float32), as_dtype(GRADS, jnp.float32)
    both = jopt.chain(jopt.sgd(0.5), fast=FAST, slow=SLOW)
    one = jopt.chain(jopt.sgd(0.5), slow=SLOW)
    labels = {"kernel": "both", "bias": "one", "scalar": "one"}
    tx = jopt.partition({"both": both, "one": one}, labels)
    p, state = run(tx, params, grads)[-1]
    found = jopt.eval_params(tx, state, p, name="fast")
    chex.assert_trees_all_equal(found["bias"], p["bias"])
    assert not jnp.allclose(found["kernel"], p["kernel"])
    assert not jnp.allclose(
        jopt.eval_params(tx, state, p, name="slow")["bias"], p["bias"]
    )


def test_a_parameter_may_be_a_number_of_python() -> None:
    tx, params = jopt.chain(jopt.sgd(1.0), jopt.params_mean()), {"w": 3.0}
    _, state = tx.update({"w": jnp.ones(())}, tx.init(params), params)
    assert jopt.eval_params(tx, state, params)["w"] == 2.0
