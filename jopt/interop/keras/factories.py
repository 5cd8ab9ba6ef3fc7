"""Factories that take Keras's arguments and record them in Keras's form.

They return jopt transformations and schedules, equal to those of the recipe that has
Keras's numbers. Each also carries the Keras call it stands for, which `serialize`
writes.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
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
from jopt.values.arguments import abbreviated, suggestion, text_of
from jopt.values.library import readers
from jopt.values.numbers import Tunable, is_declared, normalize, number
from jopt.wrappers.loss_scale import scale_loss


P = ParamSpec("P")
Value = TypeVar("Value")


# Arguments that the configs of Keras 2.11 to 2.15 did not have.
KERAS3 = {"loss_scale_factor", "gradient_accumulation_steps"}
# Never written to a config: the first is a method in Keras, the second an older name.
UNWRITTEN = ("exclude_from_weight_decay", "lr")


class ArgumentError(TypeError, ValueError):
    """An argument of the wrong kind: a TypeError in Python, in Keras a ValueError."""


class Spec(NamedTuple):
    """The Keras call that a value stands for."""

    factory: Any  # makes the value; also used to unpickle it
    class_name: str
    arguments: dict[str, Any]  # every argument, defaults included
    module: str | None  # None for the form of Keras 2 and for custom classes
    registered_name: str | None = None
    more: Mapping[str, Any] = {}  # config keys that do not affect the numbers

    def config(self) -> dict[str, Any]:
        """Return the dict of Keras's ``get_config()``."""
        legacy = self.factory.module is None
        config = {
            n: written(n, x, legacy)
            for n, x in self.arguments.items()
            if n not in UNWRITTEN and not (legacy and x is None)
        }
        if config.get("name", "") is None and self._has_default_name():
            config["name"] = snake_case(self.class_name)
        # `more` comes from a config of 2.11 to 2.15, whose form this one keeps.
        absent = {n for n in KERAS3 if self.more and config.get(n) is None}
        return {n: x for n, x in config.items() if n not in absent} | dict(self.more)

    def _has_default_name(self) -> bool:
        """Whether Keras fills in a missing name, as it does for optimizers."""
        return self.factory.parameters["name"].default is None

    def serialized(self) -> dict[str, Any]:
        """Return the dict of Keras's ``serialize()``."""
        body = {"class_name": self.class_name, "config": self.config()}
        if self.module is None and self.registered_name is None:
            return body
        return {
            "module": self.module,
            **body,
            "registered_name": self.registered_name,
        }


class Remembered:
    """A transformation or schedule that carries the Keras call it stands for."""

    spec: Spec
    plain: Any  # the same without the call of Keras

    def get_config(self) -> dict[str, Any]:
        """Return the arguments in the form of Keras's method of this name."""
        return self.spec.config()

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, tuple(self.spec)


class KerasOptimizer(Remembered, GradientTransformation):
    """A transformation that stands for a Keras optimizer."""

    def __new__(cls, *args: Any, spec: Spec, plain: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self.spec, self.plain = spec, plain
        return self

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"spec": self.spec, "plain": self.plain}

    def scale_loss(self, loss: Any, state: Any = None) -> Any:
        """Multiply a loss by the loss scale, to differentiate it, as in Keras.

        Args:
          loss: The loss.
          state: The state, which holds the scale of a LossScaleOptimizer; others need
            none.

        Returns:
          The loss times ``loss_scale_factor``, or the loss itself where that is None.

        Raises:
          TypeError: The scale is in the state, and ``state`` is None.
        """
        arguments = self.spec.arguments
        is_dynamic = "inner_optimizer" in arguments and arguments.get("dynamic", True)
        if is_dynamic and state is None:
            raise TypeError(
                f"the loss scale of {self.spec.class_name} is in its state: call "
                "scale_loss(loss, state)"
            )
        if is_dynamic:
            return scale_loss(state, loss)
        factor = arguments.get("loss_scale_factor", arguments.get("initial_scale"))
        return loss if factor is None else factor * loss


class KerasSchedule(Remembered, Schedule):
    """A schedule that stands for a Keras schedule."""

    def __init__(self, plain: Schedule, spec: Spec):
        super().__init__(plain.function)
        self.recipe, self.plain, self.spec = plain.recipe, plain, spec


def rebuild(factory: Any, *rest: Any) -> Any:
    """Make the value of a `Spec`; pickle calls it with the spec's fields."""
    spec = Spec(factory, *rest)
    return with_spec(factory.plain(dict(spec.arguments)), spec)


@functools.cache
def _class(base: type) -> type:
    """Return the subclass of ``base`` that carries a spec."""
    # A subclass of the value's own class keeps what the class does: a chain stays one.
    if base is GradientTransformation:
        return KerasOptimizer
    return type(f"Keras{base.__name__}", (KerasOptimizer, base), {})


def with_spec(value: Any, spec: Spec) -> Any:
    """Return the same value with the Keras call it stands for attached."""
    if isinstance(value, Remembered):
        value = value.plain
    if isinstance(value, Schedule):
        return KerasSchedule(value, spec)
    tx = cast(GradientTransformation, value)
    return _class(type(tx))(**tx.arguments(), spec=spec, plain=tx)


class Option(NamedTuple):
    """A keyword argument that all factories of a kind have."""

    default: Any
    annotation: Any
    text: str  # its entry in the docstrings


