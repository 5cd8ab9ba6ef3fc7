"""A law: a function that raises where something does not hold, with what it says.

    @law("types", fix="…", needs=[recipe])
    def types_never_change(subject): ...

The first sentence of the docstring is what a report shows.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from jopt.testing.subject import Subject, as_subject


class Skipped(Exception):
    """A law does not apply, for the reason that is the message."""


class Law:
    """Something that every transformation, schedule or wrapper must do.

    A law is called with what it is about, as in ``law(jopt.sgd(0.1))``.

    Attributes:
      name: Its name, as in ``types_never_change``.
      group: Its subject, under which reports list it.
      statement: What holds, in one sentence.
      fix: How to make it hold where it does not.
      kind: What it is about: "transformation", "optimizer", "wrapper" or "schedule".
    """

    def __init__(
        self,
        function: Callable[[Any], None],
        group: str,
        kind: str,
        fix: str,
        needs: Sequence[Callable[[Any], str | None]],
    ):
        self.function, self.group, self.kind, self.fix = function, group, kind, fix
        self.name = function.__name__
        self.statement = (inspect.getdoc(function) or "").partition("\n")[0]
        self._needs = needs

    def __repr__(self) -> str:
        return self.name

    def __call__(self, subject: Any, /) -> None:
        """Test the law.

        Args:
          subject: A transformation, a schedule, a wrapper, or a `Subject`.

        Raises:
          AssertionError: It does not hold. The message says how to make it hold.
          Skipped: It does not apply, for the reason that is the message.
        """
        subject = as_subject(subject)
        if reason := self.reason(subject):
            raise Skipped(reason)
        try:
            self.function(subject)
        except Skipped:
            raise
        except Exception as error:
            # What raised may be the user's code or JAX: the cause keeps its traceback.
            raise AssertionError(f"{problem(error)}\nFix: {self.fix}") from error

    def is_called(self, name: str) -> bool:
        """Whether a text is its name, a pattern that fits its name, or its group."""
        return self.group == name or fnmatch.fnmatch(self.name, name)

    def is_about(self, subject: Subject) -> bool:
        """Whether the law is about things of this kind."""
        if self.kind == "optimizer":
            return subject.kind == "transformation" and subject.is_optimizer
        return self.kind == subject.kind

    def reason(self, subject: Subject) -> str | None:
        """Why the law does not apply to this one, or None."""
        for name, reason in subject.without.items():
            if self.is_called(name):
                return reason
        return next((r for need in self._needs if (r := need(subject))), None)


def problem(error: BaseException) -> str:
    """What went wrong, in the words of the error."""
    text = str(error).strip()
    if type(error) is AssertionError and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def law(
    group: str,
    *,
    fix: str,
    kind: str = "transformation",
    needs: Sequence[Callable[[Any], str | None]] = (),
) -> Callable[[Callable[[Any], None]], Law]:
    """Make a law of a function that raises where it does not hold.

    Args:
      group: See `Law`.
      fix: See `Law`.
      kind: See `Law`.
      needs: Functions of a subject that return why the law does not apply to it.
    """
    return lambda function: Law(function, group, kind, fix, needs)
