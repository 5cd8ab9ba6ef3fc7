"""What any version wrote is restored by this one."""

from __future__ import annotations

from pathlib import Path

import chex
import jax
import pytest

from jopt.checkpoint import restore
from tests.tools import golden_checkpoints as golden


WRITTEN = sorted(path for path in golden.FOLDER.iterdir() if path.is_dir())


@pytest.mark.parametrize("form", golden.FORMS)
@pytest.mark.parametrize("folder", WRITTEN, ids=lambda folder: folder.name)
@pytest.mark.filterwarnings("ignore:hyperparameters of the checkpoint")
def test_a_checkpoint_of_an_earlier_version_is_restored(
    folder: Path, form: str
) -> None:
    params, state = golden.contents()
    found = restore(folder / form, params=params, tx=golden.recipe())
    chex.assert_trees_all_equal_shapes_and_dtypes(found[:2], (params, state))
    chex.assert_trees_all_equal(found[:2], (params, state))
    assert (found.step, found.metadata) == (7, {"epoch": 2})
    assert found.rng == {"dropout": jax.random.key(3)}
