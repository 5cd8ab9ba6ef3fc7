"""Parameters in bfloat16 that learn: what rounding leaves over is kept, or drawn.

    w   <- p + error           the wide parameter, in float32
    u   <- inner(g, w)         all of the inner optimizer sees float32
    p'  <- round(w + u)        to bfloat16
    error <- w + u - p'        "kahan", "ecc8", "ecc16", "master"

bfloat16 has 8 significant bits. Rounded to nearest, a step of less than ``p / 512``
does nothing, and steps of Adam are smaller. Bytes per parameter, beside its own 2 and
the state of ``inner``:

    "stochastic"  0   p' is one of the two neighbours of w + u, at random, with the mean
                      w + u: right on average, with noise
    "ecc8"        1   an integer in 256ths of the distance of neighbours: 16 bits of w
    "kahan"       2   bfloat16: 16 or 17 bits of w
    "ecc16"       2   an integer: all 24 bits of w
    "master"      4   float32: all 24 bits of w

Zamirai et al., "Revisiting bfloat16 training", 2020 (Kahan, stochastic); "FlashOptim",
2026 (integers); Micikevicius et al., "Mixed precision training", 2018 (master).
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import tree_checks
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.fused import select
from jopt.core.kernels import LANDINGS, Landing
from jopt.core.leaves_alike import kind, together
from jopt.core.slots import filled
from jopt.core.transformation import (
    FUSED,
    LANDING,
    GradientTransformation,
    Needs,
    OptState,
    Params,
    Place,
)
from jopt.storage.compensation import is_narrow, landed, widened, with_error
from jopt.storage.rounding import random_bits
from jopt.tree.row_sparse import is_rows
from jopt.tree.variables import sees_arrays
from jopt.values import arguments


class Bf16ParamsState(NamedTuple):
    """State of `bf16_params`."""

    inner_state: Any  # state of the inner transformation, of float32 parameters
    count: Any  # int32 scalar, steps so far; None unless rounding is at random
    error: Any  # what 16-bit parameters lack, like params; None for other leaves


# What is kept of the error.
KEPT = {
    "stochastic": None,
    "kahan": "bfloat16",
    "master": "float32",
    "ecc8": "int8",
    "ecc16": "int16",
}
_with_error = jax.jit(with_error)  # traced once for leaves of one kind


@transformation
def bf16_params(
    inner: GradientTransformation,
    rounding: Literal["stochastic", "kahan", "master", "ecc8", "ecc16"],
) -> GradientTransformation:
    """Let an optimizer train bfloat16 parameters as if they were float32.

    ``inner`` is given float32 parameters and gradients, and its updates are not rounded
    before they are added. What the bfloat16 parameter lacks of the sum is kept in the
    state, or rounding is at random; see the table. Everything that acts on parameters
    (weight decay, averages, lookahead, projections) belongs into ``inner``.

        rounding      bytes   precision
        "stochastic"  0       right on average, with noise
        "ecc8"        1       16 bits; steps below p / 65000 are lost
        "kahan"       2       16 bits; steps below p / 130000 are lost
        "ecc16"       2       24 bits, as float32
        "master"      4       24 bits, as float32

    The updates of 16-bit parameters are float32, whatever the dtype of the gradients:
    `apply_updates`, `jopt.step` and the training states of all libraries add in float32
    and round once, and then arrive at the bfloat16 parameter that is meant. What is
    kept is counted from the parameter at which they do arrive. Leaves of other dtypes
    are trained as without this. float16 parameters are treated as bfloat16 ones, but
    not rounded at random.

    Args:
      inner: A complete optimizer.
      rounding: What becomes of the digits that bfloat16 does not hold.

    Returns:
      A transformation for the outside, or for a group of `partition`; it needs params.
      No later member of a chain may change the updates. `jopt.eval_params` rounds what
      an average inside has kept to the dtypes of the parameters; `jopt.wide_params`
      returns the float32 parameters.

    Raises:
      ValueError: ``rounding`` is none of these.
      TypeError: In ``init``: a parameter is float16, and rounding ``"stochastic"``.

    >>> import jopt
    >>> for tx in (jopt.sgd(1e-3), jopt.bf16_params(jopt.sgd(1e-3), "ecc8")):
    ...     params = jnp.ones(1, jnp.bfloat16)
    ...     state = tx.init(params)
    ...     for _ in range(50):
    ...         params, state = jopt.step(tx, jnp.ones_like(params), state, params)
    ...     print(params)
    [1]
    [0.949219]
    """
    inner = as_transformation(inner, "bf16_params: inner")
    arguments.one_of(KEPT, rounding=rounding)
    dtype = KEPT[rounding]
    at_random = dtype is None

    def init(params):
        if at_random:
            _check_bfloat16(params)
        count = jnp.zeros((), jnp.int32) if at_random else None

        def error(p):
            if at_random or not is_narrow(p):
                return None
            return filled(p, 0.0, jnp.dtype(dtype), ())

        return Bf16ParamsState(
            inner.init(jax.tree.map(widened, params)),
            count,
            jax.tree.map(error, params),
        )

    lands = LANDING in inner.fused

    def update(updates, state, params, *, take=None, adds=False, **extra):
        leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
        aligned = functools.partial(tree_checks.aligned, updates, leaves, treedef)
        old = aligned(params, "params")
        errors = aligned(state.error, "the state's error", shapes=lambda shape: shape)
        narrow = [
            i
            for i, (g, p) in enumerate(zip(leaves, old, strict=True))
            if g is not None and is_narrow(p)
        ]
        for i in narrow:
            if errors[i] is None and not at_random:
                tree_checks.no_slot(updates, i)

        def widen():
            wide = list(old)
            for some in _alike({i: (old[i], errors[i]) for i in narrow}):
                pairs = [(old[i], errors[i]) for i in some]
                for i, w in zip(some, _with_errors(pairs), strict=True):
                    wide[i] = w
            return treedef.unflatten(wide)

        def result(new, inner_state, errors):
            count = tree.safe_increment(state.count) if at_random else None
            errors = treedef.unflatten(errors)
            return new, Bf16ParamsState(inner_state, count, errors)

        if lands and not any(map(is_rows, leaves)):
            # The kernels of inner round what they compute.
            landing = Landing(errors, state.count, widen)
            options = {"take": take, "adds": adds, "landing": landing}
            (new, errors), inner_state = inner.call(
                options, updates, state.inner_state, params, extra
            )
            new, after = result(new, inner_state, errors)
            if take is not None and at_random:
                after = after._replace(count=jnp.where(take, after.count, state.count))
            return new, after

        wide = widen()
        new, inner_state = inner.update(
            treedef.unflatten(map(widened, leaves)), state.inner_state, wide, **extra
        )
        new, of_wide = treedef.flatten_up_to(new), treedef.flatten_up_to(wide)
        rows = {i: (new[i], old[i], errors[i], of_wide[i]) for i in narrow}
        for some in _alike(rows):
            streams = [np.uint32(LANDINGS + i) for i in some] if at_random else None
            pairs = _landings([rows[i] for i in some], state.count, streams)
            for i, (u, error) in zip(some, pairs, strict=True):
                new[i], errors[i] = u, error
        new, after = result(treedef.unflatten(new), inner_state, errors)
        if take is not None:
            new, after = select(take, (new, after), (None, state))
        return apply_updates(params, new) if adds else new, after

    def readout(state, params, name=None):
        wide = jax.tree.map(widened, _wide_tree(params, state.error))
        averages = eval_params(inner, state.inner_state, wide, name=name)
        return tree.cast_like(averages, params)

    needs = Needs(
        inner.needs.accepts | {"params"}, frozenset({"params"}), inner.needs.anything
    )
    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        needs=needs,
        state_class=Bf16ParamsState,
        readout=readout if has_readout(inner) else None,
        place=Place(lands=True),
        fused=FUSED if lands else frozenset(),
    )


def _check_bfloat16(params: Params) -> None:
    for name, p in tree.leaves_with_names(params):
        if getattr(p, "dtype", None) == jnp.float16:
            raise TypeError(
                "bf16_params rounds to bfloat16 at random, but params leaf "
                f"{name!r} is float16. Make it bfloat16, or use bf16_params(…, 'ecc8')"
            )


def _alike(rows: dict[int, tuple[Any, ...]]) -> Iterator[Sequence[int]]:
    """The numbers of the rows of one kind, up to 16 at once, for one call."""
    same: dict[Any, list[int]] = collections.defaultdict(list)
    for i, row in rows.items():
        same[kind(*row)].append(i)
    for numbers in same.values():
        yield from together(numbers)


@jax.jit
def _with_errors(pairs: list[tuple[Any, Any]]) -> list[jax.Array]:
    return [_with_error(*pair) for pair in pairs]


@jax.jit
def _landings(
    rows: list[tuple[Any, ...]], count: Any, streams: list[Any] | None
) -> list[tuple[Any, Any]]:
    each = [None] * len(rows) if streams is None else streams
    return [
        _landing(*row, None if stream is None else (count, stream))
        for row, stream in zip(rows, each, strict=True)
    ]


@jax.jit
def _landing(u: Any, p: Any, error: Any, wide: Any, seed: Any) -> tuple[Any, Any]:
    """The update that leads to a narrow parameter, and the error there."""
    bits = None if seed is None else random_bits(p, *seed)
    if not is_rows(u):
        return landed(u, p, error, wide, bits)
    p, kept, wide, bits = (
        None if x is None else u.gathered(x) for x in (p, error, wide, bits)
    )
    step, left = landed(u.rows, p, kept, wide, bits)
    return u.with_rows(step), None if error is None else u.scattered(error, left)


@sees_arrays("params")
def wide_params(state: OptState, params: Params) -> Params:
    """Return the float32 parameters that `bf16_params` trains.

    For a checkpoint to share, or to go on in float32: with ``inner`` alone and
    ``state.inner_state``.

    Args:
      state: The state of a transformation with one or several `bf16_params`, or what
        contains it, such as a train state.
      params: The parameters.

    Returns:
      The parameters, those of 16 bits in float32.

    Raises:
      ValueError: There is no `bf16_params` in the state.

    >>> import jopt
    >>> tx = jopt.bf16_params(jopt.sgd(1e-3), "ecc16")
    >>> params = jnp.ones(1, jnp.bfloat16)
    >>> params, state = jopt.step(tx, jnp.ones(1), tx.init(params), params)
    >>> params, jopt.wide_params(state, params)
    (Array([1], dtype=bfloat16), Array([0.999], dtype=float32))
    """
    found = tree.get_all_with_path(state, "Bf16ParamsState")
    if not found:
        raise ValueError(
            "wide_params: the state has no bf16_params. Give the state of an optimizer "
            "with one, such as bf16_params(adamw(1e-3), 'ecc8'); params are what is "
            "trained with any other"
        )
    for _, inside in found:
        params = _wide_tree(params, inside.error)
    return jax.tree.map(widened, params)


def _wide_tree(params: Params, errors: Any) -> Params:
    """The parameters with their errors, in float32 where they are narrow."""

    def wide(p, error):
        if error is None or not is_narrow(p):
            return p
        return _with_error(p, error)

    return jax.tree.map(wide, params, errors, is_leaf=lambda x: x is None)
