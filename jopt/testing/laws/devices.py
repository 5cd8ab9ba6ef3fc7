"""On several devices: the same numbers, and a state that lies as the parameters do."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jopt.testing import comparison, needs
from jopt.testing.law import law
from jopt.testing.problem import step, update
from jopt.testing.subject import Subject
from jopt.tree import paths


FIX = (
    "do not take arrays out of jit (np.asarray, float), and make slots that lie where "
    "their parameter does. jnp.zeros_like(p) does outside jit only; under jit, use "
    "jopt.zeros() with jopt.leafwise, or out_shardings of jax.jit(tx.init)."
)


def mesh(axis_type: AxisType) -> Mesh:
    """One axis of as many devices as there are, up to 8."""
    count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    return Mesh(np.array(jax.devices()[:count]), ("data",), (axis_type,))


@law("devices", fix=FIX, needs=[needs.devices, needs.own_params])
def sharded_params_give_sharded_state_and_the_same_numbers(subject: Subject) -> None:
    """Parameters on several devices give a state there, and the same numbers."""
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(rng.normal(size=(16, 4)), jnp.float32),
        "scale": jnp.asarray(rng.normal(size=(8,)), jnp.float32),
    }
    grads = jax.tree.map(lambda p: 0.3 * p + 0.1, params)
    over_rows = NamedSharding(mesh(AxisType.Auto), P("data"))
    tx = subject.make()

    def run(params, state, g):
        return step(tx, g, state, params)

    alone = (params, tx.init(params))
    spread = jax.device_put(params, over_rows)
    shapes = {p.shape for p in params.values()}  # a slot may be smaller

    def check(tree, what):
        for name, leaf in paths.leaves_with_names(tree):
            if leaf.shape in shapes:
                assert leaf.sharding.is_equivalent_to(over_rows, leaf.ndim), (
                    f"{what} of leaf {name!r} lies as {leaf.sharding}, and the "
                    f"parameters as {over_rows}"
                )

    for init, how in ((tx.init, "init"), (jax.jit(tx.init), "jit(init)")):
        state = init(spread)
        check(state, f"the state that {how} makes")
    sharded = (spread, state)
    for _ in range(3):
        alone = jax.jit(run)(*alone, grads)
        sharded = jax.jit(run)(*sharded, jax.device_put(grads, over_rows))
    check(sharded, "the result after three steps")
    what = "the result on several devices"
    comparison.close(sharded, alone, rtol=1e-5, atol=1e-7, what=what)


@law("devices", fix=FIX, needs=[needs.devices, needs.own_params])
def sharding_is_part_of_the_types_where_the_user_makes_it_so(subject: Subject) -> None:
    """On a mesh with explicit axes, the types of update and state have its axes."""
    explicit = mesh(AxisType.Explicit)
    over_rows = NamedSharding(explicit, P("data"))
    params = {"kernel": jnp.ones((16, 4)), "scale": jnp.ones(8)}

    def typed(tree):
        return jax.tree.map(lambda x: str(jax.typeof(x)), tree)

    def same(found: Any, expected: Any, what: str) -> None:
        found, expected = typed(found), typed(expected)
        assert found == expected, f"{what} has the types {found} instead of {expected}"

    with jax.set_mesh(explicit):
        params = jax.device_put(params, over_rows)
        tx = subject.make()
        state = tx.init(params)
        updates, new_state = jax.eval_shape(
            functools.partial(update, tx), params, state, params
        )
        same(new_state, state, "the state after an update")
        same(jax.eval_shape(tx.init, params), state, "the state under jit")
        same(updates, params, "the update")
    for name, x in paths.leaves_with_names(state):
        if x.shape in ((16, 4), (8,)):
            assert "@data" in str(jax.typeof(x)), (
                f"the state of leaf {name!r} has the type {jax.typeof(x)}"
            )
