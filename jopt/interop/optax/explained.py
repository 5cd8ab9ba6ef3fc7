"""Docstrings and types of the door: each argument has the text of jopt's function."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from typing import Any

import jopt
from jopt.values.docs import documented_arguments, inherited


_DOOR = "jopt.interop.optax"
_REFERENCE = re.compile(r"`jopt\.(\w+)`")
# What optax has, and jopt's counterpart has not or calls by another name.
_OTHERS = {
    "args": "Not used.",
    "kwargs": "Not used.",
    "inner": "A transformation.",
    "learning_rate": "The step size, a number or a schedule.",
    "mask": "The leaves to decay: a tree of bools, or a function that returns one.",
    "new_tensors": "The new values.",
    "old_tensors": "The old values.",
    "params": "Not used.",
    "seed": "The seed of the random numbers.",
    "should_transform_fn": "A function of the step that returns whether to transform.",
    "weight_dimension_numbers": "See `scale_by_galore`.",
    "weight_decay": "Decay coefficient, multiplied by the learning rate.",
}
_TEXTS = {name: [text] for name, text in _OTHERS.items()}


def explained(value: Any) -> Any:
    """Return a function of the door, with its arguments in its docstring.

    Only where the function is used is its counterpart loaded.

    Args:
      value: A function whose docstring names its counterpart, ``jopt.adam``; anything
        else stays as it is.
    """
    doc = inspect.getdoc(value) or ""
    if not inspect.isfunction(value) or not value.__module__.startswith(_DOOR):
        return value
    # Some programs look for optax's types in the signature.
    function = inspect.unwrap(value)
    function.__annotations__ = inspect.get_annotations(function, eval_str=True)
    if "\nArgs:" in doc:
        if "See `" in doc:
            value.__doc__ = inherited(doc, functools.partial(_function, value))
        return value
    texts = dict(_TEXTS)
    for name in reversed(_REFERENCE.findall(doc)):
        texts |= documented_arguments(getattr(jopt, name))
    lines = []
    for name in inspect.signature(value).parameters:
        if name in texts:
            first, *rest = texts[name]
            lines += [f"  {name}: {first}", *rest]
    if lines:
        summary, *rest = doc.split("\n\n")
        value.__doc__ = "\n\n".join([summary, "Args:\n" + "\n".join(lines), *rest])
    return value


def _function(value: Any, name: str) -> Any:
    """Return what a docstring refers to: of the same file, or jopt's."""
    beside = getattr(sys.modules[value.__module__], name, None)
    if beside in (None, value) or "\nArgs:" not in (inspect.getdoc(beside) or ""):
        return getattr(jopt, name, None)
    return explained(beside)
