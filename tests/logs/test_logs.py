"""Logs: what they write, when they fetch it, and what they refuse."""

import atexit
import contextlib
import csv
import json
import math
import struct
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jopt
from jopt.logs import CSV, JSONLines, Log, Memory, TensorBoard, Wandb, together
from jopt.logs import log as log_module
from jopt.logs.rows import Row


ROOT = Path(__file__).parents[2]


@pytest.fixture
def fetches(monkeypatch):
    """How many steps each fetch took."""
    counts = []
    fetch = jax.device_get

    def counted(packed):
        counts.append(len(packed))
        return fetch(packed)

    monkeypatch.setattr(jax, "device_get", counted)
    return counts


# What is written.


def test_the_numbers_that_a_state_knows_are_in_a_log(tmp_path):
    tx = jopt.chain(
        jopt.monitor(jopt.clip_by_global_norm(1.0), {"w": "a", "b": "c"}),
        jopt.dynamic_loss_scale(jopt.sgd(0.1)),
        jopt.reduce_on_plateau(0.5, patience=1),
    )
    params = {"w": jnp.ones(3), "b": jnp.ones(3)}

    @jax.jit
    def step(state, loss):
        _, state = tx.update(params, state, params, value=loss)
        return state, jopt.metrics(state)

    state = tx.init(params)
    with CSV(tmp_path / "run.csv") as log:
        for i in range(3):
            state, metrics = step(state, jnp.float32(2.0))
            log(i, metrics, loss=2.0)
    table = pd.read_csv(tmp_path / "run.csv", index_col="step")
    assert set(table) == {*metrics, "loss"}
    for name in ("learning_rate", "effective_learning_rate", "scale", "loss_scale"):
        assert name in table
    assert {"update_norm/a", "update_norm/c", "clip_factor", "total_notfinite"} <= set(
        table
    )
    assert table["learning_rate"].tolist() == [0.1, 0.1, 0.1]
    assert table["effective_learning_rate"].iloc[-1] == 0.025


def test_csv_has_every_number_of_columns_that_come_late(tmp_path):
    path = tmp_path / "deep" / "run.csv"
    with CSV(path, every=2) as log:
        for i in range(5):
            log(i, loss=i / 4)
        log(5, {"val/accuracy": 0.5}, loss=2.0)
        log(6, loss=2.5, rate=jnp.bfloat16(0.25))
    assert path.read_text().splitlines()[-3:] == [
        "4,1.0,,",
        "5,2.0,0.5,",
        "6,2.5,,0.25",
    ]
    table = pd.read_csv(path)
    assert list(table) == ["step", "loss", "val/accuracy", "rate"]
    assert table["step"].tolist() == list(range(7))
    assert table["loss"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5]
    assert table["val/accuracy"].notna().sum() == 1


def test_a_name_with_a_comma_and_quotes_is_one_column(tmp_path):
    with CSV(tmp_path / "run.csv") as log:
        log(0, {'norm, "all"': 1.5, "loss": 2})
    table = pd.read_csv(tmp_path / "run.csv")
    assert list(table) == ["step", 'norm, "all"', "loss"]


EXTREMES = [math.nan, math.inf, -math.inf, 1e-45, 3.4028235e38, 0.1, -0.0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", None])
def test_files_give_back_the_very_numbers(tmp_path, dtype):
    numbers = (
        EXTREMES if dtype is None else [jnp.float32(x).astype(dtype) for x in EXTREMES]
    )
    logs = CSV(tmp_path / "run.csv"), JSONLines(tmp_path / "run.jsonl")
    with together(*logs) as log:
        for i, x in enumerate(numbers):
            log(i, x=x)
    back = np.float64 if dtype is None else jnp.dtype(dtype)
    expected = [np.asarray(x).astype(back) for x in numbers]
    expected = np.asarray(expected).astype(np.float64)
    with (tmp_path / "run.csv").open() as file:
        table = [float(row["x"]) for row in csv.DictReader(file)]
    text = (tmp_path / "run.jsonl").read_text().splitlines()
    strict = [json.loads(x, parse_constant=pytest.fail) for x in text]
    for found in (table, [float(record["x"]) for record in strict]):
        found = np.asarray(found).astype(back).astype(np.float64)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found[1:]), np.signbit(expected[1:]))
    assert pd.read_json(tmp_path / "run.jsonl", lines=True)["x"].dtype == np.float64


