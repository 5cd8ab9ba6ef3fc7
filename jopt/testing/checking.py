"""Test the laws for one transformation, schedule or wrapper, and report."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jopt.algorithms.adam import adamw
from jopt.algorithms.sgd import sgd
from jopt.testing.law import Law, Skipped, problem
from jopt.testing.laws import LAWS
from jopt.testing.reports import Report, Result
from jopt.testing.subject import Subject, as_subject
from jopt.values.arguments import suggestion


def check(
    tx: Any,
    params: Any = None,
    *,
    expected: Callable[..., Iterator[Any]] | None = None,
    whole_trees: bool = False,
    only: Sequence[str] = (),
    without: Mapping[str, str] | None = None,
) -> Report:
    """Test the laws for a transformation, a schedule or a wrapper; raise if one fails.

    The laws are those that hold for every optimizer of jopt: it gives the same numbers
    under jit, scan and vmap, keeps all types, stays finite and precise, shares no
    memory with the parameters, refuses what is wrong, works inside wrappers and other
    libraries, continues from a checkpoint, and optimizes.

    A plain pair ``(init, update)`` is tested too, by the laws that do not need what
    ``@jopt.transformation`` adds. A wrapper is tested around two optimizers.

    Args:
      tx: See `Subject`.
      params: See `Subject`.
      expected: See `Subject`.
      whole_trees: See `Subject`.
      only: The laws to test, by their names, by patterns such as ``"*jit*"``, or by
        their subjects, such as ``"errors"``; all if there is none.
      without: See `Subject`.

    Returns:
      The report, which has one result for each law.

    Raises:
      AssertionError: A law does not hold. The message is the report.
      TypeError: ``tx`` is not a transformation, a schedule or a wrapper.
      ValueError: No law has a name in ``only`` or ``without``.

    >>> import jopt
    >>> report = jopt.testing.check(jopt.clip(1.0), only=["*jit*", "types_*"])
    >>> print(report)
    clip(max_delta=1.0): 2 laws hold
    <BLANKLINE>
    running
      ok       Under jit, scan and vmap the numbers are those of a Python loop.
    <BLANKLINE>
    types
      ok       For every mix of dtypes, from f16 to f64, an update keeps the types.
    """
    found = report(
        tx,
        params,
        expected=expected,
        whole_trees=whole_trees,
        only=only,
        without=without,
    )
    found.raise_()
    return found


def report(
    tx: Any,
    params: Any = None,
    *,
    expected: Callable[..., Iterator[Any]] | None = None,
    whole_trees: bool = False,
    only: Sequence[str] = (),
    without: Mapping[str, str] | None = None,
) -> Report:
    """Test the laws for a transformation, a schedule or a wrapper, and say which hold.

    Args:
      tx: See `Subject`.
      params: See `Subject`.
      expected: See `Subject`.
      whole_trees: See `Subject`.
      only: See `check`.
      without: See `Subject`.

    Returns:
      The report, whether or not a law fails.

    Raises:
      TypeError: ``tx`` is not a transformation, a schedule or a wrapper.
      ValueError: No law has a name in ``only`` or ``without``.

    >>> import jax
    >>> import jopt
    >>> def init(params):
    ...     return params
    >>> def update(updates, state, params=None):
    ...     return updates, state
    >>> print(jopt.testing.report((init, update), only=["params_and_state*"]).ok)
    False
    """
    subject = Subject(
        tx, params, expected=expected, whole_trees=whole_trees, without=without
    )
    return report_of(subject, only)


def report_of(subject: Subject, only: Sequence[str] = ()) -> Report:
    """The report on a subject; see `report`."""
    results = [result(law, one) for law, one in laws_of(subject, only)]
    return Report(subject.id, results)


def laws_of(
    subject: Any,
    only: Sequence[str] = (),
) -> list[tuple[Law, Subject]]:
    """The laws about a thing, each with what to call it with.

    Args:
      subject: A transformation, a schedule, a wrapper, or a `Subject`.
      only: See `check`.
    """
    subject = as_subject(subject)
    groups = {law.group for law in LAWS}
    for name in [*only, *subject.without]:
        if name not in groups and not names(name):
            hint = suggestion(name, [*names(), *groups])
            raise ValueError(
                f"there is no law {name!r}.{hint} jopt.testing.names() lists them"
            )
    subjects = [subject]
    if subject.kind == "wrapper":
        subjects += [subject.around(inner) for inner in (sgd(0.1), adamw(1e-3))]
    chosen = [law for law in LAWS if not only or any(map(law.is_called, only))]
    return [(law, one) for one in subjects for law in chosen if law.is_about(one)]


def names(pattern: str = "*") -> list[str]:
    """List the names of the laws.

    Args:
      pattern: Shell-style, such as ``"*refused*"``.

    Returns:
      The names, in the order of a report.

    >>> import jopt
    >>> jopt.testing.names("*jit*")
    ['a_schedule_under_jit_gives_the_values_outside', \
'jit_scan_and_vmap_give_the_numbers_of_a_loop']
    """
    return fnmatch.filter([law.name for law in LAWS], pattern)


def result(law: Law, subject: Subject) -> Result:
    """Test one law."""
    group = f"{law.group}{subject.where}"
    start = time.perf_counter()
    try:
        law(subject)
    except Skipped as skip:
        return Result(law.name, group, law.statement, "skipped", str(skip))
    except AssertionError as error:
        cause = error.__cause__ or error
        seconds = time.perf_counter() - start
        return Result(
            law.name,
            group,
            law.statement,
            "failed",
            problem(cause),
            law.fix,
            seconds,
            cause,
        )
    seconds = time.perf_counter() - start
    return Result(law.name, group, law.statement, "ok", seconds=seconds)
