"""Gradients at perturbed points are those of the papers, and cost what they should."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jopt
from jopt.testing.comparison import types
from jopt.testing.problem import as_dtype


# A loss with its gradient by hand: 0.5 w.A w + 0.25 c.w^4 over two leaves, whose
# gradients have other magnitudes than each other.
RNG = np.random.default_rng(0)
START = {"bias": 1e-2 * RNG.normal(size=3), "kernel": RNG.normal(size=(2, 2))}
ROOT = RNG.normal(size=(7, 7))
MATRIX = ROOT @ ROOT.T / 7
QUARTIC = np.array([1e-3, 1.0, 10.0, 1e-2, 1.0, 0.1, 3.0])
STEPS, RATE = 12, 0.05


def flat(tree: Any) -> Any:
    return np.concatenate([np.ravel(tree["bias"]), np.ravel(tree["kernel"])])


def loss(params: Any, scale: Any = 1.0) -> jax.Array:
    w = jnp.concatenate([params["bias"].ravel(), params["kernel"].ravel()])
    matrix, quartic = (jnp.asarray(x, w.dtype) for x in (MATRIX, QUARTIC))
    return scale * (0.5 * w @ matrix @ w + 0.25 * jnp.sum(quartic * w**4))


def slope(w: np.ndarray) -> np.ndarray:
    return MATRIX @ w + QUARTIC * w**3


VALUE_AND_GRAD = jax.value_and_grad(loss)


def descent(gradient: Callable[[int, np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Plain gradient descent, with a gradient that is told the step."""
    w = flat(START)
    for t in range(STEPS):
        w = w - RATE * gradient(t, w)
        yield w


def sam_by_hand(rho: float, unit: Any = np.ones_like) -> Iterator[np.ndarray]:
    """Foret et al., algorithm 1; Kwon et al., algorithm 1, with ``T = unit(w)``."""

    def gradient(t: int, w: np.ndarray) -> np.ndarray:
        g, scale = slope(w), unit(w)
        return slope(w + rho * scale**2 * g / np.linalg.norm(scale * g))

    return descent(gradient)


def looksam_by_hand(rho: float, k: int, alpha: float) -> Iterator[np.ndarray]:
    """Liu et al., algorithm 1, with the angle as they have it."""
    kept = {}

    def gradient(t: int, w: np.ndarray) -> np.ndarray:
        g = slope(w)
        if t % k == 0:
            second = slope(w + rho * g / np.linalg.norm(g))
            cosine = g @ second / np.linalg.norm(g) / np.linalg.norm(second)
            along = np.linalg.norm(second) * cosine * g / np.linalg.norm(g)
            kept["v"] = second - along
            return second
        v = kept["v"]
        return g + alpha * np.linalg.norm(g) / np.linalg.norm(v) * v

    return descent(gradient)


def run(method: Any, params: Any) -> Any:
    """The parameters after each step of gradient descent."""
    has_state = hasattr(method, "init")

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        if has_state:
            (_, grads), state = method.value_and_grad(state, params)
        else:
            _, grads = method(params)
        params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
        return (params, state), params

    def steps(params: Any) -> Any:
        state = method.init(params) if has_state else None
        return jax.lax.scan(step, (params, state), length=STEPS)[1]

    return jax.jit(steps)(params)


def rows(run: Any) -> np.ndarray:
    """A run of trees as an array, a row per step."""
    return np.concatenate(
        [np.reshape(run[n], (STEPS, -1)) for n in ("bias", "kernel")], axis=1
    )


def is_bias(path: str, leaf: Any) -> bool:
    return path == "bias"


def only_kernel(w: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones(3), np.abs(w[3:]) + 0.01])


