"""Checks of updates, params, states and rules while tracing.

The errors name the leaf by its path, show both sides, and say what to do. The compiled
step contains none of these checks.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Number, Real
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.storage.formats import is_encoded
from jopt.tree.paths import difference
from jopt.tree.row_sparse import is_rows
from jopt.values import arguments
from jopt.values.arguments import abbreviated


def leaves(
    values: Sequence[Any], whole: Any, name: str, real_only: Sequence[str] = ()
) -> None:
    """Raise unless every leaf other than None can be optimized.

    Args:
      values: The leaves of the tree.
      whole: The tree, to name a leaf by its path.
      name: The name of the tree: ``params`` or ``updates``.
      real_only: The names of transformations that are not defined for complex leaves.
    """
    for i, leaf in enumerate(values):
        problem = leaf is not None and _problem(leaf, real_only)
        if problem:
            rows = [n for n, x in tree.leaves_with_names(whole) if is_rows(x)]
            if rows and not any(map(is_rows, values)):
                raise TypeError(_row_sparse(name, rows[0]))
            with_nones = any(x is None for x in values)
            path = tree.leaves_with_names(whole, none=with_nones)[i][0]
            raise TypeError(f"{name} leaf {path!r} {problem}.")


def arrays(whole: Any, name: str) -> None:
    """Raise unless every leaf is an array or a number."""

    def is_array(x):
        known = hasattr(x, "dtype") or isinstance(x, Number)
        return known and not arguments.elsewhere(x)

    if not all(map(is_array, jax.tree.leaves(whole, is_leaf=is_rows))):
        for path, x in tree.leaves_with_names(whole):
            if not is_array(x):
                raise TypeError(f"{name} leaf {path!r} {_problem(x, ())}.")


def without_float0(updates: Any) -> Any:
    """The updates, with None for the gradients that JAX gives integer parameters."""
    # Arrays of JAX are not of this dtype, those of NumPy are.
    if _only_arrays(jax.tree.leaves(updates)):
        return updates
    if not any(map(_is_float0, jax.tree.leaves(updates, is_leaf=is_rows))):
        return updates
    return jax.tree.map(
        lambda g: None if _is_float0(g) else g, updates, is_leaf=tree.is_leaf
    )


def _only_arrays(leaves: list[Any]) -> bool:
    """Whether all leaves are arrays of JAX with values: a quick look at usual trees."""
    return all(map(_is_array_class, set(map(type, leaves))))


@functools.cache
def _is_array_class(cls: type) -> bool:
    return issubclass(cls, jax.Array) and not issubclass(cls, Tracer)


def _is_float0(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) == jax.dtypes.float0


def without_statics(params: Any, updates: Any) -> Any:
    """The parameters, with None for leaves that are not arrays and have no gradient.

    A whole model may have functions, numbers and texts among its leaves. Gradients are
    None there, and no transformation sees these leaves.

    Args:
      params: The parameters, or None.
      updates: Their gradients.
    """
    arrays = jax.tree.leaves(params)
    if _only_arrays(arrays) and all(map(_is_inexact, {x.dtype for x in arrays})):
        return params
    if all(map(can_move, jax.tree.leaves(params, is_leaf=is_rows))):
        return params
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    try:
        twins = treedef.flatten_up_to(params)
    except ValueError:  # the transformation says where the structures differ
        return params
    return treedef.unflatten(
        None if g is None and not can_move(p) and _is_leaf(p) else p
        for g, p in zip(leaves, twins, strict=True)
    )


def without_functions(params: Any) -> Any:
    """The parameters, with None for functions, which a whole model has as leaves."""
    if not any(map(_is_function, jax.tree.leaves(params, is_leaf=is_rows))):
        return params
    return jax.tree.map(
        lambda x: None if _is_function(x) else x, params, is_leaf=is_rows
    )


def _is_function(leaf: Any) -> bool:
    return callable(leaf) and not hasattr(leaf, "dtype")


def with_statics(new: Any, params: Any) -> Any:
    """The new parameters, with the leaves that `without_statics` took out."""
    if jax.tree.structure(new) == jax.tree.structure(params):
        return new
    leaves, treedef = jax.tree.flatten(params, is_leaf=tree.is_leaf)
    return treedef.unflatten(
        p if x is None else x
        for x, p in zip(treedef.flatten_up_to(new), leaves, strict=True)
    )


def can_move(leaf: Any) -> bool:
    """Whether a leaf is an array of floating point or complex numbers."""
    dtype = getattr(leaf, "dtype", None)
    # A tensor of torch has a dtype too, which JAX cannot interpret.
    return isinstance(dtype, np.dtype) and _is_inexact(dtype)


@functools.lru_cache
def _is_inexact(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


def _is_leaf(x: Any) -> bool:
    return is_rows(x) or jax.tree_util.all_leaves([x])


def _row_sparse(name: str, path: str) -> str:
    return (
        f"{name} leaf {path!r} is row-sparse, but dense arrays are needed here. Put "
        "jopt.densify() before it"
    )


def _problem(leaf: Any, real_only: Sequence[str]) -> str | None:
    if hint := arguments.elsewhere(leaf):
        return f"is not an array of JAX, but {hint}"
    dtype = (
        jnp.result_type(float) if type(leaf) is float else getattr(leaf, "dtype", None)
    )
    if dtype is None:
        return (
            f"is {abbreviated(leaf)}, not an array. Pass arrays only; for an Equinox "
            "model, pass eqx.filter(model, eqx.is_inexact_array)"
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        return (
            f"has dtype {dtype}, but only floating point and complex arrays can be "
            "optimized. Leave it out, or put None in its place"
        )
    if real_only and jnp.issubdtype(dtype, jnp.complexfloating):
        return (
            f"has dtype {dtype}, but {real_only[0]} is defined for real numbers only. "
            "Split the leaf into its real and imaginary parts"
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
    """The leaves of ``other`` in the order of the updates' leaves, Nones included.

    With ``shapes``, ``other`` is a slot: it may have None for a leaf of the updates,
    and its arrays have the shapes that this function computes from the leaf's.
    """
    try:
        twins = treedef.flatten_up_to(other)
    except ValueError:
        raise ValueError(_structure_message(updates, other, name)) from None
    for i, (leaf, twin) in enumerate(zip(leaves, twins, strict=True)):
        if twin is None and (leaf is None or shapes):
            continue
        shape = getattr(leaf, "shape", None)
        expected = shapes(shape) if shapes and shape is not None else shape
        if expected is None or getattr(twin, "shape", None) != expected:
            _check_pair(leaf, twin, updates, i, other, name, shapes)
    return twins


def _check_pair(
    leaf: Any, twin: Any, updates: Any, i: int, other: Any, name: str, shapes: Any
) -> None:
    expected = shapes(np.shape(leaf)) if shapes else np.shape(leaf)
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
    shape = np.shape(twin)
    if shape != expected:
        raise ValueError(
            f"leaf {path!r}: updates have shape {np.shape(leaf)}, but {name} has "
            f"shape {shape}{f', not {expected}' if shapes else ''}. Nothing is "
            "broadcast: take gradients with respect to these params, and init with "
            "them."
        )


def of_jax(**trees: Any) -> None:
    """Raise if a leaf of one of the trees is an array of another library.

    Called only after an error, because it looks at every leaf.
    """
    for name, whole in trees.items():
        for path, leaf in tree.leaves_with_names(whole):
            if arguments.elsewhere(leaf):
                raise TypeError(f"{name} leaf {path!r} {_problem(leaf, ())}.")


def extra_arguments(extra: Mapping[str, Any]) -> None:
    """Raise unless the further arguments of an update are arrays, and a loss is one."""
    for name, value in extra.items():
        if name == "value":
            arguments.one_number(name, value)
        for leaf in jax.tree.leaves(value, is_leaf=is_rows):
            is_array = hasattr(leaf, "dtype") or isinstance(leaf, Real) or is_rows(leaf)
            if not is_array or arguments.elsewhere(leaf):
                raise TypeError(
                    f"{name} must be a number, an array or a tree of arrays, got "
                    f"{abbreviated(leaf)}"
                )


def no_slot(updates: Any, i: int) -> NoReturn:
    """Raise for a leaf without a slot in the state."""
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


def scalars(name: str, results: Any, names: Collection[str]) -> None:
    """Raise unless an algorithm's ``scalars`` returned numbers with these names."""
    if not isinstance(results, Mapping) or not results.keys() >= set(names):
        raise TypeError(
            f"{name}: scalars must return a dict of numbers with the names "
            f"{sorted(names)}, got {abbreviated(results)}"
        )
    for key, value in results.items():
        arguments.one_number(f"{name}: the scalar {key!r}", value)


