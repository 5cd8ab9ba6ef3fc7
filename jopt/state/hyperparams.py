"""Read and set the hyperparameters of a state by name.

A name may stand for several numbers: ``"learning_rate"`` for those of all groups if
they agree, ``"head/learning_rate"`` for those of one, ``"*/learning_rate"`` for all.
"""

from __future__ import annotations

import collections
import fnmatch
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.core.changing_numbers import extremes
from jopt.tree.paths import by_name
from jopt.tree.state_fields import is_namedtuple, slots_of
from jopt.tree.variables import sees_arrays
from jopt.values import arguments
from jopt.values.arguments import abbreviated, suggestion, text_of
from jopt.values.numbers import number
from jopt.values.recipe import Recorded


RATE = "learning_rate"
EFFECTIVE = "effective_learning_rate"
SCALE = "scale"
# Fields that multiply the updates, by the class of the state.
MULTIPLES = {"ReduceOnPlateauState": SCALE, "ScaleState": "step_size"}


@sees_arrays()
def hyperparams(state: Any) -> dict[str, jax.Array]:
    """Return the hyperparameters that a state holds, by name.

    The path replaces a name that occurs more than once. The result can also be read by
    names that it does not list, if all numbers that they stand for agree:

        "learning_rate"        every learning rate
        "head/learning_rate"   every learning rate in ``head``, a group or a member
        "*/learning_rate"      every path that matches a pattern of the shell

    If other numbers of the state multiply the steps, ``effective_learning_rate`` is the
    product of the learning rate and all of them: the ``scale`` of `reduce_on_plateau`,
    and the ``step_size`` of `scale` if it is a schedule or tunable. The state does not
    say where these stand in the chain. So a `scale` in front of an optimizer that
    divides by the size of the gradients, as Adam does, is a factor too, although it
    changes no step there. A constant ``scale(0.5)`` is not in the state, and no factor.

    Args:
      state: The state of any transformation, however nested.

    Returns:
      Scalars: the tunable numbers, the last values of the scheduled ones, the learning
      rate, and what `reduce_on_plateau` multiplies it by. Works inside jit, where a
      name for several numbers that may differ gives NaN if they do.

    Raises:
      TypeError: ``state`` is not a state, but for example the parameters.
      KeyError: When the result is read: nothing has this name, or the numbers that it
        stands for differ. The message lists them.

    >>> import jopt
    >>> state = jopt.sgd(jopt.exponential_decay(0.1, 10, 0.5)).init(jnp.ones(3))
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.1, dtype=float32)}
    >>> tx = jopt.chain(jopt.sgd(0.1), jopt.reduce_on_plateau(0.5, patience=1))
    >>> state = tx.init(jnp.ones(3))
    >>> for loss in [1.0, 1.0]:
    ...     _, state = tx.update(jnp.ones(3), state, value=loss)
    >>> {name: round(float(x), 3) for name, x in jopt.hyperparams(state).items()}
    {'scale': 0.5, 'learning_rate': 0.1, 'effective_learning_rate': 0.05}
    """
    return numbers_of(state)


def numbers_of(state: Any) -> Numbers:
    """The result of `hyperparams` with its own type."""
    entries = _entries(state)
    values = {name: entry.value for name, entry in entries.items()}
    return Numbers(values, {name: entry.path for name, entry in entries.items()})


