"""The names of L-BFGS and of line searches, which jopt does not have yet."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn


def _missing(name: str) -> NoReturn:
    raise NotImplementedError(
        f"jopt has no {name} yet: use optax.{name} for now. It works in the chains of "
        "jopt.interop.optax"
    )


def lbfgs(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise NotImplementedError."""
    _missing("lbfgs")


def scale_by_lbfgs(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise NotImplementedError."""
    _missing("scale_by_lbfgs")


def scale_by_backtracking_linesearch(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise NotImplementedError."""
    _missing("scale_by_backtracking_linesearch")


def scale_by_zoom_linesearch(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise NotImplementedError."""
    _missing("scale_by_zoom_linesearch")


def value_and_grad_from_state(*args: Any, **kwargs: Any) -> NoReturn:
    """Raise NotImplementedError."""
    _missing("value_and_grad_from_state")


class ScaleByLBFGSState(NamedTuple):
    """State of optax's ``scale_by_lbfgs``."""

    count: Any
    params: Any
    updates: Any
    diff_params_memory: Any
    diff_updates_memory: Any
    weights_memory: Any


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """State of optax's ``scale_by_backtracking_linesearch``."""

    learning_rate: Any
    value: Any
    grad: Any
    info: Any


class ZoomLinesearchInfo(NamedTuple):
    """What optax's ``scale_by_zoom_linesearch`` says about a search."""

    num_linesearch_steps: Any
    decrease_error: Any
    curvature_error: Any


class ScaleByZoomLinesearchState(NamedTuple):
    """State of optax's ``scale_by_zoom_linesearch``."""

    learning_rate: Any
    value: Any
    grad: Any
    info: Any