@pytest.mark.parametrize(
    ("made", "by_hand"),
    [
        (lambda f: jopt.sam(f, 0.3), lambda: sam_by_hand(0.3)),
        (
            lambda f: jopt.asam(f, 0.7, eta=0.05),
            lambda: sam_by_hand(0.7, lambda w: np.abs(w) + 0.05),
        ),
        (lambda f: jopt.asam(f, 0.7, eta=0.0), lambda: sam_by_hand(0.7, np.abs)),
        (
            lambda f: jopt.asam(f, 0.7, mask="kernel"),
            lambda: sam_by_hand(0.7, only_kernel),
        ),
        (lambda f: jopt.looksam(f, 0.3, 5, 0.7), lambda: looksam_by_hand(0.3, 5, 0.7)),
        (lambda f: jopt.looksam(f, 0.3, 1), lambda: sam_by_hand(0.3)),
    ],
    ids=["sam", "asam", "asam eta=0", "asam mask", "looksam", "looksam every step"],
)
def test_every_step_is_that_of_the_paper(made: Any, by_hand: Any) -> None:
    with jax.enable_x64(True):
        params = as_dtype(START, jnp.float64)
        found = run(made(VALUE_AND_GRAD), params)
        np.testing.assert_allclose(rows(found), list(by_hand()), rtol=1e-12)


def test_sam_is_that_of_optax_with_a_normalized_adversary() -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.3))
        tx = optax.contrib.sam(optax.adam(RATE), adversary, 2, opaque_mode=True)
        ours, f = jopt.adam(RATE), jopt.sam(VALUE_AND_GRAD, 0.3)

        def step(carry: Any, _: Any) -> Any:
            theirs, state, params, own = carry
            updates, state = tx.update(
                *(jax.grad(loss)(theirs), state, theirs),
                grad_fn=lambda p, _: jax.grad(loss)(p),
            )
            theirs = optax.apply_updates(theirs, updates)
            updates, own = ours.update(f(params)[1], own, params)
            params = jopt.apply_updates(params, updates)
            return (theirs, state, params, own), (theirs, params)

        params = as_dtype(START, jnp.float64)
        start = (params, tx.init(params), params, ours.init(params))
        _, (theirs, found) = jax.lax.scan(step, start, length=STEPS)
        chex.assert_trees_all_close(found, theirs, rtol=1e-11)
        assert np.max(np.abs(rows(found)[-1] - flat(START))) > 0.1


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None,
    reason="pytorch_optimizer is not installed",
)
@pytest.mark.parametrize(
    ("name", "options", "made"),
    [
        ("SAM", {"rho": 0.3}, lambda f: jopt.sam(f, 0.3)),
        (
            "SAM",
            {"rho": 0.7, "adaptive": True},
            lambda f: jopt.asam(f, 0.7, eta=0.0),
        ),
        (
            "LookSAM",
            {"rho": 0.3, "k": 5, "alpha": 0.7},
            lambda f: jopt.looksam(f, 0.3, 5, 0.7),
        ),
    ],
    ids=["sam", "asam", "looksam"],
)
def test_steps_are_those_of_pytorch_optimizer(
    name: str, options: Any, made: Any
) -> None:
    # It takes the norm of all tensors in float32, and LookSAM's others per tensor: so
    # there is one tensor here, and 1e-7 is all that can be asked.
    import torch

    library = importlib.import_module("pytorch_optimizer")
    matrix, quartic = torch.tensor(MATRIX), torch.tensor(QUARTIC)
    w = torch.nn.Parameter(torch.tensor(flat(START)))
    optimizer = getattr(library, name)([w], torch.optim.SGD, lr=RATE, **options)

    def closure() -> Any:
        optimizer.zero_grad()
        value = 0.5 * w @ matrix @ w + 0.25 * (quartic * w**4).sum()
        value.backward()
        return value

    with jax.enable_x64(True):
        params = {"bias": jnp.asarray(flat(START)), "kernel": jnp.zeros((0, 0))}
        found = run(made(VALUE_AND_GRAD), params)
    for expected in found["bias"]:
        closure()
        optimizer.step(closure)
        np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-6, atol=1e-7)


# What it costs.


