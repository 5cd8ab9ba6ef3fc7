"""Hyperparameters: constants, schedules, and numbers that live in the state.

A Python number is compiled in; a schedule is evaluated at every step; ``tunable(x)``
puts ``x`` into the state, where it can be read, changed and restored without compiling
again. Scheduled numbers are stored too, as last used, so both have the same state.
``learning_rate`` is in the state even when it is a constant.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import checks, tree
from jopt.recipe import Recipe, Recorded


class Tunable(Recorded):
    """A number that is kept in the optimizer state; made by `tunable`."""

    def __init__(self, initial: float | jax.Array):
        self.initial = initial
        self.recipe = Recipe(tunable, {"value": initial})


def tunable(value: float | jax.Array) -> Tunable:
    """A hyperparameter that lives in the state instead of being compiled in.

    Args:
      value: The initial number (under ``vmap`` or ``jit`` it may be a traced scalar).

    Returns:
      A value to pass for any numeric argument of any factory.

    Raises:
      TypeError: ``value`` is not one number.

    >>> import jopt
    >>> tx = jopt.adam(1e-3, b1=jopt.tunable(0.9))
    >>> state = tx.init(jnp.ones(3))
    >>> state = jopt.set_hyperparams(tx, state, b1=0.8)
    >>> {name: round(float(x), 4) for name, x in jopt.hyperparams(state).items()}
    {'b1': 0.8, 'learning_rate': 0.001}
    """
    if isinstance(value, Tracer) and np.shape(value) == ():
        return Tunable(value)
    return Tunable(number("value", value, "one number"))


class _Declaration:
    """Marks the annotation of an argument that is a hyperparameter."""


# Declares an argument to be a hyperparameter. Declared, not guessed: a function given
# for such an argument is a schedule, a function given for another one is not.
if TYPE_CHECKING:
    ScalarOrSchedule: TypeAlias = Any  # given it is one of four; in a rule, a number
else:
    ScalarOrSchedule = Annotated[
        float | jax.Array | Tunable | Callable[[Any], Any], _Declaration
    ]


def is_declared(annotation: Any) -> bool:
    """Whether an annotation is, or contains, `ScalarOrSchedule`."""
    return _Declaration in getattr(annotation, "__metadata__", ()) or any(
        map(is_declared, get_args(annotation))
    )


def normalize(name: str, value: Any) -> Any:
    """A hyperparameter as a float, a schedule or a `Tunable`."""
    if isinstance(value, Tunable):
        return value
    if callable(value) and not isinstance(value, type):
        checks.function_of_step(name, value)
        return value
    if isinstance(value, jax.Array) and checks.is_number(value):
        return value  # may be traced: no constant, and no state of its own
    return number(name, value, "a number, a schedule or jopt.tunable(number)")


def number(name: str, value: Any, wanted: str) -> float:
    """The argument as a float."""
    if checks.is_number(value):
        return float(value)
    raise TypeError(f"{name} must be {wanted}, got {name}={checks.abbreviated(value)}")


def hyperparams(state: Any) -> dict[str, jax.Array]:
    """The hyperparameters that a state holds, by name.

    A name that occurs more than once is given with its path: ``decoder/learning_rate``.

    Args:
      state: The state of any transformation, however nested.

    Returns:
      Scalars: the tunable numbers, the last used values of scheduled ones, and the
      learning rate. Readable inside jit.

    >>> import jopt
    >>> state = jopt.sgd(jopt.exponential_decay(0.1, 10, 0.5)).init(jnp.ones(3))
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.1, dtype=float32)}
    """
    found = _located(state)
    return {name: value for name, (_, value) in found.items()}


def _located(state: Any) -> dict[str, tuple[str, jax.Array]]:
    """name -> (path, value); the name is the path where it would be ambiguous."""
    if isinstance(state, Recorded):
        raise TypeError(
            f"a state is needed, what init and update return, got the transformation "
            f"{state!r}"
        )
    found = []
    for path, holder in holders(state, "hyperparameters"):
        for name in type(holder).hyperparameters:
            prefix = tree.path_name(path)
            (value,) = jax.tree.leaves(getattr(holder, name))  # nnx wraps arrays
            found.append((f"{prefix}/{name}" if prefix else name, name, value))
    names = collections.Counter(name for _, name, _ in found)
    return {
        (name if names[name] == 1 else path): (path, value)
        for path, name, value in found
    }


def holders(state: Any, what: str) -> Any:
    """``(path, state)`` of each state whose class names fields so, outer ones first."""

    def holds(x: Any) -> bool:
        return hasattr(x, "_fields") and isinstance(getattr(type(x), what, 0), tuple)

    for path, x in jax.tree_util.tree_leaves_with_path(state, is_leaf=holds):
        if holds(x):
            yield path, x
            for name, field in zip(x._fields, x, strict=True):
                inside = (*path, jax.tree_util.GetAttrKey(name))
                for deeper, inner in holders(field, what):
                    yield (*inside, *deeper), inner


def set_hyperparams(tx: Any, state: Any, /, **values: float | jax.Array) -> Any:
    """A state with hyperparameters changed; nothing compiles again.

    Args:
      tx: The transformation the state belongs to.
      state: Its state.
      **values: New numbers by name; a name that occurs more than once is given with its
        path, as `hyperparams` shows it: ``**{"decoder/learning_rate": 1e-4}``.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      KeyError: No hyperparameter has this name, or more than one has.
      ValueError: The name is scheduled: its next value comes from the schedule.

    >>> import jopt
    >>> tx = jopt.adam(1e-3)
    >>> state = jopt.set_hyperparams(tx, tx.init(jnp.ones(3)), learning_rate=3e-4)
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.0003, dtype=float32)}
    """
    found = _located(state)
    dynamics = dict(_dynamics(tx))
    changed = {}
    for name, value in values.items():
        if name not in found:
            same = [n for n in found if n.endswith(f"/{name}")]
            if same:
                raise KeyError(
                    f"{name!r} is ambiguous: the state has {same}. Give the path: "
                    f"**{{{same[0]!r}: …}}"
                )
            raise KeyError(
                f"the state has no hyperparameter {name!r}."
                f"{checks.suggestion(name, found)} It has: {sorted(found)}. A number "
                "is in the state if it is given as jopt.tunable(number)."
            )
        path, old = found[name]
        holder, _, field = path.rpartition("/")
        dynamic = dynamics.get(f"{holder}/" if holder else "")
        if dynamic is not None:
            dynamic.check(field, value)
        changed[path] = _like(name, value, old)

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: changed.get(tree.path_name(path), leaf), state
    )


def _like(name: str, value: Any, old: Any) -> Any:
    if not isinstance(value, jax.Array | np.ndarray):
        value = number(name, value, "a number")
    elif value.shape not in ((), old.shape) or not checks.is_real(value.dtype):
        raise TypeError(
            f"{name} must be a number like the state's {old.dtype}{list(old.shape)}, "
            f"got {name}={checks.abbreviated(value)}"
        )
    value = jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
    concrete = not isinstance(old, Tracer)
    # A state that is spread over devices stays where it is.
    if concrete and getattr(old, "committed", False):
        return jax.device_put(value, old.sharding)
    return value


def _dynamics(tx: Any, prefix: str = "") -> Any:
    """``(path of the state, Dynamic)`` of every transformation that has one."""
    dynamic = getattr(tx, "dynamic", None)
    if dynamic is not None:
        yield prefix, dynamic
    for name, inner in getattr(tx, "children", {}).items():
        yield from _dynamics(inner, f"{prefix}{name}/")


def inject_hyperparams(
    factory: Any, static_args: str | tuple[str, ...] = ()
) -> Callable[..., Any]:
    """A factory whose declared numbers are all `tunable`; optax's call.

    Which arguments are hyperparameters is read from the factory's declaration (the
    `ScalarOrSchedule` annotation), so masks, dtypes, flags and counts stay what they
    are.

    Args:
      factory: A factory decorated with ``transformation``.
      static_args: Names of numbers to keep as compile-time constants.

    Returns:
      A function of the factory's arguments. Schedules stay schedules.

    Raises:
      TypeError: The factory does not declare its hyperparameters.

    >>> import jopt
    >>> tx = jopt.inject_hyperparams(jopt.sgd)(learning_rate=0.1, momentum=0.9)
    >>> tx
    sgd(learning_rate=tunable(value=0.1), momentum=tunable(value=0.9))
    """
    declared = getattr(factory, "hyperparameters", None)
    if declared is None:
        raise TypeError(
            f"inject_hyperparams needs a factory decorated with @jopt.transformation, "
            f"which declares its hyperparameters, got {factory!r}"
        )
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    if unknown := static - set(declared):
        raise ValueError(
            f"static_args {sorted(unknown)} are no hyperparameters of "
            f"{factory.__name__}; it has {sorted(declared)}"
        )

    @functools.wraps(factory)
    def inject(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = factory.__signature__.bind(*args, **kwargs)
        except TypeError:
            return factory(*args, **kwargs)  # which says what is wrong
        bound.apply_defaults()
        for name in set(declared) - static:
            value = bound.arguments[name]
            if isinstance(value, Real) and not isinstance(value, bool):
                bound.arguments[name] = tunable(float(value))
        return factory(*bound.args, **bound.kwargs)

    return inject
