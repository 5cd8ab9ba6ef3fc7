"""A checkpoint is restored onto other devices, as the given shardings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.checkpoint import Checkpointer, restore, save
from jopt.sharding import state_shardings


TX = jopt.adamw(1e-2)
PARAMS = {"bias": jnp.ones(8), "kernel": jnp.arange(8192.0).reshape(64, 128)}


@pytest.mark.parametrize("kind", [None, "pinned_host"])
@pytest.mark.parametrize("file", ["run.safetensors", "folder"])
def test_a_state_goes_where_the_shardings_say(
    file: str, kind: str | None, tmp_path: Path
) -> None:
    _, state = TX.update(PARAMS, TX.init(PARAMS), PARAMS)
    path = save(tmp_path / file, params=PARAMS, opt_state=state, tx=TX)
    on = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    targets = {
        n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(on, P()))
        for n, x in PARAMS.items()
    }
    where = state_shardings(TX, targets, zero_axis="data", memory_kind=kind)
    found: Any = restore(path, params=targets, tx=TX, shardings=where).opt_state
    for x, y, s in zip(*map(jax.tree.leaves, (found, state, where)), strict=True):
        assert x.sharding.is_equivalent_to(s, x.ndim)
        assert x.sharding.memory_kind == s.memory_kind
        np.testing.assert_array_equal(np.asarray(x), y)
    again = save(tmp_path / "again", params=PARAMS, opt_state=found, tx=TX)
    expected = restore(again, params=PARAMS, tx=TX).opt_state
    for x, y in zip(*map(jax.tree.leaves, (state, expected)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_arrays_that_start_anew_go_there_too(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, params=PARAMS, opt_state=TX.init(PARAMS), tx=TX)
    on = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = jax.device_put(PARAMS, NamedSharding(on, P()))
    where = state_shardings(TX, params, zero_axis="data")
    found = checkpointer.restore(
        params=params, tx=TX, shardings=where, migrate=[jopt.Reset("mu/kernel$")]
    ).opt_state
    for name in ("mu", "nu"):
        x = getattr(found["scale_by_adam"], name)["kernel"]
        assert x.sharding.spec == P("data")
    other = state_shardings(jopt.sgd(0.1), params, on)
    with pytest.raises(ValueError, match="shardings are not those of this state"):
        checkpointer.restore(params=params, tx=TX, shardings=other)
