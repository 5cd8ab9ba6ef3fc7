"""Optimizers and schedules of Keras by name and as data: get, serialize, deserialize.

A config has one of three forms, which are told apart by their keys:

    Keras 3         {"module", "class_name", "config", "registered_name"}
    2.11 to 2.15    either, with jit_compile or is_legacy_optimizer in "config"
    before, legacy  {"class_name", "config"} with lr, decay, dynamic, loss_scale, or
                    is_legacy_optimizer=True, or the module keras.optimizers.legacy

``{"class_name", "config"}`` with none of these keys is taken for Keras 3. What a config
was read from, it is written as, but that arguments of None may be left out, and that
aliases become the names they stand for.
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
    Factory,
    KerasOptimizer,
    KerasSchedule,
    Remembered,
    Spec,
    with_spec,
)
from jopt.interop.keras.legacy_loss_scale import since_2_4
from jopt.values.arguments import abbreviated, suggestion


def _factories(*modules: Any) -> dict[str, Any]:
    found = [x for m in modules for x in vars(m).values() if isinstance(x, Factory)]
    return {x.__name__: x for x in found}


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
    """The optimizer of a name, a config, or itself; Keras's ``optimizers.get``.

    Args:
      identifier: A name in any case, ``"rmsprop"``; a dict, see `deserialize`; a
        transformation, which is returned as it is; or None, for None.
      custom_objects: Optimizers of one's own, by the name in the config: functions
        that return a transformation; see also `custom_object_scope`.

    Returns:
      A transformation.

    Raises:
      ValueError: The name is unknown, or the dict no config.
      TypeError: ``identifier`` is something else.

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
        found = deserialize(identifier, custom_objects)
        if isinstance(found, GradientTransformation):
            return found
        raise ValueError(
            f"{abbreviated(identifier)} is a schedule, not an optimizer: it "
            "goes into one as learning_rate"
        )
    if isinstance(identifier, Factory):
        raise TypeError(
            f"{identifier.__name__} is the function that makes the optimizer: call it, "
            f"{identifier.__name__}(…)"
        )
    raise TypeError(
        "an optimizer is a name such as 'adam', a dict {'class_name': …, 'config': …} "
        f"or a transformation, got {abbreviated(identifier)}. "
        f"{_all(OPTIMIZERS)}"
    )


def serialize(value: Any) -> dict[str, Any]:
    """An optimizer or schedule as plain data; Keras's ``serialize`` of the same one.

    Args:
      value: What a factory of `jopt.interop.keras`, or `get`, returned.

    Returns:
      A dict for ``json.dumps``, which Keras's ``deserialize`` reads, and `get`.

    Raises:
      TypeError: ``value`` does not come from here, or has an argument that Keras has
        no form for.

    >>> serialize(get("sgd"))["config"]["learning_rate"]
    0.009999999776482582
    """
    if isinstance(value, Remembered):
        return value.spec.serialized()
    raise TypeError(
        f"{abbreviated(value)} does not say which of Keras's it is: only what "
        "jopt.interop.keras makes does. jopt.to_config writes any transformation"
    )


def deserialize(
    config: Mapping[str, Any],
    custom_objects: Mapping[str, Callable[..., Any]] | None = None,
) -> KerasOptimizer | KerasSchedule | multi.OptimizerMap:
    """The optimizer or schedule of a config, whichever version of Keras wrote it.

    Args:
      config: What Keras's ``serialize`` gave; it is not changed.
      custom_objects: See `get`.

    Returns:
      A transformation or a schedule.

    Raises:
      ValueError: An unknown class or key, or no config.

    >>> config = {"class_name": "Adam", "config": {"lr": 0.01, "decay": 0.5}}
    >>> deserialize(config).get_config()["decay"]
    0.5
    """
    if not isinstance(config, Mapping) or "class_name" not in config:
        raise ValueError(
            "a config is {'class_name': …, 'config': {…}}, got "
            f"{abbreviated(config)}"
        )
    name, inner = config["class_name"], config.get("config")
    inner = {} if inner is None else inner
    if not isinstance(name, str) or not isinstance(inner, Mapping):
        raise ValueError(
            f"class_name must be a text and config a dict, got {abbreviated(config)}"
        )
    if "loss_scale" in inner and _plain_name(name) == "lossscaleoptimizer":
        inner = since_2_4(inner)
    inner = {n: _decoded(x, custom_objects) for n, x in inner.items()}
    custom = custom_of(config, custom_objects)
    if custom is not None:
        return custom.from_config(inner)
    if name.lower() == "optimizermap":
        return multi.OptimizerMap.from_config(inner)
    if name in SCHEDULES:
        return SCHEDULES[name].from_config(inner)
    return _builtin(config, name, inner)


def _plain_name(name: str) -> str:
    """The name without case, and without the additions of Keras 2 and tf_keras."""
    wanted = name.removeprefix("Custom>").lower()
    return ALIASES.get(wanted, wanted)


def _builtin(config: Mapping[str, Any], name: str, inner: dict[str, Any]) -> Any:
    """An optimizer of Keras itself."""
    wanted = _plain_name(name)
    old = _is_legacy(config, inner)
    legacy_flags = {n: inner.pop(n) for n in KERAS2_11 & inner.keys()}
    if old and wanted in (known := {n.lower(): x for n, x in LEGACY.items()}):
        found = known[wanted].from_config(inner)
        return with_spec(found, _as_given(found.spec, config, legacy_flags))
    factory = {n.lower(): x for n, x in OPTIMIZERS.items()}.get(wanted)
    if factory is None:
        raise _unknown(config, name)
    found = factory.from_config(inner)
    if not legacy_flags:
        return found
    if inner.get("use_ema"):
        warnings.warn(
            "before Keras 3 the average of use_ema started at the initial parameters; "
            "here it starts, as in Keras 3, at those after the first step",
            UserWarning,
            stacklevel=4,
        )
    return with_spec(found, _as_given(found.spec, config, legacy_flags))


def _as_given(spec: Spec, config: Mapping[str, Any], flags: dict[str, Any]) -> Spec:
    """What Keras 2 wrote, to be written so again."""
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


def _decoded(value: Any, custom_objects: Any) -> Any:
    """A value of a config; inner configs become what they describe."""
    if isinstance(value, list):
        return [_decoded(x, custom_objects) for x in value]
    if not isinstance(value, Mapping):
        return value
    if "class_name" not in value:
        return {n: _decoded(x, custom_objects) for n, x in value.items()}
    if value["class_name"] == "__lambda__":
        raise ValueError(
            "the config has a function as code, which is not run: give a schedule"
        )
    return deserialize(value, custom_objects)


def _unknown(config: Mapping[str, Any], name: str) -> ValueError:
    registered = config.get("registered_name")
    if registered:
        return ValueError(
            f"{registered!r} is not of Keras itself: give custom_objects={{{name!r}: a "
            "function that returns the transformation}, or decorate that with "
            "register_keras_serializable"
        )
    known = {n.lower(): n for n in [*OPTIMIZERS, *SCHEDULES]}
    hint = suggestion(name.lower(), known)
    hint = next((h for n, h in known.items() if f"{n!r}" in hint), None)
    hint = f" Did you mean {hint!r}?" if hint else ""
    return ValueError(
        f"Keras has no {name!r}.{hint} {_all(OPTIMIZERS)} {_all(SCHEDULES)}"
    )


def _all(known: Mapping[str, Any]) -> str:
    what = "schedules" if known is SCHEDULES else "optimizers"
    return f"The {what} are {', '.join(sorted(known))}."
