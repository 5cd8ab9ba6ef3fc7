"""Stopped, saved, and gone on with in another process: the same bits at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.catalogue import OPTIMIZERS
from tests.tools import resume


ROOT = Path(__file__).parents[2]
# Two programs of seventy optimizers: what XLA does for speed would cost minutes.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def run(what: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.tools.resume", what, str(folder)],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}",
            # The second program is the first one again.
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_optimizer_and_wrapper_goes_on_to_the_same_bits_from_every_form(
    tmp_path: Path,
) -> None:
    run("straight", tmp_path)
    run("resume", tmp_path)
    expected = np.load(tmp_path / "straight.end.npz")
    for case in OPTIMIZERS:
        assert f"params/{case.name}/kernel" in expected.files
    for form in resume.FORMS:
        found = np.load(tmp_path / f"{form}.end.npz")
        assert found.files == expected.files
        for name in found.files:
            assert found[name].dtype == expected[name].dtype, name
            assert found[name].tobytes() == expected[name].tobytes(), (form, name)
