"""The numbers: those of a second implementation in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.testing import comparison, needs
from jopt.testing.law import law
from jopt.testing.problem import as_dtype, stack, trajectory, updates_of
from jopt.testing.subject import Subject


FIX = (
    "one of the two is wrong: the leaf and the step, which is the first index, show "
    "where they part. In step 0, look at initial values and bias corrections."
)


def _what(subject: Subject, width: str) -> str:
    what = "parameters" if subject.is_optimizer else "updates"
    return f"the {what} (by step) in {width}"


@law("numbers", fix=FIX, needs=[needs.twin])
def twenty_steps_equal_the_twin_in_float64(subject: Subject) -> None:
    """20 steps in float64 are those of the second implementation, to 1e-12."""
    params, grads = subject.draw()
    with jax.enable_x64(True):
        found = _run(subject, *as_dtype((params, grads), jnp.float64))
        expected = stack(list(subject.expected(params, grads)))
        what = _what(subject, "float64")
        comparison.close(found, expected, rtol=1e-12, atol=1e-12, what=what)


@law("numbers", fix=FIX, needs=[needs.twin])
def twenty_steps_equal_the_twin_in_float32(subject: Subject) -> None:
    """20 steps in float32 are those of the second implementation, to 3e-5."""
    params, grads = as_dtype(subject.draw(), jnp.float32)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, grads))
    found = _run(subject, params, grads)
    expected = as_dtype(stack(list(subject.expected(*exact))), jnp.float32)
    what = _what(subject, "float32")
    comparison.close(found, expected, rtol=3e-5, atol=3e-6, what=what)


def _run(subject: Subject, params: Any, grads: Any) -> Any:
    run = trajectory if subject.is_optimizer else updates_of
    return run(subject.make(), params, grads)
