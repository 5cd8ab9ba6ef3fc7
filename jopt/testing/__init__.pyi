"""Every public name of jopt.testing."""

from .checking import (
    check as check,
    names as names,
    report as report,
)
from .law import Law as Law, Skipped as Skipped
from .pytest_laws import parametrize_with_laws as parametrize_with_laws
from .reports import Report as Report, Result as Result
from .subject import Subject as Subject
