"""One of the processes that share a state, two or four of them, on four devices.

``python -m tests.tools.sharded_processes COUNT RANK ADDRESS FOLDER`` trains with a
state that is split over all devices. Four processes save what they have after three
steps, and go on; two restore that and go on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.checkpoint import restore, save
from jopt.sharding import state_shardings, zero1


SHAPES = {"bias": (64,), "kernel": (64, 64)}
INNER = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-2, weight_decay=0.1))
STEPS, MORE = 3, 2


def mesh(devices: Any) -> jax.sharding.Mesh:
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def digest(tree: Any) -> str:
    """A text that differs if a bit of the arrays does."""
    found = hashlib.sha1()
    for x in jax.tree.leaves(tree):
        found.update(np.asarray(x).tobytes())
    return found.hexdigest()


def targets(on: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    everywhere = NamedSharding(on, P())
    return {
        n: jax.ShapeDtypeStruct(x, jnp.float32, sharding=everywhere)
        for n, x in SHAPES.items()
    }


def arrays(on: jax.sharding.Mesh) -> tuple[Any, jax.Array]:
    """The parameters, on all devices, and the batch, over them."""
    rng = np.random.default_rng(0)
    values = {n: rng.normal(size=x).astype(np.float32) for n, x in SHAPES.items()}
    params = {
        n: jax.make_array_from_callback(x.shape, NamedSharding(on, P()), x.__getitem__)
        for n, x in values.items()
    }
    batch = rng.normal(size=(32, 64)).astype(np.float32)
    rows = NamedSharding(on, P("data"))
    return params, jax.make_array_from_callback(batch.shape, rows, batch.__getitem__)


def loss(params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(x @ params["kernel"] + params["bias"][None]) - x) ** 2)


def trained(tx: Any, params: Any, state: Any, batch: jax.Array, steps: int) -> Any:
    @jax.jit
    def step(params, state, batch):
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
        return jopt.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state, batch)
    return params, state


def main(count: int, rank: int, address: str, folder: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4 // count)
    jax.distributed.initialize(address, num_processes=count, process_id=rank)
    assert (jax.process_count(), len(jax.devices())) == (count, 4)
    on = mesh(jax.devices())
    tx = zero1(INNER, on, "data")
    shardings = state_shardings(INNER, targets(on), zero_axis="data")

    def check(state):
        assert state["scale_by_adam"].mu["kernel"].sharding.spec == P("data")
        for x, s in zip(*map(jax.tree.leaves, (state, shardings)), strict=True):
            assert x.sharding.is_equivalent_to(s, x.ndim)

    params, batch = arrays(on)
    state = tx.init(params)
    check(state)
    params, state = trained(tx, params, state, batch, STEPS)
    check(state)
    found = {"trained": digest(params)}
    path = folder / "from_four"
    if count == 4:
        save(path, params=params, opt_state=state, tx=tx, step=STEPS)
    else:
        params, state, *_ = restore(
            path, params=targets(on), tx=INNER, shardings=shardings
        )
        check(state)
        whole = multihost_utils.process_allgather(state, tiled=True)
        found["state"] = digest(whole)
    params, _ = trained(tx, params, state, batch, MORE)
    print(json.dumps(found | {"more": digest(params)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
