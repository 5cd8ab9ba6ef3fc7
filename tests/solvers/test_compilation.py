"""Solvers are compiled in XLA's quicker way, where that can be had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.solvers import compilation
from jopt.solvers.compilation import compiled


def double(x):
    return 2 * x


def test_options_reach_xla_and_one_that_it_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "OPTIONS", {"xla_cpu_use_fusion_emitters": "?"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="use_fusion_emitters"):
        compiled(static_argnums=())(double)(1.0)
    monkeypatch.setattr(compilation, "OPTIONS", {"xla_cpu_way_that_is_no_more": False})
    function = compiled(static_argnums=())(double)
    assert [float(function(x)) for x in (1.0, 2.0)] == [2.0, 4.0]


@pytest.mark.parametrize("transformation", [jax.jit, jax.vmap, jax.grad])
def test_a_solver_runs_inside_a_transformation_though_its_start_is_not_traced(
    transformation,
):
    def value(target):
        return jopt.minimize(lambda x: jnp.sum((x - target) ** 2), np.zeros(2)).params[
            0
        ]

    targets = jnp.ones(1) if transformation is jax.vmap else jnp.ones(())
    assert transformation(value)(targets) == pytest.approx(1, abs=1e-3)
