"""The arrays of an optimizer's state that are like its parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.tree.paths import aligned, children, difference, is_none
from jopt.values.arguments import abbreviated


Path = tuple[Any, ...]


def map_params(
    tx: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
    params: Any = None,
) -> Any:
    """``f`` of every array of a state that is like a parameter.

    Such an array is kept for one parameter and has its shape: a moment, an average, a
    copy. The row and column statistics of a factored moment, numbers per tensor and
    counts are no such arrays.

    Args:
      tx: A transformation, or an ``init`` function.
      f: ``f(array, *rest_leaves)``, with what ``rest`` has for the parameter.
      state: Its state, or anything of the same structure.
      *rest: Trees like the parameters, such as their shardings.
      transform_non_params: A function for all other arrays; None keeps them.
      is_leaf: What else counts as an array; see ``jax.tree.map``.
      params: The parameters, or their shapes. None: they are found out from the state,
        whose leaves need shapes then.

    Returns:
      A tree like ``state``.

    Raises:
      ValueError: ``rest`` is not like the parameters, or ``state`` not what ``tx.init``
        makes of ``params``.

    >>> import jopt
    >>> from jax.sharding import PartitionSpec
    >>> tx = jopt.adam(1e-3)
    >>> state, spec = tx.init({"w": jnp.ones((4, 2))}), {"w": PartitionSpec("x")}
    >>> specs = map_params(
    ...     tx,
    ...     lambda x, spec: spec,
    ...     state,
    ...     spec,
    ...     transform_non_params=lambda x: PartitionSpec(),
    ... )
    >>> specs["scale_by_adam"].mu == spec, specs["scale_by_adam"].count
    (True, P())
    """
    init = getattr(tx, "init", tx)
    slots = _slots(init)
    if params is None:
        params = _found_out(init, slots, state)
    elif is_leaf is None:
        expected = jax.eval_shape(init, params)
        if jax.tree.structure(expected) != jax.tree.structure(state):
            where = difference("tx.init(params)", expected, "the state", state)
            raise ValueError(f"this is not the state of these parameters; {where}")
    owners = _like_params(init, slots, params)
    columns = [
        aligned("the parameters", params, f"rest[{i}]", tree, gaps=True)
        for i, tree in enumerate(rest if owners else ())
    ]

    def choose(path, x):
        if path in owners:
            return f(x, *(column[owners[path]] for column in columns))
        return transform_non_params(x) if transform_non_params else x

    return jax.tree_util.tree_map_with_path(choose, state, is_leaf=is_leaf)


def _slots(init: Callable[..., Any]) -> list[Path]:
    """Where in a state the parameters' structure begins."""
    # Parameters without leaves are all that is in the slots of their state.
    try:
        state = jax.eval_shape(init, {})
    except Exception as error:
        error.add_note("map_params has to init with parameters without leaves, {}.")
        raise
    found, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_empty)
    return [path for path, x in found if _is_empty(x)]


def _is_empty(x: Any) -> bool:
    return isinstance(x, dict) and not x


def _owned(
    slots: list[Path], params: Any, state: Any
) -> dict[int, dict[Path, tuple[int, ...]]]:
    """The shapes of the arrays that a state keeps for each parameter, by path."""
    found, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_none)
    places = {path: i for i, (path, _) in enumerate(found)}
    owned: dict[int, dict[Path, tuple[int, ...]]] = {i: {} for i in range(len(found))}
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        ends = range(len(path) + 1)
        starts = [n for n in ends if path[:n] in slots]
        for place in (path[n:end] for n in starts for end in ends if end >= n):
            if place in places:
                owned[places[place]][path] = _shape(x)
                break
    return owned


def _shape(x: Any) -> tuple[int, ...]:
    if hasattr(x, "shape") or type(x) in (bool, int, float, complex):
        return np.shape(x)
    raise ValueError(
        f"the state has {abbreviated(x)} for a leaf, which has no shape: give "
        "params= to say what the parameters are"
    )


