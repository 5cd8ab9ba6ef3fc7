"""What a law needs, and why it does not apply without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax


def recipe(subject: Any) -> str | None:
    """A factory that records its call."""
    if subject.recipe is None:
        what = "schedule" if subject.kind == "schedule" else "transformation"
        return (
            "nothing records how it was made: decorate the function that returns it "
            f"with @jopt.{what}"
        )
    return None


def checks(subject: Any) -> str | None:
    """jopt's contract around the pair of functions."""
    if subject.is_foreign:
        return (
            "a plain (init, update) pair does not have jopt's checks: return "
            "jopt.GradientTransformation(init, update) from a function decorated "
            "with @jopt.transformation"
        )
    return None


def numbers(subject: Any) -> str | None:
    """Numbers of the factory that may be schedules."""
    if reason := recipe(subject):
        return reason
    if not subject.numbers:
        return (
            "no argument of its factory is a number that may be a schedule: annotate "
            "one with jopt.ScalarOrSchedule"
        )
    return None


def twin(subject: Any) -> str | None:
    """A second implementation."""
    if not subject.has_twin:
        return "no second implementation was given: expected=twin"
    return None


def own_params(subject: Any) -> str | None:
    """Freedom to choose parameters."""
    if subject.params is not None:
        return "it is tested with the given params only, and this needs other leaves"
    return None


def devices(_: Any) -> str | None:
    """More than one device."""
    if jax.device_count() < 2:
        return (
            "there is one device: run with JAX_NUM_CPU_DEVICES=8, or call "
            'jax.config.update("jax_num_cpu_devices", 8) first'
        )
    return None


def library(name: str, extra: str) -> Callable[[Any], str | None]:
    """An optional library.

    Args:
      name: The module.
      extra: What pip installs.
    """

    def missing(_):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install {extra}"
        return None

    return missing


def no_value(subject: Any) -> str | None:
    """An update that takes no loss."""
    if subject.needs_value:
        return "its update needs the loss as value, which is not passed on there"
    return None
