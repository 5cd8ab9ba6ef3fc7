"""Optimizers and schedules of Keras by name and as data: get, serialize, deserialize.

A config has one of three forms, recognized by its keys:

    Keras 3         {"module", "class_name", "config", "registered_name"}
    2.11 to 2.15    either, with jit_compile or is_legacy_optimizer in "config"
    older, legacy   {"class_name", "config"} with lr, decay, dynamic, loss_scale, or
                    is_legacy_optimizer=True, or the module keras.optimizers.legacy

``{"class_name", "config"}`` with none of these keys counts as Keras 3. A config is
written in the form it was read from, except that arguments of None may be absent and
that aliases become the names they stand for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from jopt.core.transformation import GradientTransformation
from jopt.interop.keras import (
    adams,
    legacy,
    loss_scale,
    multi,
    muon,
    optimizers,
    schedules,
)
from jopt.interop.keras.custom import custom_of
from jopt.interop.keras.factories import (
    KERAS3,
    ArgumentError,
    Factory,
    KerasOptimizer,
    KerasSchedule,
    Remembered,
    Spec,
    decoded,
    with_spec,
)
from jopt.interop.keras.legacy_loss_scale import since_2_4
from jopt.values.arguments import abbreviated, suggestion


def _factories(*modules: Any) -> dict[str, Any]:
    members = [x for m in modules for x in vars(m).values()]
    return {x.__name__: x for x in members if isinstance(x, Factory)}


OPTIMIZERS = _factories(optimizers, adams, muon, loss_scale, multi)
LEGACY = _factories(legacy)
SCHEDULES = _factories(schedules)
ALIASES = {
    f"experimental{name}": name for name in ("adadelta", "adagrad", "adam", "sgd")
} | {f"lossscaleoptimizerv{i}": "lossscaleoptimizer" for i in (1, 2, 3)}
KERAS2_11 = {"jit_compile", "is_legacy_optimizer"}
BEFORE = {"lr", "decay", "schedule_decay", "dynamic"}


def get(
    identifier: Any, custom_objects: Mapping[str, Callable[..., Any]] | None = None
) -> Any:
    """Return the optimizer of a name or config, like Keras's ``optimizers.get``.

    Args:
      identifier: A name in any case, such as ``"rmsprop"``; a config for `deserialize`;
        or a transformation or None, returned unchanged.
      custom_objects: Functions that return a custom optimizer or schedule, by the name
        in the config; see also `custom_object_scope`.

    Returns:
      A transformation, or None.

    Raises:
      ValueError: The name is unknown, the dict is not the config of an optimizer, or
        ``identifier`` has another type; that error is a TypeError, too.

    >>> get("RMSProp")
    rmsprop(learning_rate=0.001, eps=1e-07)
    >>> get({"class_name": "rmsprop", "config": {"learning_rate": 1e-4}})
    rmsprop(learning_rate=0.0001, eps=1e-07)
    """
    if identifier is None or isinstance(identifier, GradientTransformation):
        return identifier
    if isinstance(identifier, str):
        identifier = {"class_name": identifier, "config": {}}
    if isinstance(identifier, Mapping):
        value = deserialize(identifier, custom_objects)
        if isinstance(value, GradientTransformation):
            return value
        raise ValueError(
            f"{abbreviated(identifier)} is a schedule, not an optimizer: give it to an "
            "optimizer as learning_rate"
        )
    if isinstance(identifier, Factory):
        raise ArgumentError(
            f"{identifier.__name__} is a function that makes an optimizer: call it, "
            f"{identifier.__name__}(…)"
        )
    raise ArgumentError(
        "an optimizer must be a name such as 'adam', a dict {'class_name': …, "
        f"'config': …}} or a transformation, got {abbreviated(identifier)}. "
        f"{_all(OPTIMIZERS)}"
    )


def serialize(value: Any) -> dict[str, Any]:
    """Return an optimizer or schedule as plain data, like Keras's ``serialize``.

    Args:
      value: A value that a factory of `jopt.interop.keras` or `get` returned.

    Returns:
      A dict that ``json.dumps`` takes and that `get` and Keras's ``deserialize`` read.

    Raises:
      TypeError: ``value`` comes from elsewhere, or has an argument for which Keras's
        configs have no form.

    >>> serialize(get("sgd"))["config"]["learning_rate"]
    0.009999999776482582
    """
    if isinstance(value, Remembered):
        return value.spec.serialized()
    raise TypeError(
        f"{abbreviated(value)} was not made by jopt.interop.keras, so its Keras class "
        "is unknown. Write any transformation with jopt.to_config"
    )


def deserialize(
    config: Mapping[str, Any],
    custom_objects: Mapping[str, Callable[..., Any]] | None = None,
) -> KerasOptimizer | KerasSchedule | multi.OptimizerMap:
    """Return the optimizer or schedule of a config of any version of Keras.

    Args:
      config: The result of Keras's ``serialize``; it is not modified.
      custom_objects: Functions that return a custom optimizer or schedule, by the name
        in the config; see also `custom_object_scope`.

    Returns:
      A transformation or a schedule.

    Raises:
      ValueError: ``config`` is not a config, or has an unknown class or key.

    >>> config = {"class_name": "Adam", "config": {"lr": 0.01, "decay": 0.5}}
    >>> deserialize(config).get_config()["decay"]
    0.5
    """
    if not isinstance(config, Mapping) or "class_name" not in config:
        raise ValueError(
            "a config must be {'class_name': …, 'config': {…}}, got "
            f"{abbreviated(config)}"
        )
    name, inner = config["class_name"], config.get("config")
    inner = {} if inner is None else inner
    if not isinstance(name, str) or not isinstance(inner, Mapping):
        raise ValueError(
            f"class_name must be a string and config a dict, got {abbreviated(config)}"
        )
    if "loss_scale" in inner and _plain_name(name) == "lossscaleoptimizer":
        inner = since_2_4(inner)
    custom = custom_of(config, custom_objects)
    if custom is not None:
        return custom.from_config(inner, custom_objects)
    if name.lower() == "optimizermap":
        return multi.OptimizerMap.from_config(inner, custom_objects)
    if name in SCHEDULES:
        return SCHEDULES[name].from_config(inner, custom_objects)
    return _builtin(config, name, decoded(dict(inner), custom_objects))


def _plain_name(name: str) -> str:
    """Return the name in lower case, without the additions of Keras 2 and tf_keras."""
    plain = name.removeprefix("Custom>").lower()
    return ALIASES.get(plain, plain)


def _builtin(config: Mapping[str, Any], name: str, inner: dict[str, Any]) -> Any:
    """Return the optimizer of a config of one of Keras's own classes."""
    plain_name = _plain_name(name)
    is_legacy = _is_legacy(config, inner)
    keras2_flags = {n: inner.pop(n) for n in KERAS2_11 & inner.keys()}
    legacy_factories = {n.lower(): x for n, x in LEGACY.items()}
    if is_legacy and plain_name in legacy_factories:
        tx = legacy_factories[plain_name].from_config(inner)
        return with_spec(tx, _in_same_form(tx.spec, config, keras2_flags))
    factory = {n.lower(): x for n, x in OPTIMIZERS.items()}.get(plain_name)
    if factory is None:
        raise _unknown(config, name)
    tx = factory.from_config(inner)
    if not keras2_flags:
        return tx
    if inner.get("use_ema"):
        warnings.warn(
            "the average of use_ema starts at the parameters after the first step, as "
            "in Keras 3; before Keras 3 it started at the initial parameters",
            UserWarning,
            stacklevel=4,
        )
    return with_spec(tx, _in_same_form(tx.spec, config, keras2_flags))


