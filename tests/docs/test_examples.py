"""The examples run at small settings, and what README and docs say is so."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jopt
from tests.catalogue import ROWS, rows_of
from tests.public import public
from tests.tools import table as optimizers
from tests.tools import translations, translations_of_optax


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# As a user has it: without the flags of the tests.
ENVIRONMENT = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
ENVIRONMENT["XLA_FLAGS"] = ""
PAGES = {
    path.stem: path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def start(name, *arguments):
    """An example as a process of its own."""
    return subprocess.Popen(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Those that take longer than five seconds at their own settings show a bar.
SLOW = ("01_quickstart.py", "02_trainstate.py", "03_nnx.py")


def run(name, *arguments):
    """What an example prints."""
    process = start(name, *arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert ("%|" in errors) == (name in SLOW), errors
    return output


def percent(pattern, output):
    return float(re.search(pattern + r"([\d.]+)%", output)[1])


# The examples.

SMALL = ("--epochs", 10, "--out")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder and the words of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("quickstart")
    return out, run("01_quickstart.py", *SMALL, out)


def test_quickstart_learns_the_digits_and_draws_them(quickstart):
    out, output = quickstart
    assert percent("test accuracy ", output) >= 96
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")


def test_quickstart_killed_and_resumed_ends_with_the_same_bits(quickstart, tmp_path):
    straight, _ = quickstart
    checkpoint = tmp_path / "checkpoint.msgpack"
    process = start("01_quickstart.py", *SMALL, tmp_path)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (tmp_path / "training.png").exists()

    output = run("01_quickstart.py", *SMALL, tmp_path, "--resume")
    epochs = int(re.search(r"resumed after epoch (\d+)", output)[1])
    assert 1 <= epochs < 10
    assert checkpoint.read_bytes() == (straight / checkpoint.name).read_bytes()


def test_quickstart_does_not_resume_another_run(quickstart):
    process = start("01_quickstart.py", *SMALL, quickstart[0], "--resume", "--seed", 1)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "is of another run: args.seed=0" in errors


def test_trainstate_reads_and_sets_the_learning_rate():
    output = run("02_trainstate.py", "--epochs", 10)
    assert "learning rate 3.0e-03" in output
    assert "the learning rate is now 5.00e-03" in output
    assert "compilations of its step: 1" in output
    for name in ("Flax", "jopt"):
        assert percent(f"{name}'s TrainState.* test accuracy ", output) >= 93


def test_nnx_killed_and_resumed_learns_the_same_prices(tmp_path):
    straight = run("03_nnx.py", "--steps", 300, "--out", tmp_path / "straight")
    average = percent("their average: the price is off by ", straight)
    assert average < 15
    assert average < percent("last parameters: the price is off by ", straight)

    checkpoint = tmp_path / "killed" / "diamonds.npz"
    process = start("03_nnx.py", "--steps", 300, "--out", checkpoint.parent)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    arguments = "--steps", 300, "--out", checkpoint.parent, "--resume"
    first, _, rest = run("03_nnx.py", *arguments).partition("\n")
    assert re.fullmatch(r"resumed after step (60|120|180|240|300)", first)
    assert rest and straight.endswith(rest)
    whole = tmp_path / "straight" / checkpoint.name
    assert checkpoint.read_bytes() == whole.read_bytes()


def test_the_optimizer_of_ones_own_has_at_most_twenty_lines():
    source = (ROOT / "examples" / "04_write_your_own.py").read_text()
    code = source[source.index("class ") : source.index("# It is a value")]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


# The blocks of the README and of the pages: programs, with what they print in the text
# block after them, and dialogues, with Python or with the command line. All run in one
# process; those of a page share names, and where there is a command line, a folder.

BLOCKS = [
    (page, *block)
    for page, text in PAGES.items()
    for block in re.findall(
        r"^```(python|pycon|console)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?",
        text,
        re.M | re.S,
    )
]
RUNNER = """
import collections, contextlib, doctest, io, json, os, shlex, sys, tempfile, traceback

pages = collections.defaultdict(lambda: {"__name__": "readme"})
blocks = json.load(sys.stdin)
with_commands = {page for page, kind, _ in blocks if kind == "console"}
folders = collections.defaultdict(tempfile.mkdtemp)

def transcript(source):
    from typer.testing import CliRunner
    from jopt.cli.app import app

    lines = []
    for command in [x for x in source.splitlines() if x.startswith("$ ")]:
        program, *arguments = shlex.split(command[2:])
        assert program == "jopt", command
        result = CliRunner().invoke(app, arguments, prog_name="jopt")
        lines += [command, *result.output.splitlines()]
        if result.exception and not isinstance(result.exception, SystemExit):
            traceback.print_exception(result.exception)
    return "".join(f"{line}\\n" for line in lines)

def output(page, kind, source):
    printed, names = io.StringIO(), pages[page]
    os.chdir(folders[page] if page in with_commands else start)
    if names is None:
        return None
    with contextlib.redirect_stdout(printed):
        try:
            if kind == "python":
                exec(compile(source, page, "exec"), names)
            elif kind == "console":
                found = transcript(source)
                checker = doctest.OutputChecker()
                if not checker.check_output(source, found, doctest.ELLIPSIS):
                    print(found, end="")
            else:
                test = doctest.DocTestParser().get_doctest(source, {}, page, None, 0)
                test.globs = names
                runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
                runner.run(test, clear_globs=False)
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name
            if missing in ("keras", "optax", "torch"):  # the rest needs it, too
                pages[page] = None
                return None
            traceback.print_exc(file=printed)
    return printed.getvalue()