def test_looksam_takes_its_second_gradient_in_every_fifth_step_only() -> None:
    calls: list[int] = []

    def counted(params: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return VALUE_AND_GRAD(params)

    params = as_dtype(START, jnp.float32)
    jax.block_until_ready(run(jopt.looksam(counted, update_interval=5), params))
    jax.effects_barrier()
    assert len(calls) == STEPS + 3  # in the steps 1, 6 and 11


def test_the_step_that_looksam_makes_cheap_has_no_product_in_it() -> None:
    params = as_dtype(START, jnp.float32)
    init, f = jopt.looksam(VALUE_AND_GRAD)
    jaxpr = jax.make_jaxpr(f)(init(params), params)
    # tree.norm has a conditional of its own.
    branches = [
        [str(branch).count("dot_general") for branch in eqn.params["branches"]]
        for eqn in jaxpr.jaxpr.eqns
        if eqn.primitive.name == "cond"
    ]
    once = str(jax.make_jaxpr(VALUE_AND_GRAD)(params)).count("dot_general")
    assert once > 0
    assert branches == [[0, once]]
    assert str(jaxpr).count("dot_general") == 2 * once


# What it takes and gives.


def test_values_and_what_comes_with_them_are_of_the_parameters_themselves() -> None:
    def with_aux(params: Any, scale: Any, *, shift: Any) -> Any:
        return loss(params, scale) + shift, {"seen": params["bias"], "scale": scale}

    f = jax.value_and_grad(with_aux, has_aux=True)
    params, scale = as_dtype(START, jnp.float32), jnp.float32(3.0)
    expected = jax.value_and_grad(loss)(params, scale)
    second = jax.jit(jopt.sam(VALUE_AND_GRAD, 0.3))(params, scale)[1]
    init, looked = jopt.looksam(f, 0.3)
    for (value, aux), grads in (
        jax.jit(jopt.sam(f, 0.3))(params, scale, shift=jnp.float32(7.0)),
        looked(init(params), params, scale, shift=jnp.float32(7.0))[0],
    ):
        np.testing.assert_allclose(value, expected[0] + 7.0, rtol=1e-6)
        chex.assert_trees_all_equal(aux["seen"], params["bias"])
        assert aux["scale"] == 3.0
        chex.assert_trees_all_close(grads, second, rtol=1e-6)
    assert np.max(np.abs(flat(second) - flat(expected[1]))) > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_stay_and_no_size_of_gradient_gives_nan(dtype: str) -> None:
    def f(params: Any, scale: Any) -> Any:
        # Through float32, or the value itself would not fit.
        value, grads = VALUE_AND_GRAD(params)
        wide = jax.tree.map(lambda g: g.astype(jnp.float32) * scale, grads)
        return value, as_dtype(wide, dtype)

    init, looked = jopt.looksam(f, update_interval=2)

    @jax.jit
    def all_of_them(params: Any, scale: Any) -> Any:
        state, grads = init(params), [jopt.sam(f)(params, scale)[1]]
        grads += [jopt.asam(f)(params, scale)[1]]
        for _ in range(2):
            (_, g), state = looked(state, params, scale)
            grads.append(g)
        return grads, state

    params = as_dtype(START, dtype)
    for scale in (0.0, 1e-30, 1e3 if dtype == "float16" else 1e30):
        found, state = all_of_them(params, jnp.float32(scale))
        assert types(state) == types(init(params))
        assert types(state.direction) == types(as_dtype(START, jnp.float32))
        chex.assert_tree_all_finite((found, state))
        for grads in found:
            assert types(grads) == types(params)
            assert scale != 0 or not flat(grads).any()


def test_gradients_that_are_parallel_leave_no_direction_to_reuse() -> None:
    # What is across is rounding alone, and far from a direction.
    params = jnp.array([0.7, 0.3, 0.1])
    f = jax.value_and_grad(lambda p: jnp.sin(3.0 * jnp.sum(p)) ** 2)
    init, looked = jopt.looksam(f, 0.3, update_interval=2)
    state = init(params)
    for expected in (jopt.sam(f, 0.3)(params), f(params)):
        (value, grads), state = looked(state, params)
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(grads, expected[1], rtol=1e-6)


def test_a_bad_batch_is_not_reused() -> None:
    params = as_dtype(START, jnp.float32)
    init, looked = jopt.looksam(VALUE_AND_GRAD, update_interval=3)
    step, state = jax.jit(looked), init(params)
    for scale in (jnp.nan, jnp.inf):
        (_, grads), state = step(init(params), params, jnp.float32(scale))
        assert not np.isfinite(flat(grads)).all()
        (_, grads), state = step(state, params, jnp.float32(1.0))
        chex.assert_trees_all_close(grads, VALUE_AND_GRAD(params)[1], rtol=1e-6)


def test_leaves_without_gradient_stay_where_they_are() -> None:
    class Model(eqx.Module):
        weight: jax.Array
        steps: jax.Array
        activation: Callable[..., Any]

    def value(model: Any, x: Any) -> Any:
        return jnp.sum(model.activation(model.weight * x) ** 2)

    model = Model(jnp.array([0.3, -0.2]), jnp.arange(3), jnp.tanh)
    f = eqx.filter_value_and_grad(value)
    x = jnp.array([1.0, 2.0])
    alone = jax.value_and_grad(lambda w: value(Model(w, model.steps, jnp.tanh), x))
    init, looked = jopt.looksam(f, 0.5)
    state = init(eqx.filter(model, eqx.is_inexact_array))
    for found, expected in (
        (jopt.sam(f, 0.5)(model, x), jopt.sam(alone, 0.5)(model.weight)),
        (jopt.asam(f, 0.5)(model, x), jopt.asam(alone, 0.5)(model.weight)),
        (looked(state, model, x)[0], jopt.sam(alone, 0.5)(model.weight)),
    ):
        assert found[1].steps is None
        assert found[1].activation is None
        chex.assert_trees_all_close(
            (found[0], found[1].weight), expected, rtol=1e-6, atol=1e-7
        )


def test_many_runs_at_once_and_a_changing_rho_are_those_of_each() -> None:
    params = as_dtype(START, jnp.float32)
    rhos = jnp.array([0.1, 0.3])

    def first(rho: Any) -> Any:
        init, looked = jopt.looksam(VALUE_AND_GRAD, rho, 2)
        _, state = looked(init(params), params)
        return jopt.asam(VALUE_AND_GRAD, rho)(params), looked(state, params)

    found = jax.jit(jax.vmap(first))(rhos)
    for i in range(2):
        alone = jax.jit(first)(rhos[i])
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], found), alone, rtol=1e-5, atol=1e-6
        )


