"""Many runs of one optimizer as one compiled program: rates x seeds, by vmap.

    begin(rate, params) -> params, state
    advance(params, state, rate, key, first) -> after some more steps, and their record

A run is a pure function of its learning rate and its seed. The rate is traced, so one
program serves every grid. It returns to Python after each record, for the progress bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.apply import apply_updates
from jopt.core.eval_params import eval_params
from jopt.inspect.racing.entrants import Entrant
from jopt.inspect.racing.tasks import RaceTask


RECORDS = 20  # of a run


class Runs(NamedTuple):
    """What is recorded of runs: arrays of rates x seeds, and of records last."""

    loss: np.ndarray  # of training: the mean since the record before
    validation: np.ndarray  # the metric
    test: np.ndarray  # the metric after the last step; NaN if the run diverged
    seconds: list[float]  # of a step of one run, for each record


def record_steps(task: RaceTask) -> np.ndarray:
    """The steps after which something is recorded; the last one is the task's last."""
    every = -(-task.steps // min(RECORDS, task.steps))
    return np.minimum(np.arange(every, task.steps + every, every), task.steps)


class Seeds(NamedTuple):
    """Seeds of runs: what an optimizer begins with, and what draws its batches."""

    keys: jax.Array
    params: Any  # with the seeds as the first axis


def seeds_of(task: RaceTask, key: jax.Array, n: int) -> Seeds:
    """Make the parameters of ``n`` seeds, once for all optimizers."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))

    def init(key):
        return task.init(jax.random.fold_in(key, 0))

    return Seeds(keys, jax.jit(jax.vmap(init))(keys))


class Program:
    """The training of one optimizer, compiled once.

    Args:
      task: What to train.
      entrant: The optimizer.
      schedule: What its learning rates are multiplied by, a function of the step.
    """

    def __init__(
        self, task: RaceTask, entrant: Entrant, schedule: Callable[[Any], Any]
    ):
        self.task, self.steps = task, record_steps(task)
        every = int(self.steps[0])

        def optimizer(rate):
            return entrant.make(schedule * rate)

        def begin(rate, params):
            return params, optimizer(rate).init(params)

        def advance(carry, rate, key, first, splits):
            tx, (train, validation) = optimizer(rate), splits
            stop = jnp.minimum(first + every, task.steps)
            batch = _batches(task, train, jax.random.fold_in(key, 1), first, every)

            def step(i, carry):
                params, state, total = carry
                noise = jax.random.fold_in(jax.random.fold_in(key, 2), i)

                def value_fn(params):
                    return task.loss(params, batch(i), noise)

                loss, grads = task.value_and_grad(params, batch(i), noise)
                updates, state = tx.update(
                    grads, state, params, value=loss, grad=grads, value_fn=value_fn
                )
                total += loss.astype(total.dtype)
                return apply_updates(params, updates), state, total

            carry = *carry, jnp.zeros(())
            params, state, total = jax.lax.fori_loop(first, stop, step, carry)
            answer = eval_params(tx, state, params, default=params)
            mean = total / (stop - first).astype(total.dtype)
            record = mean, task.measured(answer, validation)
            return (params, state), answer, record

        self.begin = jax.jit(_over_runs(begin, (), ()))
        self._advance = advance
        self._compiled: Any = None  # whether runs share counts, and `advance`

    def run(
        self,
        rates: np.ndarray,
        seeds: Seeds,
        measure: Callable[[Any], Any],
        tick: Callable[[], None],
    ) -> Runs:
        """Train with each rate and key from the beginning to the end.

        Args:
          rates: The learning rates.
          seeds: The seeds, of which each rate gets all.
          measure: What `tester` returned.
          tick: Called after each record.
        """
        peaks = jnp.asarray(rates, float)
        splits = None if callable(self.task.train) else self.task.train
        splits = splits, self.task.validation
        carry, answer = self.begin(peaks, seeds.params), None
        carry, advance = self._continued(carry, peaks, seeds.keys, splits)
        losses, validations, seconds = [], [], []
        for first, stop in pairwise([0, *self.steps]):
            start = time.perf_counter()
            carry, answer, record = advance(
                carry, peaks, seeds.keys, jnp.asarray(first, jnp.int32), splits
            )
            loss, validation = jax.device_get(record)
            parts = (stop - first) * len(rates) * len(seeds.keys)
            seconds.append((time.perf_counter() - start) / parts)
            losses.append(loss)
            validations.append(validation)
            tick()
        test = np.asarray(measure(answer), float)
        loss, validation = np.stack(losses, -1), np.stack(validations, -1)
        # An accuracy is finite even where the parameters are not.
        finite = np.isfinite(loss) & np.isfinite(validation)
        validation = np.where(finite, validation, np.nan).astype(float)
        test = np.where(finite[..., -1] & np.isfinite(test), test, np.nan)
        return Runs(loss, validation, test, seconds)

    def _continued(
        self, carry: Any, peaks: jax.Array, keys: jax.Array, splits: Any
    ) -> tuple[Any, Callable[..., Any]]:
        """Return what `advance` begins with, and itself compiled.

        Counts of steps are one number for all runs. A matrix method decides by them
        what to do, and `jax.vmap` would do it all, in every step, if each run had its
        own. A state that counts what happened in a run cannot be shared like that.
        """
        leaves, treedef = jax.tree.flatten(carry)
        counts = [x.ndim == 2 and jnp.issubdtype(x.dtype, jnp.integer) for x in leaves]
        shared = treedef.unflatten(
            x[0, 0] if count else x for x, count in zip(leaves, counts, strict=True)
        )
        if self._compiled is None:
            axes = treedef.unflatten(None if count else 0 for count in counts)
            mapped = _over_runs(self._advance, (axes,), (None, None), (axes, 0, 0))
            is_shared, first = True, jnp.zeros((), jnp.int32)
            try:
                jax.eval_shape(mapped, shared, peaks, keys, first, splits)
            except ValueError:
                is_shared = False
                mapped = _over_runs(self._advance, (0,), (None, None))
            self._compiled = is_shared, jax.jit(mapped)
        is_shared, advance = self._compiled
        return (shared if is_shared else carry), advance


def tester(task: RaceTask) -> Callable[[Any], Any]:
    """Return the compiled function that measures the parameters of runs on test."""

    def measure(params, split):
        return task.measured(params, split)

    over_seeds = jax.vmap(measure, (0, None))
    over_rates = jax.jit(jax.vmap(over_seeds, (0, None)))
    return lambda params: over_rates(params, task.test)


def _over_runs(
    function: Any, before: tuple[Any, ...], after: tuple[Any, ...], out: Any = 0
) -> Any:
    """Map over seeds and, outside, over rates: arguments ``…, rate, key, …``.

    What depends on the key only, such as the batches, is computed once for all rates.
    """
    over_seeds = jax.vmap(function, (*before, None, 0, *after), out)
    return jax.vmap(over_seeds, (*before, 0, None, *after), out)


def _batches(
    task: RaceTask, train: Any, key: jax.Array, first: Any, every: int
) -> Callable[[Any], Any]:
    """Return the function from a step to its batch, for the steps from ``first`` on.

    Each epoch has its own order, and leaves out the examples that fill no batch.
    """
    if callable(task.train):
        return lambda i: task.train(jax.random.fold_in(key, i))
    n, size = len(jax.tree.leaves(train)[0]), task.batch_size
    assert size is not None
    per_epoch = n // size
    epoch = first // per_epoch

    def order(i):
        return jax.random.permutation(jax.random.fold_in(key, epoch + i), n)[
            : per_epoch * size
        ]

    orders = jax.vmap(order)(jnp.arange(2 + (every - 1) // per_epoch))
    orders = orders.reshape(-1, size)

    def batch(i):
        chosen = orders[i - epoch * per_epoch]
        return jax.tree.map(lambda x: jnp.asarray(x)[chosen], train)

    return batch
