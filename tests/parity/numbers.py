"""The golden numbers of the real libraries, and jopt's numbers to compare with them."""

import contextlib
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.public import public

from .problem import GRADS, HESSIAN, PARAMS, VALUES, flat
from .row import WIDTHS


GOLDEN = Path(__file__).with_name("golden")
DEVIATIONS = GOLDEN / "deviations.json"  # of jopt, measured by tests.tools.table


@functools.cache
def golden():
    """The trajectories in all golden files, by library, recipe and width."""
    found = {}
    for path in sorted(GOLDEN.glob("*.npz")):
        with np.load(path) as file:
            for library in libraries(file):
                recipes = file[f"{library}.rows"].tolist()
                for width in WIDTHS:
                    arrays = file[f"{library}.{width}"]
                    for recipe, x in zip(recipes, arrays, strict=True):
                        name = (library, recipe, width)
                        if name in found:
                            raise ValueError(f"{path} has {name} a second time")
                        found[name] = x
    return found


@functools.cache
def measured():
    """The deviations that tests.tools.table has measured, by the key of a row."""
    return json.loads(DEVIATIONS.read_text())


def libraries(file):
    """The libraries that a golden file has rows of."""
    return [name.removesuffix(".rows") for name in file if name.endswith(".rows")]


def recorded(row, width):
    """The golden trajectory of a row."""
    name = (row.library, row.recipe, width)
    if name not in golden():
        raise LookupError(
            f"no golden numbers of {name}: run python -m tests.tools.parity"
        )
    return golden()[name][:, : row.size]


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


def both(row, width):
    """Our numbers and theirs, a step after the other."""
    expected = recorded(row, width)
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
