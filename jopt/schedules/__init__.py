"""Schedules: functions of the step, one family a file."""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
