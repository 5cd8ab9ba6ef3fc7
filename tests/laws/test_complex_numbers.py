"""What an optimizer does to a complex leaf, and whether its documentation says so."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.testing.problem import update
from tests.catalogue import CASES, file_of


ROOM = "tests/algorithms/"
SAYS = ("magnitude", "g / |g|", "phase", "unitary")
# One case of every optimizer, and of every part of one.
ALGORITHMS = {
    case.name: case
    for case in CASES
    if case.complex_leaves
    and file_of(getattr(jopt, case.name, jopt.chain)).startswith(ROOM)
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_optimizer_that_takes_a_complex_number_as_one_says_so(name: str) -> None:
    text = inspect.getdoc(getattr(jopt, name)) or ""
    if any(words in text for words in SAYS):
        return
    inner = ALGORITHMS[name].make()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3, 3, 4)) + 1j * rng.normal(size=(3, 3, 4))
    params, *grads = ({"kernel": jnp.asarray(x, jnp.complex64)} for x in z)
    updates = []
    for tx in (inner, jopt.split_real_and_imaginary(inner)):
        state, step = tx.init(params), jax.jit(update, static_argnums=0)
        for g in grads:
            new, state = step(tx, g, state, params)
        updates.append(new["kernel"])
    np.testing.assert_allclose(*updates, rtol=1e-3, atol=1e-6)
