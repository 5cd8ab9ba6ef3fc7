"""The suites that Keras and torch have for their optimizers, run on jopt's doors.

`python -m tests.tools.upstream CHECKOUT` takes a checkout of Keras and runs the tests
of its `keras/src/optimizers` twice: with Keras, and with jopt behind Keras's names.
Then it runs torch's `optim_db`, which the torch package has, and writes what came of
both into `PAGE`. Keras and torch have to be installed; nothing of the suites is kept.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tests.tools.pages import ROOT


PAGE = ROOT / "tests" / "parity" / "upstream.md"
# What differs on purpose, by expressions that match "file::test" or "optimizer, name".
REASONS = {
    r"SGDTest::test_single_step": "The state counts the steps of the transformation, "
    "so there is a variable more. Keras's count of calls is another number where "
    "gradients accumulate or only overwrite variables.",
    r"::test_sparse_gradients_": "A sparse gradient becomes a dense one with the same "
    "step, so the update is not sparse either. On JAX Keras's own is dense, too, once "
    "it is added to its variable.",
    r"^\w+::.*foreach": "`foreach` changes nothing, so it excludes nothing.",
    r"^\w+::betas must be either": "A tensor with one element is a number.",
}


class Case(NamedTuple):
    """A test or a configuration, and what came of it."""

    group: str  # its file or optimizer
    name: str
    outcome: str  # "passed", "failed" or "skipped"
    why: str = ""
    made: int = 1  # how many optimizers and schedules of jopt it has made

    @property
    def reason(self) -> str | None:
        """Why it differs on purpose."""
        where = f"{self.group}::{self.name}"
        found = [text for x, text in REASONS.items() if re.search(x, where)]
        return found[0] if found and self.outcome == "failed" else None


def environment(folder: str) -> dict[str, str]:
    """The variables that the suites are run with."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "jax",
        "KERAS_HOME": folder,  # not the user's keras.json, which sets a floatx
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def keras_cases(checkout: Path, *options: str) -> dict[str, Case]:
    """Run the tests of a checkout of Keras with the installed Keras."""
    source = checkout / "keras" / "src" / "optimizers"
    with tempfile.TemporaryDirectory() as folder:
        # Without the packages around them, which would be taken for the installed ones.
        for path in source.rglob("*_test.py"):
            shutil.copy(path, folder)
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-W", "ignore", "-c", os.devnull, "--rootdir", folder]
        command += [f"--junitxml={report}", *options, folder]
        subprocess.run(command, cwd=folder, env=environment(folder), check=False)
        cases = map(read, ElementTree.parse(report).iter("testcase"))
        return {f"{case.group}::{case.name}": case for case in cases}


def read(element: Any) -> Case:
    """A test of pytest's report."""
    file, name = element.get("classname").split(".")[-2:]
    outcome, why = "passed", ""
    for tag in ("failure", "error", "skipped"):
        if (found := element.find(tag)) is not None:
            outcome = "skipped" if tag == "skipped" else "failed"
            why = " ".join(found.get("message", "").split())[:100]
    made = element.find(".//property[@name='made']")
    made = 1 if made is None else int(made.get("value"))
    return Case(f"{file}.py", f"{name}::{element.get('name')}", outcome, why, made)


def commit(checkout: str) -> str:
    """The commit of a checkout and its date."""
    command = ["git", "-C", checkout, "log", "-1", "--format=%h of %cs"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def torch_cases() -> list[tuple[str, Case]]:
    """Run torch's configurations; each with its kind."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.tools.upstream_torch"]
    with tempfile.TemporaryDirectory() as folder:
        env = environment(folder)
        run = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
    found = json.loads(run.stdout)
    return [
        (x["kind"], Case(x["optimizer"], x["name"], x["outcome"], x["why"]))
        for x in found
    ]


def outcomes(cases: Iterable[Case]) -> collections.Counter[str]:
    """How many cases passed, failed and differ on purpose."""
    return collections.Counter(
        "different" if case.reason else case.outcome for case in cases
    )


def rows(lines: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown; its first line is the head."""
    head, *body = [list(map(str, line)) for line in lines]
    rule = ["---"] * len(head)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))


