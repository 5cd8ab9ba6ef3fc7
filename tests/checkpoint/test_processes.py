"""A checkpoint of one process is restored by two, and theirs by one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jopt.checkpoint import Checkpointer, restore, save
from tests.tools import processes


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def test_one_device_eight_devices_and_two_processes_restore_each_others(
    tmp_path: Path,
) -> None:
    tx = processes.TX
    params = jax.tree.map(jnp.asarray, processes.values())
    state = tx.init(params)
    save(tmp_path / "from_one", params=params, opt_state=state, tx=tx, step=0)

    address = free_address()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.tools.processes"]
    both = [
        subprocess.Popen(
            [*command, str(rank), address, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    deadline = time.monotonic() + 90
    while {process.poll() for process in both} == {
        None
    } and time.monotonic() < deadline:
        time.sleep(0.1)
    try:  # when one has failed, the other would wait for it
        outputs = [process.communicate(timeout=15)[0] for process in both]
    except subprocess.TimeoutExpired:
        for process in both:
            process.kill()
        outputs = [process.communicate()[0] for process in both]
    for output in outputs:
        assert output.endswith("done\n"), "\n\n".join(outputs)

    expected = jax.jit(processes.step)(params, state)
    mesh = jax.make_mesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, P("a")), NamedSharding(mesh, P())
    one = SingleDeviceSharding(jax.devices()[0])
    for targets in (processes.wanted(one, one), processes.wanted(rows, everywhere)):
        found = restore(tmp_path / "from_two", params=targets, tx=tx)
        chex.assert_trees_all_equal(found[:2], expected)
        assert found.step == 1
        assert found.rng == jax.random.key(7)
        kernel = found.opt_state["scale_by_adam"].mu["kernel"]
        assert kernel.sharding.is_equivalent_to(targets["kernel"].sharding, 2)
    checkpointer = Checkpointer(tmp_path / "lr=[0.1]")
    assert checkpointer.steps == [2]
    chex.assert_trees_all_equal(
        checkpointer.restore(params=params, tx=tx)[:2], expected
    )
    assert not list(tmp_path.rglob("*.partial"))
    assert len(list(tmp_path.rglob("checkpoint.json"))) == 4
