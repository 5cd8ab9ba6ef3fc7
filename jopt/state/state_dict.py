"""Convert states to flat dicts of arrays by path, and back into a changed recipe.

A path joins the names of a chain's member, of the state's field and of the parameter:
``scale_by_adam/mu/dense/kernel``. It depends neither on the containers of the
parameters nor on the other members of the chain. So entries are restored by name, and
the error lists every entry that does not fit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt._version import __version__
from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.state.late_slots import warn_of_late_slots
from jopt.state.migration import (
    Reset,
    Rule,
    check_match,
    likely,
    migrated,
    moved,
    new_chains,
    without_match,
)
from jopt.state.placing import assembled, is_abstract, is_key
from jopt.state.recipe_differences import declared, differing
from jopt.state.recoding import counts_of_rounding, slots_by_path
from jopt.tree.paths import by_name
from jopt.tree.variables import sees_arrays
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of
from jopt.values.config import to_config
from jopt.values.recipe import Recorded


VERSION = 1  # of the layout that `schema` returns


@sees_arrays()
def state_dict(state: OptState) -> dict[str, jax.Array]:
    """Return the arrays of a state, or of any tree, by path.

    Args:
      state: Any tree of arrays or of ``jax.ShapeDtypeStruct``.

    Returns:
      The leaves by path, such as ``"scale_by_adam/mu/dense/kernel"``, neither copied
      nor moved. None has no entry; a typed random key becomes its array of integers.

    Raises:
      TypeError: A leaf is neither an array nor a number.
      ValueError: Two leaves have the same path.

    >>> import jopt
    >>> params = {"dense": {"kernel": jnp.ones((2, 3))}}
    >>> list(jopt.state_dict(jopt.adam(1e-3).init(params)))  # doctest: +ELLIPSIS
    ['scale_by_adam/count', 'scale_by_adam/mu/dense/kernel', ...]
    """
    if isinstance(state, Recorded):
        raise TypeError(
            "expected a state, as returned by init or update, got the transformation "
            f"{text_of(state)}"
        )
    flat: dict[str, Any] = {}
    pairs = jax.tree_util.tree_leaves_with_path(state)
    for name, leaf in by_name(
        (tree.path_name(path), leaf) for path, leaf in pairs
    ).items():
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise TypeError(f"leaf {name!r} is not an array: {abbreviated(leaf)}")
        if is_key(leaf):
            data = jax.random.key_data
            leaf = jax.eval_shape(data, leaf) if is_abstract(leaf) else data(leaf)
        flat[name] = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return flat


def schema(tx: GradientTransformation, state: OptState) -> dict[str, Any]:
    """Describe a state as plain data, to be stored next to its arrays.

    Args:
      tx: The transformation.
      state: Its state; shapes are enough.

    Returns:
      A dict for ``json.dumps``:

      - ``version``: 1, the version of this layout
      - ``jopt``: the version of the library
      - ``recipe``: `to_config` of the transformation; None if it has no config, and
        then ``recipe_error`` says why
      - ``entries``: ``{"shape": …, "dtype": …}`` by the paths of `state_dict`
      - ``hyperparams``: the recipe's numbers and schedules by path, defaults included

    >>> import jopt
    >>> tx = jopt.sgd(0.1)
    >>> schema = jopt.schema(tx, tx.init(jnp.ones(3)))
    >>> schema["entries"]["scale_by_learning_rate/count"], schema["hyperparams"]
    ({'shape': [], 'dtype': 'int32'}, {'scale_by_learning_rate/learning_rate': 0.1})
    """
    tx = as_transformation(tx, "schema: tx")
    try:
        recipe = {"recipe": to_config(tx)}
    except TypeError as error:
        recipe = {"recipe": None, "recipe_error": str(error)}
    return {
        "version": VERSION,
        "jopt": __version__,
        **recipe,
        "entries": {
            path: {"shape": list(x.shape), "dtype": jnp.dtype(x.dtype).name}
            for path, x in state_dict(state).items()
        },
        "hyperparams": declared(tx),
    }


def load_state_dict(
    tx: GradientTransformation,
    params: Params,
    flat: Mapping[str, Any],
    *,
    strict: bool = True,
    migrate: Sequence[Rule] = (),
    hyperparams: Literal["checkpoint", "recipe"] = "checkpoint",
    schema: Mapping[str, Any] | None = None,
    shardings: Any = None,
) -> OptState:
    """Rebuild a state from the flat dict of `state_dict`, for a recipe that may be new.

    Entries that version 0.1.0 saved without the name of an optimizer's rule, such as
    ``accumulator/kernel`` for ``ftrl/accumulator/kernel``, are renamed.

    Args:
      tx: The transformation.
      params: The parameters, which give the state's structure and shardings. Shapes are
        enough if no entry starts from ``init``.
      flat: JAX or NumPy arrays by path. An array that is already on the right devices
        is not copied.
      strict: If True, a missing or unexpected entry is an error. If False, missing
        entries start from ``init``, unexpected ones are ignored, and a warning lists
        both. An entry of another shape or dtype is always an error.
      migrate: Rules `Rename`, `Drop`, `Reset` and `Cast`, in the order of application.
      hyperparams: Whether to use the numbers of the ``"checkpoint"`` or of the
        ``"recipe"`` where they differ; a warning lists the differences. Numbers that
        are compiled in or scheduled always come from the recipe.
      schema: The checkpoint's `schema`. If given, ``flat`` is checked against it, and
        numbers that are not in the state are compared too.
      shardings: A tree like the state, as from `jopt.sharding.state_shardings`; None
        means the shardings of ``tx.init(params)``.

    Returns:
      A state with the structure, dtypes and shardings of ``tx.init(params)``.

    Raises:
      ValueError: Entries are missing, unexpected, or of another shape or dtype. The
        message lists all of them.

    Warns:
      UserWarning: Entries are missing or unexpected, with ``strict=False``;
        hyperparameters differ; or slots start from zero, but the step count that
        corrects their bias goes on, as for a leaf that joins the others late.

    >>> import jopt
    >>> params = {"w": jnp.ones(2)}
    >>> flat = jopt.state_dict(jopt.adam(1e-3).init(params))
    >>> tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3))
    >>> state = jopt.load_state_dict(tx, params, flat)
    """
    tx = as_transformation(tx, "load_state_dict: tx")
    arguments.one_of(("checkpoint", "recipe"), hyperparams=hyperparams)
    flat = _checked(flat, schema)
    template = jax.eval_shape(tx.init, params)
    expected = state_dict(template)
    rules = tuple(migrate)
    for i in sorted(without_match(rules, flat, expected)):
        check_match(rules[i], flat, expected)
    flat, fresh = migrated(flat, rules, expected, slots_by_path(tx))
    fresh |= counts_of_rounding(tx) - flat.keys()
    lacking = [n for n in expected if n not in flat]
    if prefixes := new_chains(tx, lacking, [n for n in flat if n not in expected]):
        flat = moved(flat, prefixes, expected)
        flat = {n: x for n, x in flat.items() if n not in fresh}
        if schema is not None:
            numbers = moved(schema.get("hyperparams", {}), prefixes, declared(tx))
            schema = {**schema, "hyperparams": numbers}
    missing = [n for n in expected if n not in flat and n not in fresh]
    unexpected = [n for n in flat if n not in expected]
    values, wrong = {}, {}
    for name, like in expected.items():
        if name in flat:
            values[name], problem = _fitted(name, flat[name], like)
            wrong |= {name: problem} if problem else {}
    if wrong or (strict and (missing or unexpected)):
        raise _misfit(missing if strict else [], unexpected if strict else [], wrong)
    fresh |= set(missing)
    values |= differing(tx, values, schema, hyperparams)
    if missing or unexpected:
        _warn_partial(missing, unexpected)
    warn_of_late_slots(tx, values, fresh)
    return assembled(tx, params, template, values, fresh, shardings)


def _checked(flat: Any, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the entries; raise unless they are arrays that fit the schema."""
    if not isinstance(flat, Mapping) or not all(isinstance(n, str) for n in flat):
        raise TypeError(
            "flat must be a dict of arrays by path, as jopt.state_dict returns, got "
            f"{abbreviated(flat)}"
        )
    for name, x in flat.items():
        if not hasattr(x, "dtype") and not isinstance(x, int | float | complex):
            hint = "; call jopt.state_dict(…) first" if isinstance(x, Mapping) else ""
            raise TypeError(
                f"flat[{name!r}] must be an array, got {abbreviated(x)}{hint}"
            )
    flat = {n: jax.random.key_data(x) if is_key(x) else x for n, x in flat.items()}
    if schema is None:
        return flat
    if not isinstance(schema, Mapping) or not {"version", "entries"} <= schema.keys():
        raise TypeError(
            f"schema must be a result of jopt.schema, got {abbreviated(schema)}"
        )
    if schema["version"] > VERSION:
        raise ValueError(
            f"this checkpoint has version {schema['version']}, written by jopt "
            f"{schema.get('jopt')}; this jopt reads versions up to {VERSION}"
        )
    described = {
        name: (tuple(x["shape"]), x["dtype"]) for name, x in schema["entries"].items()
    }
    actual = {
        name: (np.shape(x), (x if hasattr(x, "dtype") else np.asarray(x)).dtype.name)
        for name, x in flat.items()
    }
    if described != actual:
        names = [n for n in described | actual if described.get(n) != actual.get(n)]
        raise ValueError(
            "flat does not match its schema: "
            + "; ".join(
                f"{n!r} is {actual.get(n, 'missing')} in flat and "
                f"{described.get(n, 'missing')} in the schema"
                for n in names
            )
        )
    return flat


