"""States in print: shapes in place of arrays.

    ScaleByAdamState(count=3, mu={'w': float32[768,3072]}, nu={'w': float32[768,3072]})

A state is a NamedTuple, whose classes have no base in common to define a ``repr``. So a
transformation gives it to the class of its state. Nothing else of the class changes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.values.recipe import LINE


def print_shapes(state_class: Any) -> None:
    """Give a state class of the library its ``repr``.

    Args:
      state_class: Any class, or None. Those of users and of other libraries stay as
        they are.
    """
    module = getattr(state_class, "__module__", None) or ""
    is_ours = module.startswith("jopt.") and not module.startswith("jopt.interop.optax")
    if is_ours and hasattr(state_class, "_fields"):
        state_class.__repr__ = _printed


class _Text:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _printed(state: Any) -> str:
    fields = [
        f"{name}={jax.tree.map(_shown, value)!r}"
        for name, value in zip(state._fields, state, strict=True)
    ]
    name = type(state).__name__
    text = f"{name}({', '.join(fields)})"
    if len(text) <= LINE:
        return text
    inside = "".join("    " + field.replace("\n", "\n    ") + ",\n" for field in fields)
    return f"{name}(\n{inside})"


def _shown(x: Any) -> Any:
    """A number as it is, and the dtype and shape of an array."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        return x
    if _has_value(x):
        value = np.asarray(x).item()
        return _Text(f"{value:.6g}" if isinstance(value, float) else repr(value))
    return _Text(f"{x.dtype}[{','.join(map(str, x.shape))}]")


def _has_value(x: Any) -> bool:
    """Whether it is one number that the host can read."""
    is_array = isinstance(x, jax.Array)
    known = (is_array and not isinstance(x, Tracer)) or isinstance(x, np.ndarray)
    if not known or x.shape != () or jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return False
    return not is_array or (x.is_fully_addressable and not x.is_deleted())
