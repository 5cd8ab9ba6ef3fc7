"""Warn of slots that start in the middle of a rule's run.

A rule that counts steps often corrects the bias of slots that start from zero: Adam
divides ``mu`` by ``1 - b1^t`` and ``nu`` by ``1 - b2^t``. All its leaves share the
count. Slots that start when the count is at 1,000 get almost no correction, so the
first step of Adam is 2.5 times the learning rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.core.leafwise import Leafwise
from jopt.core.transformation import GradientTransformation
from jopt.state.recipe_differences import inside
from jopt.tree import scalar


SHOWN = 6  # slots of one rule


def warn_of_late_slots(
    tx: GradientTransformation, values: Mapping[str, Any], fresh: Collection[str]
) -> None:
    """Warn if slots start from zero under a step count that goes on.

    Args:
      tx: The transformation.
      values: The arrays of the checkpoint that the state takes, by path.
      fresh: The paths that start from ``init``.
    """
    lines = {}  # by the path of the count, which a wrapper and its inner one may share
    for prefix, inner in inside(tx):
        count = values.get(f"{prefix}count", 0)
        if not isinstance(inner, Leafwise) or isinstance(count, Tracer) or not count:
            continue
        slots = inner.declaration.slots.items()
        zeros = tuple(f"{prefix}{name}/" for name, slot in slots if slot.fill == 0)
        late = sorted(path for path in fresh if f"{path}/".startswith(zeros))
        if late and _depends_on_count(inner, int(count)):
            shown = ", ".join(map(repr, late[:SHOWN]))
            more = f" and {len(late) - SHOWN} more" if late[SHOWN:] else ""
            path = f"{prefix}count"
            lines[path] = f"  {path!r} is {int(count)}: {shown}{more}"
    if not lines:
        return
    lines = [
        "slots start from zero, but the step count that corrects their bias goes on. "
        "Their first steps have a wrong size, in Adam about three times the right one:",
        *lines.values(),
        "Give these leaves a group of their own, which has its own count, in "
        "jopt.partition or by the parameter groups of jopt.interop.torch, and start "
        "the whole group with jopt.Reset('^name/'). To start all leaves again, "
        "jopt.Reset the count too.",
    ]
    warnings.warn("\n".join(lines), UserWarning, stacklevel=3)


def _depends_on_count(tx: Leafwise, count: int) -> bool:
    """Whether the rule does something else at this count than in its first step."""
    key, numbers = tx.kernel_key, tx.changing.initial() if tx.changing else {}
    declared = key.declare(**{name: numbers[name] for name in key.numbers})
    inputs, compute = declared.inputs, declared.scalars
    if compute is None or not {"t", "count"} & inputs:
        return False
    if not inputs <= {"t", "count"}:  # what the others are is not known here
        return True

    def scalars(count):
        steps = {"t": scalar(count + 1), "count": jnp.asarray(count, jnp.int32)}
        return compute(**{name: steps[name] for name in inputs})

    # Concrete values even inside a traced function.
    with jax.ensure_compile_time_eval():
        first, now = scalars(0), scalars(count)
    return any(not np.array_equal(first[name], now[name]) for name in first)
