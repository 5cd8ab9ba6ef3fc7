"""jopt gives the numbers of the real Keras, torch and optax, step by step.

Golden numbers stand in for the libraries; the installed ones are run again.
"""

import contextlib
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt

from .generate import GOLDEN, oracle
from .problem import GRADS, PARAMS, flat
from .rows import LIBRARIES, ROWS, WIDTHS, rows_of


@functools.cache
def golden():
    """Everything in the golden file, by key."""
    with np.load(GOLDEN) as file:
        return dict(file)


def trajectory(tx, width):
    """Parameters after every step of `tx`, compiled as one scan."""

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        params = jopt.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def run(params, grads):
        return jax.lax.scan(step, (params, tx.init(params)), grads)[1]

    params, grads = (
        {name: jnp.asarray(x, width) for name, x in tree.items()}
        for tree in (PARAMS, GRADS)
    )
    return flat(run(params, grads))


def assert_same(actual, expected, row, width):
    """The two trajectories agree at every step within the row's tolerance."""
    assert actual.dtype == expected.dtype == width
    tolerance = row.tolerance(width)
    np.testing.assert_allclose(
        actual, expected, tolerance, tolerance, err_msg=f"{row.jopt} / {row.oracle}"
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_golden_numbers_belong_to_the_rows_of_the_table(library):
    assert golden()[f"{library}.rows"].tolist() == [
        row.recipe for row in rows_of(library)
    ], "run python -m tests.parity.generate"


def test_rows_have_names_of_their_own():
    names = [(row.library, row.name) for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.library}-{row.name}")
def test_every_step_equals_the_library(row, width):
    expected = golden()[f"{row.library}.{width}"][rows_of(row.library).index(row)]
    x64 = jax.enable_x64(True) if width == "float64" else contextlib.nullcontext()
    with x64:
        tx = eval(row.jopt, dict(vars(jopt)))
        assert_same(trajectory(tx, width), expected, row, width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_golden_numbers_are_what_the_installed_library_gives(library, width):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    for row, actual, expected in zip(
        rows_of(library),
        oracle(library, width),
        golden()[f"{library}.{width}"],
        strict=True,
    ):
        assert_same(actual, expected, row, width)
