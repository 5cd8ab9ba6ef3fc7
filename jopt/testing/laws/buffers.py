"""Memory: params and state can be donated, because they share no buffer."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jopt.core.apply import apply_updates
from jopt.testing import comparison
from jopt.testing.law import law
from jopt.testing.problem import update
from jopt.testing.subject import Subject
from jopt.tree import paths


@law(
    "memory",
    fix="init must not put an array of params into the state, nor one array into it "
    "twice: copy it with jnp.array(p, copy=True). jopt.copied() declares such a slot.",
)
def params_and_state_can_be_donated_right_after_init(subject: Subject) -> None:
    """No two arrays of params and state share memory, so both can be donated."""
    tx = subject.make()
    params, grads = subject.small()
    state = tx.init(params)
    comparison.only_arrays(state, "the state")
    owners: dict[int, str] = {}
    for name, x in paths.leaves_with_names({"params": params, "state": state}):
        pointer = x.unsafe_buffer_pointer()
        assert pointer not in owners, f"{name} is the same memory as {owners[pointer]}"
        owners[pointer] = name

    def step(params, state, g):
        updates, state = update(tx, g, state, params)
        return apply_updates(params, updates), state

    arrays = jax.tree.leaves((params, state))
    donated = jax.jit(step, donate_argnums=(0, 1))
    expected = donated(*jax.tree.map(jnp.copy, (params, state)), grads)
    first = donated(params, state, grads)
    kept = [x for x in arrays if x.ndim and not x.is_deleted()]
    assert not kept, f"{len(kept)} donated arrays were not used again by XLA"
    comparison.equal(first, expected, "the result with donated arguments")
    donated(*first, grads)
