"""Programs that are killed while they save leave checkpoints that can be restored.

Six kills of each kind here; ``python -m tests.tools.crash`` does fifty.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import crash


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_newest_checkpoint_is_whole_whenever_the_program_is_killed(
    tmp_path: Path, asynchronous: bool
) -> None:
    found = list(crash.kills(tmp_path / "run", 6, asynchronous))
    steps = [latest for latest, _ in found]
    assert steps == sorted(steps), "each program went on from the one before"
    assert steps[0] < steps[-1]
    crash.save_once_more(tmp_path / "run")