def scalars_of_rows(name: str, inputs: Mapping[str, Any], error: Exception) -> None:
    """Raise a clearer error if ``scalars`` failed on a row-sparse leaf."""
    for what, whole in inputs.items():
        rows = [n for n, x in tree.leaves_with_names(whole) if is_rows(x)]
        if rows:
            raise TypeError(
                f"{name} computes a number from all {what}, and cannot read the "
                f"row-sparse leaf {rows[0]!r}. Put jopt.densify() before it"
            ) from error


def dtypes(update: Any, param: Any, slots: Any = ()) -> None:
    """Raise unless a rule can compute with the arrays of one leaf."""
    arrays = [("updates", update), ("params", param)]
    kept = jax.tree.leaves(slots, is_leaf=is_encoded)
    arrays += [("the state's", x) for x in kept if not is_encoded(x)]
    for what, x in arrays:
        if x is not None and (problem := _problem(x, ())):
            raise TypeError(f"{what} leaf {problem}.")
    if param is not None and jnp.iscomplexobj(update) > jnp.iscomplexobj(param):
        raise TypeError(
            f"updates have dtype {update.dtype}, but params {param.dtype}: take "
            "gradients with respect to these params."
        )


def rule_signature(rule: Callable[..., Any], slots: Collection[str]) -> None:
    """Raise unless a rule takes an update, the slots, and keywords."""
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


