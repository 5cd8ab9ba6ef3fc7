"""Optimizers and schedules of one's own, in configs of Keras."""

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
# A context variable, so that what one thread has in scope no other has.
_in_scope: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("in_scope")


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

    def plain(self, given: dict[str, Any]) -> Any:
        """The transformation or schedule itself."""
        made = super().plain(given)
        if not isinstance(made, GradientTransformation | Schedule):
            raise TypeError(
                f"{self.class_name} must return a jopt transformation or schedule, got "
                f"{abbreviated(made)}"
            )
        return made

    def spec(self, given: dict[str, Any]) -> Spec:
        """The call of Keras."""
        spec = Spec(self, self.class_name, dict(given), self.shown)
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

    def decorate(build):
        own = name or build.__name__
        factory = Custom(build, f"{package}>{own}", own)
        assert factory.registered_name is not None
        _registered[factory.registered_name] = factory
        return factory

    return decorate


@contextmanager
def custom_object_scope(
    custom_objects: Mapping[str, Callable[..., Any]],
) -> Iterator[None]:
    """Inside of it `get` and `deserialize` know optimizers and schedules of one's own.

    Args:
      custom_objects: Functions that return a transformation or schedule, by the name in
        the config. Those of an inner scope come first.

    Raises:
      TypeError: ``custom_objects`` is no dict of functions.

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
    """The same, or none.

    Raises:
      TypeError: It is no dict of functions by name.
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
    """The factory of what is not Keras's own, or None."""
    name, registered = config["class_name"], config.get("registered_name")
    known = {**_in_scope.get({}), **checked(custom_objects)}
    for key in (registered, name):
        if key in known:
            build = known[key]
            if isinstance(build, Factory):
                return build
            return Custom(build, registered, name, config.get("module"))
    if registered in _registered:
        return _registered[cast(str, registered)]
    return None
