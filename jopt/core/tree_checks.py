"""Do the trees agree? The checks of updates, params, state and rules while tracing.

The errors name the leaf by its path, show both sides, and say what to do. Nothing of
this is left in the compiled step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.tree.paths import difference
from jopt.tree.row_sparse import is_rows
from jopt.values import arguments
from jopt.values.arguments import abbreviated


def leaves(
    found: Sequence[Any], whole: Any, name: str, real_only: Sequence[str] = ()
) -> None:
    """Raise unless every leaf (None is none) can be optimized.

    Args:
      found: The leaves of the tree.
      whole: The tree, to name a leaf by its path.
      name: What the tree is: ``params`` or ``updates``.
      real_only: The names of transformations that complex leaves are an error for.
    """
    for i, leaf in enumerate(found):
        problem = leaf is not None and _problem(leaf, real_only)
        if problem:
            rows = [n for n, x in tree.leaves_with_names(whole) if is_rows(x)]
            if rows and not any(map(is_rows, found)):
                raise TypeError(_row_sparse(name, rows[0]))
            with_nones = any(x is None for x in found)
            path = tree.leaves_with_names(whole, none=with_nones)[i][0]
            raise TypeError(f"{name} leaf {path!r} {problem}.")


def _row_sparse(name: str, path: str) -> str:
    return (
        f"{name} leaf {path!r} is row-sparse, and this takes dense arrays only. Put "
        "jopt.densify() before it"
    )


def _problem(leaf: Any, real_only: Sequence[str]) -> str | None:
    dtype = (
        jnp.result_type(float) if type(leaf) is float else getattr(leaf, "dtype", None)
    )
    if dtype is None:
        return (
            f"is {abbreviated(leaf)}, not an array. Give arrays only; of an "
            "Equinox model that is eqx.filter(model, eqx.is_inexact_array)"
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        return (
            f"has dtype {dtype}, but only floating point and complex arrays can be "
            "optimized. Leave it out, or put None in its place"
        )
    if real_only and jnp.issubdtype(dtype, jnp.complexfloating):
        return (
            f"has dtype {dtype}, but {real_only[0]} is defined for real numbers only. "
            "Split the leaf into its real and imaginary part"
        )
    return None


def aligned(
    updates: Any,
    leaves: Sequence[Any],
    treedef: Any,
    other: Any,
    name: str,
    *,
    shapes: Callable[[tuple[int, ...]], Any] | None = None,
) -> list[Any]:
    """The leaves of ``other`` in the order of the updates' leaves, which may be None.

    Where the updates have a leaf, a slot may have None, or arrays of other ``shapes``
    than the leaf's.
    """
    try:
        found = treedef.flatten_up_to(other)
    except ValueError:
        raise ValueError(_structure_message(updates, other, name)) from None
    for i, (leaf, twin) in enumerate(zip(leaves, found, strict=True)):
        if twin is None and (leaf is None or shapes):
            continue
        shape = getattr(leaf, "shape", None)
        wanted = shapes(shape) if shapes and shape is not None else shape
        if wanted is None or getattr(twin, "shape", None) != wanted:
            _check_pair(leaf, twin, updates, i, other, name, shapes)
    return found


def _check_pair(
    leaf: Any, twin: Any, updates: Any, i: int, other: Any, name: str, shapes: Any
) -> None:
    wanted = shapes(np.shape(leaf)) if shapes else np.shape(leaf)
    if twin is not None and not jax.tree_util.all_leaves([twin]):
        raise ValueError(_structure_message(updates, other, name))
    if leaf is None:
        return
    path = tree.leaves_with_names(updates, none=True)[i][0]
    if twin is None:
        raise ValueError(
            f"leaf {path!r} has an update, but it is None in {name}. Take gradients "
            "with respect to these params, and init with them."
        )
    for what, x in (("updates", leaf), (name, twin)):
        if not hasattr(x, "shape") and not isinstance(x, Real):
            raise TypeError(f"{what} leaf {path!r} {_problem(x, ())}.")
    found = np.shape(twin)
    if found != wanted:
        raise ValueError(
            f"leaf {path!r}: updates have shape {np.shape(leaf)}, but {name} has "
            f"shape {found}{f', not {wanted}' if shapes else ''}. Nothing is "
            "broadcast: take gradients with respect to these params, and init with "
            "them."
        )


def no_slot(updates: Any, i: int) -> NoReturn:
    """Raise for a leaf that the state has nothing for."""
    path = tree.leaves_with_names(updates, none=True)[i][0]
    raise ValueError(
        f"the state has no slot for leaf {path!r}: it was masked, or None, when init "
        "was called. Call init again."
    )


def _structure_message(updates: Any, other: Any, name: str) -> str:
    where = difference("the updates", updates, name, other, none=True)
    return (
        f"updates and {name} have different structures; {where}. Call "
        "update(updates, state, params) with the gradients of these params and a state "
        "that init made from them."
    )


def state_numbers(name: str, fields: Mapping[str, Any]) -> None:
    """Raise unless the count and the other scalars of a state are scalars."""
    for field, value in fields.items():
        kind = jnp.integer if field == "count" else jnp.floating
        arguments.one_number(f"{name}: the state's {field}", value, kind)


def scalars(name: str, found: Any, needed: Collection[str]) -> None:
    """Raise unless ``scalars`` of an algorithm gave what is needed, numbers by name."""
    if not isinstance(found, Mapping) or not found.keys() >= set(needed):
        raise TypeError(
            f"{name}: scalars must return a dict of numbers with the names "
            f"{sorted(needed)}, got {abbreviated(found)}"
        )
    for key, value in found.items():
        arguments.one_number(f"{name}: the scalar {key!r}", value)


def scalars_of_rows(name: str, known: Mapping[str, Any], error: Exception) -> None:
    """Raise if ``scalars`` failed where it was given a row-sparse leaf."""
    for what, whole in known.items():
        rows = [n for n, x in tree.leaves_with_names(whole) if is_rows(x)]
        if rows:
            raise TypeError(
                f"{name} computes a number from all {what}, and leaf {rows[0]!r} is "
                "row-sparse, which it does not know. Put jopt.densify() before it"
            ) from error


def dtypes(update: Any, param: Any, slots: Any = ()) -> None:
    """Raise unless the arrays of one leaf can be computed with."""
    arrays = [("updates", update), ("params", param)]
    arrays += [("the state's", slot) for slot in jax.tree.leaves(slots)]
    for what, x in arrays:
        if x is not None and (problem := _problem(x, ())):
            raise TypeError(f"{what} leaf {problem}.")
    if param is not None and jnp.iscomplexobj(update) > jnp.iscomplexobj(param):
        raise TypeError(
            f"updates have dtype {update.dtype}, but params {param.dtype}: take "
            "gradients with respect to these params."
        )


def rule_signature(rule: Callable[..., Any], slots: Collection[str]) -> None:
    """Raise unless a rule can be called with an update, the slots, and keywords."""
    signature = inspect.signature(rule)
    keywords = [
        p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    try:
        signature.bind(None, *slots, **dict.fromkeys(keywords))
    except TypeError as error:
        raise TypeError(
            f"the rule is called with the update and the slots {list(slots)}, but "
            f"takes {signature}: {error}"
        ) from None


def rule_results(name: str, out: Any, wanted: Mapping[str, Any]) -> list[Any]:
    """What a rule gave, if it is an array for the update and one for each slot."""
    found = list(out) if isinstance(out, tuple) else [out]
    if len(found) != len(wanted):
        raise TypeError(
            f"the rule of {name} must return {' and '.join(wanted)}, got {len(found)} "
            "arrays"
        )
    for (what, old), new in zip(wanted.items(), found, strict=True):
        if not _fits(new, old):
            raise TypeError(
                f"the rule of {name} must return {what} as "
                f"{abbreviated(old)}, got {abbreviated(new)}"
            )
    return found


def _fits(new: Any, old: Any) -> bool:
    """Whether a rule may return ``new`` in the place of ``old``."""
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(new) == len(old) and all(map(_fits, new, old))
    if old is None or isinstance(old, tuple):
        return new is old
    shape, dtype = getattr(new, "shape", None), getattr(new, "dtype", jnp.bool_)
    narrows = jnp.iscomplexobj(new) > jnp.iscomplexobj(old)
    return shape == old.shape and jnp.issubdtype(dtype, jnp.inexact) and not narrows


def note_leaf(error: Exception, whole: Any, i: int) -> None:
    """Add to an error at which leaf it happened."""
    path, leaf = tree.leaves_with_names(whole, none=True)[i]
    error.add_note(f"This is about leaf {path!r} of shape {np.shape(leaf)}.")
