"""The laws of jopt's own tests, for a transformation, schedule or wrapper of yours.

>>> import jopt
>>> report = jopt.testing.check(jopt.clip(1.0), only=["types_never_change"])
>>> report.ok
True

`check` raises an AssertionError that is a report if a law does not hold, `report`
returns the report in any case, and `parametrize_with_laws` makes a test of pytest of
each law.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
