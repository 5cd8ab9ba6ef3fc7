"""States and checkpoints of optax go on behind the door as they are."""

import pickle
import subprocess
import sys
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
import pytest

import jopt
from jopt.interop import optax as door


PARAMS = {"b": jnp.array([0.5, -2.0]), "w": jnp.arange(6.0).reshape(3, 2) / 3}


def mask(params: Any) -> Any:
    """Matrices only."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


RECIPES: dict[str, Any] = {
    "adamw": lambda o: o.chain(o.clip(1.0), o.adamw(0.1, mask=mask)),
    "schedule": lambda o: o.sgd(o.linear_schedule(0.1, 0.0, 9), momentum=0.9),
    "masked": lambda o: o.masked(o.adam(0.1), mask),
    "groups": lambda o: o.multi_transform(
        {"a": o.adafactor(0.1, 2, momentum=0.9), "b": o.novograd(0.1)},
        {"b": "b", "w": "a"},
    ),
    "injected": lambda o: o.inject_hyperparams(o.lamb)(learning_rate=0.1),
    "steps": lambda o: o.MultiSteps(o.sm3(0.1), 2).gradient_transformation(),
    "finite": lambda o: o.apply_if_finite(o.contrib.prodigy(), 3),
    "free": lambda o: o.contrib.schedule_free_adamw(0.1),
}


def run(tx: Any, state: Any, params: Any, steps: range) -> tuple[Any, Any]:
    """Go on for some steps."""
    for i in steps:
        grads = jax.tree.map(lambda p, i=i: jnp.cos(3 * p + i), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def close(x: Any, y: Any) -> None:
    """Raise unless two trees have the same numbers."""
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 5e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_a_state_of_optax_goes_on_as_it_is(name: str) -> None:
    theirs, ours = RECIPES[name](optax), RECIPES[name](door)
    params, state = run(theirs, theirs.init(PARAMS), PARAMS, range(3))
    state = pickle.loads(pickle.dumps(state))
    new, after = run(ours, state, params, range(3, 6))
    expected, other = run(theirs, state, params, range(3, 6))
    close(new, expected)
    close(after, other)
    # It keeps optax's classes, so that it goes back as it came.
    assert jax.tree.structure(after) == jax.tree.structure(other)


@pytest.mark.parametrize("name", RECIPES)
def test_flax_restores_a_checkpoint_of_optax_into_a_state_of_the_door(
    name: str,
) -> None:
    theirs, ours = RECIPES[name](optax), RECIPES[name](door)
    params, state = run(theirs, theirs.init(PARAMS), PARAMS, range(3))
    data = flax.serialization.to_bytes(state)
    restored = flax.serialization.from_bytes(ours.init(PARAMS), data)
    close(restored, state)
    new, _ = run(ours, restored, params, range(3, 6))
    close(new, run(theirs, state, params, range(3, 6))[0])


def test_orbax_restores_a_checkpoint_of_optax(tmp_path: Any) -> None:
    theirs, ours = RECIPES["groups"](optax), RECIPES["groups"](door)
    _, state = run(theirs, theirs.init(PARAMS), PARAMS, range(3))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "run", ours.init(PARAMS))
    close(restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(ours.init(PARAMS))


LEAFY = ["adamw", "adafactor", "sm3", "novograd", "rprop", "lamb", "yogi"]


@pytest.mark.parametrize("name", LEAFY)
def test_functions_among_the_leaves_are_left_alone(name: str) -> None:
    tx = door.chain(door.clip_by_global_norm(1.0), getattr(door, name)(0.1))
    model, grads = PARAMS | {"activation": jnp.tanh}, PARAMS | {"activation": None}
    state, expected = tx.init(model), tx.init(PARAMS)
    for _ in range(2):
        updates, state = tx.update(grads, state, model)
        other, expected = tx.update(PARAMS, expected, PARAMS)
    assert updates["activation"] is None
    close({n: updates[n] for n in PARAMS}, other)


def temporaries(package: Any) -> int:
    """The bytes that a compiled step needs beside its arguments and results."""
    tx = package.chain(package.clip_by_global_norm(1.0), package.adamw(1e-3))
    params = {str(i): jnp.ones((64, 64)) for i in range(20)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return package.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, tx.init(params), params
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_a_step_of_the_door_needs_the_memory_of_jopts() -> None:
    assert temporaries(door) <= 1.01 * temporaries(jopt)
    assert temporaries(optax) > 10 * temporaries(door)


def test_the_door_does_not_import_optax() -> None:
    code = (
        "import sys; from jopt.interop import optax as o; import jax.numpy as jnp\n"
        "tx = o.chain(o.clip(1.0), o.adamw(1e-3)); p = jnp.ones(2)\n"
        "tx.update(p, tx.init(p), p); o.losses.l2_loss(p)\n"
        "assert not {'optax', 'flax', 'chex'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