def test_whole_numbers_and_bools_stay_whole():
    log = Memory()
    log(0, a=True, b=jnp.array(True), c=jnp.int32(2**30 + 1), d=np.int64(3), e=2**60)
    assert repr(log.records) == repr(
        [{"step": 0, "a": 1, "b": 1, "c": 2**30 + 1, "d": 3, "e": 2**60}]
    )


def test_a_dict_in_a_dict_has_names_with_slashes():
    log = Memory()
    log(0, {"val": {"loss": 1.0, "top": {"1": 0.5}}}, generator={"rate": 0.1})
    assert log.records == [
        {"step": 0, "val/loss": 1.0, "val/top/1": 0.5, "generator/rate": 0.1}
    ]


def test_calls_for_one_step_are_one_record():
    log = Memory(every=1)
    log(0, loss=jnp.float32(1.0))
    log(0, {"val/loss": jnp.float32(2.0)})
    log(1, loss=3.0)
    assert log.records == [
        {"step": 0, "loss": 1.0, "val/loss": 2.0},
        {"step": 1, "loss": 3.0},
    ]
    np.testing.assert_array_equal(log.columns["val/loss"], [2.0, math.nan])
    assert log.columns["step"].tolist() == [0, 1]


def events(path):
    """The events of a file of TensorBoard; raises where a checksum is wrong."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data, found = path.read_bytes(), []
    while data:
        head, length = data[:8], struct.unpack("Q", data[:8])[0]
        body, rest = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("I", data[8:12])[0] == masked_crc32c(head)
        assert struct.unpack("I", rest[:4])[0] == masked_crc32c(body)
        found.append(Event.FromString(body))
        data = rest[4:]
    return found


def test_tensorboard_reads_the_events(tmp_path):
    log = TensorBoard(tmp_path / "run")
    log(0, {"norm/head": jnp.float32(0.1)}, loss=math.nan)
    log(7, loss=2)
    log.flush()
    (path,) = (tmp_path / "run").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    version, _, first, second = events(path)
    assert version.file_version == "brain.Event:2"
    assert [(x.tag, x.simple_value) for x in second.summary.value] == [("loss", 2.0)]
    assert [x.tag for x in first.summary.value] == ["norm/head", "loss"]
    assert first.summary.value[0].simple_value == np.float32(0.1)
    assert math.isnan(first.summary.value[1].simple_value)
    assert (first.step, second.step) == (0, 7)
    assert 0 < first.wall_time <= second.wall_time


def test_wandb_gets_the_numbers_through_its_own_api(monkeypatch):
    calls = []
    run = types.SimpleNamespace(log=lambda data, step: calls.append((step, data)))
    for log in (Wandb(run), Wandb):
        if log is Wandb:
            monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run))
            log = Wandb()
        with log:
            log(3, {"norm/head": jnp.float32(0.1)}, loss=2)
        assert calls.pop() == (3, {"norm/head": 0.1, "loss": 2})
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=None))
    with pytest.raises(ValueError, match=r"call wandb.init\(…\) before"):
        Wandb()


@pytest.mark.parametrize(
    ("library", "make", "advice"),
    [
        ("tensorboardX", lambda: TensorBoard("runs"), r'pip install "jopt\[logs\]"'),
        ("wandb", Wandb, "pip install wandb"),
    ],
)
def test_a_library_that_is_missing_is_an_error_that_says_what_to_install(
    monkeypatch, library, make, advice
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=advice):
        make()


def test_several_logs_get_the_same_numbers_in_one_fetch(tmp_path, fetches):
    memory, table = Memory(), CSV(tmp_path / "run.csv")
    log = together(memory, table)
    log(0, loss=jnp.float32(0.5))
    assert memory.records == [{"step": 0, "loss": 0.5}]
    log(1, loss=jnp.float32(0.25))
    log.close()
    assert fetches == [1, 1]
    assert (tmp_path / "run.csv").read_text() == "step,loss\n0,0.5\n1,0.25\n"
    assert memory.records == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25}]
    assert memory.closed and table.closed


def test_a_log_that_fails_does_not_stop_the_others():
    class Full(Log):
        def write(self, records, times):
            raise OSError("no space left")

    memory = Memory()
    log = together(Full(), memory)
    log(0, loss=1.0)
    with pytest.raises(OSError, match="no space left"):
        log.close()
    assert memory.records == [{"step": 0, "loss": 1.0}]


# When it is fetched.


def test_steps_are_fetched_together_and_not_one_by_one(fetches):
    log = Memory(every=10)
    for i in range(25):
        log(i, loss=jnp.float32(i))
    assert fetches == [10, 10]
    log.close()
    assert fetches == [10, 10, 5]
    assert log.columns["loss"].tolist() == list(range(25))


def test_a_log_does_not_wait_for_what_the_device_computes(monkeypatch, fetches):
    ready = set(range(7))
    monkeypatch.setattr(Row, "is_ready", lambda row: row.step in ready)
    log = Memory(every=4)
    for i in range(12):
        log(i, loss=jnp.float32(i))
    assert fetches == [4]  # step 7 is not ready
    ready |= {7}
    log(12, loss=0.0)
    assert fetches == [4, 4]
    # After some seconds, what is ready is written.
    ready |= {8, 9}
    log._written -= 2 * log_module.PATIENCE
    log(13, loss=0.0)
    assert fetches == [4, 4, 2]
    log(14, loss=0.0)
    assert fetches == [4, 4, 2]
    log.flush()  # which does wait
    assert len(log.records) == 15


def test_a_row_is_ready_when_its_arrays_are():
    row = Row(0, [{"a": jnp.float32(1.0), "b": 2.0}])
    jax.block_until_ready([x for _, x in row.packed])
    assert row.is_ready()
    row.packed.append((["c"], types.SimpleNamespace(is_ready=lambda: False)))
    assert not row.is_ready()


def test_the_next_step_may_donate_the_state_that_was_logged():
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    log, x = Memory(), jnp.float32(0.0)
    for i in range(4):
        log(i, x=x)
        x = step(x)
    assert log.columns["x"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_number_on_many_devices_is_logged_once(fetches):
    mesh = jax.make_mesh((8,), ("data",))
    everywhere = jax.device_put(jnp.float32(0.5), NamedSharding(mesh, PartitionSpec()))
    log = Memory()
    log(0, a=everywhere, b=jax.device_put(jnp.float32(2.0), jax.devices()[3]), c=1)
    assert log.records == [{"step": 0, "a": 0.5, "b": 2.0, "c": 1}]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    run = types.SimpleNamespace(log=pytest.fail)
    logs = CSV(tmp_path / "run.csv"), TensorBoard(tmp_path / "run"), Wandb(run)
    with together(*logs) as log:
        log(0, loss=1.0)
    assert not list(tmp_path.iterdir())


# Nothing is lost.


def test_an_error_in_the_program_loses_no_step(tmp_path):
    with pytest.raises(KeyError), CSV(tmp_path / "run.csv") as log:
        log(0, loss=jnp.float32(0.5))
        raise KeyError
    assert (tmp_path / "run.csv").read_text() == "step,loss\n0,0.5\n"


def test_steps_before_one_that_failed_on_the_device_are_written(monkeypatch):
    fetch = jax.device_get

    def failing(packed):
        if any(np.asarray(x).tolist() == [2.0] for row in packed for x in row):
            raise RuntimeError("out of memory")
        return fetch(packed)

    monkeypatch.setattr(jax, "device_get", failing)
    log = Memory()
    with pytest.raises(KeyError) as caught, log:
        for i in range(4):
            log(i, loss=jnp.float32(i))
        raise KeyError
    assert caught.value.__notes__ == [
        "then Memory() could not write all steps: out of memory"
    ]
    assert log.records == [{"step": 0, "loss": 0.0}, {"step": 1, "loss": 1.0}]


PROGRAM = """
import sys, jax.numpy as jnp, jopt
out = sys.argv[1]
logs = jopt.logs.CSV(f"{out}/run.csv"), jopt.logs.TensorBoard(f"{out}/run")
log = jopt.logs.together(*logs)
log(0, loss=jnp.float32(0.5))
log(1, loss=jnp.float32(0.25))
"""


def test_the_end_of_the_program_writes_what_is_left(tmp_path):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run.csv").read_text() == "step,loss\n0,0.5\n1,0.25\n"
    assert len(events(next((tmp_path / "run").iterdir()))) == 4


def test_a_log_that_is_closed_is_forgotten_at_exit(tmp_path, monkeypatch):
    registered = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", registered.remove)
    memory, log = Memory(), CSV(tmp_path / "run.csv")
    memory(0, loss=1.0)
    log(0, loss=1.0)
    assert registered == [log.close]
    log.close()
    log.close()
    assert registered == []


# A run that is resumed.


@pytest.mark.parametrize("make", [CSV, JSONLines])
def test_a_resumed_run_replaces_the_steps_that_it_computes_again(tmp_path, make):
    path = tmp_path / "run"
    with make(path) as log:
        for i in range(4):
            log(i, loss=i / 2)
    with path.open("a") as file:
        file.write('{"step": 4, "lo' if make is JSONLines else "4,0.")
    with make(path, existing="resume", every=1) as log:
        log(2, loss=10.5, new=7)
        log(3, loss=11.5)
    found = pd.read_csv(path) if make is CSV else pd.read_json(path, lines=True)
    assert found["step"].tolist() == [0, 1, 2, 3]
    assert found["loss"].tolist() == [0.0, 0.5, 10.5, 11.5]
    np.testing.assert_array_equal(found["new"], [math.nan, math.nan, 7, math.nan])
    assert [x.name for x in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("make", [CSV, JSONLines, TensorBoard])
def test_a_log_never_writes_over_another_one_unasked(tmp_path, make):
    path = tmp_path / "run"
    with make(path) as log:
        log(0, loss=1.0)
    with pytest.raises(FileExistsError, match=r"existing='resume'.*existing='replace'"):
        make(path)
    log = make(path, existing="replace")
    files = [path] if path.is_file() else list(path.iterdir())
    before = files[0].read_bytes()
    log(5, loss=2.0)
    assert files[0].read_bytes() == before  # until there is something to write
    log.close()
    files = [path] if path.is_file() else list(path.iterdir())
    assert len(files) == 1 and files[0].read_bytes() != before


def test_tensorboard_hides_the_steps_that_are_computed_again(tmp_path):
    for existing, steps in (("resume", (0, 1, 2)), ("resume", (2, 3))):
        with TensorBoard(tmp_path, existing=existing) as log:
            for i in steps:
                log(i, loss=float(i))
    first, second = (events(path) for path in sorted(tmp_path.iterdir()))
    assert [x.step for x in first] == [0, 0, 0, 1, 2]
    assert [x.step for x in second] == [0, 2, 2, 3]
    # TensorBoard takes the second start that it sees for a restart, at its step.
    for start in (first[1], second[1]):
        assert start.session_log.status == start.session_log.START


@pytest.mark.parametrize(
    ("make", "content"),
    [(CSV, "a,b\n1,2\n"), (CSV, "step,b\nx,2\n"), (JSONLines, "[1]\n")],
)
def test_a_file_that_is_something_else_is_left_alone(tmp_path, make, content):
    path = tmp_path / "data"
    path.write_text(content)
    log = make(path, existing="resume")
    log(0, loss=1.0)
    with pytest.raises(ValueError, match=f"not a log that {make.__name__} has written"):
        log.close()
    assert path.read_text() == content


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "numbers", "error", "message"),
    [
        ((1,), {"loss": jnp.ones(3)}, ValueError, r"loss has the shape \(3,\)"),
        (
            (1, {"val": {"x": np.ones((1, 2))}}),
            {},
            ValueError,
            r"val/x has the shape \(1, 2\)",
        ),
        ((1,), {"loss": "low"}, TypeError, "loss must be a real number, got 'low'"),
        ((1,), {"loss": None}, TypeError, "loss must be a real number, got None"),
        ((1,), {"loss": jnp.complex64(1)}, TypeError, "loss must be a real number"),
        ((1, 0.5), {}, TypeError, r"log\(step, jopt.metrics\(state\), loss=loss\)"),
        ((1, {0: 0.5}), {}, TypeError, "one line of text, got 0"),
        ((1, {"a\nb": 0.5}), {}, TypeError, r"one line of text, got 'a\\nb'"),
        ((1, {"a\n": 0.5}), {}, TypeError, r"one line of text, got 'a\\n'"),
        ((1, {"": 0.5}), {}, TypeError, r"one line of text, got ''"),
        ((1, {"loss": 1.0}), {"loss": 2.0}, ValueError, "'loss' is given twice"),
        ((1, {"step": 1.0}), {}, ValueError, "'step' is the number of the step"),
        ((1.5,), {}, TypeError, "step must be a whole number, got 1.5"),
        ((True,), {}, TypeError, "step must be a whole number, got True"),
        ((jnp.int32(1),), {}, TypeError, r"or wait for it with int\(step\)"),
        ((-1,), {}, ValueError, "step -1 comes after step 0: .* existing='resume'"),
        ((0,), {"loss": 1.0}, ValueError, "step 0: the name 'loss' is given twice"),
    ],
)
def test_what_is_wrong_is_named_at_once(arguments, numbers, error, message):
    log = Memory()
    log(0, loss=0.5)
    with pytest.raises(error, match=message):
        log(*arguments, **numbers)
    assert log.records == [{"step": 0, "loss": 0.5}]


def test_a_log_inside_jit_is_an_error():
    log = Memory()
    with pytest.raises(TypeError, match="loss has no value: the log was called inside"):
        jax.jit(lambda x: log(0, loss=x))(1.0)


def test_a_number_that_was_donated_before_is_an_error():
    x = jnp.float32(1.0)
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    with pytest.raises(ValueError, match="x has been deleted"):
        Memory()(0, x=x)


def test_a_closed_log_and_a_part_of_another_take_no_steps(tmp_path):
    with CSV(tmp_path / "run.csv") as log:
        pass
    with pytest.raises(ValueError, match=r"CSV\('.*run.csv'\) is closed"):
        log(0, loss=1.0)
    memory = Memory()
    together(memory)
    with pytest.raises(ValueError, match=r"part of together\(Memory\(\)\)"):
        memory(0, loss=1.0)
    for part in (memory, log, 3):
        with pytest.raises(ValueError, match="together takes logs that are open"):
            together(part)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: CSV(path), IsADirectoryError, "add the name of a file"),
        (lambda path: CSV("gs://bucket/run.csv"), ValueError, "Mount the bucket"),
        (lambda path: CSV(path / "x", existing="append"), ValueError, "'resume'"),
        (lambda path: TensorBoard(path, existing=True), ValueError, "'resume'"),
        (lambda path: Memory(every=0), ValueError, "every must be >= 1"),
        (lambda path: Memory(every=1.5), TypeError, "every must be a whole number"),
    ],
)
def test_a_log_that_cannot_be_is_an_error(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        make(tmp_path)


def test_a_log_of_ones_own_needs_write():
    log = Log()
    log(0, loss=1.0)
    with pytest.raises(NotImplementedError, match="Log needs a method write"):
        log.close()
    with contextlib.suppress(NotImplementedError):
        log.flush()
