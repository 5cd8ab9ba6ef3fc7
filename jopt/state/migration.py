"""Rules that adapt an old checkpoint to the current recipe.

A pattern is a regular expression that is searched for in an entry's path, as in a mask:
``"^scale_by_adam/nu/"`` matches a whole slot, ``"/head/"`` one layer in every slot.
Anchor the pattern: ``"nu"`` also matches the slots of a parameter named ``menu``.

When a checkpoint with parameters is restored, the rules see these as ``params/…``, so
``"/head/"`` matches the layer's parameters too. `Reset` and `Cast` change only
parameters that do not fit otherwise, unless the pattern begins with ``^params/``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jopt.core import masks
from jopt.core.chain import Chain
from jopt.core.slots import Slot
from jopt.core.transformation import GradientTransformation
from jopt.state.recipe_differences import inside
from jopt.state.recoding import recoded
from jopt.storage import formats
from jopt.values.arguments import abbreviated, text_of


@dataclasses.dataclass(frozen=True)
class Rename:
    """Rename entries by ``re.sub(old, new, path)``.

    A parameter stays as it is where its new path would not begin with ``params/``. A
    rule that matches nothing is an error, unless the new names are there already.

    Args:
      old: A regular expression; ``"^"`` prepends ``new`` to every path.
      new: The replacement; ``\\1`` is the first group of ``old``.

    >>> import jopt
    >>> field = jopt.Rename("^scale_by_adam/m/", "scale_by_adam/mu/")
    >>> layer = jopt.Rename("/conv(?=/|$)", "/stem")  # in every slot
    >>> # A wrapper around everything; a newer checkpoint, which has it, is unchanged.
    >>> wrapper = jopt.Rename("^(?!inner_state/)", "inner_state/")
    """

    old: str
    new: str

    def __post_init__(self) -> None:
        _check_pattern(self, self.old)
        if not isinstance(self.new, str):
            raise TypeError(f"new must be a string, got new={text_of(self.new)}")


@dataclasses.dataclass(frozen=True)
class Drop:
    """Ignore entries of the checkpoint.

    Args:
      pattern: A regular expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_pattern(self, self.pattern)