# Misuse.

PARAMS = as_dtype(START, jnp.float32)
COMPLEX = as_dtype(START, jnp.complex64)
MISUSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: jopt.sam(VALUE_AND_GRAD, -0.1), "rho must be >= 0 and finite, got rho=-"),
    (lambda: jopt.asam(VALUE_AND_GRAD, eta=-1.0), "eta must be >= 0 and finite"),
    (lambda: jopt.looksam(VALUE_AND_GRAD, update_interval=0), "update_interval must"),
    (lambda: jopt.looksam(VALUE_AND_GRAD, alpha=-0.1), "alpha must be >= 0 and finite"),
    (
        lambda: jopt.sam(VALUE_AND_GRAD, jopt.constant_schedule(0.1)),  # pyright: ignore
        "sam: rho must be one number, got constant_schedule",
    ),
    (
        lambda: jopt.sam(jopt.sgd(0.1)),  # pyright: ignore
        "sam: value_and_grad_fn must be a function such as jax.value_and_grad",
    ),
    (
        lambda: jopt.sam(jax.grad(loss))(PARAMS),
        r"sam: value_and_grad_fn must return \(value, grads\), as",
    ),
    (
        lambda: jopt.asam(jax.value_and_grad(loss, argnums=(0, 1)))(
            PARAMS, jnp.float32(1.0)
        ),
        "asam: value_and_grad_fn must return the gradients of its first argument",
    ),
    (
        lambda: jopt.looksam(VALUE_AND_GRAD).value_and_grad(
            jopt.looksam(VALUE_AND_GRAD).init({"kernel": PARAMS["kernel"]}), PARAMS
        ),
        "the state's direction must match them.*only in the updates: 'bias'",
    ),
    (
        lambda: jopt.sam(lambda p: (0.0, p))(COMPLEX),
        "grads leaf 'bias' has dtype complex64, but sam is defined for real",
    ),
    (
        lambda: jopt.looksam(VALUE_AND_GRAD).init(COMPLEX),
        "params leaf 'bias' has dtype complex64, but looksam is defined for real",
    ),
    (
        lambda: jopt.asam(VALUE_AND_GRAD, mask="kernle")(PARAMS),
        "mask 'kernle' matches no leaf",
    ),
]


@pytest.mark.parametrize(("call", "message"), MISUSE)
def test_misuse_is_an_error_that_says_how_to_fix_it(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
