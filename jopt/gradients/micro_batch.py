"""``micro_batch``: the gradient of a large batch, one part after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.transforms.per_example import varying
from jopt.tree import scalar
from jopt.values import arguments
from jopt.values.arguments import text_of


_REDUCTIONS = ("mean", "sum", "stack")


def micro_batch(
    grad_fn: Callable[..., Any],
    micro_batches: int,
    *,
    argnums: int | Sequence[int] = 1,
    reduce: Any = "mean",
    weight_fn: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Make ``grad_fn`` go through its batch in parts, one after the other, in a scan.

    The result needs memory for the intermediates of one part, and for one sum of
    results. Micro-batch i of n holds the examples i, i + n, i + 2n, …, so that a batch
    whose examples are sharded over devices stays where it is.

    Args:
      grad_fn: A function of params and a batch, such as ``jax.value_and_grad(loss)``,
        whose results are means over the batch.
      micro_batches: Number of parts, >= 1; it must divide the size of the batch.
      argnums: Positions of the arguments that hold examples, along the first axis of
        each leaf.
      reduce: How to combine the results of the parts: ``"mean"`` or ``"sum"``, in
        float32 or wider and rounded once, or ``"stack"`` along a new first axis. One
        word for all results, or a tree of words, such as ``(("mean", "stack"),
        "mean")`` for ``jax.value_and_grad(loss, has_aux=True)``.
      weight_fn: A function of the arguments of ``grad_fn`` that returns the weight of a
        part in the mean, such as its number of tokens if ``grad_fn`` averages over
        tokens. A part of weight 0 adds nothing, even if it is NaN; if all weights are
        0, the mean is NaN.

    Returns:
      A function with the arguments and results of ``grad_fn``.

    Raises:
      ValueError: A number or word is not allowed, or the batch cannot be divided.
      TypeError: A mean of integers or a sum of bools is requested.

    >>> import jopt
    >>> grad = jax.grad(lambda w, x: jnp.mean((w * x) ** 2))
    >>> jopt.micro_batch(grad, 2)(jnp.float32(1.0), jnp.arange(4.0))
    Array(7., dtype=float32)
    """
    parts = arguments.whole("micro_batches", micro_batches)
    arguments.at_least(1, micro_batches=parts)
    split = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for kind in jax.tree.leaves(reduce):
        arguments.one_of(_REDUCTIONS, reduce=kind)

    @functools.wraps(grad_fn)
    def whole(*args, **kwargs):
        _check_batch(args, split, parts)

        def part(i):
            part_args = [
                _part(x, i, parts) if k in split else x for k, x in enumerate(args)
            ]
            out = grad_fn(*part_args, **kwargs)
            return out, scalar(weight_fn(*part_args, **kwargs)) if weight_fn else None

        shapes, weight = jax.eval_shape(part, 0)
        kinds = _for_each_leaf(reduce, shapes)
        leaves, treedef = jax.tree.flatten(shapes)
        sums = [
            None if kind == "stack" else _zeros(x)
            for x, kind in zip(leaves, kinds, strict=True)
        ]

        def body(carry, i):
            sums, total = carry
            out, w = part(i)
            results = jax.tree.leaves(out)
            sums = [
                s if s is None else s + _weighted(x, w if kind == "mean" else None, s)
                for s, x, kind in zip(sums, results, kinds, strict=True)
            ]
            stacked = [
                x if s is None else None for s, x in zip(sums, results, strict=True)
            ]
            return (sums, None if w is None else total + w), stacked

        start = (sums, None if weight is None else _zeros(weight))
        (sums, total), stacked = jax.lax.scan(body, start, jnp.arange(parts))
        total = scalar(parts) if total is None else total
        return treedef.unflatten(
            y if s is None else _result(s, total if kind == "mean" else None, x.dtype)
            for s, y, x, kind in zip(sums, stacked, leaves, kinds, strict=True)
        )

    return whole


def _check_batch(args: Sequence[Any], split: Sequence[int], parts: int) -> None:
    lengths = {}
    for k in split:
        if k >= len(args):
            raise ValueError(
                f"argnums names argument {k} for the examples, but the function was "
                f"called with {len(args)} positional arguments"
            )
        for path, leaf in tree.leaves_with_names(args[k]):
            name = f"argument {k}" + (f", leaf {path!r}" if path else "")
            lengths[name] = np.shape(leaf)[0] if np.ndim(leaf) else None
    if len(set(lengths.values())) > 1 or None in lengths.values():
        raise ValueError(
            "all leaves of the batch must have the same number of examples, along "
            f"their first axes, but the lengths are {lengths}"
        )
    for name, length in lengths.items():
        if length % parts:
            raise ValueError(
                f"a batch of {length} ({name}) cannot be divided into "
                f"micro_batches={parts}. Choose a divisor, or pad the batch and "
                "count only real examples in weight_fn"
            )


def _part(whole: Any, i: Any, parts: int) -> Any:
    def strided(x):
        x = jnp.asarray(x)
        # Strided: every part has examples from every device, so none has to move.
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)

    return jax.tree.map(strided, whole)


def _for_each_leaf(reduce: Any, shapes: Any) -> list[str]:
    try:
        spread = jax.tree.map(
            lambda kind, x: jax.tree.map(lambda _: kind, x), reduce, shapes
        )
    except ValueError as error:
        raise ValueError(
            f"reduce={text_of(reduce)} does not fit what the function returns, "
            f"{jax.tree.structure(shapes)}: {error}"
        ) from None
    named = tree.leaves_with_names(shapes)
    kinds = jax.tree.leaves(spread)
    for (path, x), kind in zip(named, kinds, strict=True):
        is_number = jnp.issubdtype(x.dtype, jnp.inexact)
        if (kind == "mean" and not is_number) or (kind == "sum" and x.dtype == bool):
            raise TypeError(
                f"the {kind} of result {path!r}, which has dtype {x.dtype}, is not "
                'defined. In reduce, use "stack" for it, or "sum" for integers'
            )
    return kinds


def _zeros(x: Any) -> jax.Array:
    """Return the initial value of a sum of such results."""
    is_number = jnp.issubdtype(x.dtype, jnp.inexact)
    dtype = tree.compute_dtype(x.dtype) if is_number else x.dtype
    zeros = jnp.zeros(x.shape, dtype, device=x.sharding)
    # In shard_map, values that differ between devices have another type, and a scan
    # must end with the type that it started with.
    axes = tuple(varying(x))
    return jax.lax.pcast(zeros, axes, to="varying") if axes else zeros


def _weighted(x: Any, weight: jax.Array | None, like: jax.Array) -> jax.Array:
    x = jnp.asarray(x).astype(like.dtype)
    if weight is None:
        return x
    # A select, because 0 * NaN is NaN.
    return jnp.where(weight == 0, jnp.zeros_like(x), weight.astype(x.dtype) * x)


def _result(total: jax.Array, divisor: jax.Array | None, dtype: Any) -> jax.Array:
    if divisor is not None:
        total = total / divisor.astype(total.dtype)
    return total.astype(dtype)
