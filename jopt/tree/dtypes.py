"""Dtypes: of scalars, of what is computed, and of whole trees."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jopt.tree.paths import leaves_with_names, map_leaves
from jopt.values import arguments


def compute_dtype(dtype: Any) -> Any:
    """The dtype that a leaf is computed in: float32, or wider if the leaf is.

    Args:
      dtype: Of a floating point or complex leaf.

    >>> compute_dtype(jnp.bfloat16), compute_dtype(jnp.complex64)
    (dtype('float32'), dtype('complex64'))
    """
    return np.promote_types(dtype, jnp.float32)


def scalar_dtype() -> Any:
    """The dtype of scalars: float32, or float64 under x64; never the parameters'.

    >>> scalar_dtype()
    dtype('float32')
    """
    return jnp.result_type(float)


def scalar(value: Any) -> jax.Array:
    """``value`` as a strongly typed scalar.

    Args:
      value: A number.

    >>> scalar(0.5)
    Array(0.5, dtype=float32)
    """
    return jnp.asarray(value, scalar_dtype())


def promoted(*values: Any) -> Any:
    """The dtype that holds all values, by JAX's standard rules, whatever is set."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def wide(dtype: Any) -> Any:
    """The dtype to compute in for a result of this dtype; integers stay what they are.

    Args:
      dtype: Any dtype of numbers.

    >>> wide(jnp.float16), wide(jnp.int8)
    (dtype('float32'), dtype('int8'))
    """
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    return compute_dtype(dtype) if is_inexact else jnp.dtype(dtype)


def rounded_once(
    f: Callable[..., Any], *leaves: Any, numbers: Sequence[Any] = (), kind: Any = None
) -> jax.Array:
    """``f(*leaves, *numbers)``, computed in float32 or wider and then rounded.

    Args:
      f: A function of arrays.
      *leaves: Arrays, whose promoted dtype is the result's.
      numbers: Further arguments. For the result's dtype it only counts whether they
        are whole, real or complex; the computation has their width too.
      kind: A Python number of the kind that the result is at least.

    >>> x = jnp.ones(2, jnp.bfloat16)
    >>> rounded_once(lambda x, s: s * x, x, numbers=[jnp.float32(0.1)]).dtype
    dtype(bfloat16)
    """
    kinds = [_kind(x) for x in numbers] + ([] if kind is None else [kind])
    dtype = promoted(*leaves, *kinds)
    width = wide(dtype)
    for x in numbers:
        if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact):
            width = np.promote_types(width, jnp.asarray(x).dtype)
    loaded = [jnp.asarray(x).astype(width) for x in (*leaves, *numbers)]
    return f(*loaded).astype(dtype)


def _kind(number: Any) -> Any:
    dtype = jnp.result_type(number)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return 0j
    return 0.0 if jnp.issubdtype(dtype, jnp.floating) else 0


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """All leaves in one dtype.

    Args:
      tree: Arrays; None stays None.
      dtype: None for the leaves as they are.

    Returns:
      A tree like ``tree``.

    Raises:
      TypeError: Complex leaves would lose their imaginary part.

    >>> cast({"a": jnp.ones(2), "b": None}, jnp.bfloat16)
    {'a': Array([1, 1], dtype=bfloat16), 'b': None}
    """
    if dtype is None:
        return tree
    return map_leaves(functools.partial(as_dtype, dtype=dtype), tree=tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Every leaf in the dtype of another tree's leaf.

    Args:
      tree: Arrays; None stays None.
      other_tree: Of the same structure; a leaf without a dtype changes nothing.

    Returns:
      A tree like ``tree``.

    Raises:
      ValueError: The trees have different structures.
      TypeError: A complex leaf would lose its imaginary part.

    >>> cast_like({"a": jnp.ones(2)}, {"a": jnp.ones(2, jnp.float16)})
    {'a': Array([1., 1.], dtype=float16)}
    """

    def like(x, other):
        return as_dtype(x, other.dtype) if hasattr(other, "dtype") else x

    return map_leaves(like, same_shapes=False, tree=tree, other_tree=other_tree)


def as_dtype(x: Any, dtype: DTypeLike) -> jax.Array:
    """One array in another dtype, if that keeps its imaginary part."""
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"a cast from {x.dtype} to {jnp.dtype(dtype)} drops the imaginary part; "
            "if that is meant, take tree.real first"
        )
    return x.astype(dtype)


def dtype(
    tree: Any,
    mixed_dtype_handler: Literal["promote", "highest", "lowest"] | None = None,
) -> Any:
    """The dtype of all leaves.

    Args:
      tree: Arrays or numbers.
      mixed_dtype_handler: What to do if there are several. None: it is an error.
        ``"promote"``: the one that all can be promoted to. ``"highest"``, ``"lowest"``:
        the one of them that all others can be promoted to, or from.

    Returns:
      A dtype; that of scalars for a tree without leaves.

    Raises:
      ValueError: The dtypes are different, or none is the highest or lowest.

    >>> tree = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    >>> dtype(tree, "lowest")
    dtype(bfloat16)
    """
    arguments.one_of(
        (None, "promote", "highest", "lowest"), mixed_dtype_handler=mixed_dtype_handler
    )
    named = {path: jnp.asarray(x).dtype for path, x in leaves_with_names(tree)}
    found = sorted(set(named.values()), key=str)
    if len(found) <= 1:
        return found[0] if found else scalar_dtype()
    if mixed_dtype_handler is None:
        examples = {str(x): path for path, x in named.items()}
        shown = ", ".join(f"{x} ({path!r})" for x, path in sorted(examples.items()))
        raise ValueError(
            f"the leaves have several dtypes: {shown}. mixed_dtype_handler= says which "
            "one to take"
        )
    if mixed_dtype_handler == "promote":
        return promoted(*found)
    for x in found:
        pairs = [(y, x) if mixed_dtype_handler == "highest" else (x, y) for y in found]
        if all(promoted(low, high) == high for low, high in pairs):
            return x
    raise ValueError(
        f"none of {[str(x) for x in found]} is the {mixed_dtype_handler}: some cannot "
        "be promoted to each other"
    )


def real(tree: Any) -> Any:
    """The real part of every leaf.

    Args:
      tree: Arrays; None stays None.

    Returns:
      A tree like ``tree``.

    >>> real({"a": jnp.array([1 + 2j])})
    {'a': Array([1.], dtype=float32)}
    """
    return map_leaves(jnp.real, tree=tree)


def conj(tree: Any) -> Any:
    """The complex conjugate of every leaf.

    Args:
      tree: Arrays; None stays None.

    Returns:
      A tree like ``tree``.

    >>> conj({"a": jnp.array([1 + 2j])})
    {'a': Array([1.-2.j], dtype=complex64)}
    """
    return map_leaves(jnp.conj, tree=tree)
