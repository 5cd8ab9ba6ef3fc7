"""Factories that take Keras's arguments, and remember them in Keras's form.

What they return are jopt's transformations and schedules, equal to those of the recipe
that has Keras's numbers; what Keras was told is kept beside it, for `serialize`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import (
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import numpy as np

from jopt.core.factory import Schedule
from jopt.core.transformation import GradientTransformation
from jopt.values import arguments
from jopt.values.arguments import abbreviated, suggestion
from jopt.values.numbers import Tunable, is_declared, normalize, number


P = ParamSpec("P")
Value = TypeVar("Value")


# What the configs of 2.11 to 2.15 did not have.
KERAS3 = {"loss_scale_factor", "gradient_accumulation_steps"}
# A method of Keras's, and what another argument was called before.
UNWRITTEN = ("exclude_from_weight_decay", "lr")


class Spec(NamedTuple):
    """The call of Keras that a value stands for."""

    factory: Any  # what it was made with here, and is made with again
    class_name: str
    arguments: dict[str, Any]  # all of them, as they were given
    module: str | None  # None: the form of Keras 2, or a class of one's own
    registered_name: str | None = None
    more: Mapping[str, Any] = {}  # keys of a config that say nothing about numbers

    def config(self) -> dict[str, Any]:
        """Keras's ``get_config()``."""
        legacy = self.factory.module is None
        found = {
            n: written(n, x, legacy)
            for n, x in self.arguments.items()
            if n not in UNWRITTEN and not (legacy and x is None)
        }
        if found.get("name", "") is None and self._is_named():
            found["name"] = snake_case(self.class_name)
        later = {n for n in KERAS3 if self.more and found.get(n) is None}
        return {n: x for n, x in found.items() if n not in later} | dict(self.more)

    def _is_named(self) -> bool:
        """Whether Keras makes a name if there is none: it does so for optimizers."""
        return self.factory.parameters["name"].default is None

    def serialized(self) -> dict[str, Any]:
        """Keras's ``serialize()``."""
        found = {"class_name": self.class_name, "config": self.config()}
        if self.module is None and self.registered_name is None:
            return found
        return {
            "module": self.module,
            **found,
            "registered_name": self.registered_name,
        }


class Remembered:
    """A transformation or schedule with the call of Keras that it stands for."""

    spec: Spec
    plain: Any  # the same without the call of Keras

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras's method of this name has them."""
        return self.spec.config()

    def __reduce__(self) -> tuple[Any, ...]:
        return again, tuple(self.spec)


class KerasOptimizer(Remembered, GradientTransformation):
    """A transformation that stands for an optimizer of Keras."""

    def __new__(cls, *args: Any, spec: Spec, plain: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self.spec, self.plain = spec, plain
        return self

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"spec": self.spec, "plain": self.plain}


class KerasSchedule(Remembered, Schedule):
    """A schedule that stands for one of Keras."""

    def __init__(self, plain: Schedule, spec: Spec):
        super().__init__(plain.function)
        self.recipe, self.plain, self.spec = plain.recipe, plain, spec


def again(factory: Any, *rest: Any) -> Any:
    """The value of a spec."""
    spec = Spec(factory, *rest)
    return remembering(factory.plain(dict(spec.arguments)), spec)


@functools.cache
def _class(base: type) -> type:
    """The class that is ``base`` and remembers: chains stay chains."""
    if base is GradientTransformation:
        return KerasOptimizer
    return type(f"Keras{base.__name__}", (KerasOptimizer, base), {})


def remembering(value: Any, spec: Spec) -> Any:
    """The same value, with the call of Keras that it stands for."""
    if isinstance(value, Remembered):
        value = value.plain
    if isinstance(value, Schedule):
        return KerasSchedule(value, spec)
    tx = cast(GradientTransformation, value)
    return _class(type(tx))(**tx.arguments(), spec=spec, plain=tx)


