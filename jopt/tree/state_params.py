"""Functions of the arrays in an optimizer's state that are like its parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.tree.paths import aligned, children, difference, is_none
from jopt.tree.variables import sees_arrays
from jopt.values.arguments import abbreviated


Path = tuple[Any, ...]


@sees_arrays("state")
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
    """Apply ``f`` to every array of a state that is like a parameter.

    Such an array belongs to one parameter and has its shape: a moment, an average, a
    copy. The row and column statistics of a factored moment, numbers per tensor and
    counts are not like parameters.

    Args:
      tx: A transformation, or an ``init`` function.
      f: Called as ``f(array, *rest_leaves)``, with the leaves of ``rest`` for the
        parameter.
      state: The state of ``tx``, or a tree of the same structure.
      *rest: Trees like the parameters, such as their shardings.
      transform_non_params: A function for all other arrays; None keeps them.
      is_leaf: A predicate for further leaves, as in ``jax.tree.map``.
      params: The parameters, or their shapes. None infers them from the state, whose
        leaves then need shapes.

    Returns:
      A tree like ``state``.

    Raises:
      ValueError: ``rest`` is not like the parameters, or ``state`` does not have the
        structure of ``tx.init(params)``.

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
        params = _infer_params(init, slots, state)
    elif is_leaf is None:
        expected = jax.eval_shape(init, params)
        if jax.tree.structure(expected) != jax.tree.structure(state):
            where = difference("tx.init(params)", expected, "the state", state)
            raise ValueError(f"this is not the state of these parameters; {where}")
    owners = _param_of_array(init, slots, params)
    columns = [
        aligned("the parameters", params, f"rest[{i}]", tree, gaps=True)
        for i, tree in enumerate(rest if owners else ())
    ]

    def map_array(path, x):
        if path in owners:
            return f(x, *(column[owners[path]] for column in columns))
        return transform_non_params(x) if transform_non_params else x

    return jax.tree_util.tree_map_with_path(map_array, state, is_leaf=is_leaf)


def _slots(init: Callable[..., Any]) -> list[Path]:
    """Return the paths in a state at which the structure of the parameters begins."""
    # With {} for parameters, every slot is {} too.
    try:
        state = jax.eval_shape(init, {})
    except Exception as error:
        error.add_note("map_params calls init with parameters without leaves: {}.")
        raise
    pairs, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_empty)
    return [path for path, x in pairs if _is_empty(x)]


def _is_empty(x: Any) -> bool:
    return isinstance(x, dict) and not x