def explained(doc: str, options: Mapping[str, Option]) -> str:
    """Replace the entry ``**options`` of a docstring by an entry for each option."""
    entries = [
        textwrap.fill(
            f"{name}: {option.text}",
            width=84,  # help() indents by four more
            initial_indent="  ",
            subsequent_indent="    ",
        )
        for name, option in options.items()
    ]
    pattern = re.compile(r"^  \*\*options: .*$", re.MULTILINE)
    return pattern.sub(lambda _: "\n".join(entries), inspect.cleandoc(doc))


class Factory(Generic[P, Value]):
    """A function with the name and arguments of a Keras class, called like the class.

    Args:
      build: Makes the value from the arguments of its own signature.
      module: The module in Keras's configs; None for Keras 2.
      options: Keyword arguments shared by all factories of a kind, as `Option`.
      hints: Advice on argument names of other versions of Keras.
    """

    __name__: str

    def __init__(
        self,
        build: Callable[P, Value],
        module: str | None,
        options: Mapping[str, Option] | None = None,
        hints: Mapping[str, str] | None = None,
    ):
        functools.update_wrapper(self, build)
        self.class_name = build.__name__
        self.build, self.module, self.hints = build, module, hints
        parameters = inspect.signature(build, eval_str=True).parameters.values()
        self.build_parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        self.parameters = {p.name: p for p in self.build_parameters}
        missing = {n: x for n, x in (options or {}).items() if n not in self.parameters}
        for name, option in missing.items():
            self.parameters[name] = inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.default,
                annotation=option.annotation,
            )
        self.__doc__ = explained(build.__doc__ or "", missing)
        order = sorted(self.parameters.values(), key=lambda p: p.kind)
        self.__signature__ = inspect.Signature(order)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Value:
        """Make the value, with the Keras call attached."""
        values = self.bound(args, kwargs)
        plain = self.plain(dict(values))
        return with_spec(plain, self.spec(values))

    def plain(self, values: dict[str, Any]) -> Any:
        """Make the bare transformation or schedule from the values of all arguments."""
        return self.build(**{p.name: values[p.name] for p in self.build_parameters})  # type: ignore[call-arg]

    def spec(self, values: dict[str, Any]) -> Spec:
        """Return the Keras call with these values of all arguments."""
        return Spec(self, self.class_name, dict(values), self.module)

    def from_config(
        self,
        config: Mapping[str, Any],
        custom_objects: Mapping[str, Callable[..., Any]] | None = None,
    ) -> Value:
        """Make the value of Keras's ``get_config()``; missing keys take defaults.

        Args:
          config: A dict of arguments, with configs for optimizers and schedules inside
            it; it is not modified.
          custom_objects: Functions that return a custom optimizer or schedule, by the
            name in the config.

        Raises:
          ValueError: A key is unknown, or a value is invalid.
        """
        if not isinstance(config, Mapping):
            raise ValueError(
                f"the config of {self.class_name} must be a dict of its arguments, got "
                f"{abbreviated(config)}"
            )
        values = decoded(dict(config), custom_objects)
        try:
            return self(**values)  # type: ignore[call-arg]
        except TypeError as error:
            raise ValueError(f"the config of {self.class_name}: {error}") from None

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call by name, normalized by their annotations.

        Raises:
          ArgumentError: An argument is unknown, missing or of the wrong kind.
        """
        try:
            return self._bound(args, kwargs)
        except TypeError as error:
            raise ArgumentError(*error.args) from None

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        for name in kwargs:
            if name not in self.parameters:
                hint = (self.hints or {}).get(name)
                hint = f" {hint}" if hint else suggestion(name, self.parameters)
                raise TypeError(
                    f"{self.class_name} has no argument {name!r}.{hint} It has "
                    f"{', '.join(self.parameters)}."
                )
        try:
            call = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{self.class_name}: {error}. It has {', '.join(self.parameters)}"
                + ("; give the options by name" if self.hints else "")
            ) from None
        call.apply_defaults()
        return {name: self.normalized(name, x) for name, x in call.arguments.items()}

    def normalized(self, name: str, value: Any) -> Any:
        """Return an argument in the form that its annotation asks for."""
        return _normalized(name, value, self.parameters[name].annotation)

    def __reduce__(self) -> str:
        return self.__name__  # pickle looks the name up in the module

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
        if kind is float and value is None:
            raise TypeError(
                f"Argument `{name}` must be a float. Received: {name}=None. Leave it "
                "out for the default"
            )
        if kind is float:
            return number(name, value, "a number")
        if kind is str and not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {name}={text_of(value)}")
    return list(value) if isinstance(value, list) or type(value) is tuple else value


def written(name: str, value: Any, legacy: bool = False) -> Any:
    """Return an argument in the form of a config of Keras 3, or of Keras before 2.11.

    Raises:
      TypeError: Keras's configs have no form for the value.
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
        f"{name} has no form in Keras's configs: {abbreviated(value)}. Use a number or "
        "a schedule of jopt.interop.keras, or write the transformation with "
        "jopt.to_config"
    )


def decoded(value: Any, custom_objects: Any) -> Any:
    """Return a value of a config with the configs inside it replaced by their objects.

    Raises:
      ValueError: A config inside it is unknown, or contains code.
    """
    if isinstance(value, list):
        return [decoded(x, custom_objects) for x in value]
    if not isinstance(value, Mapping) or isinstance(value, Remembered):
        return value
    if "class_name" not in value:
        return {n: decoded(x, custom_objects) for n, x in value.items()}
    if value["class_name"] == "__lambda__":
        raise ValueError(
            "the config contains the code of a function, which is not run: use a "
            "schedule"
        )
    # That is `deserialize`, whose module imports this one.
    return readers["class_name"](value, custom_objects)


def snake_case(name: str) -> str:
    """Return Keras's default name for a class: ``"AdamW"`` becomes ``"adam_w"``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