@dataclasses.dataclass(frozen=True)
class Reset:
    """Start entries of the state from ``init``, whatever the checkpoint holds.

    Parameters that do not fit keep the values that `jopt.checkpoint.restore` is given,
    as do all that match a pattern that begins with ``^params/``.

    The rule applies every time a checkpoint is loaded with it. To initialize only the
    entries that a checkpoint does not have yet, use ``strict=False`` of
    `load_state_dict`.

    Args:
      pattern: A regular expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_pattern(self, self.pattern)


@dataclasses.dataclass(frozen=True)
class Cast:
    """Round entries to another storage dtype.

    ``Cast("^scale_by_adam/nu/", "int8")`` encodes a slot that now has this format, and
    a cast to a dtype decodes one that has none any more.

    Parameters are rounded where they do not have the dtype that is asked for, and all
    that match a pattern that begins with ``^params/``. A rule that matches nothing is
    an error.

    ``Cast("", "float32")`` converts a whole checkpoint that was written under x64.

    Args:
      pattern: A regular expression.
      dtype: The new dtype, or the name of a format. Only entries of the kind of a dtype
        (floating, complex or integer) are cast.
    """

    pattern: str
    dtype: DTypeLike

    @property
    def name(self) -> str:
        """The name of the dtype or format."""
        return str(getattr(self.dtype, "name", self.dtype))

    def __post_init__(self) -> None:
        _check_pattern(self, self.pattern)
        if self.dtype == "bfloat16_sr":
            object.__setattr__(self, "dtype", "bfloat16")
        if self.dtype not in formats.BLOCKS:
            object.__setattr__(self, "dtype", jnp.dtype(self.dtype))


Rule = Rename | Drop | Reset | Cast
Type = tuple[tuple[int, ...], str]  # a shape and the name of a dtype


PARAMS = "params/"  # what the paths of parameters begin with


def _check_pattern(rule: Any, pattern: Any) -> None:
    kind = type(rule).__name__
    if not isinstance(pattern, str):
        raise TypeError(f"{kind}: the pattern must be a string, got {text_of(pattern)}")
    masks.expression(pattern)


def migrated(
    flat: Mapping[str, Any],
    rules: Sequence[Rule],
    paths: Iterable[str],
    slots: Mapping[str, Slot],
) -> tuple[dict[str, Any], set[str]]:
    """Apply all rules to a checkpoint, one after the other.

    Args:
      flat: The checkpoint's entries by path.
      rules: `Rename`, `Drop`, `Cast` and `Reset`, in the order of application.
      paths: The paths of the state.
      slots: Its slots; see `recoding.slots_by_path`.

    Returns:
      The entries, and the paths of the state that start from ``init``.

    Raises:
      ValueError: A `Rename` gives two entries the same name, or a `Cast` is to a dtype
        that cannot hold a number.
    """
    flat, fresh = dict(flat), set()
    for rule in rules:
        match rule:
            case Rename(old, new):
                flat = _renamed(flat, rule, re.compile(old), new)
            case Drop(pattern):
                flat = {n: x for n, x in flat.items() if not re.search(pattern, n)}
            case Cast(pattern, dtype):
                flat = recoded(flat, pattern, rule.name, slots, paths)
                flat = {
                    n: _cast(rule, n, x, dtype) if re.search(pattern, n) else x
                    for n, x in flat.items()
                }
            case Reset(pattern):
                fresh |= {n for n in paths if re.search(pattern, n)}
                flat = {n: x for n, x in flat.items() if not re.search(pattern, n)}
    return flat, fresh


def without_match(
    rules: Sequence[Rule], names: Iterable[str], wanted: Iterable[str]
) -> set[int]:
    """Return the positions of the rules that match nothing.

    Args:
      rules: The rules in the order of application.
      names: The paths in the checkpoint.
      wanted: The paths to be restored, which a `Reset` is for.

    Raises:
      TypeError: ``rules`` contains something other than rules.
    """
    current, result = dict.fromkeys(names), set()
    for i, rule in enumerate(rules):
        if not isinstance(rule, Rule):
            raise TypeError(
                "migrate must be a sequence of the rules jopt.Rename, jopt.Drop, "
                f"jopt.Reset and jopt.Cast, got {abbreviated(rule)} in it"
            )
        pattern = rule.old if isinstance(rule, Rename) else rule.pattern
        searched = wanted if isinstance(rule, Reset) else current
        if not any(re.search(pattern, name) for name in searched):
            result.add(i)
        elif isinstance(rule, Rename):
            current = _renamed(current, rule, re.compile(pattern), rule.new)
        elif not isinstance(rule, Cast):
            current = {n: None for n in current if not re.search(pattern, n)}
    return result


def check_match(rule: Rule, names: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise, for a rule that matches nothing, unless that is as it should be.

    Args:
      rule: The rule.
      names: The paths in the checkpoint.
      wanted: The paths to be restored.

    Raises:
      ValueError: The message shows paths that are similar to the pattern.
    """
    if isinstance(rule, Drop):
        return
    if isinstance(rule, Rename):
        new = re.split(r"\\(?:\d+|g<\w+>)", rule.new)
        if any(all(part in name for part in new) for name in names):
            return  # a newer checkpoint, which has the new names
    pattern = rule.old if isinstance(rule, Rename) else rule.pattern
    where, searched = "the checkpoint", list(names)
    if isinstance(rule, Reset):
        where, searched = "the state", list(wanted)
        if any(name.startswith(PARAMS) for name in searched):
            where = "the state and the parameters"
    plain = re.sub(r"\\(.)|[$^()?*+|]", r"\1", pattern)
    close = difflib.get_close_matches(plain, searched, n=3, cutoff=0) or ["no entries"]
    raise ValueError(
        f"{rule} matches nothing in {where}. The most similar paths there are "
        f"{', '.join(map(repr, close))}"
    )


