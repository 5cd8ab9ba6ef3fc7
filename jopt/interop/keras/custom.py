"""Optimizers and schedules of one's own, in configs of Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from jopt import checks
from jopt.base import GradientTransformation
from jopt.factory import Schedule
from jopt.interop.keras.factories import Factory, Spec


_registered: dict[str, Factory[..., Any]] = {}


class Custom(Factory[..., Any]):
    """An optimizer of one's own, with the arguments of a function.

    Args:
      build: Returns a transformation or a schedule.
      registered_name: Keras's, ``"package>Name"``.
      name: Of the class.
      module: What a config has for it.
    """

    def __init__(
        self,
        build: Callable[..., Any],
        registered_name: str | None,
        name: str | None = None,
        module: str | None = None,
    ):
        super().__init__(build, "")
        self.registered_name, self.shown = registered_name, module
        self.class_name = name or build.__name__

    def plain(self, arguments: dict[str, Any]) -> Any:
        """The transformation or schedule itself."""
        made = super().plain(arguments)
        if not isinstance(made, GradientTransformation | Schedule):
            raise TypeError(
                f"{self.class_name} must return a jopt transformation or schedule, got "
                f"{checks.abbreviated(made)}"
            )
        return made

    def spec(self, arguments: dict[str, Any]) -> Spec:
        """The call of Keras."""
        spec = Spec(self, self.class_name, dict(arguments), self.shown)
        return spec._replace(registered_name=self.registered_name)


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[Callable[..., Any]], Factory[..., Any]]:
    """Decorates a function that makes an optimizer of one's own, for configs.

    Args:
      package: The first part of its registered name.
      name: The second; None is that of the function.

    Returns:
      A decorator; the function then makes what `serialize` knows.

    >>> import jopt
    >>> @register_keras_serializable("demo")
    ... def Doubled(learning_rate: float = 0.1):
    ...     return jopt.sgd(2 * learning_rate)
    >>> Doubled(0.3), Doubled(0.3).get_config()
    (sgd(learning_rate=0.6), {'learning_rate': 0.30000001192092896})
    """

    def decorate(build: Callable[..., Any]) -> Factory[..., Any]:
        own = name or build.__name__
        factory = Custom(build, f"{package}>{own}", own)
        assert factory.registered_name is not None
        _registered[factory.registered_name] = factory
        return factory

    return decorate


def custom_of(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None
) -> Factory[..., Any] | None:
    """The factory of what is not Keras's own, or None."""
    name, registered = config["class_name"], config.get("registered_name")
    for key in (registered, name):
        if custom_objects and isinstance(key, str) and key in custom_objects:
            build = custom_objects[key]
            if isinstance(build, Factory):
                return build
            return Custom(build, registered, name, config.get("module"))
    if registered in _registered:
        return _registered[cast(str, registered)]
    return None