@jax.tree_util.register_pytree_with_keys_class
class Numbers(dict[str, jax.Array]):
    """Numbers of a state by name, to be read by names for several that agree, too.

    Args:
      numbers: The numbers by name.
      paths: The path of each number by the same names.
    """

    def __init__(self, numbers: Mapping[str, jax.Array], paths: Mapping[str, str]):
        super().__init__(numbers)
        self.paths = paths

    def __missing__(self, name: str) -> jax.Array:
        chosen = selected(name, self.paths)
        if not chosen:
            raise KeyError(
                f"the state has no number {name!r}.{_suggestion(name, self.paths)} It "
                f"has {sorted(self)}"
            )
        return common(name, {x: self[x] for x in chosen})

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name) or not isinstance(name, str):
            return super().__contains__(name)
        try:
            self[name]
        except KeyError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """The number of this name, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """The numbers sorted by name, as those of a dict, and all names and paths."""
        names = sorted(self)
        numbers = tuple((jax.tree_util.DictKey(name), self[name]) for name in names)
        return numbers, tuple((name, self.paths[name]) for name in names)

    @classmethod
    def tree_unflatten(cls, paths: Any, values: Any) -> Numbers:
        """The reverse."""
        names = (name for name, _ in paths)
        return cls(dict(zip(names, values, strict=True)), dict(paths))


def selected(name: str, paths: Mapping[str, str]) -> list[str]:
    """Return the names of the numbers that a name stands for.

    Args:
      name: A name or a path, which stand for one number; a pattern; or the end of a
        path with some of the steps before it.
      paths: The path of each number by name.
    """
    exact = [x for x, path in paths.items() if name in (x, path)]
    if exact:
        return exact
    if _is_pattern(name):
        # "*/count" is for a count at the top too.
        return [
            x
            for x, path in paths.items()
            if any(fnmatch.fnmatchcase(y, name) for y in (path, f"/{path}"))
        ]
    *wanted, last = name.split("/")
    chosen = []
    for x, path in paths.items():
        *steps, field = path.split("/")
        rest = iter(steps)
        if field == last and all(step in rest for step in wanted):
            chosen.append(x)
    return chosen


def _suggestion(name: str, paths: Mapping[str, str]) -> str:
    fields = {path.rpartition("/")[2] for path in paths.values()}
    return suggestion(name, [*paths, *sorted(fields)])


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def common(name: str, values: Mapping[str, Any], unequal: float = math.nan) -> Any:
    """Return the one value of several numbers.

    Args:
      name: What the numbers are, for errors.
      values: The numbers by name, at least one.
      unequal: The value inside jit if they differ.

    Raises:
      KeyError: They differ.
    """
    first, *others = values.values()
    if not others:
        return first
    same_shape = all(jnp.shape(x) == jnp.shape(first) for x in others)
    if same_shape and any(isinstance(x, Tracer) for x in values.values()):
        equal = jnp.stack([x == first for x in others]).all(0)
        return jnp.where(equal, first, unequal)
    if not same_shape or any(np.any(np.not_equal(x, first)) for x in others):
        listed = ", ".join(f"{x} = {_shown(v)}" for x, v in values.items())
        raise KeyError(f"{name!r} is ambiguous, because these differ: {listed}")
    return first


def _shown(value: Any) -> str:
    scalar = isinstance(value, jax.Array | np.ndarray) and value.shape == ()
    return f"{float(value):.4g}" if scalar else abbreviated(value)


class _Entry(NamedTuple):
    """One number of a state."""

    keys: tuple[Any, ...]  # path of the state that holds it
    name: str
    value: jax.Array

    @property
    def path(self) -> str:
        holder = tree.path_name(self.keys)
        return f"{holder}/{self.name}" if holder else self.name


def _entries(state: Any) -> dict[str, _Entry]:
    """Return the numbers by name; an ambiguous name is replaced by its path."""
    if isinstance(state, Recorded):
        raise TypeError(
            "expected a state, as returned by init or update, got the transformation "
            f"{text_of(state)}"
        )
    entries, multiples = [], []
    found = list(holders(state, "hyperparameters", ()))
    for keys, holder in found:
        fields = getattr(type(holder), "hyperparameters", ())
        multiple = MULTIPLES.get(type(holder).__name__, "")
        if multiple in holder._fields and multiple not in fields:
            fields = (multiple, *fields)
        for name in fields:
            entries.append(_Entry(keys, name, getattr(holder, name)))
            if name == multiple:
                multiples.append(entries[-1])
    # A state has NamedTuples, or no arrays at all.
    if not found and jax.tree.leaves(state):
        raise TypeError(
            "expected a state, as returned by init or update, but these are arrays "
            f"without the state of a transformation: {abbreviated(state)}"
        )
    entries += _effective_rates(entries, multiples)
    by_name((x.path, x.value) for x in entries)  # raise if two are the same
    names = collections.Counter(entry.name for entry in entries)
    return {(x.name if names[x.name] == 1 else x.path): x for x in entries}


def _effective_rates(
    entries: list[_Entry], multiples: list[_Entry]
) -> Iterator[_Entry]:
    """Yield the product of each learning rate and the multiples beside it.

    A multiple is in the same chain if the learning rate is in the dict that has it.
    """
    for rate in entries:
        if rate.name != RATE:
            continue
        factors = [
            multiple.value
            for multiple in multiples
            if rate.keys[: len(multiple.keys) - 1] == multiple.keys[:-1]
        ]
        if factors:
            yield _Entry(rate.keys, EFFECTIVE, math.prod(factors, start=rate.value))


def holders(
    state: Any, attribute: str, default: tuple[str, ...] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield ``(path, state)`` of each NamedTuple whose class lists such fields.

    Args:
      state: The state of any transformation, however nested.
      attribute: The class attribute that lists the fields: ``"hyperparameters"``,
        ``"metrics"`` or ``"step_counts"``.
      default: The fields of a class without the attribute; None leaves it out.

    Yields:
      Outer states before the states inside them.
    """

    for path, x in jax.tree_util.tree_leaves_with_path(state, is_leaf=is_namedtuple):
        if is_namedtuple(x):
            if isinstance(getattr(type(x), attribute, default), tuple):
                yield path, x
            slots = slots_of(x)
            for name, field in zip(x._fields, x, strict=True):
                if name in slots:
                    continue
                field_path = (*path, jax.tree_util.GetAttrKey(name))
                for inner_path, inner in holders(field, attribute, default):
                    yield (*field_path, *inner_path), inner


