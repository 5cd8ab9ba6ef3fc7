"""The examples run at small settings, and what README and docs say is so."""

import ast
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
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text()
ENVIRONMENT = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
for name in ("COLUMNS", "FORCE_COLOR"):  # tables are whole, and plain
    ENVIRONMENT.pop(name, None)
PAGES = {
    path.stem: path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def start(*arguments, **environment):
    """A Python process whose input and output the test has."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        # Small programs: most of the time is for compiling them.
        env=ENVIRONMENT | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Runs one example after the other, so that all of them wait for the imports only once.
# It reads the command line of an example, and answers with the exit status and what the
# example wrote.
RUN_EXAMPLES = """
import contextlib, io, json, runpy, sys, traceback, warnings

warnings.simplefilter("error")
for line in sys.stdin:
    sys.argv, status = json.loads(line), 0
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as exit:
            status = exit.code
        except BaseException:
            status = traceback.format_exc()
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def runner():
    # The number of devices cannot change once one is used.
    with start("-c", RUN_EXAMPLES, JAX_NUM_CPU_DEVICES="8") as process:
        yield process
        process.kill()


# Those that take longer than five seconds at their own settings show a bar.
WITH_BAR = (
    "01_quickstart",
    "02_trainstate",
    "03_nnx",
    "12_sparse_embeddings",
    "14_tiny_gpt",
)


@pytest.fixture(scope="module")
def run(runner):
    """A function that runs an example and returns what it prints."""

    def run_example(name, *arguments):
        path = EXAMPLES / f"{name}.py"
        command = [*map(str, (path, *arguments))]
        runner.stdin.write(json.dumps(command) + "\n")
        runner.stdin.flush()
        status, output, errors = json.loads(runner.stdout.readline())
        assert status == 0, (status, errors)
        assert ("%|" in errors) == (name in WITH_BAR), errors
        wanted = [line for line in shown_by(path) if "…" not in line]
        assert wanted and {*map(form, wanted)} <= {*map(form, output.splitlines())}
        return output

    return run_example


def shown_by(path):
    """The lines of output that the docstring of an example shows."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    indented = [line for line in docstring.splitlines() if line.startswith("    ")]
    assert indented[0].strip() == f"python examples/{path.name}"
    return [line for line in indented[1:] if "<-" not in line]  # not a formula


def form(line):
    """A line up to its first number, colon or path."""
    return re.split(r"[\d:]|\S*/", line)[0].strip()


def percent(pattern, output):
    return float(re.search(pattern + r"\D*([\d.]+)%", output)[1])


def number(pattern, output):
    return float(re.search(pattern + r" ?([\d.]+(e-\d+)?)", output)[1])


# The examples.

NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"))
SMALL = ("--epochs", 8, "--out")


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_an_example_is_short_and_tested_and_in_the_readme(path):
    # The quickstart has arguments, a plot and a checkpoint, too.
    limit = 150 if path.stem == "01_quickstart" else 100
    assert len(path.read_text().splitlines()) < limit
    assert path.stem in Path(__file__).read_text()
    assert f"(examples/{path.name})" in README


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, run):
    """The folder and the words of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("quickstart")
    return out, run("01_quickstart", *SMALL, out)


def test_quickstart_learns_the_digits_and_draws_them(quickstart):
    out, output = quickstart
    assert percent("held-out accuracy", output) >= 95
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")


def test_quickstart_killed_and_resumed_ends_with_the_same_bits(
    quickstart, run, tmp_path
):
    straight, _ = quickstart
    checkpoint = tmp_path / "checkpoint.msgpack"
    process = start(EXAMPLES / "01_quickstart.py", *SMALL, tmp_path)
    deadline, seen = time.monotonic() + 120, set()
    # The first checkpoint is that of step 0, the second of step 20 of the first epoch.
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_ino)
    process.kill()
    process.communicate()
    assert not (tmp_path / "training.png").exists()

    output = run("01_quickstart", *SMALL, tmp_path, "--resume")
    step = number("resumed after step", output)
    assert 20 <= step < 8 * 22 and step % 22  # not at the end of an epoch
    assert checkpoint.read_bytes() == (straight / checkpoint.name).read_bytes()


# Reads command lines as the runner does, and says whether JAX was imported.
ARGUMENTS = """
import json, runpy, sys

for arguments in json.loads(sys.argv.pop()):
    sys.argv[1:] = arguments
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as exit:
        print("exit status", exit.code)
print("jax" in sys.modules)
"""


def test_quickstart_has_help_and_errors_before_it_imports_jax():
    wrong = {
        "--epochs 0": "--epochs must be from 1 to 9999, got 0",
        "--epochs -1": "--epochs must be from 1 to 9999, got -1",
        "--epochs x": "argument --epochs: invalid int value: 'x'",
        "--batch-size 1438": "--batch-size must be from 1 to 1437, got 1438",
        "--seed -1": "--seed must be from 0 to",
        "--resume --out /nowhere": "there is no /nowhere/checkpoint.msgpack to resume",
    }
    lines = [line.split() for line in ("--help", *wrong)]
    code = f"import sys; sys.argv[0] = {str(EXAMPLES / '01_quickstart.py')!r}"
    output, errors = start("-c", code + ARGUMENTS, json.dumps(lines)).communicate()
    assert "(default: 20)" in output and output.endswith("False\n")
    assert re.findall("exit status (.)", output) == ["0"] + ["2"] * len(wrong)
    for message in wrong.values():
        assert f"error: {message}" in errors


