"""What a checkpoint holds: arrays by name, and an index that describes them.

The names are ``params/…``, ``opt_state/…`` and ``rng/…``. The index is plain JSON: the
shape, dtype and checksum of every array, the schema of the optimizer state, the step,
and what the user adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from jopt import tree
from jopt.checkpoint.checksum import checksums, copied, digits
from jopt.checkpoint.shardings import (
    as_global,
    replicated,
    sharding_of,
    state_shardings,
)
from jopt.core.transformation import GradientTransformation
from jopt.state.state_dict import load_state_dict, schema, state_dict
from jopt.values import arguments
from jopt.values.arguments import abbreviated


Arrays = dict[str, Any]
Index = dict[str, Any]
# Reads the arrays of these names onto these shardings; None: as a NumPy array.
Read = Callable[[Mapping[str, Sharding | None]], Arrays]


class Restored(NamedTuple):
    """What `restore` gives back."""

    params: Any  # as the parameters that it was asked for
    opt_state: Any  # as tx.init's; None without tx
    step: int | None  # as saved
    rng: Any  # the key, or the dict of keys, as saved; or None
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
    """The arrays and the index of a checkpoint."""
    check_json("metadata", metadata)
    step = None if step is None else arguments.whole("step", step)
    keys, kinds = _keys(rng)
    arrays: Arrays = {}
    parts = {"params": state_dict(params), "opt_state": state_dict(opt_state)}
    for part, flat in (parts | {"rng": keys}).items():
        arrays |= {f"{part}/{name}": as_global(x) for name, x in flat.items()}
    sums = checksums(arrays)
    index = {
        "version": 1,
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
    **options: Any,
) -> Restored:
    """What a checkpoint holds, in the structures that are asked for."""
    entries = index["entries"]
    named = tree.leaves_with_names(params)
    wanted = {f"params/{name}": leaf for name, leaf in named}
    _check_params(where, wanted, entries)
    shardings = {name: sharding_of(leaf) for name, leaf in wanted.items()}
    elsewhere = replicated(shardings.values())
    of_state = {} if tx is None or elsewhere is None else state_shardings(tx, params)
    for name in entries:
        if name.startswith("opt_state/") and tx is not None:
            shardings[name] = of_state.get(name.removeprefix("opt_state/"), elsewhere)
        elif name.startswith("rng/"):
            shardings[name] = elsewhere
    arrays = _checked(where, read(shardings), entries)

    leaves = [_again(leaf, arrays[f"params/{name}"]) for name, leaf in named]
    restored = jax.tree.structure(params).unflatten(leaves)
    opt_state = None
    if tx is not None:
        flat = _part("opt_state", arrays)
        opt_state = load_state_dict(
            tx, restored, flat, schema=index["schema"], **options
        )
    rng = _keys_again(_part("rng", arrays), index["rng"])
    return Restored(restored, opt_state, index["step"], rng, index["metadata"])


def _again(like: Any, x: jax.Array) -> jax.Array:
    """An array, or the key that these are the numbers of."""
    if not jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return x
    impl = (
        jax.random.key_impl(like) if isinstance(like, jax.Array) else like.dtype._impl
    )
    return jax.random.wrap_key_data(x, impl=impl)


def _part(part: str, arrays: Arrays) -> Arrays:
    prefix = f"{part}/"
    return {
        n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)
    }


# Checks.


def check_json(path: str, value: Any) -> None:
    """Raise unless JSON gives the value back as it is."""
    if isinstance(value, dict):
        for key, x in value.items():
            if type(key) is not str:
                raise TypeError(f"{path} must have text for keys, got {key!r}")
            check_json(f"{path}[{key!r}]", x)
    elif isinstance(value, list):
        for i, x in enumerate(value):
            check_json(f"{path}[{i}]", x)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(
            f"{path} must be what JSON has (dict, list, str, int, float, bool, None), "
            f"got {abbreviated(value)} of type {type(value).__name__}"
        )


def _check_params(where: Any, wanted: Mapping[str, Any], entries: Mapping) -> None:
    """Raise, with all their names, if parameters are not what was saved."""
    problems = []
    saved = {name for name in entries if name.startswith("params/")}
    for name in sorted(saved - wanted.keys()):
        problems.append(f"{name} is in the checkpoint only")
    for name, leaf in wanted.items():
        if name not in saved:
            problems.append(f"{name} is not in the checkpoint")
            continue
        shape, dtype = _raw_type(leaf)
        was = tuple(entries[name]["shape"]), entries[name]["dtype"]
        if was != (shape, dtype):
            saved_as = f"{was[1]}{list(was[0])}"
            problems.append(f"{name} is {dtype}{list(shape)}, was saved as {saved_as}")
    if problems:
        raise ValueError(
            f"params do not fit the checkpoint {where}:\n  " + "\n  ".join(problems)
        )


def _raw_type(leaf: Any) -> tuple[tuple[int, ...], str]:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return tuple(leaf.shape), leaf.dtype.name


def _checked(where: Any, arrays: Arrays, entries: Mapping) -> Arrays:
    """The arrays in buffers of their own, if their bits are those that were saved."""
    # One after the other, so that what was read is free again.
    pairs = {name: copied(arrays.pop(name)) for name in list(arrays)}
    found = digits({name: sums for name, (_, sums) in pairs.items()})
    wrong = [name for name in found if found[name] != entries[name]["checksum"]]
    if wrong:
        raise ValueError(
            f"the checkpoint {where} is damaged: the bits of {', '.join(wrong)} are "
            "not those that were saved. Restore another one."
        )
    return {name: x for name, (x, _) in pairs.items()}


# Random keys.


def _keys(rng: Any) -> tuple[Arrays, dict[str, str | None] | None]:
    """The numbers of one key or of a dict of keys, and the kinds of the keys."""
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


def _keys_again(numbers: Arrays, kinds: Mapping[str, str | None] | None) -> Any:
    keys = {
        name: numbers[name]
        if kind is None
        else jax.random.wrap_key_data(numbers[name], impl=kind)
        for name, kind in (kinds or {}).items()
    }
    return keys.get("", keys or None)
