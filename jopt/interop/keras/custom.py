"""Custom optimizers and schedules in Keras's configs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from jopt.core.factory import Schedule
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.factories import Factory, Spec
from jopt.values.arguments import abbreviated


_registered: dict[str, Factory[..., Any]] = {}
# A context variable, because a global would put one thread's objects in scope of all.
_in_scope: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("in_scope")


class Custom(Factory[..., Any]):
    """A factory of a custom optimizer, with the arguments of a function.

    Args:
      build: Returns a transformation or a schedule.
      registered_name: Keras's ``"package>Name"``; None if it is not registered.
      name: Name of the class; None means the name of the function.
      module: The module in the config.
    """

    def __init__(
        self,
        build: Callable[..., Any],
        registered_name: str | None,
        name: str | None = None,
        module: str | None = None,
    ):
        super().__init__(build, "")
        self.registered_name, self.config_module = registered_name, module
        self.class_name = name or build.__name__

    def plain(self, values: dict[str, Any]) -> Any:
        """Make the bare transformation or schedule from the values of all arguments."""
        value = super().plain(values)
        if not isinstance(value, GradientTransformation | Schedule):
            raise TypeError(
                f"{self.class_name} must return a jopt transformation or schedule, got "
                f"{abbreviated(value)}"
            )
        return value

    def spec(self, values: dict[str, Any]) -> Spec:
        """Return the Keras call with these values of all arguments."""
        spec = Spec(self, self.class_name, dict(values), self.config_module)
        return spec._replace(registered_name=self.registered_name)


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[Callable[..., Any]], Factory[..., Any]]:
    """Register a function that makes a custom optimizer or schedule, for configs.

    Args:
      package: First part of the registered name.
      name: Second part; None means the name of the function.

    Returns:
      A decorator. `serialize` can write the values that the decorated function makes,
      and `deserialize` can read them.

    >>> import jopt
    >>> @register_keras_serializable("demo")
    ... def Doubled(learning_rate: float = 0.1):
    ...     return jopt.sgd(2 * learning_rate)
    >>> Doubled(0.3), Doubled(0.3).get_config()
    (sgd(learning_rate=0.6), {'learning_rate': 0.30000001192092896})
    """

    def decorate(build):
        class_name = name or build.__name__
        factory = Custom(build, f"{package}>{class_name}", class_name)
        assert factory.registered_name is not None
        _registered[factory.registered_name] = factory
        return factory

    return decorate


@contextmanager
def custom_object_scope(
    custom_objects: Mapping[str, Callable[..., Any]],
) -> Iterator[None]:
    """Make custom optimizers and schedules known to `get` and `deserialize` inside.

    Args:
      custom_objects: Functions that return a transformation or schedule, by the name in
        the config. Those of an inner scope take precedence.

    Raises:
      TypeError: ``custom_objects`` is not a dict of functions.

    >>> import jopt
    >>> from jopt.interop import keras
    >>> with custom_object_scope({"Half": lambda: jopt.sgd(0.5)}):
    ...     keras.get("Half")
    sgd(learning_rate=0.5)
    """
    token = _in_scope.set({**_in_scope.get({}), **checked(custom_objects)})
    try:
        yield
    finally:
        _in_scope.reset(token)


def checked(custom_objects: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the dict of functions, empty for None.

    Raises:
      TypeError: ``custom_objects`` is not a dict of functions by name.
    """
    if custom_objects is None:
        return {}
    if not isinstance(custom_objects, Mapping):
        raise TypeError(
            "custom_objects must be a dict of functions by name, got "
            f"custom_objects={abbreviated(custom_objects)}"
        )
    for name, build in custom_objects.items():
        if not isinstance(name, str) or not callable(build):
            raise TypeError(
                "custom_objects must be a dict of functions by name, such as {'Mine': "
                f"mine}}, got {name!r}: {abbreviated(build)}"
            )
    return custom_objects


def custom_of(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None
) -> Factory[..., Any] | None:
    """Return the factory of a custom object's config, None for Keras's own."""
    name, registered = config["class_name"], config.get("registered_name")
    builders = {**_in_scope.get({}), **checked(custom_objects)}
    for key in (registered, name):
        if key in builders:
            build = builders[key]
            if isinstance(build, Factory):
                return build
            return Custom(build, registered, name, config.get("module"))
    if registered in _registered:
        return _registered[cast(str, registered)]
    return None