def _fitted(name: str, value: Any, like: Any) -> tuple[Any, str]:
    """Return the value in the state's dtype, and what is wrong with it or ``""``."""
    if not hasattr(value, "dtype"):
        # A Python number has no width of its own, so it may take the state's.
        value = np.asarray(value)
        is_number = value.dtype != bool and jnp.issubdtype(like.dtype, jnp.inexact)
        if is_number and np.can_cast(value.dtype, like.dtype, "same_kind"):
            value = value.astype(like.dtype)
    if value.shape != like.shape:
        hint = ": transposed?" if value.shape == like.shape[::-1] else ""
        return value, f"{name!r} has shape {value.shape}, not {like.shape}{hint}"
    if value.dtype == like.dtype:
        return value, ""
    # Integers of another width, such as counts under x64, are accepted if they fit.
    if jnp.issubdtype(like.dtype, jnp.integer) and jnp.issubdtype(
        value.dtype, jnp.integer
    ):
        host = np.asarray(value)
        if np.array_equal(host, cast := host.astype(like.dtype)):
            return cast, ""
    return value, f"{name!r} is {value.dtype}, not {like.dtype}"


def _misfit(
    missing: list[str], unexpected: list[str], wrong: dict[str, str]
) -> ValueError:
    lines = ["the checkpoint does not fit the state of this transformation:"]
    lines += [f"  missing: {name!r}" for name in missing]
    lines += [f"  unexpected: {name!r}" for name in unexpected]
    lines += [f"  wrong: {problem}" for problem in wrong.values()]
    if (rule := likely(missing, unexpected)) and not wrong:
        lines.append(f"Did you mean migrate=[jopt.{rule}]?")
    if any("/codes/" in f"/{name}" for name in (*missing, *unexpected)):
        lines.append(
            "In migrate, jopt.Cast('^path/of/the/slot/', 'int8'), or the name of "
            "another format or dtype, encodes or decodes slots that changed it."
        )
    if missing or unexpected:
        lines.append(
            "With strict=False, missing entries start from init and unexpected ones "
            "are ignored. To do so for single entries, use jopt.Rename, jopt.Reset and "
            "jopt.Drop in migrate."
        )
    if wrong:
        reset = Reset(f"^{re.escape(next(iter(wrong)))}$")
        lines.append(
            "In migrate, jopt.Cast(path, dtype) rounds to another dtype, and "
            f"jopt.{reset} starts the entry from init."
        )
    return ValueError("\n".join(lines))


def _warn_partial(missing: list[str], unexpected: list[str]) -> None:
    lines = ["the checkpoint and the state of this transformation differ:"]
    lines += [f"  not in the checkpoint, starts from init: {n!r}" for n in missing]
    lines += [f"  only in the checkpoint, ignored: {n!r}" for n in unexpected]
    if any(name.split("/")[-1] == "count" for name in missing):
        lines.append("New counts are 0; jopt.set_counts(state, n) sets all of them.")
    warnings.warn("\n".join(lines), UserWarning, stacklevel=3)
