"""Properties of random chains and random trees."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

import jopt
from tests.public import public


settings.register_profile(
    "here", deadline=None, derandomize=True, database=None, max_examples=40
)
settings.load_profile("here")

MEMBERS = [
    jopt.add_decayed_weights(0.1, mask="kernel"),
    jopt.centralize(),
    jopt.clip(0.5),
    jopt.clip_by_block_rms(0.3),
    jopt.clip_by_global_norm(0.5),
    jopt.ema(0.9),
    jopt.identity(),
    jopt.scale(jopt.tunable(-0.5)),
    jopt.scale_by_adam(b1=jopt.linear_schedule(0.9, 0.5, 3)),
    jopt.scale_by_learning_rate(0.1),
    jopt.scale_by_rss(),
    jopt.scale_by_trust_ratio(),
    jopt.stateless(lambda updates, params: jax.tree.map(jnp.tanh, updates)),
    jopt.trace(0.9, nesterov=True),
]
PARAMS = {"bias": jnp.linspace(-1.0, 1.0, 4), "kernel": jnp.full((3, 4), 0.5)}
chains = st.recursive(
    st.sampled_from(MEMBERS),
    lambda inner: st.lists(inner, max_size=4).map(lambda txs: jopt.chain(*txs)),
    max_leaves=6,
)


def flat(tx: Any) -> list[Any]:
    """The members of a chain, however nested."""
    if tx.name != "chain":
        return [tx]
    return [
        member
        for inner in tx.recipe.arguments.get("members", ())
        for member in flat(inner)
    ]


@given(chains)
def test_a_chain_does_what_its_members_do_one_after_the_other(tx: Any) -> None:
    tx = jopt.chain(tx)
    members = flat(tx)
    states = [member.init(PARAMS) for member in members]
    state = tx.init(PARAMS)
    for t in range(3):
        grads = jax.tree.map(lambda p, t=t: jnp.sin(3.0 * p + t), PARAMS)
        updates, new_state = tx.update(grads, state, PARAMS)
        for i, member in enumerate(members):
            grads, states[i] = member.update(grads, states[i], PARAMS)
        chex.assert_trees_all_close(updates, grads, rtol=1e-5, atol=1e-7)
        chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)
        state = new_state
    of_members = [x for s in states for x in jax.tree.leaves(s)]
    chex.assert_trees_all_close(
        sorted(float(jnp.sum(x)) for x in jax.tree.leaves(state)),
        sorted(float(jnp.sum(x)) for x in of_members),
        rtol=1e-4,
        atol=1e-6,
    )


@given(chains)
def test_a_chain_is_a_value(tx: Any) -> None:
    if any(member.name == "stateless" for member in flat(tx)):
        return  # a lambda can be neither pickled nor written down
    for again in (
        eval(repr(tx), public(jopt)),
        pickle.loads(pickle.dumps(tx)),
        jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))),
    ):
        assert again == tx
        assert hash(again) == hash(tx)


sizes = st.floats(2.0**-120, 2.0**127, width=32)
numbers = st.builds(math.copysign, sizes, st.sampled_from([-1.0, 1.0])) | st.just(0.0)
arrays = hnp.arrays(np.float32, hnp.array_shapes(max_side=5), elements=numbers)


@given(st.lists(arrays, min_size=1, max_size=4))
def test_the_norm_is_exact_for_any_numbers(leaves: list[np.ndarray]) -> None:
    exact = math.sqrt(math.fsum(float(x) ** 2 for leaf in leaves for x in leaf.flat))
    if exact > 3.4e38:
        return  # the norm itself is no float32
    np.testing.assert_allclose(jopt.tree.norm(leaves), exact, rtol=1e-6)