def test_quickstart_does_not_resume_another_run(quickstart, runner):
    path = EXAMPLES / "01_quickstart.py"
    arguments = [path, *SMALL, quickstart[0], "--resume", "--seed", 1]
    runner.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
    runner.stdin.flush()
    status, *_ = json.loads(runner.stdout.readline())
    assert "is of another run: args.seed=0" in status


def test_trainstate_reads_and_sets_the_learning_rate(run):
    output = run("02_trainstate", "--epochs", 10)
    assert "learning rate 3.0e-03" in output
    assert "the learning rate is now 5.00e-03" in output
    assert "compilations of its step: 1" in output
    for name in ("Flax", "jopt"):
        assert percent(f"{name}'s TrainState.* accuracy", output) >= 93


def test_nnx_averages_and_sets_the_learning_rate(run):
    output = run("03_nnx", "--steps", 300)
    last, average = (percent(name, output) for name in ("last", "their average"))
    assert average < last and average < 15
    assert "step 360: learning rate 1e-03" in output
    assert percent("at a tenth of the rate", output) < last


def test_equinox_and_haiku_learn_the_digits(run):
    output = run("04_equinox_and_haiku", "--steps", 150)
    for name in ("equinox", "haiku"):
        assert percent(f"{name}: accuracy", output) >= 90


def test_a_frozen_layer_stays_and_the_others_have_rates_of_their_own(run):
    output = run("05_groups", "--steps", 100)
    assert "first is frozen: it moved by 0.0, and its state has 0 bytes" in output
    assert number("fast/.*rate:", output) == 10 * number("slow/.*rate:", output)
    slow, fast = (
        number(f"is {name}: it moved by", output) for name in ("slow", "fast")
    )
    assert 0 < slow < fast
    assert percent("5 to 9: accuracy", output) >= 90


def test_accumulation_gives_the_numbers_of_whole_batches(run):
    output = run("06_accumulation", "--steps", 40)
    gaps = re.findall("differ by at most (.*)", output)
    assert len(gaps) == 2 and max(map(float, gaps)) < 1e-5
    assert output.count("after 40 steps") == 3
    assert percent("accumulate: accuracy", output) >= 75


def test_a_loss_scale_saves_gradients(run):
    output = run("07_mixed_precision", "--steps", 300)
    plain, scaled = re.findall(r"zero: ([\d.]+)%.* ([\d.]+)%", output)[-1]
    assert float(scaled) < 3 and float(plain) > 20
    assert percent("held-out accuracy", output) >= 93


def test_averages_are_better_than_what_is_trained(run):
    output = run("08_averages", "--steps", 500)
    for name in ("EMA", "schedule-free"):
        trained = number(f"{name}: held-out loss", output)
        assert number(f"{name}.* trained,", output) < trained
    assert number("adamw: held-out loss", output) == number("adamw: .*trained,", output)


def test_a_sweep_compiles_once_and_finds_a_rate(run):
    output = run("09_sweep", "--steps", 60)
    assert len(re.findall(r"^\d\.\de[-+]\d+ ", output, re.M)) == 32
    assert 1e-3 < number("the best rate is", output) < 0.2
    assert output.endswith("compilations: 1\n")


def test_a_range_test_suggests_good_rates(run, tmp_path):
    output = run("10_range_test", "--out", tmp_path)
    rows = re.findall(r"loss ([\d.]+); at a tenth ([\d.]+), tenfold ([\d.]+)", output)
    assert len(rows) == 3
    for loss, at_a_tenth, tenfold in rows:
        assert float(loss) < min(float(at_a_tenth), float(tenfold))
    assert (tmp_path / "range_test.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_resumes_and_goes_on_with_another_recipe(run):
    output = run("11_checkpoints", "--steps", 60)
    assert "the same bits: True" in output
    before = number("steps 0 to 30: held-out loss", output)
    assert float(output.split()[-1]) < before


def test_a_step_of_embeddings_changes_only_their_rows(run):
    output = run("12_sparse_embeddings", "--steps", 100)
    words = int(re.search(r"([\d,]+) different", output)[1].replace(",", ""))
    assert 0 < number("the first step changed", output) <= 6 * 256 < words


def test_eight_devices_give_the_numbers_of_one(run):
    output = run("13_eight_devices", "--steps", 30)
    sizes = re.findall(r"on each: ([\d,]+)", output)
    one, eight = (int(size.replace(",", "")) for size in sizes)
    assert one / 8 <= eight < one / 7.9
    assert number("differ by at most", output) < 1e-5


def test_a_tiny_gpt_learns_to_write(run):
    output = run("14_tiny_gpt", "--steps", 50)
    assert number("step 50:", output) < 5  # bits per byte, 8 for what is not learned


def test_the_optimizer_of_ones_own_has_at_most_twenty_lines():
    source = (EXAMPLES / "15_write_your_own.py").read_text()
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
        env=ENVIRONMENT | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
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
