"""``lr_range_test``: a learning rate from one short run in which the rate grows.

The loss stays flat while the rate is too small to matter, falls, is lowest where
learning and divergence balance, and rises again. Smith, "Cyclical learning rates for
training neural networks", 2017.

The lowest point depends on how fast the rate grows. An optimizer whose steps do not
shrink with the gradient, as those of Lion and Muon, has gone further at each rate if
the ramp is slow, as in a training. So a quick ramp over all rates only finds the rates
that matter, and a slow one over these gives the curve.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation
from jopt.plot.rate_range import range_test
from jopt.state.hyperparams import RATE, holders, hyperparams, set_hyperparams
from jopt.values import arguments
from jopt.values.arguments import abbreviated


class RangeTest(NamedTuple):
    """The result of `lr_range_test`."""

    rates: np.ndarray  # the learning rate of each step, growing
    losses: np.ndarray  # the loss at each rate, before the step with it
    smoothed: np.ndarray  # a mean over neighbouring rates; NaN after divergence
    suggestion: float | None  # a learning rate, or None if none is right
    reason: str  # why this rate, or why none

    def plot(self, ax: Any = None, width: float = 3.5) -> Any:
        """Draw it; see `jopt.plot.range_test`."""
        return range_test(self, ax=ax, width=width)


def lr_range_test(
    tx: GradientTransformation,
    loss_fn: Callable[..., Any],
    params: Any,
    batches: Any,
    *,
    min_rate: float = 1e-7,
    max_rate: float = 100.0,
    steps: int = 200,
    has_aux: bool = False,
    key: jax.Array | None = None,
) -> RangeTest:
    """Find a learning rate: train for a few steps with a rate that grows.

    Two compiled scans take ``steps`` steps each, both from these parameters: a quick
    one over all rates, and a slow one over those around where the loss is lowest. The
    parameters stay as they are. The suggestion is the largest rate of a schedule with a
    warmup and a decay; see the page "Finding a rate".

    Args:
      tx: An optimizer with a constant or tunable learning rate, of any value. The rates
        of several groups keep their ratios, and the rate is that of the largest.
      loss_fn: A function of params and a batch that returns the loss, and with ``key``
        of params, batch and a key.
      params: The parameters to start from, usually new ones.
      batches: A list, generator or loader of batches of equal shapes; or a tuple, dict
        or array of many batches, stacked along the first axis of each leaf. They repeat
        if they are fewer than ``steps``; a smaller last one is left out.
      min_rate: The first rate, > 0.
      max_rate: The last rate, > ``min_rate``.
      steps: The number of steps of each scan, >= 20.
      has_aux: Whether ``loss_fn`` returns ``(loss, aux)``; aux is not used.
      key: A random key, for dropout.

    Returns:
      A `RangeTest`: ``rates``, ``losses``, ``smoothed``, the ``suggestion`` or None,
      and the ``reason``; its method ``plot`` draws them.

    Raises:
      ValueError: A number is out of range, the learning rate is scheduled, the
        optimizer has none, or batches have other shapes than the first.
      TypeError: ``tx`` is not a transformation, or ``loss_fn`` has other arguments or
        does not return one number.

    Smith, "Cyclical learning rates for training neural networks", 2017.

    >>> import jopt
    >>> def loss_fn(w, batch):
    ...     x, y = batch
    ...     return jnp.mean((x @ w - y) ** 2)
    >>> x = jax.random.normal(jax.random.key(0), (8, 16, 3))
    >>> y = x @ jnp.array([1.0, -2.0, 3.0])
    >>> found = jopt.lr_range_test(jopt.sgd(1.0), loss_fn, jnp.zeros(3), (x, y))
    >>> 0.05 < found.suggestion < 1.0
    True
    """
    tx = as_transformation(tx, "lr_range_test: tx")
    arguments.positive(min_rate=min_rate, max_rate=max_rate)
    if not min_rate < max_rate:
        raise ValueError(
            f"max_rate must be > min_rate, got max_rate={max_rate}, min_rate={min_rate}"
        )
    arguments.at_least(20, steps=arguments.whole("steps", steps))
    params = jax.tree.map(jnp.asarray, params)
    stacked = _stacked(batches, steps)
    first = jax.tree.map(lambda x: x[0], stacked)
    _check_loss(loss_fn, params, first, key, has_aux)
    state = tx.init(params)
    multiples = _multiples(tx, state)

    keys = None if key is None else jax.random.split(key, steps)

    def ramp(low, high):
        rates = np.geomspace(low, high, steps)
        scalars = jnp.asarray(rates, tree.scalar_dtype())
        numbers = (scalars, jnp.arange(steps), keys)
        inputs = (params, state, stacked, multiples, numbers)
        return rates, np.asarray(_losses(tx, loss_fn, has_aux, *inputs), float)

    quick = Curve(*ramp(min_rate, max_rate))
    if quick.problem():
        return quick.result()
    low = max(quick.rates[quick.lowest] / BELOW, min_rate)
    high = min(quick.rates[quick.lowest] * ABOVE, max_rate)
    return Curve(*ramp(low, high), quick.start).result()


# The slow scan, relative to the rate at which the quick one is lowest.
BELOW, ABOVE = 64, 4
WIDTH = 0.02  # of the kernel that smooths, as a share of the steps
# The suggestion, from where these shares of the fall of the loss are done. The numbers
# are those that agreed best with the sweeps of tests/benchmarks/range_test.py.
SHARE, ALL, LATER = 0.9, 0.995, 1.7
SIGMAS = 6  # an improvement of less is perhaps noise


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(
    tx: GradientTransformation,
    loss_fn: Callable[..., Any],
    has_aux: bool,
    params: Any,
    state: Any,
    batches: Any,
    multiples: dict[str, float],
    numbers: tuple[jax.Array, jax.Array, jax.Array | None],
) -> jax.Array:
    """The loss before each step, where each has its own rate."""

    def step(carry, now):
        params, state = carry
        rate, i, key = now
        n = len(jax.tree.leaves(batches)[0])
        batch = jax.tree.map(lambda x: x[i % n], batches)
        state = set_hyperparams(
            tx, state, **{x: rate * y for x, y in multiples.items()}
        )

        def loss(params):
            out = loss_fn(params, batch, *(() if key is None else (key,)))
            return out[0] if has_aux else out

        value, grads = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grads, "value_fn": loss}
        updates, state = tx.update(grads, state, params, **extra)
        return (apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, state), numbers)[1]


def _multiples(tx: GradientTransformation, state: Any) -> dict[str, Any]:
    """Each learning rate of the state, divided by the largest."""
    known = hyperparams(state) if any(holders(state, "hyperparameters", ())) else {}
    rates = {x: y for x, y in known.items() if x.rpartition("/")[2] == RATE}
    if not rates:
        raise ValueError(
            f"the state of {abbreviated(tx)} has no learning rate that could be tested"
        )
    try:
        set_hyperparams(tx, state, **rates)
    except ValueError as error:
        raise ValueError(
            "the range test sets the learning rate itself. Give it the optimizer with "
            "a number, such as adamw(1.0), and build the schedule from the suggestion "
            f"then. {error}"
        ) from None
    largest = max(float(x) for x in rates.values())
    if len(rates) == 1 or not largest > 0:
        return dict.fromkeys(rates, 1.0)
    return {name: x / largest for name, x in rates.items()}


def _stacked(batches: Any, steps: int) -> Any:
    """Batches along a new first axis, at most as many as steps."""
    if not isinstance(batches, list) and not hasattr(batches, "__next__"):
        leaves = jax.tree.leaves_with_path(batches)
        is_stack = leaves and all(hasattr(x, "shape") for _, x in leaves)
        if is_stack:
            lengths = {tree.path_name(path): x.shape[:1] for path, x in leaves}
            if len(set(lengths.values())) > 1 or not next(iter(lengths.values())):
                raise ValueError(
                    "stacked batches must have the number of batches as their first "
                    f"axis, got these lengths: {lengths}. For one batch after the "
                    "other, give a list"
                )
            return jax.tree.map(lambda x: jnp.asarray(x)[:steps], batches)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be batches, got {abbreviated(batches)}")
    several = [
        jax.tree.map(np.asarray, batch) for batch in itertools.islice(batches, steps)
    ]
    if not several:
        raise ValueError("batches must be one or more, got none")
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), batch) for batch in several]
    if len(several) > 1 and shapes[-1] != shapes[0]:
        several, shapes = several[:-1], shapes[:-1]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"batches must have equal shapes: batch {i} has {shape}, the first "
                f"{shapes[0]}"
            )
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *several)


def _check_loss(
    loss_fn: Callable[..., Any], params: Any, batch: Any, key: Any, has_aux: bool
) -> None:
    given = (params, batch) if key is None else (params, batch, key)
    named = "params, batch" if key is None else "params, batch, key"
    try:
        inspect.signature(loss_fn).bind(*given)
    except TypeError as error:
        raise TypeError(
            f"loss_fn is called as loss_fn({named}), but {error}. For a batch of "
            "several arrays, write lambda params, batch: loss_fn(params, *batch)"
        ) from None
    except ValueError:  # a function without a signature
        pass
    out = jax.eval_shape(loss_fn, *given)
    if has_aux and not (isinstance(out, tuple) and len(out) == 2):
        raise TypeError(
            f"loss_fn must return (loss, aux) with has_aux=True, got {abbreviated(out)}"
        )
    if not has_aux and isinstance(out, tuple):
        raise TypeError(
            f"loss_fn must return one number, got a tuple of {len(out)}. For (loss, "
            "aux), give has_aux=True"
        )
    arguments.one_number("the loss", out[0] if has_aux else out, jnp.floating)


# What the losses say.


def judged(rates: np.ndarray, losses: np.ndarray) -> RangeTest:
    """A suggestion from the loss at each rate, or the reason for none."""
    return Curve(rates, losses).result()


class Curve:
    """The loss over the rate.

    Args:
      rates: The rates, growing.
      losses: The loss at each.
      start: The loss before any step; None means the mean of the first tenth.
    """

    def __init__(
        self, rates: np.ndarray, losses: np.ndarray, start: float | None = None
    ):
        self.rates, self.losses = rates, losses
        self.width = WIDTH * len(rates)
        finite = np.isfinite(losses)
        end = len(losses) if finite.all() else int(np.argmin(finite))
        known = losses[:end]
        if start is None:
            start = float(np.mean(known[: len(rates) // 10])) if end else math.nan
        # The noise of the first losses: the later ones may be far smaller.
        self.start, self.noise = start, _noise(known[: len(rates) // 4])
        # A loss far above the first ones has diverged; what follows blurs the curve.
        fallen = start - np.minimum.accumulate(np.minimum(known, start))
        limit = start + np.maximum(2 * fallen, 10 * self.noise) + 0.2 * abs(start)
        above = known > limit
        self.end = int(np.argmax(above)) if above.any() else end
        self.diverged = self.end < len(rates)
        self.smoothed = np.full(len(rates), math.nan)
        self.smoothed[: self.end] = _smoothed(losses[: self.end], self.width)
        self.drop = start - np.min(self.smoothed[: self.end], initial=math.inf)
        self.early, self.lowest = map(self.reached, (SHARE, ALL))

    def reached(self, share: float) -> int:
        """Where this share of the fall of the loss is done."""
        return int(np.argmax(self.smoothed <= self.start - share * self.drop))

    def result(self) -> RangeTest:
        """The suggestion, or the reason for none."""
        reason = self.problem()
        suggestion = None
        if reason:
            reason = f"no suggestion: {reason}"
        else:
            first, last = self.rates[self.early], self.rates[self.lowest]
            suggestion = float(LATER * math.sqrt(first * last))
            reason = (
                f"{SHARE:.0%} of the fall of the loss is done at {first:.2g}, all of "
                f"it at {last:.2g}; a schedule that decays bears {LATER:g} times their "
                "mean"
            )
        return RangeTest(self.rates, self.losses, self.smoothed, suggestion, reason)

    def problem(self) -> str:
        """Why no rate is right, or nothing."""
        if not np.isfinite(self.losses[0]):
            return f"the first loss is {self.losses[0]:g}, before any step"
        if self.end < 0.1 * len(self.rates):
            return (
                f"the loss diverges at {self.rates[self.end]:.2g}, almost the first "
                "rate. Lower min_rate"
            )
        certain = SIGMAS * self.noise / math.sqrt(max(1.0, 3.5 * self.width))
        least = 1e-6 * abs(self.start)
        if not self.drop > max(certain, least):
            if self.diverged:
                return (
                    "the loss does not clearly fall before it diverges at "
                    f"{self.rates[self.end]:.2g}"
                )
            if certain > least:
                return (
                    f"the loss falls by {max(self.drop, 0):.2g} at most, which may be "
                    f"noise (below {certain:.2g}). Larger batches have less"
                )
            return "the loss stays the same at all rates"
        if not self.diverged and self.lowest >= self.end - 1 - self.width:
            return (
                f"the loss still falls at the last rate, {self.rates[-1]:.2g}. Raise "
                "max_rate"
            )
        if self.diverged and self.early >= self.end - 2:
            return f"the loss falls without bound at {self.rates[self.early]:.2g}"
        if self.lowest <= self.width:
            return (
                f"the loss is lowest at the first rate, {self.rates[0]:.2g}. Lower "
                "min_rate"
            )
        return ""


def _smoothed(losses: np.ndarray, width: float) -> np.ndarray:
    """The mean around each loss, with the weights of a bell."""
    i = np.arange(len(losses))
    weights = np.exp(-0.5 * ((i[:, None] - i) / width) ** 2)
    return weights @ losses / weights.sum(1)


def _noise(losses: np.ndarray) -> float:
    """The standard deviation of a loss, from the differences of neighbours."""
    differences = np.diff(losses)
    return math.sqrt(0.5 * np.mean(differences**2)) if len(differences) else 0.0
