"""Row-sparse leaves in the engine: the same kernel, on the touched rows only.

The rows of the parameter and of the slots are gathered, the kernel runs on them as on
any leaf, and the rows of the slots are scattered back, in place where the state is
donated. This is right for rules that treat every row by itself; whether a rule does so
is checked while tracing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt.core.slots import Slot
from jopt.storage.formats import Encoded, is_encoded
from jopt.tree.row_sparse import RowSparse


if TYPE_CHECKING:  # jax.extend is slow to import, and few have such leaves
    from jax.extend import core


# Row counts to trace a rule with in that check. They are primes that no other axis is
# likely to have, so an axis of this length is the axis of rows.
_ROWS = (1009, 1013, 1019, 1021)
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bitcast_convert_type", "cbrt", "ceil", "clamp", "complex", "conj",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt",
    "max", "min", "mul", "name", "ne", "neg", "nextafter", "not",
    "optimization_barrier", "or", "pow", "real", "reduce_precision", "rem", "round",
    "rsqrt", "select_n", "sharding_constraint", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip
_ARRANGING = {"broadcast_in_dim", "concatenate", "slice", "squeeze", "transpose"}
_REDUCING = {
    "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
    "reduce_prod", "reduce_sum",
}  # fmt: skip


def kernel(dense: Callable[..., Any], keys: Sequence[Any], alone: Any) -> Any:
    """Make the kernel for a row-sparse leaf from the one for a dense leaf.

    Args:
      dense: The kernel of ``keys``.
      keys: The keys of the algorithms, which declare the slots of the leaf.
      alone: Returns the kernel of some keys, so that each can be checked by itself.

    Returns:
      A function of the same arguments, for `RowSparse` updates.
    """

    def rowwise(g, p, slots, scalars):
        by_row = []
        for key, values, numbers in zip(keys, slots, scalars, strict=True):
            declared = key.declare(**{name: numbers[name] for name in key.numbers})
            flags = [_by_row(key.name, s, g) for s in declared.slots.values()]
            by_row.append(flags)
            _check(key.name, alone((key,)), g, p, values, flags, numbers)

        def chosen(f, *rest):
            def each(on, x, *others):
                return f(x, *others) if on else (others or (x,))[-1]

            return jax.tree.map(each, by_row, slots, *rest)

        rows_of_p = None if p is None else g.gathered(p)
        u, new = dense(g.rows, rows_of_p, chosen(g.gathered), scalars, g.ids)
        # Whatever a rule computes from the padding is discarded.
        u = RowSparse.tree_unflatten(g.num_rows, (g.ids, jnp.where(g.is_row, u, 0)))
        return u, chosen(g.scattered, new)

    rowwise.__name__ = f"{getattr(dense, '__name__', 'kernel')}__rows"
    return rowwise


def _by_row(name: str, slot: Slot, g: RowSparse) -> Any:
    """Whether each array of a leaf's slot has an entry for every row."""

    def averaged(n):
        shape = (n, *g.shape[1:])
        axes_of_arrays = (
            slot.each(shape) if slot.each else [slot.over(shape) if slot.over else ()]
        )
        return [
            None if axes is None else frozenset(axis % g.ndim for axis in axes)
            for axes in axes_of_arrays
        ]

    reduced = averaged(g.num_rows)
    if any(averaged(n) != reduced for n in (_ROWS[0], len(g.ids)) if n):
        raise TypeError(_message(name, "its slots depend on the number of rows"))
    shapes = slot.stored_shapes(g.shape)
    flags = [
        _flags(name, axes is not None and 0 not in axes, shape)
        for axes, shape in zip(reduced, shapes if slot.each else [shapes], strict=True)
    ]
    if slot.each:
        return tuple(flags)
    return None if reduced[0] is None else flags[0]


def _flags(name: str, by_row: bool, shapes: Any) -> Any:
    """For an array in blocks, the same for its codes and its scales."""
    if not is_encoded(shapes):
        return by_row
    if len(shapes.codes) == 1:
        raise TypeError(_message(name, "its slots have blocks of several rows"))
    return Encoded(by_row, None if shapes.scales is None else by_row)


def _check(
    name: str,
    alone: Callable[..., Any],
    g: RowSparse,
    p: Any,
    slots: list[Any],
    by_row: list[Any],
    scalars: dict[str, Any],
) -> None:
    """Raise if a rule mixes rows, so that some rows alone give other numbers."""
    sizes = [n for n in _ROWS if n not in g.shape][:2]

    def traced(n):
        def like(x, on=True):
            shape = (n, *x.shape[1:]) if on else x.shape
            return jax.ShapeDtypeStruct(shape, x.dtype)

        slots_like = jax.tree.map(lambda on, x: like(x, on), by_row, slots)
        numbers = jax.tree.map(lambda x: like(x, False), scalars)
        p_like = None if p is None else like(p)
        ids = jax.ShapeDtypeStruct((n,), g.ids.dtype)
        rows = like(g.rows), p_like, [slots_like]
        return jax.make_jaxpr(alone)(*rows, [numbers], ids)

    first, second = map(traced, sizes)
    for eqn in _equations(first.jaxpr):
        if _mixes(eqn, sizes[0]):
            reason = f"the update of a row depends on other rows ({eqn.primitive})"
            raise TypeError(_message(name, reason))
    if _constants(first) != _constants(second):
        reason = "the update of a row depends on the number of rows"
        raise TypeError(_message(name, reason))


def _message(name: str, reason: str) -> str:
    return (
        f"{name} cannot work on some rows of a leaf: {reason}. Put jopt.densify() "
        "before it, which makes row-sparse updates dense; or give this leaf another "
        "optimizer with jopt.partition"
    )


def _equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """The equations that compute something, inner functions included."""
    from jax.extend import core

    for eqn in jaxpr.eqns:
        inner = list(core.jaxprs_in_params(eqn.params))
        # A scan runs along an axis, which the shapes of its body do not show.
        if not inner or eqn.primitive.name == "scan":
            yield eqn
        for sub in inner:
            yield from _equations(sub)


def _mixes(eqn: core.JaxprEqn, n: int) -> bool:
    """Whether an equation may move numbers between rows, the axis of length n."""
    name = eqn.primitive.name
    inputs, outputs = (
        [getattr(v.aval, "shape", ()) for v in x] for x in (eqn.invars, eqn.outvars)
    )
    if not any(n in shape for shape in (*inputs, *outputs)):
        return False
    if any(shape.count(n) > 1 for shape in outputs):
        return True
    if name == "iota":  # the places within a row are alike in all rows
        return outputs[0].index(n) == eqn.params["dimension"]
    if name in _REDUCING:
        return inputs[0].index(n) in eqn.params["axes"]
    if name in _ARRANGING:
        return any(n in shape for shape in inputs) and n not in outputs[0]
    if name == "reshape":
        return n not in outputs[0] or _before(n, inputs[0]) != _before(n, outputs[0])
    return name not in ELEMENTWISE


def _before(n: int, shape: tuple[int, ...]) -> int:
    """The number of elements before the axis of n rows: the product of those axes."""
    return math.prod(shape[: shape.index(n)]) if n in shape else 0


def _constants(traced: core.ClosedJaxpr) -> list[str]:
    """The constants in the equations, in order."""
    from jax.extend import core

    inner = [
        str(v.val)
        for eqn in _equations(traced.jaxpr)
        for v in eqn.invars
        if isinstance(v, core.Literal)
    ]
    return [str(x) for x in traced.consts if not np.shape(x)] + inner
