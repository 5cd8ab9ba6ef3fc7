"""The hyperparameters of a recipe, beside those of a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jopt.core.chain import Chain
from jopt.core.transformation import GradientTransformation
from jopt.values.config import to_config
from jopt.values.numbers import Tunable
from jopt.values.recipe import Recorded


def declared(tx: GradientTransformation) -> dict[str, Any]:
    """The numbers and schedules that a recipe declares, as data by path.

    >>> import jopt
    >>> declared(jopt.sgd(jopt.tunable(0.1), momentum=0.9))
    {'trace/decay': 0.9, 'scale_by_learning_rate/learning_rate': 0.1}
    """
    found = {}
    for prefix, inner in _inside(tx):
        recipe = inner.recipe
        if recipe is None or isinstance(inner, Chain):  # members have their own
            continue
        for name in getattr(recipe.factory, "hyperparameters", ()):
            default = recipe.parameters[name].default
            value = recipe.arguments.get(name, default)
            value = value.initial if isinstance(value, Tunable) else value
            try:
                is_value = isinstance(value, Recorded)
                found[prefix + name] = to_config(value) if is_value else float(value)
            except TypeError:  # a function that has no name, or nothing
                continue
    return found


def differing(
    tx: GradientTransformation,
    values: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    whose: str,
) -> dict[str, jax.Array]:
    """The recipe's numbers that are to replace the checkpoint's.

    Whatever differs is listed in a warning.

    Args:
      tx: The transformation.
      values: The arrays of the checkpoint that the state has a place for.
      schema: The checkpoint's schema, if it has one.
      whose: ``"checkpoint"``, and nothing is to be replaced, or ``"recipe"``.
    """
    kept: dict[str, jax.Array] = {}  # those that the state says, and not the recipe
    for prefix, inner in _inside(tx):
        if changing := inner.changing:
            given = {*changing.schedules, *changing.arrays}
            numbers = changing.initial().items()
            kept |= {prefix + n: x for n, x in numbers if n not in given}
    kept = {path: x for path, x in kept.items() if path in values}
    changed = {
        path: x for path, x in kept.items() if not np.array_equal(values[path], x)
    }
    lines = [
        f"  {path}: {_short(values[path])} in the checkpoint, {_short(x)} in the "
        f"recipe; the {whose}'s is taken"
        for path, x in changed.items()
    ]
    now = declared(tx)
    for path, before in (schema or {}).get("hyperparams", {}).items():
        if path in now and path not in kept and now[path] != before:
            lines.append(
                f"  {path}: {before} in the checkpoint, {now[path]} in the recipe; it "
                "is not kept in the state, so the recipe's is taken"
            )
    if lines:
        lines = [
            "hyperparameters of the checkpoint differ from the recipe's:",
            *lines,
            'Take either with hyperparams="checkpoint" or hyperparams="recipe".',
        ]
        warnings.warn("\n".join(lines), UserWarning, stacklevel=3)
    return changed if whose == "recipe" else {}


def _inside(
    tx: GradientTransformation, prefix: str = ""
) -> Iterator[tuple[str, GradientTransformation]]:
    """Every transformation, with what the paths of its state begin with."""
    yield prefix, tx
    for name, inner in tx.children.items():
        yield from _inside(inner, f"{prefix}{name}/")


def _short(number: Any) -> str:
    return f"{float(number):.6g}" if np.shape(number) == () else str(number)
