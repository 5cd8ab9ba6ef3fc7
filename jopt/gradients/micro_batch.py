"""``micro_batch``: the gradient of a large batch, a part of it at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.transforms.aggregate import varying
from jopt.tree import scalar
from jopt.values import arguments


_HOW = ("mean", "sum", "stack")


def micro_batch(
    grad_fn: Callable[..., Any],
    micro_batches: int,
    *,
    argnums: int | Sequence[int] = 1,
    reduce: Any = "mean",
    weight_fn: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """A function like ``grad_fn`` that goes through the batch in parts, in a scan.

    It needs the memory of one part for what ``grad_fn`` computes with, and a sum like
    its result. Micro-batch i of n has the examples i, i + n, i + 2n, …, so that a batch
    whose examples are spread over devices stays where it is.

    Args:
      grad_fn: A function of params and a batch, such as ``jax.value_and_grad(loss)``,
        whose results are means over the batch.
      micro_batches: In how many parts, >= 1; the batch is a multiple of it.
      argnums: Which arguments have the examples, along the first axis of each leaf.
      reduce: What to do with a result: ``"mean"`` or ``"sum"`` over the parts, in
        float32 or wider and rounded once, or ``"stack"``, along a new first axis. One
        for all, or a tree of them: ``(("mean", "stack"), "mean")`` of
        ``jax.value_and_grad(loss, has_aux=True)``.
      weight_fn: A function of what ``grad_fn`` gets that gives the weight of a part,
        such as its tokens, where the means are over these. A part of weight 0 adds
        nothing, be it NaN; where all have weight 0, the mean is NaN.

    Returns:
      A function of the same arguments and results.

    Raises:
      ValueError: A number or word is not allowed, or the batch cannot be divided.
      TypeError: The mean of integers is asked for.

    >>> import jopt
    >>> grad = jax.grad(lambda w, x: jnp.mean((w * x) ** 2))
    >>> jopt.micro_batch(grad, 2)(jnp.float32(1.0), jnp.arange(4.0))
    Array(7., dtype=float32)
    """
    parts = arguments.whole("micro_batches", micro_batches)
    arguments.at_least(1, micro_batches=parts)
    split = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for how in jax.tree.leaves(reduce):
        arguments.one_of(_HOW, reduce=how)

    @functools.wraps(grad_fn)
    def whole(*args, **kwargs):
        _check_batch(args, split, parts)

        def part(i):
            given = [
                _part(x, i, parts) if k in split else x for k, x in enumerate(args)
            ]
            out = grad_fn(*given, **kwargs)
            return out, scalar(weight_fn(*given, **kwargs)) if weight_fn else None

        shapes, weight = jax.eval_shape(part, 0)
        wanted = _for_each_leaf(reduce, shapes)
        leaves, treedef = jax.tree.flatten(shapes)
        sums = [
            None if how == "stack" else _zeros(x)
            for x, how in zip(leaves, wanted, strict=True)
        ]

        def body(carry, i):
            sums, total = carry
            out, w = part(i)
            found = jax.tree.leaves(out)
            sums = [
                s if s is None else s + _weighted(x, w if how == "mean" else None, s)
                for s, x, how in zip(sums, found, wanted, strict=True)
            ]
            kept = [x if s is None else None for s, x in zip(sums, found, strict=True)]
            return (sums, None if w is None else total + w), kept

        start = (sums, None if weight is None else _zeros(weight))
        (sums, total), stacked = jax.lax.scan(body, start, jnp.arange(parts))
        total = scalar(parts) if total is None else total
        return treedef.unflatten(
            y if s is None else _finished(s, total if how == "mean" else None, x.dtype)
            for s, y, x, how in zip(sums, stacked, leaves, wanted, strict=True)
        )

    return whole


def _check_batch(args: Sequence[Any], split: Sequence[int], parts: int) -> None:
    lengths = {}
    for k in split:
        if k >= len(args):
            raise ValueError(
                f"argnums names argument {k} for the examples, but the function was "
                f"called with {len(args)} arguments by position"
            )
        for path, leaf in tree.leaves_with_names(args[k]):
            name = f"argument {k}" + (f", leaf {path!r}" if path else "")
            lengths[name] = np.shape(leaf)[0] if np.ndim(leaf) else None
    if len(set(lengths.values())) > 1 or None in lengths.values():
        raise ValueError(
            "the examples are along the first axis of each leaf of the batch, but its "
            f"lengths are {lengths}"
        )
    for name, length in lengths.items():
        if length % parts:
            raise ValueError(
                f"a batch of {length} ({name}) cannot be divided into "
                f"micro_batches={parts}. Choose a divisor, or pad the batch and give "
                "what is padded no weight, with weight_fn"
            )


def _part(whole: Any, i: Any, parts: int) -> Any:
    def strided(x):
        x = jnp.asarray(x)
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)

    return jax.tree.map(strided, whole)


def _for_each_leaf(reduce: Any, shapes: Any) -> list[str]:
    try:
        spread = jax.tree.map(
            lambda how, x: jax.tree.map(lambda _: how, x), reduce, shapes
        )
    except ValueError as error:
        raise ValueError(
            f"reduce={reduce!r} does not fit what the function returns, "
            f"{jax.tree.structure(shapes)}: {error}"
        ) from None
    named = tree.leaves_with_names(shapes)
    wanted = jax.tree.leaves(spread)
    for (path, x), how in zip(named, wanted, strict=True):
        is_number = jnp.issubdtype(x.dtype, jnp.inexact)
        if (how == "mean" and not is_number) or (how == "sum" and x.dtype == bool):
            raise TypeError(
                f"the {how} of result {path!r}, which has dtype {x.dtype}, is not "
                'defined. Say what to do in reduce: "stack", or "sum" of integers'
            )
    return wanted


def _zeros(x: Any) -> jax.Array:
    """A sum to start with, of the type that a sum of such results has."""
    is_number = jnp.issubdtype(x.dtype, jnp.inexact)
    dtype = tree.compute_dtype(x.dtype) if is_number else x.dtype
    zeros = jnp.zeros(x.shape, dtype, device=x.sharding)
    # Within shard_map, what differs from device to device has a type of its own.
    axes = tuple(varying(x))
    return jax.lax.pcast(zeros, axes, to="varying") if axes else zeros


def _weighted(x: Any, weight: jax.Array | None, like: jax.Array) -> jax.Array:
    x = jnp.asarray(x).astype(like.dtype)
    if weight is None:
        return x
    return jnp.where(weight == 0, jnp.zeros_like(x), weight.astype(x.dtype) * x)


def _finished(total: jax.Array, divisor: jax.Array | None, dtype: Any) -> jax.Array:
    if divisor is not None:
        total = total / divisor.astype(total.dtype)
    return total.astype(dtype)
