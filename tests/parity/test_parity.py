"""jopt gives the numbers of the real libraries, step by step.

Golden numbers stand in for the libraries; the installed ones are run again.
"""

import contextlib
import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.public import public

from .generate import DEVIATIONS, GOLDEN, libraries, oracle, rows_of
from .problem import GRADS, HESSIAN, PARAMS, VALUES, flat
from .rows import GROUPS, ROWS, WIDTHS, key


@functools.cache
def golden(group):
    """Everything in a golden file, by key."""
    with np.load(GOLDEN / f"{group}.npz") as file:
        return dict(file)


def recorded(group, library, width):
    """A library's rows, each with its golden numbers."""
    rows = rows_of(group, library)
    found = golden(group)
    assert found[f"{library}.rows"].tolist() == [row.recipe for row in rows], (
        f"run python -m tests.parity.generate {group}"
    )
    size = {row: sum(PARAMS[n].size for n in row.leaves) for row in rows}
    numbers = zip(rows, found[f"{library}.{width}"], strict=True)
    return {row: x[:, : size[row]] for row, x in numbers}


def quadratic(params):
    """A function with the Hessian of the problem."""
    terms = [0.5 * p**2 * jnp.asarray(HESSIAN[n], p.dtype) for n, p in params.items()]
    return sum(map(jnp.sum, terms))


def trajectory(tx, width, leaves):
    """Parameters after every step of `tx`, compiled as one scan."""

    def step(carry, given):
        params, state = carry
        grads, value = given
        told = {"value": value, "obj_fn": quadratic}
        updates, state = tx.update(grads, state, params, **told)
        params = jopt.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def run(params, given):
        return jax.lax.scan(step, (params, tx.init(params)), given)[1]

    params, grads = (
        {name: jnp.asarray(tree[name], width) for name in leaves}
        for tree in (PARAMS, GRADS)
    )
    return flat(run(params, (grads, jnp.asarray(VALUES, width))))


def both(group, row, width):
    """Our numbers and theirs, a step after the other."""
    expected = recorded(group, row.library, width)[row]
    x64 = jax.enable_x64(True) if width == "float64" else contextlib.nullcontext()
    with x64:
        tx = eval(row.jopt, public(jopt))
        return trajectory(tx, width, row.leaves), expected


def deviation(actual, expected):
    """How far we are from the library: relative for numbers above one."""
    return np.max(np.abs(actual - expected) / np.maximum(np.abs(expected), 1))


def assert_same(actual, expected, row, width):
    """The two trajectories agree at every step within the row's tolerance."""
    assert actual.dtype == expected.dtype == width
    tolerance = row.tolerance(width)
    np.testing.assert_allclose(
        actual, expected, tolerance, tolerance, err_msg=f"{row.jopt} / {row.oracle}"
    )


def test_rows_have_names_of_their_own():
    names = [(row.library, row.name) for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("group", "row"),
    [(group, row) for group, rows in GROUPS.items() for row in rows],
    ids=lambda x: x if isinstance(x, str) else f"{x.library}-{x.name}",
)
def test_every_step_equals_the_library(group, row, width):
    actual, expected = both(group, row, width)
    assert_same(actual, expected, row, width)
    # The README has what was measured, in powers of ten; other code for the same sums,
    # of another machine or compiler, rounds differently.
    listed = json.loads(DEVIATIONS.read_text())[key(row)][width]
    least = {"float32": 1e-7, "float64": 1e-15}[width]
    assert deviation(actual, expected) <= 10 * max(listed, least)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("library", dict.fromkeys(row.library for row in ROWS))
def test_golden_numbers_are_what_the_installed_library_gives(library, width):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    groups = [group for group in GROUPS if library in libraries(group)]
    found = oracle(library, width, groups)
    for group in groups:
        expected = recorded(group, library, width)
        for (row, numbers), actual in zip(expected.items(), found[group], strict=True):
            assert_same(actual[:, : numbers.shape[1]], numbers, row, width)
