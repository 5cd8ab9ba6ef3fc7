"""Compare the hyperparameters of a recipe with those of a checkpoint."""

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
    """Return the numbers and schedules of a recipe as data, by path.

    >>> import jopt
    >>> declared(jopt.sgd(jopt.tunable(0.1), momentum=0.9))
    {'trace/decay': 0.9, 'scale_by_learning_rate/learning_rate': 0.1}
    """
    numbers = {}
    for prefix, inner in inside(tx):
        recipe = inner.recipe
        # The members of a chain list the same numbers, under the paths of the state.
        if recipe is None or isinstance(inner, Chain):
            continue
        for name in getattr(recipe.factory, "hyperparameters", ()):
            default = recipe.parameters[name].default
            value = recipe.arguments.get(name, default)
            value = value.initial if isinstance(value, Tunable) else value
            try:
                is_value = isinstance(value, Recorded)
                numbers[prefix + name] = to_config(value) if is_value else float(value)
            except TypeError:  # None, or a function without a name
                continue
    return numbers


def differing(
    tx: GradientTransformation,
    values: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
    whose: str,
) -> dict[str, jax.Array]:
    """Warn of numbers that differ; return the recipe's numbers that the state takes.

    Args:
      tx: The transformation.
      values: The arrays of the checkpoint that fit into the state.
      schema: The checkpoint's schema, or None.
      whose: ``"recipe"`` to take the recipe's numbers, ``"checkpoint"`` to take none.
    """
    in_state: dict[str, jax.Array] = {}  # numbers whose value the state decides
    for prefix, inner in inside(tx):
        if changing := inner.changing:
            from_recipe = {*changing.schedules, *changing.arrays}
            numbers = changing.initial().items()
            in_state |= {prefix + n: x for n, x in numbers if n not in from_recipe}
    in_state = {path: x for path, x in in_state.items() if path in values}
    changed = {
        path: x for path, x in in_state.items() if not np.array_equal(values[path], x)
    }
    lines = [
        f"  {path}: {_short(values[path])} in the checkpoint, {_short(x)} in the "
        f"recipe; the {whose}'s is used"
        for path, x in changed.items()
    ]
    now = declared(tx)
    for path, before in (schema or {}).get("hyperparams", {}).items():
        if path in now and path not in in_state and now[path] != before:
            lines.append(
                f"  {path}: {before} in the checkpoint, {now[path]} in the recipe; "
                "the state does not hold it, so the recipe's is used"
            )
    if lines:
        lines = [
            "hyperparameters of the checkpoint differ from the recipe's:",
            *lines,
            'Choose with hyperparams="checkpoint" or hyperparams="recipe".',
        ]
        warnings.warn("\n".join(lines), UserWarning, stacklevel=3)
    return changed if whose == "recipe" else {}


def inside(
    tx: GradientTransformation, prefix: str = ""
) -> Iterator[tuple[str, GradientTransformation]]:
    """Yield every transformation inside ``tx`` with the prefix of its state's paths."""
    yield prefix, tx
    for name, inner in tx.children.items():
        yield from inside(inner, f"{prefix}{name}/")


def _short(number: Any) -> str:
    return f"{float(number):.6g}" if np.shape(number) == () else str(number)
