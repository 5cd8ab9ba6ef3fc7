"""Four processes, two and one hold the same state, each its part of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from jopt.checkpoint import restore
from jopt.sharding import zero1
from tests.tools import sharded_processes as shared


def started(count: int, folder: Path) -> list[dict[str, str]]:
    """What the processes print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-W", "ignore", "-m", "tests.tools.sharded_processes"]
    processes = [
        subprocess.Popen(
            [*command, str(count), str(rank), address, str(folder)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_two_processes_go_on_where_four_stopped_to_the_same_bits(
    tmp_path: Path,
) -> None:
    four = started(4, tmp_path)
    two = started(2, tmp_path)
    assert len({x["trained"] for x in (*four, *two)}) == 1
    assert len({x["more"] for x in (*four, *two)}) == 1
    assert len({x["state"] for x in two}) == 1

    on = shared.mesh(jax.devices()[:4])
    tx = zero1(shared.INNER, on, "data")
    params, state, step, *_ = restore(
        tmp_path / "from_four", params=shared.targets(on), tx=tx
    )
    assert step == shared.STEPS
    assert shared.digest(params) == four[0]["trained"]
    assert shared.digest(state) == two[0]["state"]
    mu: Any = state["scale_by_adam"].mu["kernel"]
    assert mu.addressable_shards[0].data.shape == (16, 64)
    # Sums over devices have another order in one process, so some last bits differ.
    start, batch = shared.arrays(on)
    again, _ = shared.trained(tx, start, tx.init(start), batch, shared.STEPS)
    for x, y in zip(*map(jax.tree.leaves, (params, again)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)

    one = SingleDeviceSharding(jax.devices()[0])
    alone = {n: x.update(sharding=one) for n, x in shared.targets(on).items()}
    _, state, *_ = restore(tmp_path / "from_four", params=alone, tx=shared.INNER)
    assert shared.digest(state) == two[0]["state"]