def _renamed(
    flat: Mapping[str, Any], rule: Rename, old: re.Pattern[str], new: str
) -> dict[str, Any]:
    result, old_names = {}, {}
    for name, value in flat.items():
        new_name = old.sub(new, name)
        if name.startswith(PARAMS) and not new_name.startswith(PARAMS):
            new_name = name  # a rule for the state, such as for a wrapper around it
        if new_name in result:
            raise ValueError(
                f"{rule} gives two entries of the checkpoint the same name: "
                f"{old_names[new_name]!r} and {name!r} both become {new_name!r}"
            )
        result[new_name], old_names[new_name] = value, name
    return result


def _cast(rule: Cast, name: str, value: Any, dtype: Any) -> Any:
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    if dtype in formats.BLOCKS or _is_code(value.dtype):
        return value
    if value.dtype == dtype or _kind(value.dtype) != _kind(dtype):
        return value
    # With jnp, a JAX array stays on its devices.
    numpy: Any = jnp if isinstance(value, jax.Array) else np
    with np.errstate(over="ignore"):
        new = value.astype(dtype)
    if jnp.issubdtype(dtype, jnp.inexact):
        fits = numpy.isfinite(new) == numpy.isfinite(value)
    else:
        fits = new == value
    if not numpy.all(fits):
        raise ValueError(f"{rule}: {name!r} has numbers that {dtype} cannot hold")
    return new


class Source(NamedTuple):
    """Where a parameter comes from."""

    name: str  # in the checkpoint
    casts: list[Cast]  # to apply to it


def migrated_params(
    saved: Mapping[str, Type], rules: Sequence[Rule], wanted: Mapping[str, Type]
) -> tuple[dict[str, Source], set[str], dict[str, Type]]:
    """Find out, before any array is read, where each parameter comes from.

    Args:
      saved: Shapes and dtypes of the parameters in the checkpoint.
      rules: The rules in the order of application.
      wanted: Shapes and dtypes of the parameters to be restored.

    Returns:
      The sources by the new names of what the checkpoint has, the names that keep the
      values they were given, and the shapes and dtypes that the sources give.

    Raises:
      ValueError: A `Rename` gives two entries the same name.
    """
    names = {name: name for name in saved}
    casts: dict[str, list[Cast]] = {name: [] for name in saved}
    resets = [rule.pattern for rule in rules if isinstance(rule, Reset)]
    for rule in rules:
        match rule:
            case Rename(old, new):
                names = _renamed(names, rule, re.compile(old), new)
            case Drop(pattern):
                names = {n: x for n, x in names.items() if not re.search(pattern, n)}
            case Cast(pattern, _):
                for name, old_name in names.items():
                    if re.search(pattern, name):
                        casts[old_name].append(rule)
    sources: dict[str, Source] = {}
    types: dict[str, Type] = {}
    for name, old_name in names.items():
        (shape, dtype), needed, done = saved[old_name], wanted.get(name), []
        for cast in casts[old_name]:
            fits = needed is None or needed[1] == dtype
            if cast.dtype in formats.BLOCKS:
                continue
            if _kind(jnp.dtype(dtype)) != _kind(cast.dtype):
                continue
            if cast.pattern.startswith(f"^{PARAMS}") or not fits:
                dtype = jnp.dtype(cast.dtype).name
                done.append(cast)
        sources[name], types[name] = Source(old_name, done), (shape, dtype)
    kept = set()
    for pattern in resets:
        always = pattern.startswith(f"^{PARAMS}")
        for name in {*wanted, *sources}:
            fits = types.get(name) == wanted.get(name)
            if re.search(pattern, name) and (always or not fits):
                sources.pop(name, None)
                kept |= {name} & wanted.keys()
    return sources, kept, types


