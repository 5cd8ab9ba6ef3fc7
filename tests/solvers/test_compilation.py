"""Solvers are compiled in XLA's quicker way, and small ones into one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, scipy
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.solvers import compilation
from jopt.solvers.compilation import compiled, in_one_piece, is_small


def double(whole: Any, x: Any) -> Any:
    return whole(lambda x: 2 * x)(x)


# Options.


def test_options_reach_xla_and_one_that_it_does_not_know_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilation, "OPTIONS", {"xla_cpu_use_fusion_emitters": "?"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="use_fusion_emitters"):
        compiled(double, static_argnums=())(1.0)
    monkeypatch.setattr(compilation, "OPTIONS", {"xla_cpu_way_that_is_no_more": False})
    function = compiled(double, static_argnums=())
    assert [float(function(x)) for x in (1.0, 2.0)] == [2.0, 4.0]


@pytest.mark.parametrize("transformation", [jax.jit, jax.vmap, jax.grad])
def test_a_solver_runs_inside_a_transformation_though_its_start_is_not_traced(
    transformation: Callable[..., Any],
) -> None:
    def value(target):
        return jopt.minimize(lambda x: jnp.sum((x - target) ** 2), np.zeros(2)).params[
            0
        ]

    targets = jnp.ones(1) if transformation is jax.vmap else jnp.ones(())
    assert transformation(value)(targets) == pytest.approx(1, abs=1e-3)


# One function.

A = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
PLACES = np.array([1, 3, 5, 3])


def a_loop(x: Any) -> Any:
    return lax.scan(lambda carry, y: (jnp.sin(carry) * y + 1, None), 0.0, x)[0]


SMALL = {
    "exp, log": lambda x: jnp.sum(jnp.exp(-x) + jnp.log(x) + jnp.log1p(jnp.expm1(x))),
    "powers": lambda x: jnp.sum(x**2.5 + x**3 + jnp.sqrt(x) + jnp.cbrt(x) + 1 / x),
    "waves": lambda x: jnp.sum(jnp.sin(x) + jnp.cos(x) + jnp.tan(x) + jnp.tanh(x)),
    "arcs": lambda x: jnp.sum(jnp.arcsin(x / 3) + jnp.arctan2(x, x[::-1])),
    "areas": lambda x: jnp.sum(
        jnp.arcsinh(x) + jnp.arccosh(x + 1) + jnp.arctanh(x / 3)
    ),
    "gammas": lambda x: jnp.sum(scipy.special.gammaln(x)),
    "errors": lambda x: jnp.sum(scipy.special.erf(x) + scipy.special.erfinv(x / 3)),
    "piecewise": lambda x: jnp.sum(
        jnp.where(x > 1, x, x**2) + jnp.abs(jnp.round(x) - x)
    ),
    "softmax": lambda x: jnp.sum(jax.nn.softmax(x) ** 2) + scipy.special.logsumexp(x),
    "sums": lambda x: jnp.sum(jnp.cumsum(x) ** 2) + jnp.prod(x) + jnp.max(x * x),
    "norm": lambda x: jnp.linalg.norm(x) + jnp.sum(jnp.diff(x) ** 2),
    "rows": lambda x: (
        jnp.sum(x[PLACES] ** 2) + x[3] * x[0] + jnp.sum(jnp.roll(x, 1) * x)
    ),
    "products": lambda x: (
        jnp.sum((A @ x) ** 2) + jnp.vdot(x, x) * jnp.outer(x, x).sum()
    ),
    "a loop": a_loop,
    "a branch": lambda x: lax.cond(x[0] > 0, lambda x: x @ x, jnp.sum, x),
}
NOT_SMALL = {
    "many numbers": lambda x: jnp.sum(jnp.broadcast_to(x[:, None], (12, 2000)) ** 2),
    "matrices": lambda x: jnp.sum((A.T @ A @ x.reshape(12, 1)) ** 2),
    "a system": lambda x: jnp.sum(jnp.linalg.solve(A.T @ A, x) ** 2),
    "an order": lambda x: jnp.sum(jnp.sort(x) * np.arange(12, dtype=np.float32)),
    "a spectrum": lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x))),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_function_is_compiled_whole_and_has_the_same_values(name: str) -> None:
    both = jax.value_and_grad(SMALL[name])

    def descent(x):
        return lax.fori_loop(0, 3, lambda i, x: x - 0.01 * both(x)[1], x)

    x = jnp.linspace(0.1, 2, 12)
    assert is_small(jax.make_jaxpr(descent)(x).jaxpr)
    whole = jax.jit(in_one_piece(descent), compiler_options=compilation.OPTIONS)
    assert "xla_cpu_small_call" in whole.lower(x).as_text()
    np.testing.assert_allclose(whole(x), jax.jit(descent)(x), rtol=1e-5, atol=1e-6)


def test_what_is_on_several_devices_is_compiled_as_usual(
    capfd: pytest.CaptureFixture[str],
) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    t = jax.device_put(jnp.arange(64.0) / 64, NamedSharding(mesh, P("data")))

    def loss(x, t):
        return jnp.sum((x[0] * jnp.exp(-x[1] * t) - jnp.exp(-2 * t)) ** 2)

    result = jopt.minimize(loss, jnp.array([0.5, 1.0]), (t,), tol=1e-6)
    np.testing.assert_allclose(result.params, [1, 2], rtol=1e-3)
    assert "compilation error" not in capfd.readouterr().err


@pytest.mark.parametrize("name", NOT_SMALL)
def test_what_xla_cannot_take_in_one_piece_is_left_as_it_is(name: str) -> None:
    fun, x0 = NOT_SMALL[name], jnp.ones(12)
    assert not is_small(jax.make_jaxpr(fun)(x0).jaxpr)
    result = jopt.minimize(fun, x0, max_iterations=3)
    assert result.value < fun(x0)
