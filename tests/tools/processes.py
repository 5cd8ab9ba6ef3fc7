"""One of the processes that share a checkpoint.

``python -m tests.tools.processes RANK …`` restores what one process saved, trains a
step, saves twice, once in the background, and restores that. Four devices are its own,
and the arrays are spread over all eight.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.checkpoint import Checkpointer, restore, save


TX = jopt.adam(1e-3)


def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "bias": rng.normal(size=6).astype(np.float32),
        "kernel": rng.normal(size=(16, 6)).astype(np.float32),
    }


def wanted(kernel: Any, bias: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        "bias": jax.ShapeDtypeStruct((6,), jnp.float32, sharding=bias),
        "kernel": jax.ShapeDtypeStruct((16, 6), jnp.float32, sharding=kernel),
    }


def step(params: Any, state: Any) -> Any:
    """No sums over leaves, so that the bits do not depend on the sharding."""
    updates, state = TX.update(params, state, params)
    return jopt.apply_updates(params, updates), state


def shards(tree: Any) -> list[tuple[Any, int]]:
    """The memory of every shard that is here, of the arrays that are no scalars."""
    return [
        (shard.index, shard.data.unsafe_buffer_pointer())
        for x in jax.tree.leaves(tree)
        if x.ndim
        for shard in x.addressable_shards
    ]


def main(rank: int, address: str, folder: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    assert (jax.process_count(), len(jax.devices())) == (2, 8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    targets = wanted(rows, everywhere)

    def check(found: Any) -> None:
        """The shardings are right, and the next step takes every shard's memory."""
        params, state = found.params, found.opt_state
        slots = state["scale_by_adam"]
        for tree in (params, slots.mu, slots.nu):
            assert tree["kernel"].sharding.is_equivalent_to(rows, 2)
            assert tree["kernel"].addressable_shards[0].data.shape == (2, 6)
            assert tree["bias"].sharding.is_equivalent_to(everywhere, 1)
        assert slots.count.sharding.is_fully_replicated
        before = sorted(map(str, shards((params, state))))
        after = jax.jit(step, donate_argnums=(0, 1))(params, state)
        assert sorted(map(str, shards(after))) == before, "some memory was not reused"

    found = restore(folder / "from_one", params=targets, tx=TX)
    for x in found.params["kernel"].addressable_shards:
        np.testing.assert_array_equal(x.data, values()["kernel"][x.index])
    assert found.step == 0
    params, state = jax.jit(step)(found.params, found.opt_state)
    check(found)

    given = {"params": params, "opt_state": state, "tx": TX, "step": 1}
    save(folder / "from_two", **given, rng=jax.random.key(7))
    assert (folder / "from_two" / "checkpoint.json").exists()  # for every process
    check(restore(folder / "from_two", params=targets, tx=TX))

    run = folder / "lr=[0.1]"  # which is a pattern to orbax
    with Checkpointer(run, keep=1, asynchronous=True) as checkpointer:
        for t in (1, 2):
            checkpointer.save(t, params=params, opt_state=state, tx=TX)
    check(checkpointer.restore(params=targets, tx=TX))

    # Process 0 finds that the folder exists, and no process waits for the other.
    try:
        save(folder / "from_two", **given)
    except OSError as error:
        expected = "process 0 cannot write" if rank else "already a checkpoint"
        assert expected in str(error)
    else:
        raise AssertionError("a checkpoint was written over another")

    # One process finds what is wrong, and every process says so.
    damaged = folder / "damaged"
    save(damaged, **given)
    file = max(damaged.rglob("d/*"), key=lambda path: path.stat().st_size)
    multihost_utils.sync_global_devices("both have chosen")
    if rank == 0:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    multihost_utils.sync_global_devices("damaged")
    try:
        restore(damaged, params=targets, tx=TX)
    except ValueError as error:
        assert file.name in str(error) or "another process names" in str(error)
    else:
        raise AssertionError("the damage was not noticed")
    try:
        save(folder / "run.npz", **given)
    except ValueError as error:
        assert "run.npz is for one process, and there are 2" in str(error)
    else:
        raise AssertionError("two processes wrote one file")
    print("done")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
