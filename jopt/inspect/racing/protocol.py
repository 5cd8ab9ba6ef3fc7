"""The protocol of a race: equal grids of rates, chosen on one split, shown on another.

tuning   each rate of the grid with each seed; the best mean on validation wins
growth   if the best rate is at an edge of the grid, the grid grows beyond it
final    the best rate and its neighbours, with other seeds, on test
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jopt.core.factory import Schedule
from jopt.inspect.racing.entrants import DEFAULT, Entrant, entrants
from jopt.inspect.racing.result import RaceEntry, RaceResult
from jopt.inspect.racing.tasks import RaceTask, race_task
from jopt.inspect.racing.training import (
    Program,
    Runs,
    Seeds,
    record_steps,
    seeds_of,
    tester,
)
from jopt.schedules.warmup import warmup_cosine
from jopt.values import arguments
from jopt.values.arguments import abbreviated


# How often the grid of one optimizer may grow, each time by half of what it was.
GROWTHS = 3


def race(
    task: str | RaceTask,
    optimizers: Any = None,
    *,
    steps: int | None = None,
    rates: int = 7,
    factor: float = 10**0.5,
    seeds: int = 3,
    schedule: Callable[[Any], Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RaceResult:
    """Compare optimizers on a task, each at its own best learning rate.

    Each optimizer gets the same budget: ``rates`` learning rates, a factor apart,
    around the one it usually starts from, each with the same ``seeds``. A rate
    multiplies a schedule that is the same for all. The rate with the best mean metric
    on the validation split is chosen. A run that diverged counts as worst. If the best
    rate is at an edge of the grid, the grid grows there. The table shows the metric on
    the test split, of runs with other seeds. All rates and seeds of an optimizer are
    one compiled program.

    Args:
      task: The name of a task, see `race_task`, or a `RaceTask` of your own.
      optimizers: A list, or a dict by name. Each is a name (``"adamw"``), a call in
        text (``"sgd(0.1, momentum=0.9)"``), a transformation with a constant learning
        rate, or a function of the learning rate that returns a transformation of jopt
        or optax. The grid is around the rate that is there: that of the call or the
        transformation, or the default of the function's argument. None means the set
        of the task, or SGD with momentum, AdamW, Lion, Muon, Adafactor and
        Schedule-Free AdamW.
      steps: How many steps a run takes; None means the task's number.
      rates: How many learning rates each optimizer tries, at least 3.
      factor: What lies between two rates, above 1.
      seeds: Runs at each rate, in the tuning and in the final.
      schedule: A function of the step whose values multiply the rate. None means a
        warmup over a tenth of the steps and a cosine to zero.
      seed: A number from which all seeds follow.
      progress: Whether to show a bar on stderr, if that is a terminal and tqdm is
        installed.

    Returns:
      A `RaceResult`: print it, or call its ``table``, ``markdown``, ``plot`` and
      ``to_dict``.

    Raises:
      ValueError: There is no such task or optimizer, there are no optimizers, or a
        number is out of range.
      TypeError: Something is not a task or an optimizer.
      ImportError: The library that has a task's data is not installed.

    >>> import jopt, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (96, 3))
    >>> data = x, x @ jnp.array([1.0, -2.0, 3.0])
    >>> task = jopt.inspect.RaceTask(
    ...     init=lambda key: jnp.zeros(3),
    ...     loss=lambda w, batch, key: jnp.mean((batch[0] @ w - batch[1]) ** 2),
    ...     train=jax.tree.map(lambda a: a[:64], data),
    ...     validation=jax.tree.map(lambda a: a[64:80], data),
    ...     test=jax.tree.map(lambda a: a[80:], data),
    ...     steps=30,
    ...     batch_size=16,
    ... )
    >>> result = jopt.inspect.race(task, ["sgd", "adamw"], rates=5)
    >>> [entry.name for entry in result.entries]
    ['sgd', 'adamw']
    """
    task = _task(task, steps)
    arguments.at_least(3, rates=arguments.whole("rates", rates))
    arguments.at_least(1, seeds=arguments.whole("seeds", seeds))
    arguments.whole("seed", seed)
    if not 1 < factor < math.inf:
        raise ValueError(f"factor must be > 1 and finite, got factor={factor}")
    if optimizers is None:
        optimizers = DEFAULT if task.optimizers is None else task.optimizers
    field = entrants(optimizers)
    shape, words = _schedule(task, schedule)
    _check_metric(task)
    both = seeds_of(task, jax.random.key(seed), 2 * seeds)
    tuning = jax.tree.map(lambda x: x[:seeds], both)
    final = jax.tree.map(lambda x: x[seeds:], both)
    grid = Grid(rates, float(factor), 1.0 if task.higher_is_better else -1.0)
    measure, entries = tester(task), []
    with _progress(2 * len(field), len(record_steps(task)), progress) as bar:
        for entrant in field:
            try:
                program = Program(task, entrant, shape)
                entries.append(
                    _raced(program, entrant, grid, measure, tuning, final, bar)
                )
            except Exception as error:
                error.add_note(f"while {entrant.name!r} raced on {task.name!r}")
                raise

    def place(entry):
        return math.inf if math.isnan(entry.mean) else -grid.sign * entry.mean

    return RaceResult(
        task=task.name,
        metric=task.metric_name,
        higher_is_better=task.higher_is_better,
        steps=task.steps,
        batch_size=task.batch_size,
        rates=rates,
        factor=float(factor),
        seeds=seeds,
        schedule=words,
        device=jax.devices()[0].device_kind,
        entries=tuple(sorted(entries, key=place)),
    )


def _task(task: Any, steps: int | None) -> RaceTask:
    if not isinstance(task, RaceTask):
        if not isinstance(task, str):
            raise TypeError(
                "task must be the name of a task or a jopt.inspect.RaceTask, got "
                f"{abbreviated(task)}"
            )
        task = race_task(task)
    return task if steps is None else dataclasses.replace(task, steps=steps)


def _schedule(
    task: RaceTask, schedule: Callable[[Any], Any] | None
) -> tuple[Schedule, str]:
    """What multiplies every rate, and its description."""
    if schedule is not None:
        arguments.function_of_step("schedule", schedule)
        known = isinstance(schedule, Schedule)
        return schedule if known else Schedule(schedule), abbreviated(schedule)
    warmup = task.steps // 10
    # The first step has a rate above 0: it would change nothing otherwise.
    shape = warmup_cosine(
        1.0,
        warmup_steps=warmup,
        total_steps=task.steps,
        init_value=1 / (warmup + 1),
    )
    return shape, "a warmup over a tenth of the steps and a cosine to zero"


def _check_metric(task: RaceTask) -> None:
    """Raise, before anything is compiled, if the metric is not one number."""

    def measured(key, split):
        return task.measured(task.init(key), split)

    for name in ("validation", "test"):
        metric = jax.eval_shape(measured, jax.random.key(0), getattr(task, name))
        if getattr(metric, "shape", None) != ():
            raise TypeError(
                f"the metric of a task must be one number, but {task.metric_name!r} of "
                f"{name} is {abbreviated(metric)}"
            )


class Grid(NamedTuple):
    """How the rates of every optimizer are chosen."""

    size: int
    factor: float
    sign: float  # of the metric: 1 if higher is better

    def best(self, validation: np.ndarray) -> int | None:
        """The row with the best mean over seeds, the middle one of equal ones.

        NaN stands for a run that diverged, and makes the mean of its rate NaN: worst.
        None means that this holds for every rate.
        """
        means = self.sign * validation.mean(1)
        if np.isnan(means).all():
            return None
        equal = np.flatnonzero(means == np.nanmax(means))
        return int(equal[len(equal) // 2])

    def around(self, rate: float) -> np.ndarray:
        """The rates with this one in the middle."""
        return rate * self.factor ** (np.arange(self.size) - self.size // 2)

    def beyond(self, rates: np.ndarray, up: bool) -> np.ndarray:
        """Half as many rates again, beyond the largest or the smallest."""
        powers = self.factor ** np.arange(1, 1 + (self.size + 1) // 2)
        return rates[-1] * powers if up else rates[0] / powers


class Tuned(NamedTuple):
    """What the tuning of one optimizer found."""

    rates: np.ndarray  # in ascending order
    runs: Runs  # at each of them
    best: int | None  # the row of the chosen rate; None if all runs diverged
    at_edge: bool  # whether it is at an edge of the grid, which has grown in vain

    @property
    def rate(self) -> float:
        """The chosen rate; where all runs diverged, the smallest."""
        return float(self.rates[self.best or 0])


def tuned(
    program: Program,
    entrant: Entrant,
    grid: Grid,
    measure: Callable[[Any], Any],
    seeds: Seeds,
    bar: Bar | None = None,
    choose: Callable[[np.ndarray], int | None] | None = None,
) -> Tuned:
    """Run each rate of the grid with each seed, and let the grid grow.

    Args:
      program: The training of the optimizer.
      entrant: The optimizer.
      grid: The grid around its rate.
      measure: What `tester` returned.
      seeds: The seeds of each rate.
      bar: What shows progress, if anything.
      choose: From the metric, rates x seeds x records, to the row of the best rate;
        None means the best mean at the end.
    """

    def best_at_the_end(validation):
        return grid.best(validation[..., -1])

    choose = best_at_the_end if choose is None else choose
    rates, new, growths, runs = np.zeros(0), grid.around(entrant.start), 0, None
    bar = Bar(None, 0) if bar is None else bar
    while True:
        stage = f"grid grows to {new[-1]:.2g}" if growths else "tuning"
        # The program is compiled for as many rates as the grid had: repeat the last.
        padded = np.pad(new, (0, grid.size - len(new)), mode="edge")
        found = program.run(padded, seeds, measure, bar.of(entrant.name, stage))
        rates = np.concatenate([rates, new])
        order = np.argsort(rates)
        rates, runs = rates[order], _joined(runs, found, len(new), order)
        best = choose(runs.validation)
        # Where all runs diverged, the rates are too large.
        at_edge = best in (None, 0, len(rates) - 1)
        if not at_edge or growths == GROWTHS:
            return Tuned(rates, runs, best, at_edge)
        growths += 1
        new = grid.beyond(rates, up=best == len(rates) - 1)
        bar.grow()


def _joined(old: Runs | None, new: Runs, n: int, order: np.ndarray) -> Runs:
    """The runs of old rates and of the first ``n`` new ones, in this order."""

    def both(name):
        kept = getattr(new, name)[:n]
        if old is not None:
            kept = np.concatenate([getattr(old, name), kept])
        return kept[order]

    seconds = [*(old.seconds if old else []), *new.seconds]
    return Runs(both("loss"), both("validation"), both("test"), seconds)


def _raced(
    program: Program,
    entrant: Entrant,
    grid: Grid,
    measure: Callable[[Any], Any],
    tuning: Seeds,
    final: Seeds,
    bar: Bar,
) -> RaceEntry:
    """Tune an optimizer, and run the final."""
    start = time.perf_counter()
    found = tuned(program, entrant, grid, measure, tuning, bar)
    shown = grid.around(found.rate)
    runs = program.run(shown, final, measure, bar.of(entrant.name, "final"))
    middle = grid.size // 2
    return RaceEntry(
        name=entrant.name,
        recipe=recipe_of(entrant, found.rate),
        rate=found.rate,
        rates=found.rates,
        validation=found.runs.validation[..., -1],
        grown=len(found.rates) - grid.size,
        at_edge=found.at_edge,
        final_rates=shown,
        test=runs.test,
        steps=program.steps,
        loss=runs.loss[middle],
        curve=runs.validation[middle],
        # The first record of all has waited for the compiler.
        seconds_per_step=float(np.median([*found.runs.seconds[1:], *runs.seconds])),
        seconds=time.perf_counter() - start,
    )


def recipe_of(entrant: Entrant, rate: float) -> str:
    """The call that makes the optimizer with this rate, or nothing."""
    # A rate of three digits is what the table shows.
    tx = entrant.make(float(f"{rate:.3g}"))
    known = tx.recipe is not None and "<" not in repr(tx)
    return repr(tx) if known else ""


class Bar:
    """A progress bar on stderr, or none.

    Args:
      bar: tqdm's, or None.
      each: What a round adds to it.
    """

    def __init__(self, bar: Any, each: int):
        self.bar, self.each = bar, each

    def of(self, name: str, stage: str) -> Callable[[], Any]:
        """Return what to call after each part of a round."""
        if self.bar is None:
            return lambda: None
        self.bar.set_description_str(f"{name}, {stage}")
        return self.bar.update

    def grow(self) -> None:
        """Make room for one more round."""
        if self.bar is not None:
            self.bar.total += self.each


@contextlib.contextmanager
def _progress(rounds: int, each: int, shown: bool) -> Iterator[Bar]:
    """A bar over so many rounds, if there is a terminal and tqdm to show it."""
    tqdm = _tqdm() if shown and sys.stderr.isatty() else None
    if tqdm is None:
        yield Bar(None, each)
        return
    with tqdm(total=rounds * each, unit="record", leave=False) as bar:
        yield Bar(bar, each)


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm
