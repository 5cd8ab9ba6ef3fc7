"""Rules for what an old checkpoint has other than the recipe of today, as data.

A pattern is a regular expression that is searched for in an entry's path, as in a mask:
``"^scale_by_adam/nu/"`` is a whole slot, ``"/head/"`` one layer in every slot. Anchor
it: ``"nu"`` is also found in the slots of a parameter that is called ``menu``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jopt.core import masks
from jopt.values.arguments import abbreviated


@dataclasses.dataclass(frozen=True)
class Rename:
    """Entries get another name, as ``re.sub(old, new, path)`` says.

    Args:
      old: A regular expression; ``"^"`` puts something in front.
      new: What stands in its place; ``\\1`` is the first group of ``old``.

    >>> import jopt
    >>> field = jopt.Rename("^scale_by_adam/m/", "scale_by_adam/mu/")
    >>> layer = jopt.Rename("/conv(?=/|$)", "/stem")  # in every slot
    >>> # A wrapper around it all; what has it already, a newer checkpoint, stays.
    >>> wrapper = jopt.Rename("^(?!inner_state/)", "inner_state/")
    """

    old: str
    new: str

    def __post_init__(self) -> None:
        _check_pattern(self, self.old)
        if not isinstance(self.new, str):
            raise TypeError(f"new must be a text, got new={self.new!r}")


@dataclasses.dataclass(frozen=True)
class Drop:
    """Entries of the checkpoint that are not used.

    Args:
      pattern: A regular expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_pattern(self, self.pattern)


@dataclasses.dataclass(frozen=True)
class Reset:
    """Entries of the state that start from ``init``, whatever the checkpoint has.

    As long as the rule is given they do so each time; for what is new only, and is in
    the next checkpoint, ``strict=False`` of `load_state_dict` does it once.

    Args:
      pattern: A regular expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_pattern(self, self.pattern)


@dataclasses.dataclass(frozen=True)
class Cast:
    """Entries that are stored in another dtype from now on; they are rounded to it.

    ``Cast("", "float32")`` is for all of a checkpoint that was written under x64.

    Args:
      pattern: A regular expression.
      dtype: The new one. Only entries of its kind (floating, complex or integer) are
        cast.
    """

    pattern: str
    dtype: DTypeLike

    def __post_init__(self) -> None:
        _check_pattern(self, self.pattern)
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))


Rule = Rename | Drop | Reset | Cast


def _check_pattern(rule: Any, pattern: Any) -> None:
    kind = type(rule).__name__
    if not isinstance(pattern, str):
        raise TypeError(f"{kind}: a pattern is a text, got {pattern!r}")
    masks.expression(pattern)


def migrated(
    flat: Mapping[str, Any], rules: Sequence[Rule], wanted: Iterable[str]
) -> tuple[dict[str, Any], set[str]]:
    """The checkpoint after all rules, one after the other.

    Args:
      flat: The checkpoint's entries by path.
      rules: See this module.
      wanted: The paths of the state.

    Returns:
      The entries, and those paths of the state that are to start from ``init``.

    Raises:
      ValueError: Two entries get the same name, a `Reset` is for nothing in the state,
        or a number is too large for a `Cast`.
      TypeError: Something else than rules.
    """
    flat, fresh = dict(flat), set()
    for rule in rules:
        match rule:
            case Rename(old, new):
                flat = _renamed(flat, rule, re.compile(old), new)
            case Drop(pattern):
                flat = {n: x for n, x in flat.items() if not re.search(pattern, n)}
            case Cast(pattern, dtype):
                flat = {
                    n: _cast(rule, n, x, dtype) if re.search(pattern, n) else x
                    for n, x in flat.items()
                }
            case Reset(pattern):
                chosen = {n for n in wanted if re.search(pattern, n)}
                if not chosen:
                    raise ValueError(
                        f"{rule} is for nothing in the state, which has "
                        f"{', '.join(map(repr, wanted))}"
                    )
                fresh |= chosen
                flat = {n: x for n, x in flat.items() if not re.search(pattern, n)}
            case _:
                raise TypeError(
                    "migrate is a sequence of the rules jopt.Rename, jopt.Drop, "
                    f"jopt.Reset and jopt.Cast, got {abbreviated(rule)} in it"
                )
    return flat, fresh


def _renamed(
    flat: Mapping[str, Any], rule: Rename, old: re.Pattern[str], new: str
) -> dict[str, Any]:
    result, source = {}, {}
    for name, value in flat.items():
        other = old.sub(new, name)
        if other in result:
            raise ValueError(
                f"{rule} makes one name of two entries of the checkpoint: "
                f"{source[other]!r} and {name!r} are both {other!r} then"
            )
        result[other], source[other] = value, name
    return result


def _cast(rule: Cast, name: str, value: Any, dtype: Any) -> Any:
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    if value.dtype == dtype or _kind(value.dtype) != _kind(dtype):
        return value
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


def _kind(dtype: Any) -> Any:
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), dtype)


def likely(missing: Sequence[str], unexpected: Sequence[str]) -> Rename | None:
    """The one `Rename` that gives all missing entries, or uses all unexpected ones.

    >>> likely(["inner_state/mu/w", "inner_state/nu/w"], ["mu/w", "nu/w"])
    Rename(old='^(?!inner_state/)', new='inner_state/')
    """
    if not missing or not unexpected:
        return None
    pairs = [(name, missing[0]) for name in unexpected[:64]]
    # A wrapper has entries of its own too, so that the first may be none of these.
    pairs += [(unexpected[0], x) for x in missing if x.endswith(f"/{unexpected[0]}")]
    pairs += [(x, missing[0]) for x in unexpected if x.endswith(f"/{missing[0]}")]
    for theirs, ours in pairs:
        old, new = _without_common_end(theirs, ours)
        begin = re.escape(old) or f"(?!{re.escape(new)})"
        rule = Rename(f"^{begin}", new.replace("\\", r"\\"))
        found = {re.sub(rule.old, rule.new, x) for x in unexpected}
        if found == set(missing) or (
            (not old and found < set(missing)) or (not new and found > set(missing))
        ):
            return rule
    return None


def _without_common_end(path: str, other: str) -> tuple[str, str]:
    ours, theirs = path.split("/"), other.split("/")
    while ours and theirs and ours[-1] == theirs[-1]:
        del ours[-1], theirs[-1]
    return "".join(f"{x}/" for x in ours), "".join(f"{x}/" for x in theirs)
