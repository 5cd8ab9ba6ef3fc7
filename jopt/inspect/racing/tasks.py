"""What optimizers race on: a model, a loss, data in three splits, and a metric."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jopt.gradients.row_sparse import sparse_value_and_grad
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of
from jopt.values.spelling import suggestion


# The tasks that come with jopt, each made by the function of this name in
# `built_in.py`.
BUILT_IN = ("digits", "boston", "topics", "logistic", "factorization")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaceTask:
    """A task for `race`.

    A split is a tree of arrays whose first axis counts examples. The optimizers train
    on batches of ``train``; learning rates are chosen on ``validation``; the table
    shows ``test``.

    Args:
      init: ``init(key) -> params``.
      loss: ``loss(params, batch, key) -> one number``. The key is for dropout and other
        noise.
      train: The training split, or ``train(key) -> batch`` for data that are drawn.
      validation, test: The other splits.
      steps: How many steps a run takes, at least 1.
      batch_size: Examples in a batch; needed if ``train`` is a split.
      name: What the table and the picture call the task.
      metric: ``metric(params, split) -> one number`` to choose and to compare by. None
        means the loss, with a fixed key.
      metric_name: What the table and the picture call the metric.
      higher_is_better: Whether a larger metric is better, as an accuracy is.
      lookups: ``lookups(batch, key) -> {path: ids}`` makes the gradients of embedding
        tables `RowSparse`; ``loss`` then gets rows in place of a table, as
        `sparse_value_and_grad` says.
      optimizers: The optimizers of a race that names none; None means the default set.

    Raises:
      ValueError: A number is out of range, a split is empty, its arrays differ in
        length, or a batch is larger than the training split.
      TypeError: ``init``, ``loss`` or another function is not a function.

    >>> import jopt
    >>> x = jax.random.normal(jax.random.key(0), (96, 3))
    >>> y = x.sum(1)
    >>> task = jopt.inspect.RaceTask(
    ...     init=lambda key: jnp.zeros(3),
    ...     loss=lambda w, batch, key: jnp.mean((batch[0] @ w - batch[1]) ** 2),
    ...     train=(x[:64], y[:64]),
    ...     validation=(x[64:80], y[64:80]),
    ...     test=(x[80:], y[80:]),
    ...     steps=50,
    ...     batch_size=16,
    ... )
    >>> task.metric_name, task.steps
    ('loss', 50)
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    train: Any = dataclasses.field(repr=False)
    validation: Any = dataclasses.field(repr=False)
    test: Any = dataclasses.field(repr=False)
    steps: int
    batch_size: int | None = None
    name: str = "task"
    metric: Callable[[Any, Any], jax.Array] | None = None
    metric_name: str = "loss"
    higher_is_better: bool = False
    lookups: Callable[[Any, jax.Array], Mapping[str, Any]] | None = None
    optimizers: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("init", "loss", "metric", "lookups"):
            value = getattr(self, name)
            optional = value is None and name in ("metric", "lookups")
            if not callable(value) and not optional:
                raise TypeError(f"{name} must be a function, got {abbreviated(value)}")
        arguments.flag("higher_is_better", self.higher_is_better)
        arguments.at_least(1, steps=arguments.whole("steps", self.steps))
        for name in ("validation", "test"):
            _length(name, getattr(self, name))
        if callable(self.train):
            return
        n = _length("train", self.train)
        if self.batch_size is None:
            raise ValueError(
                "batch_size is missing: how many examples of train make a batch. Only "
                "a train(key) -> batch needs none"
            )
        size = arguments.whole("batch_size", self.batch_size)
        arguments.at_least(1, batch_size=size)
        if size > n:
            raise ValueError(
                f"batch_size must be at most {n}, the number of examples in train, got "
                f"batch_size={size}"
            )

    def measured(self, params: Any, split: Any) -> jax.Array:
        """The metric, or the loss, of a split."""
        if self.metric is not None:
            return self.metric(params, split)
        return self.loss(params, split, jax.random.key(0))

    def value_and_grad(self, params: Any, batch: Any, key: jax.Array) -> Any:
        """The loss of a batch and its gradients."""
        if self.lookups is not None:
            return sparse_value_and_grad(self.loss, self.lookups)(params, batch, key)
        return jax.value_and_grad(self.loss)(params, batch, key)


def _length(name: str, split: Any) -> int:
    """How many examples a split has."""
    lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(split)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"{name} must be arrays whose first axes, the examples, are equally long, "
            f"got {abbreviated(jax.tree.map(jnp.shape, split))}"
        )
    ((n,),) = lengths
    arguments.at_least(1, **{f"the number of examples in {name}": n})
    return n


def race_task(name: str) -> RaceTask:
    """Make a task that comes with jopt, from real data.

    ``"digits"``: a convolutional network on scikit-learn's digits. ``"boston"``: an MLP
    on prices of houses in Boston. ``"topics"``: a language model on the help texts of
    Python. ``"logistic"``: logistic regression on scikit-learn's tumours of the breast.
    ``"factorization"``: embeddings with sparse gradients for ratings that students gave
    to lectures. Their docstrings in ``jopt/inspect/racing/built_in.py`` say more.

    Args:
      name: One of these.

    Returns:
      A `RaceTask`; ``dataclasses.replace(task, steps=1000)`` changes it.

    Raises:
      ValueError: There is no such task.
      ImportError: The library that has the data is not installed.

    >>> import jopt
    >>> jopt.inspect.race_task("topics").metric_name
    'bits per character'
    """
    if name not in BUILT_IN:
        hint = suggestion(name, BUILT_IN) if isinstance(name, str) else ""
        raise ValueError(
            f"there is no task {text_of(name)}.{hint} The tasks are "
            f"{', '.join(BUILT_IN)}; make your own with jopt.inspect.RaceTask"
        )
    return _made(name)


@functools.cache
def _made(name: str) -> RaceTask:
    # On use: the data take time to load, and need other libraries.
    return getattr(importlib.import_module("jopt.inspect.racing.built_in"), name)()
