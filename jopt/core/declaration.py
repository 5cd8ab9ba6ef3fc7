"""What a leafwise algorithm declares, as data, and the key of its kernels."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from jopt.core import masks
from jopt.core.changing_numbers import ChangingNumbers
from jopt.core.slots import Slot
from jopt.core.transformation import Params, Place
from jopt.core.treatment import Treatment


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A leafwise algorithm as data; the fields are the arguments of `leafwise`."""

    rule: Callable[..., Any]
    scalars: Callable[..., Mapping[str, jax.Array]] | None
    state: Any
    slots: Mapping[str, Slot]
    carry: Mapping[str, float]
    mask: masks.Mask
    real_only: bool
    readout: Callable[..., Any] | None
    gain: str | None
    place: Place
    any_dtype: bool = False
    treatment: Treatment | None = None

    @functools.cached_property
    def keywords(self) -> frozenset[str]:
        """The keyword arguments of the rule: scalars, ``p`` and ``multiple``."""
        parameters = inspect.signature(self.rule).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    @property
    def scalar_names(self) -> frozenset[str]:
        """The keywords that ``scalars`` or the state must provide."""
        return self.keywords - {"p", "multiple"}

    def multiples(self, params: Params) -> list[float | None]:
        """The mask's number for each leaf; None where the rule does not apply."""
        if "multiple" in self.keywords:
            return masks.multiples(self.mask, params)
        return [1.0 if on else None for on in masks.select(self.mask, params)]

    @functools.cached_property
    def inputs(self) -> frozenset[str]:
        """The names of what the scalars are computed from."""
        return frozenset(
            inspect.signature(self.scalars).parameters if self.scalars else ()
        )


def rounds_at_random(declaration: Declaration) -> bool:
    """Whether some slot is kept in a format, which needs the number of the step."""
    return any(slot.format is not None for slot in declaration.slots.values())


@dataclasses.dataclass(frozen=True)
class KernelKey:
    """What compiled kernels are cached by: algorithms with equal keys share them.

    A key holds no numbers but constants. A number that changes, or that belongs to one
    trace only, would keep the kernel of that step alive and wrong for the next one.
    """

    identity: Any  # the recipe, or the open call with its schedules
    name: str = dataclasses.field(compare=False)
    declare: Callable[..., Declaration] = dataclasses.field(compare=False)
    numbers: tuple[str, ...] = ()  # that ``declare`` takes, from the state
    schedules: Mapping[str, Any] = dataclasses.field(
        compare=False, default_factory=dict
    )


class Member(Protocol):
    """What the kernels need to know about a leafwise transformation."""

    @property
    def name(self) -> str: ...
    @property
    def declaration(self) -> Declaration: ...
    @property
    def kernel_key(self) -> KernelKey: ...
    @property
    def changing(self) -> ChangingNumbers | None: ...
    @property
    def state_class(self) -> Any: ...
