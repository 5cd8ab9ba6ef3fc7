"""Laws as the tests of pytest, which is imported here only, and on use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jopt.testing.checking import laws_of
from jopt.testing.law import Law, Skipped
from jopt.testing.subject import Subject, as_subject


def parametrize_with_laws(
    subjects: Iterable[Any], *, only: Sequence[str] = ()
) -> Callable[[Any], Any]:
    """Decorate a test with one case for each law and each transformation.

    The test has the arguments ``tx`` and ``law``, and calls ``law(tx)``. A law that
    does not apply skips the test with the reason.

    Args:
      subjects: Transformations, schedules, wrappers, or `Subject`, which takes a
        second implementation, parameters, and laws to leave out along.
      only: See `check`.

    Returns:
      A decorator of test functions.

    Raises:
      ImportError: pytest is not installed.
      TypeError: A subject is not a transformation, a schedule or a wrapper.
      ValueError: No law has a name in ``only`` or of a `Subject`'s ``without``.

    >>> import jopt
    >>> @jopt.testing.parametrize_with_laws([jopt.sgd(0.1), jopt.clip(1.0)])
    ... def test_laws(tx, law):
    ...     law(tx)
    """
    try:
        import pytest
    except ImportError as error:
        raise ImportError(
            "parametrize_with_laws needs pytest: pip install pytest. "
            "jopt.testing.check(tx) tests the same laws without it"
        ) from error

    rows = [
        pytest.param(one, TestedLaw(law), id=f"{law.name}-{one.id}{one.where}")
        for subject in map(as_subject, subjects)
        for law, one in laws_of(subject, only)
    ]
    return pytest.mark.parametrize(("tx", "law"), rows)


class TestedLaw:
    """A law that skips a test of pytest where it does not apply."""

    __test__ = False  # the name does not make it a test

    def __init__(self, law: Law):
        self.law = law

    def __repr__(self) -> str:
        return repr(self.law)

    def __call__(self, subject: Subject, /) -> None:
        import pytest

        try:
            self.law(subject)
        except Skipped as skip:
            pytest.skip(str(skip))
