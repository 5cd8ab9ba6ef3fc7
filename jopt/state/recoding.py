"""Slots of a checkpoint, from numbers to codes in blocks and back.

A slot in blocks has other paths than one in a dtype: ``nu/codes/kernel`` and
``nu/scales/kernel`` in place of ``nu/kernel``. `Cast` asks for either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from jopt.core.slots import Slot
from jopt.core.transformation import GradientTransformation
from jopt.state.recipe_differences import inside
from jopt.storage import formats
from jopt.storage.formats import Encoded
from jopt.values.arguments import FORMATS


def slots_by_path(tx: GradientTransformation) -> dict[str, Slot]:
    """Return the declared slots of all, by what their paths begin with."""
    return {
        f"{prefix}{name}/": slot
        for prefix, inner in inside(tx)
        for name, slot in inner.slots.items()
        if not slot.each
    }


def counts_of_rounding(tx: GradientTransformation) -> set[str]:
    """Return the paths of counts that are there only to round slots at random.

    They decide about random bits and nothing else, so they may start at any number.
    """

    def is_extra(inner):
        base = getattr(inner.state_class, "base", None)
        extra = base is not None and "count" not in base._fields
        return extra and inner.changing is None

    return {
        f"{prefix}count"
        for prefix, inner in inside(tx)
        if any(slot.format for slot in inner.slots.values()) and is_extra(inner)
    }


def recoded(
    flat: Mapping[str, Any],
    pattern: str,
    target: str,
    slots: Mapping[str, Slot],
    paths: Iterable[str],
) -> dict[str, Any]:
    """Return a checkpoint with some slots in the form that the state has for them.

    Args:
      flat: The entries by path.
      pattern: The slots are those with an entry that it is found in.
      target: The name of the format or dtype that is asked for. Another than the
        state's changes nothing.
      slots: The slots of the state.
      paths: The paths of the state. A slot that is not rounded at random any more may
        leave a count that has none.
    """
    flat, paths = dict(flat), set(paths)
    for prefix, slot in slots.items():
        form = slot.format
        blocks = form if isinstance(form, formats.Blocks) else None
        if blocks is None and target in formats.BLOCKS:
            continue
        if blocks is not None and target != blocks.name:
            continue
        begin = f"{prefix}codes/"
        for name in [n for n in flat if n.startswith(prefix)]:
            if name.startswith(f"{prefix}scales/") or not re.search(pattern, name):
                continue
            x = flat.pop(name)
            count = "/".join([*prefix.split("/")[:-2], "count"])
            if count not in paths:
                flat.pop(count, None)
            rest = name.removeprefix(begin if name.startswith(begin) else prefix)
            if name.startswith(begin):
                x = _decoded(x, flat.pop(f"{prefix}scales/{rest}", None), slot)
            if blocks is None:
                flat[prefix + rest] = x
                continue
            x = jnp.asarray(x)
            new = blocks.encode(x, blocks.start(x, 0.0, x.dtype), None)
            flat[begin + rest] = new.codes
            if new.scales is not None:
                flat[f"{prefix}scales/{rest}"] = new.scales
    return flat


def _decoded(codes: Any, scales: Any, slot: Slot) -> Any:
    if scales is None:
        return codes
    for name in FORMATS:
        form = formats.named(name, slot.divides)
        if isinstance(form, formats.Blocks) and form.dtype == codes.dtype:
            return form.decode(Encoded(jnp.asarray(codes), jnp.asarray(scales)))
    return codes
