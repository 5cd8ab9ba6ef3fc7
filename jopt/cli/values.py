"""Arguments that stand for an optimizer or a schedule, as values."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import jopt
from jopt.checkpoint import index as indices
from jopt.cli.output import UsageError
from jopt.values.spelling import suggestion


def configured(config: str) -> Any:
    """What a call in text, a config, or a file with one of these stands for.

    A checkpoint stands for the optimizer that it was saved with.
    """
    path = Path(config)
    try:
        if _is_file(path):
            return jopt.from_config(_in_file(path))
        return jopt.from_config(config)
    except (ValueError, TypeError) as error:
        raise UsageError(error) from error


def is_checkpoint(config: str) -> bool:
    """Whether the argument is the path of a checkpoint."""
    path = Path(config)
    return _is_file(path) and (path.is_dir() or path.suffix in indices.FORMATS)


def named(target: str) -> Any:
    """What ``module:name`` stands for, or else a config; modules may be here."""
    if not re.fullmatch(r"[\w.]+:[\w.]+", target):
        return configured(target)
    module, _, name = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value = importlib.import_module(module)
    except Exception as error:  # whatever the module raises
        where = _place(error)
        raise UsageError(
            f"{module} cannot be imported: {type(error).__name__}: {error}{where}"
        ) from error
    for part in name.split("."):
        if not hasattr(value, part):
            hint = suggestion(part, vars(value))
            raise UsageError(f"{module} has no {part!r}.{hint}")
        value = getattr(value, part)
    return value


def separate(calls: list[str]) -> list[str]:
    """The calls in texts such as ``sgd(0.1, momentum=0.9), adamw``, one by one."""
    try:
        trees = [ast.parse(f"[{text}]", mode="eval").body for text in calls]
    except SyntaxError as error:
        raise UsageError(
            f"{error.text!r} is not a list of calls: {error.msg}"
        ) from None
    return [ast.unparse(x) for tree in trees for x in tree.elts]  # type: ignore[attr-defined]


def _is_file(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a text that is too long for a name
        return False


def _in_file(path: Path) -> Any:
    if path.is_dir() or path.suffix in indices.FORMATS:
        schema = indices.read(path)["schema"] or {}
        if schema.get("recipe") is None:
            reason = schema.get("recipe_error", "it was saved without tx")
            raise ValueError(f"{path} does not say what its optimizer is: {reason}")
        return schema["recipe"]
    return path.read_text()


def _place(error: Exception) -> str:
    """Where in the user's files an error was raised."""
    trace, last = error.__traceback__, None
    while trace is not None:
        if "importlib" not in trace.tb_frame.f_code.co_filename:
            last = trace
        trace = trace.tb_next
    if last is None or last.tb_frame.f_code.co_filename == __file__:
        return ""
    file = os.path.relpath(last.tb_frame.f_code.co_filename)
    return f" ({file}, line {last.tb_lineno})"