def _with_numbers(state: Any, numbers: Mapping[Any, Any], path: Any = ()) -> Any:
    """Return the state with other numbers, by the path of their holder and name."""

    def replaced(keys, x):
        if not is_namedtuple(x):
            return x
        keys, slots, fields = (*path, *keys), slots_of(x), {}
        for name, field in zip(x._fields, x, strict=True):
            if (keys, name) in numbers:
                fields[name] = numbers[keys, name]
            elif name not in slots:
                key = jax.tree_util.GetAttrKey(name)
                fields[name] = _with_numbers(field, numbers, (*keys, key))
        return x._replace(**fields)

    return jax.tree_util.tree_map_with_path(replaced, state, is_leaf=is_namedtuple)


@sees_arrays("state")
def set_hyperparams(tx: Any, state: Any, /, **values: float | jax.Array) -> Any:
    """Return the state with new values of some hyperparameters, without a retrace.

    Args:
      tx: The transformation that the state belongs to.
      state: Its state.
      **values: New numbers by name. A name as for `hyperparams` may stand for several
        numbers, which are all set: ``learning_rate=1e-4`` if those of all groups agree,
        ``**{"head/learning_rate": 1e-4}``, and ``**{"*/learning_rate": 1e-4}`` in any
        case.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      KeyError: No hyperparameter has this name, or those that it stands for differ, or
        their values are not known, inside jit.
      ValueError: The hyperparameter is scheduled, so the next step would overwrite the
        new value.

    >>> import jopt
    >>> tx = jopt.adam(1e-3)
    >>> state = jopt.set_hyperparams(tx, tx.init(jnp.ones(3)), learning_rate=3e-4)
    >>> jopt.hyperparams(state)
    {'learning_rate': Array(0.0003, dtype=float32)}
    """
    entries = _entries(state)
    changing_numbers = dict(changing_numbers_of(tx))
    changed = {}
    for name, value in values.items():
        if name.rpartition("/")[2] == EFFECTIVE:
            raise ValueError(
                f"{name!r} is a product and cannot be set. Set one of its factors: "
                f"{RATE!r}, or the number that multiplies it, in {sorted(entries)}"
            )
        for entry in _to_set(name, entries):
            holder = tree.path_name(entry.keys)
            changing = changing_numbers.get(f"{holder}/" if holder else "")
            if changing is not None:
                changing.check(entry.name, value)
            if entry.name == SCALE and SCALE not in getattr(changing, "names", ()):
                # That of reduce_on_plateau, which has no argument for it.
                for x in extremes(SCALE, value):
                    arguments.fraction(scale=x)
            changed[entry.keys, entry.name] = _like(name, value, entry.value)
    return _with_numbers(state, changed)


def _to_set(name: str, entries: Mapping[str, _Entry]) -> list[_Entry]:
    """Return the numbers that a name stands for, which have to agree."""
    paths = {x: entry.path for x, entry in entries.items() if entry.name != EFFECTIVE}
    chosen = {x: entries[x].value for x in selected(name, paths)}
    if not chosen:
        raise KeyError(
            f"the state has no hyperparameter {name!r}.{_suggestion(name, paths)} It "
            f"has {sorted(paths)}. To keep a number in the state, write "
            "jopt.tunable(number)."
        )
    if len(chosen) > 1 and not _is_pattern(name):
        pattern = f"*/{entries[next(iter(chosen))].name}"
        how = f"Use one of these names, or **{{{pattern!r}: …}} for all of them"
        if any(isinstance(x, Tracer) for x in chosen.values()):
            raise KeyError(
                f"{name!r} is ambiguous: {sorted(chosen)} may differ, which is not "
                f"known inside jit. {how}"
            )
        try:
            common(name, chosen)
        except KeyError as error:
            raise KeyError(f"{error.args[0]}. {how}") from None
    return [entries[x] for x in chosen]


def _like(name: str, value: Any, old: Any) -> Any:
    if not isinstance(value, jax.Array | np.ndarray):
        value = number(name, value, "a number")
    elif value.shape not in ((), old.shape) or not arguments.is_real(value.dtype):
        raise TypeError(
            f"{name} must be a number like the state's {old.dtype}{list(old.shape)}, "
            f"got {name}={abbreviated(value)}"
        )
    value = jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
    concrete = not isinstance(old, Tracer)
    # A new sharding would compile the step again, so the value goes where the old was.
    if concrete and getattr(old, "committed", False):
        return jax.device_put(value, old.sharding)
    return value


def changing_numbers_of(tx: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(prefix of the state's paths, ChangingNumbers)`` of every member."""
    changing = getattr(tx, "changing", None)
    if changing is not None:
        yield prefix, changing
    for name, inner in getattr(tx, "children", {}).items():
        yield from changing_numbers_of(inner, f"{prefix}{name}/")