def _in_same_form(spec: Spec, config: Mapping[str, Any], flags: dict[str, Any]) -> Spec:
    """Return the spec with the keys of a config of Keras 2, to write it alike."""
    spec = spec._replace(more=flags, module=config.get("module"))
    if spec.module is None:
        return spec
    registered = config.get("registered_name")
    return spec._replace(class_name=config["class_name"], registered_name=registered)


def _is_legacy(config: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
    module = config.get("module")
    if KERAS3 & inner.keys() or module is not None:
        return str(module).endswith(".legacy") or "mixed_precision" in str(module)
    if "is_legacy_optimizer" in inner:
        return bool(inner["is_legacy_optimizer"])
    return bool(BEFORE & inner.keys()) and "jit_compile" not in inner


def _unknown(config: Mapping[str, Any], name: str) -> ValueError:
    registered = config.get("registered_name")
    if registered:
        return ValueError(
            f"{registered!r} is not a class of Keras: give custom_objects={{{name!r}: "
            "a function that returns the transformation}, or decorate the function "
            "with register_keras_serializable"
        )
    names = {n.lower(): n for n in [*OPTIMIZERS, *SCHEDULES]}
    hint = suggestion(name.lower(), names)
    hint = next((h for n, h in names.items() if f"{n!r}" in hint), None)
    hint = f" Did you mean {hint!r}?" if hint else ""
    return ValueError(
        f"Keras has no {name!r}.{hint} {_all(OPTIMIZERS)} {_all(SCHEDULES)}"
    )


def _all(factories: Mapping[str, Any]) -> str:
    kind = "schedules" if factories is SCHEDULES else "optimizers"
    return f"The {kind} are {', '.join(sorted(factories))}."
