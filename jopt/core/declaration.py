"""What an algorithm declares, as data, and what its kernels are kept by."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jopt.core import masks
from jopt.core.slots import Slot
from jopt.core.transformation import Params


class Declaration(NamedTuple):
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

    @property
    def asks(self) -> frozenset[str]:
        """The scalars (and ``p``) that the rule wants."""
        parameters = inspect.signature(self.rule).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    @property
    def wanted(self) -> frozenset[str]:
        """Those of them that ``scalars`` or the state have to give."""
        return self.asks - {"p", "multiple"}

    def multiples(self, params: Params) -> list[float | None]:
        """The mask's number for each leaf; None where the rule is not for the leaf."""
        if "multiple" in self.asks:
            return masks.multiples(self.mask, params)
        return [1.0 if on else None for on in masks.select(self.mask, params)]

    @property
    def inputs(self) -> frozenset[str]:
        """What the scalars are computed from."""
        return frozenset(
            inspect.signature(self.scalars).parameters if self.scalars else ()
        )


@dataclasses.dataclass(frozen=True)
class KernelKey:
    """One algorithm of a kernel; equal keys share what was compiled for them.

    It holds no numbers but constants: others change, or belong to one trace only.
    """

    identity: Any
    name: str = dataclasses.field(compare=False)
    declare: Callable[..., Any] = dataclasses.field(compare=False)
    numbers: tuple[str, ...] = ()
    schedules: Mapping[str, Any] = dataclasses.field(
        compare=False, default_factory=dict
    )