class Factory(Generic[P, Value]):
    """A function with Keras's name and arguments; called as the class of Keras is.

    Args:
      build: Makes what it stands for, of its own arguments.
      module: Keras's, None for Keras 2.
      options: Arguments that all of its kind have, after its own, by name.
      hints: What to say of names that other versions of Keras have.
    """

    __name__: str

    def __init__(
        self,
        build: Callable[P, Value],
        module: str | None,
        options: Mapping[str, tuple[Any, Any]] | None = None,
        hints: Mapping[str, str] | None = None,
    ):
        functools.update_wrapper(self, build)
        self.class_name = build.__name__
        self.build, self.module, self.hints = build, module, hints
        own = inspect.signature(build, eval_str=True).parameters.values()
        self.own = [p for p in own if p.kind is not p.VAR_KEYWORD]
        self.parameters = {p.name: p for p in self.own}
        for name, (default, annotation) in (options or {}).items():
            if name not in self.parameters:
                self.parameters[name] = inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=annotation,
                )
        order = sorted(self.parameters.values(), key=lambda p: p.kind)
        self.__signature__ = inspect.Signature(order)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Value:
        """What stands for Keras's object."""
        given = self.bound(args, kwargs)
        plain = self.plain(dict(given))
        return remembering(plain, self.spec(given))

    def plain(self, given: dict[str, Any]) -> Any:
        """The transformation or schedule itself, of all arguments."""
        return self.build(**{p.name: given[p.name] for p in self.own})  # type: ignore[call-arg]

    def spec(self, given: dict[str, Any]) -> Spec:
        """The call of Keras."""
        return Spec(self, self.class_name, dict(given), self.module)

    def from_config(self, config: Mapping[str, Any]) -> Value:
        """The value of Keras's ``get_config()``; keys that are missing are defaults.

        Raises:
          ValueError: A key is unknown, or a value wrong.
        """
        if not isinstance(config, Mapping):
            raise ValueError(
                f"the config of {self.class_name} is a dict of its arguments, got "
                f"{abbreviated(config)}"
            )
        try:
            return self(**dict(config))  # type: ignore[call-arg]
        except TypeError as error:
            raise ValueError(f"the config of {self.class_name}: {error}") from None

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name, normalized by their annotations."""
        for name in kwargs:
            if name not in self.parameters:
                hint = (self.hints or {}).get(name)
                hint = f" {hint}" if hint else suggestion(name, self.parameters)
                raise TypeError(
                    f"{self.class_name} has no argument {name!r}.{hint} It has "
                    f"{', '.join(self.parameters)}."
                )
        try:
            found = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self.class_name}: {error}. It has {', '.join(self.parameters)}"
                + ("; the options are given by name" if self.hints else "")
            ) from None
        found.apply_defaults()
        return {
            name: _normalized(name, value, self.parameters[name].annotation)
            for name, value in found.arguments.items()
        }

    def __reduce__(self) -> str:
        return self.__name__  # in its module

    def __repr__(self) -> str:
        return f"<{self.__module__}.{self.__name__}>"


def _normalized(name: str, value: Any, annotation: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    is_union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if is_union else (annotation,)
    if value is None and NoneType in kinds:
        return None
    if is_declared(annotation):
        return normalize(name, value)
    for kind in kinds:
        if kind is bool:
            return arguments.flag(name, value)
        if kind is int:
            return arguments.whole(name, value)
        if kind is float:
            return number(name, value, "a number")
        if kind is str and not isinstance(value, str):
            raise TypeError(f"{name} must be a text, got {name}={value!r}")
    return list(value) if isinstance(value, list) or type(value) is tuple else value


def written(name: str, value: Any, legacy: bool = False) -> Any:
    """An argument as a config of Keras 3, or of one before 2.11, has it.

    Raises:
      TypeError: Keras has no form for it.
    """
    if isinstance(value, Remembered):
        return value.spec.serialized()
    if isinstance(value, Tunable):
        value = value.initial
    if name == "learning_rate" and arguments.is_number(value) and not legacy:
        return float(np.float32(value))  # Keras keeps it in a float32 variable
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [written(name, x, legacy) for x in value]
    if isinstance(value, dict):
        return {n: written(name, x, legacy) for n, x in value.items()}
    raise TypeError(
        f"{name} cannot be written in Keras's form: {abbreviated(value)}. Use a "
        "number or a schedule of jopt.interop.keras; jopt.to_config writes what Keras "
        "does not have"
    )


def snake_case(name: str) -> str:
    """Keras's name for the first object of a class: ``"AdamW"`` is ``"adam_w"``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