def by_group(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """The cases of each file or optimizer."""
    found = collections.defaultdict(list)
    for case in cases:
        found[case.group].append(case)
    return found


def keras_table(own: Iterable[Case], ran: list[Case]) -> str:
    """The table of Keras's files, of the tests that Keras itself passes."""
    lines = []
    for group, found in (by_group(ran) | {"all": ran}).items():
        count = outcomes(found)
        without = sum(not x.made and x.outcome == "passed" for x in found)
        skipped = sum(x.outcome != "passed" and group in ("all", x.group) for x in own)
        numbers = [count[x] for x in ("passed", "different", "failed")]
        lines.append((group, skipped, len(found), without, *numbers))
    head = ("file", "not in Keras", "tests", "no jopt", "passed", "different", "failed")
    return rows([head, *lines])


def torch_table(cases: list[tuple[str, Case]]) -> str:
    """The table of torch's optimizers: passed of all, for each kind."""
    kinds = ("arguments", "schedulers", "refused")
    lines = []
    groups = by_group(x for _, x in cases) | {"all": [x for _, x in cases]}
    for group, found in groups.items():
        cells = []
        for kind in kinds:
            of = [x for k, x in cases if k == kind and group in ("all", x.group)]
            cells.append(f"{outcomes(of)['passed']} of {len(of)}" if of else "")
        count = outcomes(found)
        lines.append((group, *cells, count["different"], count["failed"]))
    return rows([("optimizer", *kinds, "different", "failed"), *lines])


def differences(cases: Iterable[Case]) -> str:
    """Those that differ on purpose by their reasons, then those that fail."""
    reasons = collections.defaultdict(list)
    failed = []
    for case in cases:
        where = f"`{case.group}` {case.name}"
        if case.reason:
            reasons[case.reason].append(where)
        elif case.outcome == "failed":
            failed.append(f"- {where}: {case.why}\n")
    text = "".join(
        f"- {reason} ({len(where)}: {'; '.join(where)})\n"
        for reason, where in reasons.items()
    )
    return text + ("\nFailed:\n\n" + "".join(failed) if failed else "")


PAGE_TEXT = """# The suites of Keras and torch

Written by `python -m tests.tools.upstream CHECKOUT`, with {versions},
and a checkout of Keras at {commit}.

## Keras

Keras's own tests of its optimizers and schedules, with the installed Keras on its JAX
backend. Each optimizer that a test names is `as_optimizer` around the transformation of
`jopt.interop.keras` with the same arguments, in a class with Keras's name. Each
schedule is that of `jopt.interop.keras`. `LossScaleOptimizer`, `MultiOptimizer` and
`OptimizerMap` are Keras's, around these. What Keras has as methods is translated:
`exclude_from_weight_decay` to the argument of this name, and `update_step`,
`_apply_weight_decay`, `_clip_gradients` and Muon's `zeropower_via_newtonschulz5` and
`lr_adjust` to a step that does only this. Muon's `_should_use_adamw` and Nadam's
`_u_product` are read from the state. Steps such as 3.0 become integers for schedules.

"not in Keras" are tests that Keras itself does not pass here, most of them for other
backends, and "tests" are the others. Those with "no jopt" make none of its optimizers
and schedules, and pass.

{keras}
Different on purpose:

{keras_differences}
## torch

The configurations of `torch.testing._internal.common_optimizers.optim_db`, those for
GPUs too, in torch and in `jopt.interop.torch`. One passes if no parameter differs by
more than 1e-12 in twenty steps in float64; by 1e-4 for Muon, whose digits are few.
"schedulers" are the lists of schedulers that `optim_db` has for an optimizer, "refused"
the arguments that torch refuses.

{torch}
Different on purpose:

{torch_differences}"""


def main(checkout: str) -> None:
    """Run the suites and write the page."""
    own = keras_cases(Path(checkout))
    cases = keras_cases(Path(checkout), "-p", "tests.tools.upstream_keras")
    ran = [cases[name] for name, x in own.items() if x.outcome == "passed"]
    configurations = torch_cases()
    different = [x for x in (*ran, *(x for _, x in configurations)) if x.reason]
    if stale := set(REASONS.values()) - {x.reason for x in different}:
        raise SystemExit(f"nothing differs for these reasons: {stale}")
    packages = ("keras", "torch", "jax")
    PAGE.write_text(
        PAGE_TEXT.format(
            versions=", ".join(f"{name} {version(name)}" for name in packages),
            commit=commit(checkout).strip(),
            keras=keras_table(own.values(), ran),
            keras_differences=differences(ran),
            torch=torch_table(configurations),
            torch_differences=differences(x for _, x in configurations),
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