def _is_code(dtype: Any) -> bool:
    """Whether an entry is a part of a slot in blocks, which only `recoded` changes."""
    return jax.dtypes.itemsize_bits(dtype) <= 8


def cast(name: str, value: Any, casts: Sequence[Cast]) -> Any:
    """Apply casts to an array; the name is for errors."""
    for rule in casts:
        value = _cast(rule, name, value, rule.dtype)
    return value


def _kind(dtype: Any) -> Any:
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), dtype)


def new_chains(
    tx: GradientTransformation, missing: Iterable[str], unexpected: Iterable[str]
) -> dict[str, str]:
    """Find the chains around states that a checkpoint has without a chain.

    Version 0.1.0 saved some optimizers this way: the state of ``ftrl(…)`` had the entry
    ``accumulator/kernel``, which is ``ftrl/accumulator/kernel`` now.

    Args:
      tx: The transformation.
      missing: Paths of its state that the checkpoint lacks.
      unexpected: Paths of the checkpoint that its state lacks.

    Returns:
      For each such chain the prefix of its paths, and the prefix with the name of the
      member that the entries belong to. Empty unless these names explain all missing
      and all unexpected entries.
    """
    missing, unexpected = set(missing), set(unexpected)
    prefixes: dict[str, str] = {}
    for prefix, inner in inside(tx):
        names = inner.children if isinstance(inner, Chain) else ()
        saved = {path for path in unexpected if path.startswith(prefix)}
        matches = [
            f"{prefix}{name}/"
            for name in names
            if saved
            and {_moved(path, {prefix: f"{prefix}{name}/"}) for path in saved}
            == {path for path in missing if path.startswith(f"{prefix}{name}/")}
        ]
        # Two equal members would both match, and no error would show a wrong guess.
        if len(matches) == 1:
            prefixes[prefix] = matches[0]
    renamed = {_moved(path, prefixes) for path in unexpected}
    return prefixes if renamed == missing else {}


def moved(
    entries: Mapping[str, Any], prefixes: Mapping[str, str], known: Container[str]
) -> dict[str, Any]:
    """Rename the entries that are not known by the prefixes of `new_chains`."""
    return {
        path if path in known else _moved(path, prefixes): x
        for path, x in entries.items()
    }


def _moved(path: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path


def likely(missing: Sequence[str], unexpected: Sequence[str]) -> Rename | None:
    """Return the `Rename` that explains all missing or all unexpected entries.

    >>> likely(["inner_state/mu/w", "inner_state/nu/w"], ["mu/w", "nu/w"])
    Rename(old='^(?!inner_state/)', new='inner_state/')
    """
    if not missing or not unexpected:
        return None
    # Each pair costs a pass over all unexpected entries, so only 64 are tried.
    pairs = [(name, missing[0]) for name in unexpected[:64]]
    # A wrapper also has entries of its own, so the first entry may be one of those.
    pairs += [(unexpected[0], x) for x in missing if x.endswith(f"/{unexpected[0]}")]
    pairs += [(x, missing[0]) for x in unexpected if x.endswith(f"/{missing[0]}")]
    for saved, needed in pairs:
        old, new = _without_common_end(saved, needed)
        begin = re.escape(old) or f"(?!{re.escape(new)})"
        rule = Rename(f"^{begin}", new.replace("\\", r"\\"))
        renamed = {re.sub(rule.old, rule.new, x) for x in unexpected}
        if renamed == set(missing) or (
            (not old and renamed < set(missing)) or (not new and renamed > set(missing))
        ):
            return rule
    return None


def _without_common_end(path: str, other: str) -> tuple[str, str]:
    parts, other_parts = path.split("/"), other.split("/")
    while parts and other_parts and parts[-1] == other_parts[-1]:
        del parts[-1], other_parts[-1]
    return "".join(f"{x}/" for x in parts), "".join(f"{x}/" for x in other_parts)
