"""The numbers of a step, which stay on the device until many are fetched at once."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt.values import arguments
from jopt.values.arguments import abbreviated


# A step as it is written: "step" first, then the numbers by name.
Record = dict[str, int | float]


class Row:
    """The numbers of one step.

    Args:
      step: The number of the step.
      numbers: Mappings from names to numbers and to further such mappings.
    """

    def __init__(self, step: int, numbers: Sequence[Mapping[str, Any]]):
        self.step, self.time = step, time.time()
        self.values: dict[str, Any] = {}  # those on the device are None until fetched
        on_device: dict[str, jax.Array] = {}
        for name, value in (pair for part in numbers for pair in _flat(part, "")):
            if name in self.values or name == "step":
                what = "the number of the step" if name == "step" else "given twice"
                raise ValueError(f"step {step}: the name {name!r} is {what}")
            value = _number(name, value)
            self.values[name] = None if isinstance(value, jax.Array) else value
            if isinstance(value, jax.Array):
                on_device[name] = value
        self.packed: list[tuple[list[str], Any]] = _packed(on_device)

    def add(self, other: Row) -> None:
        """Take in the numbers of a later call for the same step."""
        if twice := sorted(self.values.keys() & other.values.keys()):
            raise ValueError(f"step {self.step}: the name {twice[0]!r} is given twice")
        self.values |= other.values
        self.packed += other.packed

    def is_ready(self) -> bool:
        """Whether the device has computed all numbers."""
        return all(x.is_ready() for _, x in self.packed)

    def record(self, fetched: Sequence[np.ndarray]) -> Record:
        """The numbers as those of Python."""
        for (names, _), array in zip(self.packed, fetched, strict=True):
            self.values |= dict(zip(names, map(_plain, array), strict=True))
        return {"step": self.step, **self.values}


def fetched(rows: Sequence[Row]) -> tuple[list[Record], Exception | None]:
    """Fetch the numbers of several steps at once; waits for those not computed yet.

    Returns:
      The records, and an error if the device failed: then those of the steps before.
    """
    packed = [[x for _, x in row.packed] for row in rows]
    try:
        arrays = jax.device_get(packed)
    except Exception as error:
        if len(rows) < 2:
            return [], error
        records: list[Record] = []
        for row in rows:
            one, problem = fetched([row])
            records += one
            if problem is not None:
                return records, problem
        return records, None
    return [row.record(x) for row, x in zip(rows, arrays, strict=True)], None


def _flat(numbers: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Names and values; the names in a mapping follow its own name and a slash."""
    if not isinstance(numbers, Mapping):
        raise TypeError(
            "a log takes the number of the step, dicts of numbers by name, and numbers "
            f"as keywords: log(step, jopt.metrics(state), loss=loss); got "
            f"{abbreviated(numbers)}"
        )
    for key, value in numbers.items():
        if not isinstance(key, str) or key.splitlines() != [key]:
            raise TypeError(
                f"a name in a log must be one line of text, got {abbreviated(key)}"
            )
        name = f"{path}{key}"
        if _kind(type(value)) == "mapping":
            yield from _flat(value, f"{name}/")
        else:
            yield name, value


def _number(name: str, value: Any) -> Any:
    """The value, as a number of Python if it is not on a device."""
    kind = _kind(type(value))
    if kind == "traced":
        raise TypeError(
            f"{name} has no value: the log was called inside jit, or another "
            "transformation of JAX. Return the number from the compiled function, and "
            "log it outside"
        )
    is_array = kind in ("device", "numpy")
    if is_array and value.shape:
        raise ValueError(
            f"{name} has the shape {value.shape}, and a log takes one number for each "
            f"name: log its mean, or a dict with a name for each of its numbers"
        )
    if isinstance(value, bool):
        return int(value)
    if not (_is_real(value.dtype) if is_array else arguments.is_number(value)):
        raise TypeError(f"{name} must be a real number, got {abbreviated(value)}")
    if kind != "device":
        return _plain(value) if is_array else _python(name, value)
    if value.is_deleted():
        raise ValueError(
            f"{name} has been deleted, for example by a compiled step with "
            "donate_argnums that took it. Log what that step returned, or log before it"
        )
    return value


@functools.cache  # isinstance takes long for arrays, and a step has many of them
def _kind(class_: type) -> str:
    if issubclass(class_, Tracer):
        return "traced"
    if issubclass(class_, jax.Array):
        return "device"
    if issubclass(class_, np.ndarray | np.generic):
        return "numpy"
    return "mapping" if issubclass(class_, Mapping) else ""


@functools.cache
def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.bool_) or arguments.is_real(dtype)


@functools.cache
def _is_whole(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer))


def _python(name: str, value: Any) -> int | float:
    return value if isinstance(value, int) else arguments.float_of(name, value)


def _plain(x: Any) -> int | float:
    """A number of NumPy as one of Python.

    A narrow float becomes a decimal number with few digits that gives it back: 0.1 for
    float32's 0.1, not 0.10000000149011612.
    """
    if _is_whole(x.dtype):
        return int(x)
    return float(x) if x.dtype.itemsize > 4 else float(str(x))


def _packed(numbers: Mapping[str, jax.Array]) -> list[tuple[list[str], Any]]:
    """Copy the numbers on their device, those of one dtype into one array.

    A copy, because the next step may donate the original; one array, because many small
    ones take long to fetch.
    """
    groups: dict[Any, tuple[list[str], list[jax.Array]]] = {}
    for name, x in numbers.items():
        if len(x.sharding.device_set) > 1:  # the same number on each
            x = x.addressable_data(0)
        names, arrays = groups.setdefault((x.sharding, x.dtype), ([], []))
        names.append(name)
        arrays.append(x)
    return [(names, _stacked(arrays)) for names, arrays in groups.values()]


@jax.jit
def _stacked(arrays):
    return jnp.stack(arrays)
