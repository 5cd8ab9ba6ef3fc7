"""The suite of optax, run on `jopt.interop.optax`.

`python -m tests.tools.upstream_of_optax CHECKOUT` takes a checkout of optax at the
release that is installed. It runs the tests there twice, with optax itself and with the
door in its place, and writes what came of both into `PAGE`. Nothing of the suite is
kept.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from tests.tools.pages import ROOT
from tests.tools.upstream import Case, commit, environment, read, rows


PAGE = ROOT / "tests" / "parity" / "upstream_optax.md"
# Not about the public functions: examples, and private helpers.
LEFT_OUT = ("examples", "docs", "optax/experimental")
# What differs on purpose, by expressions that match "file::test".
REASONS = {
    r"alias_test.py::AliasTest::test_explicit_dtype2[4-9]": "A complex parameter keeps "
    "a complex momentum; optax drops its imaginary part.",
    r"test_lion_invalid_mode_raises": "Other words: the ValueError has a message of "
    "jopt's own.",
    r"test_mask_compatible_callable_pytree|HelpersTest|MultiNormalDiag|_cond_fun|"
    r"_extract_fns_kwargs": "It tests what is private in optax.",
    r"_muon_test.py::MuonTest::test_(reshape|newton_schulz)": "It tests what is "
    "private in optax.",
    r"_common_test.py::ContribTest::test_optimizers_can_be_wrapped": "A number from "
    "which the state starts has to be known when the optimizer is made: with "
    "`inject_hyperparams`, name `lower_bound` and `estim_lr0` in `static_args`.",
    r"test_tree_vdot": "The last digit of float32: sums and "
    "divisions have another order.",
}


def cases(checkout: Path, *options: str) -> dict[str, Case]:
    """Run the tests of a checkout, with itself as optax unless a plugin says else."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        paths = sorted(
            str(path)
            for path in checkout.rglob("*_test.py")
            if not str(path.relative_to(checkout)).startswith(LEFT_OUT)
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-W", "ignore", "-c", os.devnull, "--rootdir", str(checkout)]
        command += ["--import-mode=importlib", f"--junitxml={report}", *options]
        env = environment(folder) | {"OPTAX_CHECKOUT": str(checkout)}
        if not options:
            env["PYTHONPATH"] = str(checkout)
        subprocess.run([*command, *paths], cwd=ROOT, env=env, check=False)
        found = [read(x) for x in ElementTree.parse(report).iter("testcase")]
        return {f"{case.group}::{case.name}": case for case in found}


def reason(case: Case) -> str | None:
    """Why a test differs on purpose."""
    where = f"{case.group}::{case.name}"
    matches = [text for x, text in REASONS.items() if re.search(x, where)]
    return matches[0] if matches and case.outcome == "failed" else None


def outcomes(found: Iterable[Case]) -> collections.Counter[str]:
    """How many tests passed, differ, and failed."""
    return collections.Counter("different" if reason(x) else x.outcome for x in found)


def table(ran: list[Case]) -> str:
    """The table of optax's files, of the tests that optax itself passes."""
    groups = collections.defaultdict(list)
    for case in ran:
        groups[case.group].append(case)
    lines = []
    for group, found in (dict(groups) | {"all": ran}).items():
        count = outcomes(found)
        kinds = ("passed", "different", "failed")
        lines.append((group, len(found), *(count[x] for x in kinds)))
    return rows([("file", "tests", "passed", "different", "failed"), *lines])


def differences(ran: list[Case]) -> str:
    """The reasons with their tests, then what fails."""
    by_reason = collections.defaultdict(list)
    failed = []
    for case in ran:
        if text := reason(case):
            by_reason[text].append(f"`{case.group}` {case.name}")
        elif case.outcome == "failed":
            failed.append(f"- `{case.group}` {case.name}: {case.why}\n")
    text = "".join(
        f"- {text} ({len(tests)}{'' if len(tests) > 9 else ': ' + '; '.join(tests)})\n"
        for text, tests in by_reason.items()
    )
    return text + ("\nFailed:\n\n" + "".join(failed) if failed else "")


PAGE_TEXT = """# The suite of optax

Written by `python -m tests.tools.upstream_of_optax CHECKOUT`, with jax {jax} and a
checkout of optax {optax} at {commit}.

optax's own tests, with `jopt.interop.optax` in the place of optax and of each of its
modules, of those that optax itself passes here.

{table}
Different on purpose:

{differences}"""


def main(checkout: str) -> None:
    """Run the suite and write the page."""
    path = Path(checkout).resolve()
    own = cases(path)
    door = cases(path, "-p", "tests.tools.upstream_optax")
    ran = [
        door.get(name, Case(x.group, x.name, "failed", "it was not found"))
        for name, x in own.items()
        if x.outcome == "passed"
    ]
    PAGE.write_text(
        PAGE_TEXT.format(
            jax=version("jax"),
            optax=version("optax"),
            commit=commit(checkout).strip(),
            table=table(ran),
            differences=differences(ran),
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