def _like_params(
    init: Callable[..., Any], slots: list[Path], params: Any
) -> dict[Path, int]:
    """The arrays of a parameter's shape, and which parameter that is."""
    # One number is of the shape of a parameter of one element, but only by chance if
    # it would be one number for any parameter.
    larger = jax.tree.map(_larger, params)
    owned = [_owned(slots, x, jax.eval_shape(init, x)) for x in (params, larger)]
    shapes = [
        [None if x is None else np.shape(x) for x in jax.tree.leaves(tree, is_none)]
        for tree in (params, larger)
    ]
    return {
        path: i
        for i, shape in enumerate(shapes[0])
        for path, kept in owned[0][i].items()
        if kept == shape and owned[1][i].get(path) == shapes[1][i]
    }


def _larger(x: Any) -> Any:
    shape, dtype = np.shape(x), jnp.result_type(x)
    is_one = math.prod(shape) == 1
    return jax.ShapeDtypeStruct((2,) * max(len(shape), 1) if is_one else shape, dtype)


def _found_out(init: Callable[..., Any], slots: list[Path], state: Any) -> Any:
    """Parameters that a state can be of, where they have the shape of some slot.

    A parameter of whose shape nothing is kept is None.
    """
    subtrees = [_at(state, path) for path in slots]
    params: Any = {}
    errors: list[Exception] = []
    # What looks like a tuple of parameters may be a tuple kept for one parameter.
    for deepest in (True, False):
        guessed = _merged(subtrees, deepest)
        found = _verified(init, slots, state, guessed, errors)
        if len(jax.tree.leaves(found)) > len(jax.tree.leaves(params)):
            params = found
        if jax.tree.structure(found) == jax.tree.structure(guessed):
            break
    if errors and not jax.tree.leaves(params):
        errors[0].add_note("map_params cannot find out the parameters: give params=.")
        raise errors[0]
    return params


def _at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = dict(children(tree))[step]
    return tree


@dataclasses.dataclass(frozen=True)
class _Guess:
    """What the shape of a parameter may be, from the shapes kept for it."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: Any


def _merged(subtrees: list[Any], deepest: bool) -> Any:
    """The structure that slots have in common, with guesses for leaves.

    Unless this is to be the deepest, the innermost containers are leaves.
    """
    subtrees = [x for x in subtrees if jax.tree.leaves(x)]
    if not subtrees:
        return None
    first, below = subtrees[0], [children(x) for x in subtrees]
    steps = {tuple(step for step, _ in found) for found in below}
    innermost = jax.tree_util.all_leaves([x for _, x in below[0] if x is not None])
    if len(steps) > 1 or steps == {()} or (innermost and not deepest):
        arrays = jax.tree.leaves(subtrees)
        is_complex = any(map(jnp.iscomplexobj, arrays))
        shapes = tuple(dict.fromkeys(map(_shape, arrays)))
        return _Guess(shapes, jnp.complex64 if is_complex else jnp.float32)
    treedef = jax.tree.structure(first, is_leaf=lambda x: x is not first)
    columns = zip(*([x for _, x in found] for found in below), strict=True)
    return treedef.unflatten(_merged(list(column), deepest) for column in columns)


def _verified(
    init: Callable[..., Any],
    slots: list[Path],
    state: Any,
    guessed: Any,
    errors: list[Exception],
) -> Any:
    """The guesses with which ``init`` makes for a parameter what the state has."""
    guesses, treedef = jax.tree.flatten(guessed, is_leaf=is_none)
    wanted = _owned(slots, guessed, state)
    verified: list[Any] = [None] * len(guesses)
    for n in range(max((len(x.shapes) for x in guesses if x), default=0)):
        tried = [
            jax.ShapeDtypeStruct(guess.shapes[n], guess.dtype)
            if known is None and guess and n < len(guess.shapes)
            else known
            for guess, known in zip(guesses, verified, strict=True)
        ]
        params = treedef.unflatten(tried)
        try:
            found = _owned(slots, params, jax.eval_shape(init, params))
        except Exception as error:  # of a mask or a check that knows better
            errors.append(error)
            continue
        for i, x in enumerate(tried):
            if x is not None and found[i] == wanted[i]:
                verified[i] = x
    return treedef.unflatten(verified)
