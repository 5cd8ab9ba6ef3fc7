"""Dtypes of scalars, of computations and of whole trees."""

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
    """Return the dtype to compute a leaf in: float32, or wider if the leaf is wider.

    Args:
      dtype: The dtype of a floating point or complex leaf.

    >>> compute_dtype(jnp.bfloat16), compute_dtype(jnp.complex64)
    (dtype('float32'), dtype('complex64'))
    """
    return np.promote_types(dtype, jnp.float32)


def scalar_dtype() -> Any:
    """Return the dtype of scalars: float32, or float64 under x64.

    It does not depend on the dtype of the parameters.

    >>> scalar_dtype()
    dtype('float32')
    """
    return jnp.result_type(float)


def scalar(value: Any) -> jax.Array:
    """Return ``value`` as a strongly typed scalar.

    Args:
      value: A number.

    >>> scalar(0.5)
    Array(0.5, dtype=float32)
    """
    return jnp.asarray(value, scalar_dtype())


def promoted(*values: Any) -> Any:
    """Return the promoted dtype of all values by JAX's standard rules.

    The user's setting of ``jax_numpy_dtype_promotion`` has no effect.
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def wide(dtype: Any) -> Any:
    """Return the dtype to compute a result of ``dtype`` in; integers stay unchanged.

    Args:
      dtype: Any numeric dtype.

    >>> wide(jnp.float16), wide(jnp.int8)
    (dtype('float32'), dtype('int8'))
    """
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    return compute_dtype(dtype) if is_inexact else jnp.dtype(dtype)


def rounded_once(
    f: Callable[..., Any], *leaves: Any, numbers: Sequence[Any] = (), kind: Any = None
) -> jax.Array:
    """Compute ``f(*leaves, *numbers)`` in float32 or wider, then round it once.

    Args:
      f: A function of arrays.
      *leaves: Arrays; the result has their promoted dtype.
      numbers: Further arguments. They may widen the computation, but of their dtypes
        only the kind (integer, real, complex) affects the result's dtype.
      kind: A Python number of the lowest kind that the result may have.

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
    # One dtype for all operands, so that f also works under strict promotion.
    operands = [jnp.asarray(x).astype(width) for x in (*leaves, *numbers)]
    return f(*operands).astype(dtype)


def _kind(number: Any) -> Any:
    """Return a Python number of the same kind, which promotes without a width."""
    dtype = jnp.result_type(number)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return 0j
    return 0.0 if jnp.issubdtype(dtype, jnp.floating) else 0


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """Cast all leaves to one dtype.

    Args:
      tree: Arrays; None stays None.
      dtype: The dtype; None leaves the tree unchanged.

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
    """Cast every leaf to the dtype of another tree's leaf.

    Args:
      tree: Arrays; None stays None.
      other_tree: A tree of the same structure; a leaf without a dtype has no effect.

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
    """Cast an array; raise TypeError if that would drop its imaginary part."""
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"a cast from {x.dtype} to {jnp.dtype(dtype)} drops the imaginary part; "
            "if you want that, take tree.real first"
        )
    return x.astype(dtype)


def dtype(
    tree: Any,
    mixed_dtype_handler: Literal["promote", "highest", "lowest"] | None = None,
) -> Any:
    """Return the common dtype of all leaves.

    Args:
      tree: Arrays or numbers.
      mixed_dtype_handler: How to handle several dtypes. None raises an error;
        ``"promote"`` returns their promoted dtype; ``"highest"`` or ``"lowest"``
        returns the one of them that all others can be promoted to, or from.

    Returns:
      A dtype; the dtype of scalars for a tree without leaves.

    Raises:
      ValueError: The dtypes differ and there is no handler, or none of them is the
        highest or lowest.

    >>> tree = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    >>> dtype(tree, "lowest")
    dtype(bfloat16)
    """
    arguments.one_of(
        (None, "promote", "highest", "lowest"), mixed_dtype_handler=mixed_dtype_handler
    )
    named = [(path, jnp.asarray(x).dtype) for path, x in leaves_with_names(tree)]
    dtypes = sorted({x for _, x in named}, key=str)
    if len(dtypes) <= 1:
        return dtypes[0] if dtypes else scalar_dtype()
    if mixed_dtype_handler is None:
        examples = {str(x): path for path, x in named}
        shown = ", ".join(f"{x} ({path!r})" for x, path in sorted(examples.items()))
        raise ValueError(
            f"the leaves have several dtypes: {shown}. Set mixed_dtype_handler to "
            "choose one"
        )
    if mixed_dtype_handler == "promote":
        return promoted(*dtypes)
    for x in dtypes:
        pairs = [(y, x) if mixed_dtype_handler == "highest" else (x, y) for y in dtypes]
        if all(promoted(low, high) == high for low, high in pairs):
            return x
    raise ValueError(
        f"none of {[str(x) for x in dtypes]} is the {mixed_dtype_handler}: some cannot "
        "be promoted to each other"
    )


def real(tree: Any) -> Any:
    """Return the real part of every leaf.

    Args:
      tree: Arrays; None stays None.

    Returns:
      A tree like ``tree``.

    >>> real({"a": jnp.array([1 + 2j])})
    {'a': Array([1.], dtype=float32)}
    """
    return map_leaves(jnp.real, tree=tree)


def conj(tree: Any) -> Any:
    """Return the complex conjugate of every leaf.

    Args:
      tree: Arrays; None stays None.

    Returns:
      A tree like ``tree``.

    >>> conj({"a": jnp.array([1 + 2j])})
    {'a': Array([1.-2.j], dtype=complex64)}
    """
    return map_leaves(jnp.conj, tree=tree)
