"""A function of a tree as a function of one vector.

Solvers work on vectors: their histories are matrices, and a product with all of them is
one operation. A tree is put together once for each evaluation.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jopt import tree
from jopt.core.leaves import Leaves
from jopt.tree.variables import with_variables, without_variables
from jopt.values import arguments
from jopt.values.arguments import abbreviated


class Vector:
    """The leaves of a tree as one vector, in the widest of their compute dtypes.

    Args:
      params: The tree, whose Nones stay None.
      solver: The name of the solver, for errors.

    >>> vector = Vector({"a": jnp.ones(2), "b": jnp.float32(3.0)}, "minimize")
    >>> vector.of({"a": jnp.ones(2), "b": jnp.float32(3.0)})
    Array([1., 1., 3.], dtype=float32)
    >>> vector.tree(jnp.arange(3.0))["b"]
    Array(2., dtype=float32)
    """

    def __init__(self, params: Any, solver: str):
        self.whole = params
        leaves = Leaves(without_variables(params), "x0", real_only=solver)
        self.treedef = leaves.treedef
        # Shapes only, so that a function of vectors closes over no traced array.
        self.leaves = leaves.each(_shape)
        present = [self.leaves[i] for i in leaves.present]
        self.size = sum(x.size for x in present)
        if not self.size:
            raise ValueError("x0 has no elements: there is nothing to minimize over")
        dtypes = [tree.compute_dtype(x.dtype) for x in present]
        self.dtype = functools.reduce(np.promote_types, dtypes)

    def of(self, whole: Any) -> jax.Array:
        """The vector of a tree like this one."""
        values = self.treedef.flatten_up_to(without_variables(whole))
        return jnp.concatenate(
            [
                jnp.ravel(jnp.asarray(x)).astype(self.dtype)
                for x, like in zip(values, self.leaves, strict=True)
                if like is not None
            ]
        )

    def tree(self, vector: jax.Array) -> Any:
        """The tree of a vector, in the dtypes of this one's leaves."""
        values, start = [], 0
        for like in self.leaves:
            if like is None:
                values.append(None)
                continue
            part = jax.lax.slice(vector, (start,), (start + like.size,))
            values.append(part.reshape(like.shape).astype(like.dtype))
            start += like.size
        return with_variables(self.treedef.unflatten(values), self.whole)

    def spread(self, bound: Any, name: str) -> jax.Array:
        """One side of the bounds for every element.

        Args:
          bound: A number, an array for every leaf, or a tree whose leaves have the
            shapes of these or broadcast to them. None is no bound.
          name: ``"lower"`` or ``"upper"``.
        """
        nowhere = -math.inf if name == "lower" else math.inf
        shapes = [None if x is None else x.shape for x in self.leaves]
        single = bound is None or arguments.is_number(bound)
        try:
            values = (
                [bound] * len(shapes)
                if single
                else self.treedef.flatten_up_to(without_variables(bound))
            )
        except ValueError as error:
            raise ValueError(
                f"the {name} bounds must be a number or a tree like x0 "
                f"({self.treedef}), got {abbreviated(bound)}: {error}"
            ) from None
        parts = []
        for path, shape, value in zip(self._paths(), shapes, values, strict=True):
            if shape is None:
                continue
            value = nowhere if value is None else value
            if not (hasattr(value, "dtype") or arguments.is_number(value)):
                raise ValueError(
                    f"the {name} bound of x0 leaf {path!r} must be a number, an array "
                    f"or None, got {abbreviated(value)}. Bounds are trees like x0"
                )
            value = jnp.asarray(value).astype(self.dtype)
            if not _broadcasts(value.shape, shape):
                raise ValueError(
                    f"the {name} bound of x0 leaf {path!r} has shape {value.shape}, "
                    f"which does not broadcast to the leaf's {shape}"
                )
            parts.append(jnp.broadcast_to(value, shape).ravel())
        return jnp.concatenate(parts)

    def in_order(self, lower: jax.Array, upper: jax.Array) -> None:
        """Raise if a lower bound is known to be above its upper bound."""
        if isinstance(lower, Tracer) or isinstance(upper, Tracer):
            return
        wrong = np.flatnonzero(~(np.asarray(lower) <= np.asarray(upper)))
        if wrong.size:
            i, start = int(wrong[0]), 0
            for path, x in zip(self._paths(), self.leaves, strict=True):
                if x is not None and i < start + x.size:
                    raise ValueError(
                        f"x0 leaf {path!r}, element {i - start}: the lower bound "
                        f"{lower[i]} is not <= the upper bound {upper[i]}"
                    )
                start += 0 if x is None else x.size

    def _paths(self) -> list[str]:
        return [path for path, _ in tree.leaves_with_names(self.whole, none=True)]


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    if isinstance(x, jax.Array):  # no need of the rules of promotion, which take time
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    dtype = jax.dtypes.canonicalize_dtype(jnp.result_type(x))
    return jax.ShapeDtypeStruct(np.shape(x), dtype)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in pairs)


def checked_function(solver: str, name: str, fun: Any, args: Any) -> tuple[Any, ...]:
    """The further arguments of a function; raise unless it can be called with them."""
    if not callable(fun):
        raise TypeError(
            f"{solver}: {name} must be a function of the parameters, got "
            f"{abbreviated(fun)}"
        )
    if not isinstance(args, tuple):
        raise TypeError(
            f"{solver}: args must be a tuple of further arguments of {name}, got "
            f"{abbreviated(args)}. For one argument, write args=(x,)"
        )
    return args


def one_value(out: Any, name: str, has_aux: bool) -> tuple[jax.Array, Any]:
    """The value that a function returned, and its aux; raise if it is not a number."""
    if has_aux:
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                f"{name} must return (value, aux), because has_aux=True, got "
                f"{abbreviated(out)}"
            )
        value, aux = out
    else:
        value, aux = out, None
    if isinstance(value, tuple | list | dict):
        raise TypeError(
            f"{name} must return one number, got {abbreviated(value)}. If it returns "
            "(value, aux), pass has_aux=True"
        )
    arguments.one_number(f"the value of {name}", value, jnp.floating)
    return jnp.asarray(value), aux


def tolerance(name: str, value: Any, default: float, dtype: Any) -> Any:
    """A tolerance, by default one that the dtype can reach."""
    if value is None:
        return max(default, 10 * float(jnp.finfo(dtype).eps))
    arguments.nonnegative(**{name: value})
    return value


def not_traced(x0: Any) -> None:
    """Raise if a run with a callback is inside a transformation of JAX."""
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(x0)):
        raise TypeError(
            "minimize with a callback runs step by step, outside of jit, grad and "
            "vmap, but x0 is traced. Leave out the callback there"
        )
