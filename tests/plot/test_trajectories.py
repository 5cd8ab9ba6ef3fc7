"""``jopt.plot.trajectories``: the points are those of the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.plot.surfaces import SURFACES
from tests.plot.picture import by_label, check, legend


def test_a_line_has_the_points_of_its_optimizer():
    ax = jopt.plot.trajectories(
        {"SGD": jopt.sgd(1e-3), "Polyak": jopt.polyak_sgd(max_learning_rate=1e-3)},
        steps=5,
    )
    lines = by_label(ax)
    assert list(lines) == legend(ax) == ["SGD", "Polyak"]
    point = jnp.array([-1.2, 1.0])
    for x in lines["SGD"].get_xydata():
        np.testing.assert_allclose(x, point, 1e-5)
        point = point - 1e-3 * jax.grad(SURFACES["rosenbrock"].f)(point)
    assert lines["Polyak"].get_xydata().shape == (6, 2)
    assert len({x.get_marker() for x in lines.values()}) == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$x$", "$y$")
    check(ax)


def test_the_minima_of_the_functions_are_minima_and_in_view():
    for surface in SURFACES.values():
        minima = np.array(surface.minima, np.float32)
        left, right, bottom, top = surface.view
        for point in (*minima, np.array(surface.start, np.float32)):
            assert left <= point[0] <= right and bottom <= point[1] <= top
        angles = np.linspace(0, 2 * np.pi, 9)
        circle = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
        for point in minima:
            around = jax.vmap(surface.f)(point + 0.03 * circle)
            assert surface.f(point) < around.min()


def test_a_function_of_ones_own_is_seen_though_an_optimizer_diverges():
    ax = jopt.plot.trajectories(
        {"diverges": jopt.sgd(30.0), "falls": jopt.sgd(0.1)},
        function=lambda p: jnp.sum(p**2),
        start=[2, -1],
        steps=100,
    )
    assert -6 < ax.get_xlim()[0] < ax.get_xlim()[1] < 9
    check(ax)


def test_errors_of_trajectories_say_what_there_is():
    adam = jopt.adam(0.1)
    with pytest.raises(ValueError, match=r"'rosenbrok'. Did you mean 'rosenbrock'\?"):
        jopt.plot.trajectories(adam, function="rosenbrok")
    with pytest.raises(ValueError, match="steps must be >= 1, got steps=0"):
        jopt.plot.trajectories(adam, steps=0)
    with pytest.raises(ValueError, match="start must be given"):
        jopt.plot.trajectories(adam, function=jnp.sum)
    with pytest.raises(TypeError, match="start must be two numbers"):
        jopt.plot.trajectories(adam, start=[1.0])
    with pytest.raises(TypeError, match=r"optimizers\[0\] cannot be drawn"):
        jopt.plot.trajectories(jopt.adam)
    with pytest.raises(TypeError, match="what function returns must be one number"):
        jopt.plot.trajectories(adam, function=lambda p: p, start=[1.0, 1.0])
    with pytest.raises(ValueError, match="optimizers must be one or more"):
        jopt.plot.trajectories()
