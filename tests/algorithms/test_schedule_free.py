"""Schedule-Free: three points, of which one is trained and another evaluated."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.laws.case import Case, transform
from tests.parity.row import keras, optax, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def scale_by_schedule_free(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
    warmup_steps: int = 0,
    rescale: bool = True,
) -> Iterator[Array]:
    """What `schedule_free_sgd` adds to parameters that stay where they are."""
    run = _three_points(
        p, learning_rate, b1, weight_lr_power, r, warmup_steps, rescale, moves=False
    )
    next(run)
    for _, g in steps(grads):
        yield run.send(lambda y, g=g: g) - p


def schedule_free_sgd(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar = 1.0,
    warmup_steps: int = 0,
    b1: Scalar = 0.9,
    weight_decay: float = 0.0,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
) -> Iterator[Array]:
    """Defazio et al., 2024, "The road less scheduled": y, z and x of SGD."""
    run = _three_points(p, learning_rate, b1, weight_lr_power, r, warmup_steps)
    next(run)
    for _, g in steps(grads):
        yield run.send(lambda y, g=g: g + weight_decay * y)


def schedule_free_adamw(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar = 0.0025,
    warmup_steps: int = 0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: float = 0.0,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
) -> Iterator[Array]:
    """The same paper, Schedule-Free AdamW."""
    run = _three_points(p, learning_rate, b1, weight_lr_power, r, warmup_steps)
    next(run)
    v = np.zeros(np.shape(p))
    for t, g in steps(grads):
        v = at(b2, t) * v + (1 - at(b2, t)) * np.abs(g) ** 2
        root = np.sqrt(v / (1 - at(b2, t) ** t)) + at(eps, t)
        yield run.send(lambda y, u=g / root: u + weight_decay * y)


def schedule_free(
    p: Array,
    grads: Iterable[Array],
    *,
    base_optimizer: Any,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    r: Scalar = 0.0,
) -> Iterator[Array]:
    """With plain steps ``-0.1 g``, and parameters that stay where they are."""
    del base_optimizer
    run = _three_points(
        p, learning_rate, b1, weight_lr_power, r, rescale=False, moves=False
    )
    next(run)
    for _, g in steps(grads):
        yield run.send(lambda y, g=g: -0.1 * g) - p


def _three_points(
    p: Array,
    learning_rate: Scalar,
    b1: Scalar,
    power: Scalar,
    r: Scalar,
    warmup_steps: int = 0,
    rescale: bool = True,
    moves: bool = True,
) -> Any:
    """Is sent the direction as a function of y, and yields the next y."""
    y = z = double(p)
    lr_max = weight_sum = 0.0
    t = 0
    direction: Callable[[Array], Array] = yield
    while True:
        t += 1
        beta = at(b1, t)
        lr = at(learning_rate, t) * min(1.0, t / warmup_steps if warmup_steps else 1.0)
        x = (y - (1 - beta) * z) / beta
        z = z - lr * direction(y) if rescale else z + direction(y)
        lr_max = max(lr, lr_max)
        weight = t ** at(r, t) * lr_max ** at(power, t)
        weight_sum += weight
        c = weight / weight_sum if weight_sum > 0 else 0.0
        x = (1 - c) * x + c * z
        new = (1 - beta) * z + beta * x
        y = new if moves else y
        direction = yield new


CASES = [
    Case("schedule_free_adamw"),
    Case(
        "schedule_free_adamw",
        {"warmup_steps": 5, "weight_decay": 0.1, "r": 0.5, "b1": 0.95},
    ),
    Case("schedule_free_sgd", {"weight_lr_power": 1.0}),
    transform(
        "schedule_free",
        base_optimizer=jopt.scale(-0.1),
        learning_rate=0.1,
        r=1.0,
    ),
    transform("scale_by_schedule_free", learning_rate=0.2),
]

authors = partial(torch_like, "schedulefree")
ROWS = (
    authors("adamw", "AdamWScheduleFree(lr=0.01)", "schedule_free_adamw(0.01)"),
    authors(
        "adamw-warmup-decay",
        "AdamWScheduleFree(lr=0.05, betas=(0.95, 0.99), warmup_steps=7, "
        "weight_decay=0.1, r=0.5, weight_lr_power=1.5)",
        "schedule_free_adamw(0.05, 7, 0.95, 0.99, weight_decay=0.1, r=0.5, "
        "weight_lr_power=1.5)",
    ),
    authors(
        "adamw-schedule",
        "AdamWScheduleFree(lr=0.05, weight_decay=0.1)",
        "schedule_free_adamw(DECAY, weight_decay=0.1)",
    ),
    authors(
        "sgd-warmup-decay",
        "SGDScheduleFree(lr=0.5, warmup_steps=7, weight_decay=0.1)",
        "schedule_free_sgd(0.5, 7, weight_decay=0.1)",
    ),
    authors(
        "sgd-power-of-the-step",
        "SGDScheduleFree(lr=0.5, momentum=0.98, r=2.0, weight_lr_power=0.0)",
        "schedule_free_sgd(0.5, b1=0.98, r=2.0, weight_lr_power=0.0)",
    ),
    authors(
        "radam",
        "RAdamScheduleFree(lr=0.05, weight_decay=0.1)",
        "schedule_free_adamw(0.05, weight_decay=0.1, rectify=True)",
    ),
    authors(
        "radam-short",
        "RAdamScheduleFree(lr=0.05, betas=(0.9, 0.9), r=1.0)",
        "schedule_free_adamw(0.05, b2=0.9, rectify=True, r=1.0)",
    ),
    authors(
        "wrapper",
        # The first call is the one that is given the parameters.
        "SGDScheduleFree() and ScheduleFreeWrapper("
        "torch.optim.SGD(SGDScheduleFree.args[0], 0.1, momentum=0.5), r=1.0)",
        "schedule_free(sgd(0.1, 0.5), 0.1, r=1.0)",
    ),
    keras(
        "schedule-free",
        "ScheduleFreeAdamW(0.01)",
        "schedule_free_adamw(0.01, weight_lr_power=0.0)",
    ),
    keras(
        "schedule-free-warmup",
        "ScheduleFreeAdamW(0.05, beta_1=0.95, beta_2=0.99, warmup_steps=7)",
        "schedule_free_adamw(0.05, 7, 0.95, 0.99, weight_lr_power=0.0)",
    ),
    keras(
        "schedule-free-schedule",
        "ScheduleFreeAdamW(DECAY)",
        "schedule_free_adamw(DECAY, weight_lr_power=0.0)",
    ),
    optax("schedule-free-sgd", "schedule_free_sgd(0.5, weight_decay=0.1)"),
    optax(
        "schedule-free-adamw",
        "schedule_free_adamw(0.01, b1=0.95, weight_decay=0.1)",
    ),
    optax("schedule-free", "schedule_free(lion(0.01), 0.01, 0.8, 1.0)"),
)

START = np.array([1.0, -2.0, 0.5])
GRADS = [np.cos(t + np.arange(3)) for t in range(1, 11)]
# What the authors' package (schedulefree 1.4.1) has after these gradients in float64:
# the parameters, and the parameters after its eval().
AUTHORS = [
    (
        "AdamWScheduleFree",
        {"lr": 0.05, "warmup_steps": 4, "weight_decay": 0.1},
        jopt.schedule_free_adamw(0.05, 4, weight_decay=0.1),
        [1.0207294591136, -1.92391503636171, 0.463573158240599],
        [1.01668762280751, -1.93255131227574, 0.464520911664885],
    ),
    (
        "SGDScheduleFree",
        {"lr": 0.5, "momentum": 0.8, "r": 1.0},
        jopt.schedule_free_sgd(0.5, b1=0.8, r=1.0),
        [1.35330735149077, -1.30634349733964, 0.896261064244873],
        [1.26445322105647, -1.37709491596655, 0.908660885424046],
    ),
    (
        "RAdamScheduleFree",
        {"lr": 0.05},
        jopt.schedule_free_adamw(0.05, rectify=True),
        [0.999462058483768, -1.99870494497592, 0.50178601890507],
        [0.999146651423541, -1.99888239153402, 0.501903659800682],
    ),
]


def run(tx: Any, params: Any, grads: list[Any]) -> tuple[Any, Any]:
    """State and parameters after the gradients."""
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = jopt.apply_updates(params, updates)
    return state, params


@pytest.mark.parametrize(("name", "options", "tx", "trained", "evaluated"), AUTHORS)
def test_both_points_are_those_of_the_authors_package(
    name: str, options: Any, tx: Any, trained: list[float], evaluated: list[float]
) -> None:
    with jax.enable_x64(True):
        state, y = run(tx, jnp.asarray(START), [jnp.asarray(g) for g in GRADS])
        x = jopt.eval_params(tx, state, y)
    np.testing.assert_allclose(y, trained, rtol=1e-12)
    np.testing.assert_allclose(x, evaluated, rtol=1e-12)
    with contextlib.suppress(ImportError):
        library, torch = map(importlib.import_module, ("schedulefree", "torch"))
        p = torch.tensor(START, requires_grad=True)
        optimizer = getattr(library, name)([p], **options)
        optimizer.train()
        for g in GRADS:
            p.grad = torch.tensor(g)
            optimizer.step()
        optimizer.eval()
        np.testing.assert_allclose(p.detach().numpy(), evaluated, rtol=1e-12)


def plain_points(rates: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """z and x of SGD, by definition, for weights of the squared largest rate."""
    with jax.enable_x64(True):
        tx = jopt.schedule_free_sgd(lambda count: jnp.asarray(rates)[count])
        params = jnp.asarray(START)
        state, y = run(tx, params, [jnp.asarray(g) for g in GRADS])
        x = np.asarray(jopt.eval_params(tx, state, y))
    zs = START - np.cumsum([r * g for r, g in zip(rates, GRADS, strict=True)], axis=0)
    weights = np.maximum.accumulate(rates) ** 2
    return x, np.average(zs, axis=0, weights=weights)


@pytest.mark.parametrize(
    "rates",
    [[0.3] * 10, [0.1, 0.2, 0.3] + [0.4] * 7, [0.0, 0.0, 0.2] + [0.1] * 7],
    ids=["constant", "warmup", "from zero, and down"],
)
def test_x_is_the_mean_of_z_weighted_by_the_rate_of_the_same_step(
    rates: list[float],
) -> None:
    # optax 0.2.8 weighs each step by the next one's rate.
    found, expected = plain_points(rates)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_eval_params_finds_x_through_any_nesting() -> None:
    inner = jopt.schedule_free_adamw(0.1, warmup_steps=2)
    params = {"a": jnp.asarray(START, jnp.float32), "b": jnp.ones(2)}
    grads = [{"a": jnp.asarray(g, jnp.float32), "b": jnp.ones(2)} for g in GRADS]
    expected = jopt.eval_params(inner, *run(inner, params, grads))
    assert not np.allclose(expected["a"], run(inner, params, grads)[1]["a"])
    for outer in (
        jopt.chain(jopt.clip_by_global_norm(1e3), inner),
        jopt.chain(jopt.identity(), named=inner),
        jopt.partition({"all": inner}, lambda path, leaf: "all"),
        jopt.accumulate(inner, 1),
    ):
        found = jopt.eval_params(outer, *run(outer, params, grads))
        chex.assert_trees_all_close(found, expected, rtol=1e-6)
    one = jopt.masked(inner, "a")
    state, y = run(one, params, grads)
    x = jopt.eval_params(one, state, y)
    chex.assert_trees_all_close(x["a"], expected["a"], rtol=1e-6)
    chex.assert_trees_all_equal(x["b"], y["b"])


def test_a_tunable_b1_is_read_from_the_state() -> None:
    tx = jopt.schedule_free_sgd(0.5, b1=jopt.tunable(0.8), r=1.0)
    params = jnp.asarray(START, jnp.float32)
    state, y = run(tx, params, [jnp.asarray(g, jnp.float32) for g in GRADS])
    _, _, _, _, expected = AUTHORS[1]
    x = jax.jit(lambda state, y: jopt.eval_params(tx, state, y))(state, y)
    np.testing.assert_allclose(x, expected, rtol=1e-5)


def long_run(tx: Any, dtype: Any, steps: int = 1000) -> tuple[Any, Any]:
    """To the minimum of a quadratic, whose slope is at y."""
    goal = jnp.linspace(-1.0, 1.0, 8)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(params - goal.astype(dtype), state, params)
        return (jopt.apply_updates(params, updates), state), None

    params = jnp.zeros(8, dtype)
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return state["scale_by_schedule_free"], jopt.eval_params(tx, state, params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_scalars_do_not_stand_still_with_narrow_parameters(dtype: str) -> None:
    # In bfloat16 a sum of ones stands still at 256.
    tx = jopt.schedule_free_adamw(0.1, warmup_steps=10)
    state, x = long_run(tx, jnp.dtype(dtype))
    wide, expected = long_run(tx, jnp.float32)
    assert state.z.dtype == state.weight_sum.dtype == jnp.float32
    assert x.dtype == dtype
    np.testing.assert_allclose(wide.weight_sum, 990 * 0.01 + 0.0385, rtol=1e-4)
    np.testing.assert_array_equal(state.weight_sum, wide.weight_sum)
    # Late steps of y are too small for bfloat16, which has 0.004 to add to 1.
    np.testing.assert_allclose(x.astype(jnp.float32), expected, atol=0.1)


def test_state_dtype_is_that_of_z_alone() -> None:
    for make in (
        jopt.schedule_free_adamw,
        jopt.schedule_free_sgd,
        lambda rate, **options: jopt.schedule_free(jopt.sgd(rate), rate, **options),
    ):
        tx = make(0.1, state_dtype=jnp.bfloat16)
        state, x = long_run(tx, jnp.float32, steps=100)
        assert state.z.dtype == jnp.bfloat16
        assert state.weight_sum.dtype == state.max_lr.dtype == x.dtype == jnp.float32
        _, expected = long_run(make(0.1), jnp.float32, steps=100)
        np.testing.assert_allclose(x, expected, atol=2e-2)


def test_the_whole_optimizer_is_one_kernel_per_leaf() -> None:
    # It reads the gradient, y, z and v once, and writes the last three.
    tx = jopt.schedule_free_adamw(0.1, weight_decay=0.1)
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    text = str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))
    kernel = "scale_by_rms__add_decayed_weights__scale_by_schedule_free"
    assert text.count(f"name={kernel}") == 2
    assert text.count("name=scale_by_rms") == 2


def test_learning_rates_are_in_the_state_and_can_be_set() -> None:
    tx = jopt.schedule_free_adamw(0.1, warmup_steps=4)
    state = tx.init(jnp.ones(2))
    (rate,) = jopt.hyperparams(state).values()
    np.testing.assert_allclose(rate, 0.1, rtol=1e-6)
    state = jopt.set_hyperparams(tx, state, learning_rate=0.2)
    _, state = tx.update(jnp.ones(2), state, jnp.ones(2))
    max_lr = state["scale_by_schedule_free"].max_lr
    np.testing.assert_allclose(max_lr, 0.2 / 4, rtol=1e-6)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: jopt.schedule_free_adamw(-1.0), "learning_rate must be >= 0"),
    (lambda: jopt.schedule_free_sgd(b1=1.0), r"b1 must be in \[0, 1\), got b1=1.0"),
    (lambda: jopt.schedule_free_sgd(b1=0.0), "b1 must be > 0"),
    (lambda: jopt.schedule_free_sgd(warmup_steps=-1), "warmup_steps must be >= 0"),
    (lambda: jopt.schedule_free(jopt.sgd(0.1), 0.1, r=-1.0), "r must be >= 0"),
    (
        lambda: jopt.schedule_free(jopt.sgd(0.1), 0.1, weight_lr_power=float("nan")),
        "weight_lr_power must be a finite number",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_arguments_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_base_that_is_no_transformation_is_refused() -> None:
    with pytest.raises(TypeError, match="is a function: call it, sgd"):
        jopt.schedule_free(jopt.sgd, 0.1)  # pyright: ignore[reportArgumentType]
