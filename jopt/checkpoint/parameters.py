"""Parameters of a checkpoint that are not those of today: where each comes from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jopt.state.migration import (
    PARAMS,
    Cast,
    Rename,
    Reset,
    Rule,
    Source,
    Type,
    likely,
    migrated_params,
)


def sources(
    where: Any,
    entries: Mapping[str, Any],
    templates: Mapping[str, Any],
    rules: Sequence[Rule],
    strict: bool,
) -> tuple[dict[str, Source], dict[str, jax.Array]]:
    """Find out where each parameter comes from, before any array is read.

    Args:
      where: The checkpoint, for errors.
      entries: What the checkpoint's index says about its arrays.
      templates: The parameters that `restore` was given, by ``params/…``.
      rules: The rules of ``migrate``, in the order of application.
      strict: Whether every parameter must be in both.

    Returns:
      The sources of the parameters that are in the checkpoint, and the others as they
      were given, in new buffers.

    Raises:
      ValueError: Parameters do not fit; the message lists all of them.
    """
    saved = {
        name: (tuple(entry["shape"]), entry["dtype"])
        for name, entry in entries.items()
        if name.startswith(PARAMS)
    }
    wanted = {name: _raw_type(leaf) for name, leaf in templates.items()}
    found, kept, types = migrated_params(saved, rules, wanted)
    missing = [name for name in wanted if name not in found and name not in kept]
    unexpected = sorted(found.keys() - wanted.keys())
    wrong = {
        name: types[name]
        for name in wanted
        if name in found and types[name] != wanted[name]
    }
    if wrong or (strict and (missing or unexpected)):
        raise _misfit(where, wanted, missing, unexpected, wrong, strict)
    if missing or unexpected:
        lines = [f"params and the checkpoint {where} differ:"]
        lines += [f"  not in the checkpoint, kept as given: {n!r}" for n in missing]
        lines += [f"  only in the checkpoint, ignored: {n!r}" for n in unexpected]
        warnings.warn("\n".join(lines), UserWarning, stacklevel=4)
    given = {
        name: _values(name, templates[name]) for name in wanted if name not in found
    }
    return {name: found[name] for name in wanted if name in found}, given


def as_leaf(like: Any, x: jax.Array) -> jax.Array:
    """Return the array, as a random key if ``like`` is one."""
    if not jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return x
    impl = (
        jax.random.key_impl(like) if isinstance(like, jax.Array) else like.dtype._impl
    )
    return jax.random.wrap_key_data(x, impl=impl)


def _values(name: str, leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise ValueError(
            f"{name} does not come from the checkpoint, so the params argument must "
            f"have its values, got {leaf}"
        )
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return jnp.copy(leaf)


def _raw_type(leaf: Any) -> Type:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return tuple(leaf.shape), leaf.dtype.name


def _misfit(
    where: Any,
    wanted: Mapping[str, Type],
    missing: list[str],
    unexpected: list[str],
    wrong: Mapping[str, Type],
    strict: bool,
) -> ValueError:
    lines = [f"params do not fit the checkpoint {where}:"]
    if strict:
        lines += [f"  {name} is only in the checkpoint" for name in unexpected]
        lines += [f"  {name} is not in the checkpoint" for name in missing]
    lines += [
        f"  {name} is {_shown(wanted[name])}, was saved as {_shown(type_)}"
        for name, type_ in wrong.items()
    ]
    rules: list[Rule] = []
    for name, (shape, _) in wrong.items():
        if shape == wanted[name][0]:
            rules.append(Cast(f"^{re.escape(name)}$", wanted[name][1]))
        else:
            rules.append(Reset(_pattern(name, wanted)))
    if strict and (rule := likely(missing, unexpected)):
        rules.insert(0, _for_slots_too(rule, wanted, missing, unexpected))
    if rules:
        shown = ", ".join(map(_code, rules[:3])) + ", …" * (len(rules) > 3)
        lines.append(f"Did you mean migrate=[{shown}]?")
    if any(isinstance(rule, Reset) for rule in rules):
        lines.append("With jopt.Reset a parameter keeps the value it has in params.")
    if strict and (missing or unexpected):
        lines.append(
            "With strict=False, missing parameters keep the values they have in params "
            "and unexpected ones are ignored. To do so for single ones, use "
            "jopt.Rename, jopt.Reset and jopt.Drop in migrate."
        )
    return ValueError("\n".join(lines))


def _shown(type_: Type) -> str:
    return f"{type_[1]}{list(type_[0])}"


def _code(rule: Rule) -> str:
    if isinstance(rule, Cast):
        return f"jopt.Cast({rule.pattern!r}, {jnp.dtype(rule.dtype).name!r})"
    return f"jopt.{rule}"


def _pattern(name: str, names: Mapping[str, Any]) -> str:
    """Return the pattern of one parameter, and of its slots in the state if it can."""
    end = name.removeprefix("params")
    if sum(other.endswith(end) for other in names) == 1:
        return f"{re.escape(end)}$"
    return f"^{re.escape(name)}$"


def _for_slots_too(
    rule: Rename, wanted: Mapping[str, Any], missing: list[str], unexpected: list[str]
) -> Rename:
    """Return the rule for the slots of the parameters too, if there is one."""
    old, new = rule.old.removeprefix("^params"), rule.new.removeprefix("params")
    if old == rule.old or new == rule.new:
        return rule
    renamed = {re.sub(old, new, name) for name in unexpected}
    others = wanted.keys() - set(missing)
    if renamed == set(missing) and not any(re.search(old, name) for name in others):
        return Rename(old, new)
    return rule