def rule_results(name: str, out: Any, inputs: Mapping[str, Any]) -> list[Any]:
    """The results of a rule, if there is an array for each of its inputs.

    Args:
      name: The name of the algorithm.
      out: What the rule returned.
      inputs: The update and the slots that the rule received, by name.
    """
    results = list(out) if isinstance(out, tuple) else [out]
    if len(results) != len(inputs):
        raise TypeError(
            f"the rule of {name} must return {' and '.join(inputs)}, got "
            f"{len(results)} arrays"
        )
    for (what, old), new in zip(inputs.items(), results, strict=True):
        if not _fits(new, old):
            raise TypeError(
                f"the rule of {name} must return {what} as "
                f"{abbreviated(old)}, got {abbreviated(new)}"
            )
    return results


def _fits(new: Any, old: Any) -> bool:
    """Whether a rule may return ``new`` in place of ``old``."""
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(new) == len(old) and all(map(_fits, new, old))
    if old is None or isinstance(old, tuple):
        return new is old
    shape, dtype = getattr(new, "shape", None), getattr(new, "dtype", jnp.bool_)
    narrows = jnp.iscomplexobj(new) > jnp.iscomplexobj(old)
    return shape == old.shape and jnp.issubdtype(dtype, jnp.inexact) and not narrows


def note_leaf(error: Exception, whole: Any, i: int) -> None:
    """Add a note to an error that names the leaf where it happened."""
    path, leaf = tree.leaves_with_names(whole, none=True)[i]
    error.add_note(f"This is about leaf {path!r} of shape {np.shape(leaf)}.")


def state_fields(
    name: str, state_class: Any, state: Any, call: str, inside: Collection[str] = ()
) -> None:
    """Raise TypeError unless a state is one of this class, made by ``init``.

    Args:
      name: The transformation that expects it.
      state_class: A NamedTuple class; None for no state.
      state: The state.
      call: The call with its arguments in the right order.
      inside: The fields that hold the states of transformations inside.
    """
    fields = getattr(state_class, "_fields", ())
    if isinstance(state, tuple) and getattr(state, "_fields", ()) == fields:
        return
    kind = state_class.__name__ if fields else "tuple ()"
    article = "an" if kind[0] in "AEIOU" else "a"
    hint = "".join(
        f" If {name} was put around a transformation later, the state of that one goes "
        f"into the field {field}: tx.init(params)._replace({field}=state)."
        for field in inside
    )
    raise TypeError(
        f"{name} expects the state that its init made, {article} {kind} with the "
        f"fields {fields}, but got {abbreviated(state)}. The order is {call}; a state "
        f"that was read from a file has to be restored into tx.init(params).{hint}"
    )
