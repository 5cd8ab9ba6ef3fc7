"""Lookahead, latest weight averaging, their schedules, and evaluation in any nesting.

`params_ema` and `params_mean` on their own are in test_averaging.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.testing.problem import as_dtype, draw, loss, stack
from tests.laws.case import transform
from tests.twins.base import Array, Scalar, at, double, steps


def params_lawa(p: Array, grads: Iterable[Array], **_: Any) -> Iterator[Array]:
    """Kaddour, 2022: the mean of the latest parameters changes no update."""
    yield from (double(g) for g in grads)


def lookahead(
    p: Array,
    grads: Iterable[Array],
    *,
    fast_optimizer: Any,
    sync_period: int,
    slow_step_size: Scalar,
    reset_state: bool = False,
) -> Iterator[Array]:
    """Zhang et al., 2019, algorithm 1, with steps ``-0.1 b``, ``b = 0.9 b + g``.

    The parameters stay where they are: each step sets out from there.
    """
    del fast_optimizer
    p = double(p)
    slow, b = p, np.zeros_like(p)
    for t, g in steps(grads):
        b = 0.9 * b + g
        fast = p - 0.1 * b
        if t % sync_period == 0:
            alpha = at(slow_step_size, t)
            slow = (1 - alpha) * slow + alpha * fast
            fast = slow
            b = np.zeros_like(p) if reset_state else b
        yield fast - p


MOMENTUM = jopt.chain(jopt.trace(0.9), jopt.scale(-0.1))
CASES = [
    transform("params_lawa", window_size=3, every=2),
    transform("lookahead", fast_optimizer=MOMENTUM, sync_period=2, slow_step_size=0.5),
    transform(
        "lookahead",
        fast_optimizer=MOMENTUM,
        sync_period=3,
        slow_step_size=0.8,
        reset_state=True,
    ),
]

PARAMS, GRADS = draw(steps=12)


def run(tx: Any, params: Any, grads: list[Any], **extra: Any) -> tuple[Any, Any, Any]:
    """After each step, stacked: the parameters, those to evaluate with, the state."""

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = tx.update(g, state, params, **extra)
        params = jopt.apply_updates(params, updates)
        shown = jopt.eval_params(tx, state, params, default=params)
        return (params, state), (params, shown, state)

    def steps(params: Any, grads: Any) -> Any:
        return jax.lax.scan(step, (params, tx.init(params)), grads)[1]

    return jax.jit(steps)(params, stack(grads))


def narrow(dtype: Any = jnp.float32) -> tuple[Any, Any]:
    return as_dtype(PARAMS, dtype), as_dtype(GRADS, dtype)


# Lookahead.


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_both_points_are_those_of_optax(name: str, reset: bool) -> None:
    options = {"sgd": (0.5, 0.9), "adam": (0.1,)}[name]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, grads = narrow(jnp.float64)
        fast = getattr(optax, name)(*options)
        theirs = optax.lookahead(fast, 3, 0.8, reset)

        def step(carry: Any, g: Any) -> Any:
            pair, state = carry
            updates, state = theirs.update(g, state, pair)
            pair: Any = optax.apply_updates(pair, updates)
            return (pair, state), (pair.fast, pair.slow)

        pair = optax.LookaheadParams.init_synced(params)
        start = (pair, theirs.init(pair))
        _, expected = jax.lax.scan(step, start, stack(grads))
        tx = jopt.lookahead(getattr(jopt, name)(*options), 3, 0.8, reset)
        found = run(tx, params, grads)[:2]
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None,
    reason="pytorch_optimizer is not installed",
)
@pytest.mark.parametrize("reset", [False, True])
def test_both_points_are_those_of_pytorch_optimizer(reset: bool) -> None:
    import torch

    library = importlib.import_module("pytorch_optimizer")
    w = torch.nn.Parameter(torch.tensor(PARAMS["kernel"]))
    fast = torch.optim.SGD([w], 0.5, momentum=0.9)
    pullback = "reset" if reset else "none"
    optimizer = library.Lookahead(fast, k=5, alpha=0.5, pullback_momentum=pullback)
    with jax.enable_x64(True):
        params, grads = narrow(jnp.float64)
        tx = jopt.lookahead(jopt.sgd(0.5, 0.9), reset_state=reset)
        fasts, slows, _ = run(tx, params, grads)
    for g, p, slow in zip(GRADS, fasts["kernel"], slows["kernel"], strict=True):
        w.grad = torch.tensor(g["kernel"])
        optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), p, rtol=1e-12)
        np.testing.assert_allclose(optimizer.state[w]["slow_params"], slow, rtol=1e-12)


class Started(NamedTuple):
    start: Any


def from_the_start() -> Any:
    """Steps along the way from where its state was made."""
    return jopt.leafwise(
        lambda g, start, *, p: (-0.1 * g + 0.5 * (start - p), start),
        state=Started,
        start=jopt.copied(),
    )


def test_a_reset_sets_out_from_the_new_parameters() -> None:
    params, grads = narrow()
    tx = jopt.lookahead(from_the_start(), 4, 0.5, reset_state=True)
    found, _, state = run(tx, params, grads)
    for t in range(len(grads)):
        last = t - (t + 1) % 4
        expected = {n: found[n][last] if last >= 0 else p for n, p in params.items()}
        kept = {n: x[t] for n, x in state.fast_state.start.items()}
        chex.assert_trees_all_close(kept, expected, rtol=1e-6)


def test_a_reset_leaves_rates_that_were_set_and_schedules_as_they_are() -> None:
    params, grads = narrow()
    ramp = jopt.linear_schedule(1.0, 0.0, 12)
    inner = jopt.masked(jopt.chain(jopt.scale_by_adam(), jopt.sgd(ramp)), True)
    tx = jopt.lookahead(inner, 3, 0.5, reset_state=True)
    state = run(tx, params, grads)[2].fast_state.inner_state
    assert state["scale_by_adam"].count.tolist() == [1, 2, 0] * 4
    rates = state["scale_by_learning_rate"].learning_rate
    np.testing.assert_allclose(rates, [float(ramp(t)) for t in range(12)], 1e-6)

    tx = jopt.lookahead(jopt.adam(0.1, b1=jopt.tunable(0.8)), 1, reset_state=True)
    state = jopt.set_hyperparams(tx, tx.init(params), learning_rate=0.7, b1=0.5)
    before = jopt.hyperparams(state)
    _, state = tx.update(grads[1], state, params)
    assert jopt.hyperparams(state) == before
    assert state.fast_state["scale_by_adam"].count == 0


def test_a_step_size_that_is_set_or_scheduled_is_used_at_the_next_pull() -> None:
    params, grads = narrow()
    tx = jopt.lookahead(jopt.sgd(0.5), 2, jopt.tunable(0.5))
    state = jopt.set_hyperparams(tx, tx.init(params), slow_step_size=1.0)
    p = params
    for g in grads[:2]:
        updates, state = tx.update(g, state, p)
        p = jopt.apply_updates(p, updates)
    chex.assert_trees_all_close(jopt.eval_params(tx, state, p), p, rtol=1e-6)
    plain = run(jopt.sgd(0.5), params, grads)[0]
    chex.assert_trees_all_close(p, {n: x[1] for n, x in plain.items()}, rtol=1e-6)


def test_slow_parameters_are_wide_and_extra_arguments_reach_the_optimizer() -> None:
    params, grads = narrow(jnp.bfloat16)
    tx = jopt.lookahead(jopt.polyak_sgd(0.5), 2)
    state = run(tx, params, grads, value=loss(params))[2]
    assert state.slow["kernel"].dtype == jnp.float32
    assert state.steps_since_sync.tolist() == [1, 0] * 6
    with pytest.raises(TypeError, match=r"polyak.* needs the argument 'value'"):
        tx.update(grads[0], tx.init(params), params)


def test_slow_parameters_stay_in_the_dtype_that_is_chosen() -> None:
    params, grads = narrow()
    pull = {"sync_period": 2, "slow_step_size": 0.3}
    tx = jopt.lookahead(jopt.sgd(0.5), slow_dtype=jnp.bfloat16, **pull)
    assert tx.init(params).slow["kernel"].dtype == jnp.bfloat16
    found, slows, state = run(tx, params, grads)
    assert state.slow["kernel"].dtype == jnp.bfloat16
    assert slows["kernel"].dtype == found["kernel"].dtype == jnp.float32
    # By hand: each pull is computed in float32 and only then rounded.
    p, slow = params["kernel"], params["kernel"].astype(jnp.bfloat16)
    for t, g in enumerate(grads, start=1):
        p = p - 0.5 * g["kernel"]
        if t % 2 == 0:
            old = slow.astype(jnp.float32)
            p = old + 0.3 * (p - old)
            slow = p.astype(jnp.bfloat16)
        np.testing.assert_allclose(found["kernel"][t - 1], p, rtol=1e-6)
        np.testing.assert_array_equal(state.slow["kernel"][t - 1], slow)


# The latest parameters.


@pytest.mark.parametrize(("window_size", "every"), [(1, 1), (3, 1), (3, 2), (5, 3)])
def test_the_mean_is_of_the_latest_parameters_that_were_taken(
    window_size: int, every: int
) -> None:
    with jax.enable_x64(True):
        params, grads = narrow(jnp.float64)
        tx = jopt.chain(jopt.sgd(0.5, 0.9), jopt.params_lawa(window_size, every))
        found, averages, _ = run(tx, params, grads)
    for t in range(len(grads)):
        taken = [s for s in range(t + 1) if (s + 1) % every == 0][-window_size:] or [t]
        for name in PARAMS:
            expected = np.mean([found[name][s] for s in taken], axis=0)
            np.testing.assert_allclose(averages[name][t], expected, rtol=1e-12)


def test_a_window_is_in_the_dtype_that_is_chosen_and_the_mean_in_that_of_params() -> (
    None
):
    params, grads = narrow(jnp.bfloat16)
    for dtype in (None, "bfloat16"):
        tx = jopt.chain(jopt.sgd(0.5), jopt.params_lawa(3, accumulator_dtype=dtype))
        found, averages, state = run(tx, params, grads)
        window = state["params_lawa"].window["kernel"]
        assert window.dtype == (dtype or "float32")
        assert window.shape == (len(grads), 3, 3, 4)
        chex.assert_trees_all_equal_dtypes(averages, params)
        last = found["kernel"][-3:].astype(jnp.float32)
        expected = jnp.mean(last, 0)
        mean = averages["kernel"][-1].astype(jnp.float32)
        np.testing.assert_allclose(mean, expected, rtol=2.0**-7)


def test_a_step_writes_one_of_the_window_in_place() -> None:
    size, window_size = 1000, 50
    tx = jopt.chain(jopt.sgd(0.1), jopt.params_lawa(window_size, 10))
    params = {"w": jnp.ones(size)}

    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = tx.update(g, state, params)
        return jopt.apply_updates(params, updates), state

    state = tx.init(params)
    donated = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    compiled: Any = donated.compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= (window_size + 1) * size * 4
    assert memory.temp_size_in_bytes < 3 * size * 4
    assert compiled.cost_analysis()["bytes accessed"] < 10 * size * 4


def test_a_window_is_sharded_like_the_parameters() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    params = {"w": jax.device_put(jnp.ones((16, 4)), NamedSharding(mesh, P("data")))}
    tx = jopt.params_lawa(3)
    wanted = NamedSharding(mesh, P(None, "data"))
    for init in (tx.init, jax.jit(tx.init)):
        state = init(params)
        assert state.window["w"].sharding.is_equivalent_to(wanted, 3)
        _, state = jax.jit(tx.update)(params, state, params)
        assert state.window["w"].sharding.is_equivalent_to(wanted, 3)


# Schedules.


# torch 2.13: ExponentialLR(gamma=0.9) from 0.1 for four steps, then SWALR to 0.05.
SWALR = {
    "cos": [
        *(0.1, 0.09, 0.081, 0.0729, 0.06561),
        *(0.06170750, 0.05390250, 0.05, 0.05, 0.05),
    ],
    "linear": [
        *(0.1, 0.09, 0.081, 0.0729, 0.06561),
        *(0.0604066667, 0.0552033333, 0.05, 0.05, 0.05),
    ],
}


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_swa_takes_over_from_a_schedule_as_in_torch(strategy: str) -> None:
    decay = jopt.exponential_decay(0.1, 1, 0.9)
    with jax.enable_x64(True):
        values = jopt.swa_schedule(decay, 4, 0.05, 3, strategy)(jnp.arange(10))
    np.testing.assert_allclose(values, SWALR[strategy], rtol=1e-7)
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    before = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    after = torch.optim.swa_utils.SWALR(
        optimizer, 0.05, 3, "cos" if strategy == "cos" else "linear"
    )
    optimizer.param_groups[0]["lr"] = 0.1  # SWALR sets its own at once
    found = []
    for t in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        (before if t < 4 else after).step()
    np.testing.assert_allclose(values, found, rtol=1e-12)


def test_an_average_that_warms_up_has_the_decay_of_its_step() -> None:
    decay = jopt.ema_warmup_schedule(0.6)
    tx = jopt.chain(jopt.sgd(0.5), jopt.params_ema(decay))
    config = json.loads(json.dumps(jopt.to_config(tx)))
    assert jopt.from_config(config) == tx
    with jax.enable_x64(True):
        params, grads = narrow(jnp.float64)
        found, averages, state = jax.tree.map(np.asarray, run(tx, params, grads))
    avg = found["kernel"][0]
    for t, p in enumerate(found["kernel"][1:], start=1):
        d = min(0.6, (1 + t) / (10 + t))
        avg = d * avg + (1 - d) * p
        np.testing.assert_allclose(averages["kernel"][t], avg, rtol=1e-12)
    rates = state["params_ema"].decay
    np.testing.assert_allclose(rates[[0, 1, 11]], [0.1, 2 / 11, 12 / 21])


# Evaluation through three wrappers, in every order, against loops for single leaves.


class Averaged:
    """SGD and an average of its parameters, of one leaf, by definition."""

    def __init__(self, kind: str, p: np.ndarray):
        self.kind, self.slow, self.points = kind, p, []

    def step(self, g: np.ndarray, p: np.ndarray) -> np.ndarray:
        new = p - 0.5 * g
        self.points.append(new)
        if self.kind == "lookahead" and len(self.points) % 2 == 0:
            self.slow = new = self.slow + 0.5 * (new - self.slow)
        return new - p

    def evaluated(self, p: np.ndarray) -> np.ndarray:
        points = self.points or [p]
        if self.kind == "lookahead":
            return self.slow
        if self.kind == "ema":
            avg = points[0]
            for point in points[1:]:
                avg = 0.7 * avg + 0.3 * point
            return avg
        return np.mean(points[-3:], axis=0)


AVERAGED = {
    "ema": jopt.chain(jopt.sgd(0.5), jopt.params_ema(0.7)),
    "lawa": jopt.chain(jopt.sgd(0.5), jopt.params_lawa(3)),
    "lookahead": jopt.lookahead(jopt.sgd(0.5), 2),
}


class Passed:
    """A leaf that is left out: its gradient times a factor is its update."""

    def __init__(self, factor: float):
        self.factor = factor

    def step(self, g: np.ndarray, p: np.ndarray) -> np.ndarray:
        return self.factor * g

    def evaluated(self, p: np.ndarray) -> np.ndarray:
        return p


class Doubled:
    def __init__(self, inner: Any):
        self.inner, self.evaluated = inner, inner.evaluated

    def step(self, g: np.ndarray, p: np.ndarray) -> np.ndarray:
        return self.inner.step(2 * g, p)


class Paired:
    def __init__(self, inner: Any):
        self.inner, self.evaluated, self.waiting = inner, inner.evaluated, []

    def step(self, g: np.ndarray, p: np.ndarray) -> np.ndarray:
        self.waiting.append(g)
        if len(self.waiting) < 2:
            return np.zeros_like(p)
        first, second = self.waiting
        self.waiting = []
        return self.inner.step((first + second) / 2, p)


# Each wrapper with a transformation inside, and what it is for one leaf.
WRAPPERS: dict[str, tuple[Callable[[Any], Any], Callable[[str, Any], Any]]] = {
    "masked": (
        lambda tx: jopt.masked(tx, "kernel|scalar"),
        lambda name, inner: Passed(1.0) if name == "bias" else inner,
    ),
    "partition": (
        lambda tx: jopt.partition(
            {"avg": tx, "sgd": jopt.sgd(0.1)},
            lambda path, leaf: "sgd" if path == "scalar" else "avg",
        ),
        lambda name, inner: Passed(-0.1) if name == "scalar" else inner,
    ),
    "accumulate": (
        lambda tx: jopt.accumulate(tx, 2),
        lambda name, inner: Paired(inner),
    ),
    "chain": (
        lambda tx: jopt.chain(jopt.scale(2.0), inner=tx),
        lambda name, inner: Doubled(inner),
    ),
}
ORDERS: list[Any] = list(itertools.permutations(WRAPPERS, 3))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_three_wrappers_in_any_order_do_what_a_loop_by_hand_does(
    order: tuple[str, ...],
) -> None:
    kind = list(AVERAGED)[ORDERS.index(order) % 3]
    tx, loops = AVERAGED[kind], {n: Averaged(kind, p) for n, p in PARAMS.items()}
    for wrapper in reversed(order):
        wrap, by_hand = WRAPPERS[wrapper]
        tx = wrap(tx)
        loops = {name: by_hand(name, inner) for name, inner in loops.items()}
    with jax.enable_x64(True):
        params, grads = narrow(jnp.float64)
        found, averages, _ = run(tx, params, grads)
    p = dict(PARAMS)
    for t, g in enumerate(GRADS):
        p = {n: p[n] + loops[n].step(g[n], p[n]) for n in p}
        expected = p, {n: loops[n].evaluated(p[n]) for n in p}
        now = jax.tree.map(lambda x, t=t: x[t], (found, averages))
        chex.assert_trees_all_close(now, expected, rtol=1e-12, atol=1e-13)


# Misuse.

EMA = jopt.chain(jopt.sgd(0.1), jopt.params_ema(0.9))
MISUSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: jopt.lookahead(jopt.sgd(0.1), 0), "sync_period must be >= 1, got sync_"),
    (
        lambda: jopt.lookahead(jopt.sgd(0.1), 5, 1.5),
        r"slow_step_size must be in \[0, 1\], got slow_step_size=1.5",
    ),
    (
        lambda: jopt.lookahead(jopt.sgd, 5),  # pyright: ignore[reportArgumentType]
        r"lookahead: fast_optimizer is <function sgd.*call it, sgd\(…\)",
    ),
    (
        lambda: jopt.lookahead(EMA),
        "Put the average after lookahead in a chain. Got chain",
    ),
    (
        lambda: jopt.lookahead(jopt.sgd(0.1)).update(
            {"w": jnp.ones(2)}, jopt.lookahead(jopt.sgd(0.1)).init({"w": jnp.ones(2)})
        ),
        "lookahead needs the parameters: call update",
    ),
    (lambda: jopt.params_lawa(0), "window_size must be >= 1, got window_size=0"),
    (lambda: jopt.params_lawa(3, 0), "every must be >= 1, got every=0"),
    (
        lambda: jopt.params_lawa().update(
            {"w": jnp.ones(2)}, jopt.params_lawa().init({"w": None}), {"w": jnp.ones(2)}
        ),
        "the state has no slot for leaf 'w'",
    ),
    (
        lambda: jopt.params_lawa(2).update(
            {"w": jnp.ones(2)},
            jopt.params_lawa(3).init({"w": jnp.ones(2)}),
            {"w": jnp.ones(2)},
        ),
        r"the state's window has shape \(3, 2\), not \(2, 2\)",
    ),
    (
        lambda: jopt.eval_params(
            jopt.chain(jopt.lookahead(jopt.sgd(0.1)), jopt.params_lawa()),
            jopt.chain(jopt.lookahead(jopt.sgd(0.1)), jopt.params_lawa()).init(
                {"w": jnp.ones(2)}
            ),
            {"w": jnp.ones(2)},
        ),
        "lookahead.*params_lawa.*choose one with name",
    ),
]


@pytest.mark.parametrize(("call", "message"), MISUSE)
def test_misuse_is_an_error_that_says_how_to_fix_it(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
