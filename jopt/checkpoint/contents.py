"""The contents of a checkpoint: arrays by name, and an index that describes them.

The names are ``params/…``, ``opt_state/…`` and ``rng/…``. The index is plain JSON: the
shape, dtype and checksum of every array, the schema of the optimizer state, the step,
and the user's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Sharding

from jopt import tree
from jopt.checkpoint import parameters
from jopt.checkpoint.checksum import checksum, checksums, digits
from jopt.checkpoint.index import VERSION, Index
from jopt.checkpoint.shardings import (
    as_global,
    replicated,
    sharding_of,
    state_shardings,
)
from jopt.core import tree_checks
from jopt.core.transformation import GradientTransformation
from jopt.state.migration import cast, check_match, without_match
from jopt.state.state_dict import load_state_dict, schema, state_dict
from jopt.tree.paths import by_name
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of


Arrays = dict[str, Any]
# Reads arrays by name, each onto its sharding, into memory that may be donated. None is
# the default device.
Read = Callable[[Mapping[str, Sharding | None]], Iterable[tuple[str, Any]]]


class Restored(NamedTuple):
    """The result of `restore`."""

    params: Any  # with the structure of the params argument
    opt_state: Any  # with the structure of tx.init(params); None without tx
    step: int | None  # as saved
    rng: Any  # the key or the dict of keys, as saved; None if there was none
    metadata: Any  # as saved


def pack(
    params: Any,
    opt_state: Any,
    tx: GradientTransformation | None,
    step: int | None,
    rng: Any,
    metadata: Any,
    value: float | None = None,
) -> tuple[Arrays, Index]:
    """Return the arrays and the index of a checkpoint."""
    check_json("metadata", metadata)
    _check_values(params=params, opt_state=opt_state, rng=rng)
    step = None if step is None else arguments.whole("step", step)
    keys, kinds = _keys(rng)
    arrays: Arrays = {}
    parts = {"params": state_dict(params), "opt_state": state_dict(opt_state)}
    for part, flat in (parts | {"rng": keys}).items():
        arrays |= {f"{part}/{name}": as_global(x) for name, x in flat.items()}
    for name in arrays:
        _check_name(name)
    sums = checksums(arrays)
    index = {
        "version": VERSION,
        "step": step,
        "value": value,
        "metadata": metadata,
        "rng": kinds,
        "schema": None if tx is None else schema(tx, opt_state),
        "entries": {
            name: {
                "shape": list(x.shape),
                "dtype": x.dtype.name,
                "checksum": sums[name],
            }
            for name, x in arrays.items()
        },
    }
    return arrays, index


def unpack(
    where: Any,
    index: Index,
    read: Read,
    params: Any,
    tx: GradientTransformation | None,
    *,
    strict: bool,
    migrate: Sequence[Any],
    shardings: Any = None,
    **options: Any,
) -> Restored:
    """Read a checkpoint into the structures of ``params`` and ``tx.init(params)``."""
    entries = index["entries"]
    named = tree.leaves_with_names(params)
    templates = by_name((f"params/{name}", leaf) for name, leaf in named)
    rules = tuple(migrate)
    of_state = _rules_of_state(rules, entries, templates, tx, params)
    sources, given = parameters.sources(where, entries, templates, rules, strict)
    where_to = {x.name: sharding_of(templates[name]) for name, x in sources.items()}
    # Entries that migration rules rename have no known sharding before they are loaded.
    default = replicated(map(sharding_of, templates.values()))
    in_state = {}
    if shardings is not None:
        in_state = by_name(tree.leaves_with_names(shardings))
    elif tx is not None and default is not None:
        in_state = state_shardings(tx, params)
    for name in entries:
        if name.startswith("opt_state/") and tx is not None:
            where_to[name] = in_state.get(name.removeprefix("opt_state/"), default)
        elif name.startswith("rng/"):
            where_to[name] = default
    arrays = checked(where, read(where_to), entries)

    for name, source in sources.items():
        given[name] = cast(name, arrays[source.name], source.casts)
    leaves = [parameters.as_leaf(x, given[name]) for name, x in templates.items()]
    restored = jax.tree.structure(params).unflatten(leaves)
    opt_state = None
    if tx is not None:
        opt_state = load_state_dict(
            tx,
            restored,
            _part("opt_state", arrays),
            schema=index["schema"],
            strict=strict,
            migrate=of_state,
            shardings=shardings,
            **options,
        )
    rng = _unpack_keys(_part("rng", arrays), index["rng"])
    return Restored(restored, opt_state, index["step"], rng, index["metadata"])


def _rules_of_state(
    rules: Sequence[Any],
    entries: Mapping[str, Any],
    templates: Mapping[str, Any],
    tx: GradientTransformation | None,
    params: Any,
) -> list[Any]:
    """Return the rules that match in the state.

    Raises:
      ValueError: A rule matches neither in the state nor in the parameters.
    """
    saved = list(_part("opt_state", entries))
    wanted = saved if tx is None else list(state_dict(jax.eval_shape(tx.init, params)))
    in_params = [name for name in entries if name.startswith("params/")]
    not_in_state = without_match(rules, saved, wanted)
    for i in sorted(not_in_state & without_match(rules, in_params, templates)):
        check_match(rules[i], [*in_params, *saved], [*templates, *wanted])
    return [rule for i, rule in enumerate(rules) if i not in not_in_state]


def _part(part: str, arrays: Mapping[str, Any]) -> Arrays:
    prefix = f"{part}/"
    return {
        n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)
    }


# Checks.


def check_json(path: str, value: Any) -> None:
    """Raise unless the value survives a round trip through JSON unchanged."""
    if isinstance(value, dict):
        for key, x in value.items():
            if type(key) is not str:
                raise TypeError(f"{path} must have strings as keys, got {text_of(key)}")
            check_json(f"{path}[{text_of(key)}]", x)
    elif isinstance(value, list):
        for i, x in enumerate(value):
            check_json(f"{path}[{i}]", x)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(
            f"{path} must be plain JSON (dict, list, str, int, float, bool, None), "
            f"got {abbreviated(value)} of type {type(value).__name__}"
        )


def _check_values(**parts: Any) -> None:
    """Raise unless all arrays have values that can be written."""
    tree_checks.of_jax(**parts)
    for part, whole in parts.items():
        for path, leaf in tree.leaves_with_names(whole):
            name = f"{part}/{path}"
            if isinstance(leaf, Tracer):
                raise TypeError(
                    f"{name} has no value: save was called inside jit, or another "
                    "transformation of JAX. Return the parameters and the state from "
                    "the compiled function, and save them outside"
                )
            if isinstance(leaf, jax.Array) and leaf.is_deleted():
                raise ValueError(
                    f"{name} has been deleted, for example by a compiled step with "
                    "donate_argnums that took it. Save what that step returned, or "
                    "save before it"
                )


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name {name!r} is not valid Unicode, so no file can hold it: rename "
            "the parameter"
        ) from None


def checked(
    where: Any, arrays: Iterable[tuple[str, Any]], entries: Mapping[str, Any]
) -> Arrays:
    """Return the arrays; raise if a checksum is wrong."""
    found: Arrays = {}
    sums: Arrays = {}
    for name, x in arrays:  # an array is read while the sums of others are computed
        found[name], sums[name] = x, checksum(x)
    actual = digits(sums)
    wrong = [name for name in actual if actual[name] != entries[name]["checksum"]]
    if wrong:
        raise ValueError(
            f"the checkpoint {where} is damaged: the bits of {', '.join(wrong)} differ "
            "from those that were saved. Restore another checkpoint."
        )
    return found


# Random keys.


def _keys(rng: Any) -> tuple[Arrays, dict[str, str | None] | None]:
    """Return the integers and the kinds of one key, named "", or of a dict of keys."""
    if rng is None:
        return {}, None
    named = rng if isinstance(rng, Mapping) else {"": rng}
    kinds: dict[str, str | None] = {}
    numbers: Arrays = {}
    for name, key in named.items():
        if not isinstance(name, str) or not hasattr(key, "dtype"):
            raise TypeError(
                "rng must be a random key or a dict of them by name, got "
                f"{abbreviated(rng)}"
            )
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        kinds[name] = str(jax.random.key_impl(key)) if typed else None
        numbers[name] = jax.random.key_data(key) if typed else jnp.asarray(key)
    return numbers, kinds


def _unpack_keys(numbers: Arrays, kinds: Mapping[str, str | None] | None) -> Any:
    keys = {
        name: numbers[name]
        if kind is None
        else jax.random.wrap_key_data(numbers[name], impl=kind)
        for name, kind in (kinds or {}).items()
    }
    return keys.get("", keys or None)
