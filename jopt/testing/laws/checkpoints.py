"""A state on disk: restored, and gone on with, it is as if nothing had stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.checkpoint.saving import restore, save
from jopt.core.chain import chain
from jopt.core.transformation import GradientTransformation
from jopt.testing import comparison, needs
from jopt.testing.law import law
from jopt.testing.problem import as_dtype, step
from jopt.testing.subject import Subject


FIX = (
    "keep the state in NamedTuples, dicts and arrays: not in attributes, globals or "
    "Python numbers, which are not saved, and not in classes that other libraries do "
    "not know."
)


@law("checkpoints", fix=FIX)
def a_restored_run_goes_on_to_the_same_bits(subject: Subject) -> None:
    """Saved, restored and continued, a run ends with the same bits."""
    params, grads = as_dtype(subject.draw(steps=4), jnp.float32)

    def make():
        tx = subject.make()
        return tx if isinstance(tx, GradientTransformation) else chain(tx)

    def train(params, state, grads):
        tx = make()
        run = jax.jit(lambda params, state, g: step(tx, g, state, params))
        for g in grads:
            params, state = run(params, state, g)
        return params, state

    half = train(params, make().init(params), grads[:2])
    tx = make()
    recorded = tx if subject.recipe is not None else None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "half.npz"
        save(file, params=half[0], opt_state=half[1], tx=recorded, step=2)
        found = restore(file, params=params, tx=tx)
    comparison.same_types(found.opt_state, half[1], "the restored state")
    expected = train(*half, grads[2:])
    continued = train(found.params, found.opt_state, grads[2:])
    comparison.equal(continued, expected, "parameters and state of the restored run")


@law("checkpoints", fix=FIX, needs=[needs.library("flax", '"jopt[flax]"')])
def its_state_passes_through_msgpack_of_flax(subject: Subject) -> None:
    """flax.serialization restores its state."""
    passes_through(msgpack, numbered(subject))


@law(
    "checkpoints",
    fix=FIX,
    needs=[needs.library("orbax.checkpoint", '"jopt[checkpoint]"')],
)
def its_state_passes_through_orbax(subject: Subject) -> None:
    """orbax restores its state."""
    passes_through(orbax, numbered(subject))


def numbered(subject: Subject) -> Any:
    """A state whose elements are 0, 1, 2, … in place of what init gives."""

    def count(x):
        return jnp.asarray(np.arange(x.size).reshape(x.shape) % 100, x.dtype)

    state = subject.make().init(subject.small()[0])
    comparison.only_arrays(state, "the state")
    return jax.tree.map(count, state)


def passes_through(way: Callable[[Any, Any, Path], Any], states: Any) -> None:
    """Test that what another library restores is what it was given.

    Args:
      way: Saves a tree and restores it into another one, in a folder: `msgpack` or
        `orbax`.
      states: A state, or any tree of states.
    """
    zeros = jax.tree.map(jnp.zeros_like, states)
    with tempfile.TemporaryDirectory() as folder:
        restored = way(states, zeros, Path(folder))
    comparison.same_types(restored, states, "the restored state")
    comparison.equal(restored, states, "the restored state")


def msgpack(states: Any, zeros: Any, _: Path) -> Any:
    """Through Flax's bytes."""
    import flax.serialization

    data = flax.serialization.to_bytes(states)
    return jax.tree.map(jnp.asarray, flax.serialization.from_bytes(zeros, data))


def orbax(states: Any, zeros: Any, folder: Path) -> Any:
    """Through a folder that orbax writes."""
    import orbax.checkpoint

    # orbax does not write a state that has no arrays.
    states, zeros = ({"state": x, "step": jnp.zeros(())} for x in (states, zeros))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", states)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", zeros)["state"]