start = os.getcwd()
print(json.dumps([output(*block) for block in blocks]))
"""


@pytest.fixture(scope="module")
def printed():
    """What each block prints; dialogues print where they differ from the page."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=json.dumps([block[:3] for block in BLOCKS]),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("i", range(len(BLOCKS)), ids=lambda i: f"{BLOCKS[i][0]}-{i}")
def test_block_prints_what_its_page_says(printed, i):
    if printed[i] is None:
        pytest.skip("it needs a library that is not installed")
    assert printed[i] == BLOCKS[i][3], printed[i]


# Tables and lists.


def table(page):
    """The rows of the generated tables of a page, without two lines of header."""
    generated = re.search("<!-- (.*?)<!-- end -->", PAGES[page], re.S)[1]
    lines = [line for line in generated.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def evaluated(text):
    return eval(text.strip("`"), {"jopt": jopt, **public(jopt)})


def test_readme_has_the_table_of_optimizers_that_the_registry_and_tests_give():
    deviations = json.loads(optimizers.DEVIATIONS.read_text())
    assert {optimizers.key(row) for row in ROWS} == set(deviations)
    facts = optimizers.measured_facts(deviations)
    advice = "run python -m tests.tools.table"
    assert optimizers.table(facts) in PAGES["optimizers"], advice
    assert optimizers.rules() in PAGES["optimizers"], advice
    assert json.loads(optimizers.MEASURED.read_text()) == facts, advice  # jopt show


def recipe(tx):
    """The config without the numbers that do not decide which algorithm it is."""

    def stripped(value):
        if isinstance(value, dict):
            free = {"learning_rate", "weight_decay", "max_norm"}
            return {n: stripped(x) for n, x in value.items() if n not in free}
        return [stripped(x) for x in value] if isinstance(value, list) else value

    return json.dumps(stripped(jopt.to_config(tx)), sort_keys=True)


# What no row has with just these numbers: Keras's own eps makes Adafactor NaN on their
# problem; the others are in the tests of the front doors and of sparse gradients.
# torch's ASGD, whose rate acts late, is in tests/interop/torch/test_asgd.py.
ELSEWHERE = {
    "keras": {"Adafactor", "Adam"},
    "torch": {"ASGD", "Muon", "RMSprop", "SparseAdam"},
}


@pytest.mark.parametrize("library", ["keras", "torch"])
def test_readme_translates_as_the_parity_tests_do(library):
    tested = {
        recipe(evaluated(row.jopt.replace("DECAY", "0.1"))) for row in rows_of(library)
    }
    calls = {row[0]: row[1] for row in table(f"from_{library}") if len(row) > 2}
    assert len(calls) > 14
    own = {x for x, call in calls.items() if "…" not in call}
    assert {
        theirs.strip("`").partition("(")[0]
        for theirs in own
        if recipe(evaluated(calls[theirs])) not in tested
    } == ELSEWHERE[library]


def test_readme_has_the_tables_of_names_and_defaults_that_were_recorded():
    for name, part in translations.parts().items():
        assert part in PAGES[f"from_{name.partition('-')[0]}"], (
            f"{name}: run python -m tests.tools.translations"
        )
    for replaced in translations_of_optax.REPLACED.values():
        for text in re.findall("`([^`]*)`", replaced):
            assert eval(text.partition("(")[0], {"jopt": jopt, **public(jopt)})


@pytest.mark.filterwarnings("ignore")  # optax warns of keys that are not given
def test_the_same_call_of_optax_is_as_far_away_as_the_page_says():
    known = json.loads(translations_of_optax.OPTAX_GAPS.read_text())
    found = translations_of_optax.measured_gaps(known)
    assert found.keys() == known.keys()
    for name, gap in known.items():
        assert found[name] == pytest.approx(gap, 0.1), name


def test_jopts_own_defaults_are_as_far_away_as_the_readme_says():
    known = json.loads(translations.GAPS.read_text())
    found = translations.measured_gaps()
    assert {n: x.keys() for n, x in found.items()} == {
        n: x.keys() for n, x in known.items()
    }
    for library, gaps in found.items():
        for name, (text, gap) in gaps.items():
            listed, before = known[library][name]
            assert text == listed
            np.testing.assert_allclose(gap, before, 0.01, 1e-9, err_msg=text)


def test_readme_names_every_room_and_architecture_every_module():
    rooms = {path.parent.name for path in ROOT.glob("jopt/*/__init__.py")}
    assert rooms == set(re.findall(r"^  (\w+)/ ", README, re.M))
    modules = {path.stem for path in (ROOT / "jopt").rglob("*.py")} - {"__init__"}
    modules -= {path.stem for path in ROOT.glob("jopt/algorithms/*.py")}
    named = set(re.findall(r"`(\w+)`", PAGES["architecture"]))
    assert modules - {"_version"} <= named


def test_every_link_leads_to_a_file():
    for page, text in PAGES.items():
        folder = ROOT if page == "README" else ROOT / "docs"
        for link in re.findall(r"\]\(([^)#]+)[)#]", text):
            assert link.startswith("http") or (folder / link).exists(), (page, link)


def test_readme_counts_the_settings_that_are_compared():
    libraries = {row.library for row in ROWS}
    assert f"{len(ROWS)} settings of {len(libraries)} libraries" in README


def test_changelog_has_an_entry_for_this_version():
    version = importlib.metadata.version("jopt")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