def _owned(
    slots: list[Path], params: Any, state: Any
) -> dict[int, dict[Path, tuple[int, ...]]]:
    """Return the shapes of the arrays kept for each parameter, by path."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_none)
    places = {path: i for i, (path, _) in enumerate(pairs)}
    owned: dict[int, dict[Path, tuple[int, ...]]] = {i: {} for i in range(len(pairs))}
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        ends = range(len(path) + 1)
        starts = [n for n in ends if path[:n] in slots]
        # An array's path is the slot's, then the parameter's, then that of a container
        # that the slot keeps for the parameter, such as a tuple.
        for place in (path[n:end] for n in starts for end in ends if end >= n):
            if place in places:
                owned[places[place]][path] = _shape(x)
                break
    return owned


def _shape(x: Any) -> tuple[int, ...]:
    if hasattr(x, "shape") or type(x) in (bool, int, float, complex):
        return np.shape(x)
    raise ValueError(
        f"the state has the leaf {abbreviated(x)}, which has no shape: give params= "
        "to specify the parameters"
    )


def _param_of_array(
    init: Callable[..., Any], slots: list[Path], params: Any
) -> dict[Path, int]:
    """Return the index of the parameter for the path of every array of its shape."""
    # A number per tensor has the shape of a one-element parameter by chance. It keeps
    # that shape for a larger parameter, which tells it from a moment.
    larger = jax.tree.map(_enlarge, params)
    owned = [_owned(slots, x, jax.eval_shape(init, x)) for x in (params, larger)]
    shapes = [
        [None if x is None else np.shape(x) for x in jax.tree.leaves(tree, is_none)]
        for tree in (params, larger)
    ]
    return {
        path: i
        for i, shape in enumerate(shapes[0])
        for path, array_shape in owned[0][i].items()
        if array_shape == shape and owned[1][i].get(path) == shapes[1][i]
    }


def _enlarge(x: Any) -> Any:
    shape, dtype = np.shape(x), jnp.result_type(x)
    is_one = math.prod(shape) == 1
    return jax.ShapeDtypeStruct((2,) * max(len(shape), 1) if is_one else shape, dtype)


def _infer_params(init: Callable[..., Any], slots: list[Path], state: Any) -> Any:
    """Return parameters that the state can belong to, inferred from its slots.

    A parameter is None if the state has no array of its shape.
    """
    subtrees = [_at(state, path) for path in slots]
    params: Any = {}
    errors: list[Exception] = []
    # A tuple in a slot is either a tuple of parameters or kept for one parameter.
    for deepest in (True, False):
        guess = _merge(subtrees, deepest)
        verified = _verify(init, slots, state, guess, errors)
        if len(jax.tree.leaves(verified)) > len(jax.tree.leaves(params)):
            params = verified
        if jax.tree.structure(verified) == jax.tree.structure(guess):
            break
    if errors and not jax.tree.leaves(params):
        errors[0].add_note("map_params cannot infer the parameters: give params=.")
        raise errors[0]
    return params


def _at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = dict(children(tree))[step]
    return tree


@dataclasses.dataclass(frozen=True)
class _Guess:
    """What a parameter may be like: its shape is one of the arrays kept for it."""

    candidates: tuple[jax.ShapeDtypeStruct, ...]


def _merge(subtrees: list[Any], deepest: bool) -> Any:
    """Return the common structure of all slots, with guesses for leaves.

    If not ``deepest``, the innermost containers count as leaves.
    """
    subtrees = [x for x in subtrees if jax.tree.leaves(x)]
    if not subtrees:
        return None
    first, below = subtrees[0], [children(x) for x in subtrees]
    steps = {tuple(step for step, _ in pairs) for pairs in below}
    innermost = jax.tree_util.all_leaves([x for _, x in below[0] if x is not None])
    if len(steps) > 1 or steps == {()} or (innermost and not deepest):
        arrays = jax.tree.leaves(subtrees)
        is_complex = any(map(jnp.iscomplexobj, arrays))
        # For a parameter of 16 bits, `bf16_params` keeps an array more.
        dtypes = [jnp.complex64] if is_complex else [jnp.float32, jnp.bfloat16]
        shapes = dict.fromkeys(map(_shape, arrays))
        return _Guess(
            tuple(jax.ShapeDtypeStruct(x, dtype) for dtype in dtypes for x in shapes)
        )
    treedef = jax.tree.structure(first, is_leaf=lambda x: x is not first)
    columns = zip(*([x for _, x in pairs] for pairs in below), strict=True)
    return treedef.unflatten(_merge(list(column), deepest) for column in columns)


def _verify(
    init: Callable[..., Any],
    slots: list[Path],
    state: Any,
    guess: Any,
    errors: list[Exception],
) -> Any:
    """Return the guesses from which ``init`` makes the arrays of the state."""
    guesses, treedef = jax.tree.flatten(guess, is_leaf=is_none)
    expected = _owned(slots, guess, state)
    verified: list[Any] = [None] * len(guesses)
    # Try the n-th candidate of all parameters at once: one init for each n, not one for
    # each combination.
    for n in range(max((len(x.candidates) for x in guesses if x), default=0)):
        candidates = [
            leaf.candidates[n]
            if param is None and leaf and n < len(leaf.candidates)
            else param
            for leaf, param in zip(guesses, verified, strict=True)
        ]
        if candidates == verified:
            continue
        params = treedef.unflatten(candidates)
        try:
            owned = _owned(slots, params, jax.eval_shape(init, params))
        except Exception as error:  # a mask or a check rejects the candidates
            errors.append(error)
            continue
        for i, x in enumerate(candidates):
            if x is not None and owned[i] == expected[i]:
                verified[i] = x
    return treedef.unflatten(verified)
