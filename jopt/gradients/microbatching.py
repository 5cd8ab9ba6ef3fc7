"""Functions of a large batch, evaluated on one part of it after the other.

`jopt.micro_batch` does this for a gradient. Here the results of the parts may be
combined in any way, per-example results included, with optax's names.

Part i of n holds the examples i, i + n, i + 2n, …, so that a batch whose examples are
sharded over devices stays where it is.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt.tree import leaves_with_names
from jopt.values import arguments
from jopt.values.arguments import text_of


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """How to combine the results of the parts.

    Args:
      init: A function of the shapes of one result that returns the first carry.
      update: A function of carry, result and index of a part that returns a carry.
      finalize: A function of the last carry that returns the result for the batch.
      aggregate: A function that combines the results of `micro_vmap` within one part,
        along their first axis.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], Any]
    finalize: Callable[[Any], Any]
    aggregate: Callable[[Any], Any]


class AccumulationType(enum.Enum):
    """The usual ways to combine the results of the parts."""

    MEAN = enum.auto()  # their sum, divided by the number of parts
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()  # the mean of the parts so far, whose number may vary
    CONCAT = enum.auto()  # along the first axis, in the order of the examples


class Individual(NamedTuple):
    """What `micro_grad` returns for each example."""

    values: Any
    metrics: Any
    aux: Any


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Make a function go through its batch in parts, one after the other.

    Args:
      fun: Any function of a batch.
      argnums: Positions of the arguments that hold examples.
      microbatch_size: Number of examples in a part; it must divide the batch. None
        returns ``fun`` as it is.
      accumulator: How to combine the results: an `AccumulationType` or `Accumulator`,
        or a tree of them that begins like what ``fun`` returns.
      argnames: Names of further arguments that hold examples.
      in_axes: The axis of the examples, for all of these arguments or for each.
      num_real_microbatches: How many parts to evaluate; None means all. It may be
        traced, for batches that vary in size without a new compilation.

    Returns:
      A function with the arguments and results of ``fun``.

    Raises:
      ValueError: The batch cannot be divided, or ``accumulator`` is something else.

    >>> def sums(x):
    ...     return x + 1, jnp.sum(x)
    >>> combine = AccumulationType.CONCAT, AccumulationType.SUM
    >>> microbatch(sums, 0, 2, combine)(jnp.arange(4))
    (Array([1, 2, 3, 4], dtype=int32), Array(6, dtype=int32))
    """
    if microbatch_size is None:
        return fun
    keys: list[Any] = [argnums] if isinstance(argnums, int) else list(argnums)
    keys += [argnames] if isinstance(argnames, str) else list(argnames)
    axes = [in_axes] * len(keys) if isinstance(in_axes, int) else list(in_axes)
    places = list(zip(keys, axes, strict=True))

    def in_parts(*args, **kwargs):
        given = {**dict(enumerate(args)), **kwargs}
        parts = _number_of_parts(given, places, microbatch_size)
        for key, axis in places:
            given[key] = reshape_batch_axis(given[key], microbatch_size, axis)

        def part(i):
            chosen = dict(given)
            for key, axis in places:
                take = functools.partial(
                    jax.lax.dynamic_index_in_dim, index=i, axis=axis, keepdims=False
                )
                chosen[key] = jax.tree.map(take, given[key])
            values = [chosen.pop(k) for k in range(len(args))]
            return fun(*values, **chosen)

        combine = _combined(accumulator, parts)
        last = parts if num_real_microbatches is None else num_real_microbatches
        carry = jax.lax.fori_loop(
            0,
            last,
            lambda i, carry: combine.update(carry, part(i), i),
            combine.init(jax.eval_shape(part, 0)),
        )
        return combine.finalize(carry)

    return in_parts


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[int | None] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Any] = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Apply ``jax.vmap`` to one part of the batch after the other.

    Args:
      fun: A function of one example.
      in_axes: As of ``jax.vmap``: one axis, or one for each argument by position;
        arguments by name have their examples along the first axis.
      out_axes: Must be 0.
      microbatch_size: See `microbatch`; None takes all examples at once.
      vmap_fn: A function to call in place of ``jax.vmap``.
      accumulator: See `microbatch`. The default returns what ``jax.vmap`` returns; a
        sum or mean is over all examples.
      num_real_microbatches: See `microbatch`.

    Returns:
      A function of a batch.

    Raises:
      NotImplementedError: ``out_axes`` is not 0.

    >>> micro_vmap(lambda x: 2 * x, microbatch_size=2)(jnp.arange(4))
    Array([0, 2, 4, 6], dtype=int32)
    """
    if out_axes != 0:
        raise NotImplementedError(f"out_axes must be 0, got {text_of(out_axes)}")
    axes = (in_axes,) if isinstance(in_axes, int) else tuple(in_axes)

    def of_part(*args, kwargs):
        results = vmap_fn(fun, axes, out_axes)(*args, **kwargs)
        examples = len(jax.tree.leaves(results)[0])
        return _combined(accumulator, examples).aggregate(results)

    batched = [i for i, axis in enumerate(axes) if axis is not None]
    in_parts = microbatch(
        of_part,
        batched,
        microbatch_size,
        accumulator,
        argnames="kwargs",
        in_axes=[*(axis for axis in axes if axis is not None), 0],
        num_real_microbatches=num_real_microbatches,
    )
    return lambda *args, **kwargs: in_parts(*args, kwargs=kwargs)


def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable[[Any], Any] = lambda gradient: gradient,
    metrics_fn: Callable[[Any], Any] = lambda gradient: None,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Return a function for gradients of single examples, changed and then combined.

    Args:
      fun: A loss.
      has_aux: Whether ``fun`` returns ``(loss, aux)``.
      argnums: Positions of the arguments to differentiate.
      batch_argnums: Positions of the arguments that hold examples along the first axis.
      keep_batch_dim: Whether ``fun`` takes a batch, here of one example.
      microbatch_size: See `microbatch`; None takes all examples at once.
      accumulator: How to combine what ``transform_fn`` returns; see `microbatch`.
      transform_fn: A function of the gradient of one example, such as a clip.
      metrics_fn: A function of the gradient of one example, such as its norm.
      num_real_microbatches: See `microbatch`.

    Returns:
      A function with the arguments of ``fun`` that returns the combined gradients, and
      a NamedTuple of ``values``, ``metrics`` and ``aux`` of all examples.

    >>> def loss(w, x):
    ...     return jnp.mean((w * x) ** 2)
    >>> gradient, each = micro_grad(loss, microbatch_size=2)(1.0, jnp.arange(4.0))
    >>> gradient, each.values
    (Array(28., dtype=float32), Array([0., 1., 4., 9.], dtype=float32))
    """
    numbers = [batch_argnums] if isinstance(batch_argnums, int) else batch_argnums

    def with_aux(*args, **kwargs):
        return fun(*args, **kwargs) if has_aux else (fun(*args, **kwargs), None)

    def of_example(*args, **kwargs):
        both = jax.value_and_grad(with_aux, argnums, has_aux=True)(*args, **kwargs)
        (value, aux), gradient = both
        each = Individual(value, metrics_fn(gradient), aux)
        return transform_fn(gradient), each

    axes = [0 if i in numbers else None for i in range(max(numbers) + 1)]
    of_batch = micro_vmap(
        of_example,
        axes,
        microbatch_size=microbatch_size,
        accumulator=(accumulator, AccumulationType.CONCAT),
        num_real_microbatches=num_real_microbatches,
    )

    def of_examples(*args, **kwargs):
        if keep_batch_dim:
            args = [
                jax.tree.map(lambda x: jnp.expand_dims(x, 1), x) if i in numbers else x
                for i, x in enumerate(args)
            ]
        return of_batch(*args, **kwargs)

    return of_examples


def reshape_batch_axis(tree: Any, microbatch_size: int, axis: int = 0) -> Any:
    """Split the axis of the examples into one of parts and one within a part.

    Args:
      tree: Arrays.
      microbatch_size: Number of examples in a part.
      axis: The axis of the examples.

    Returns:
      A tree like ``tree``, with example ``i + n j`` of ``n`` parts at ``[i, j]``.
      A sharding of the examples becomes one of the second axis.

    Raises:
      ValueError: The devices do not divide the parts.

    >>> reshape_batch_axis(jnp.arange(4), 2)
    Array([[0, 2],
           [1, 3]], dtype=int32)
    """

    def split(x):
        x = jnp.asarray(x)
        shape = (*x.shape[:axis], -1, microbatch_size, *x.shape[axis + 1 :])
        sharding = jax.typeof(x).sharding
        if not sharding.mesh.are_all_axes_explicit:
            return x.reshape(shape, order="F")
        devices = x.shape[axis] // sharding.shard_shape(x.shape)[axis]
        if microbatch_size % devices:
            raise ValueError(
                f"a part of microbatch_size={microbatch_size} examples cannot be "
                f"divided over {devices} devices"
            )
        spec = (*sharding.spec, *[None] * x.ndim)[: x.ndim]
        spec = jax.P(*spec[:axis], None, *spec[axis:])
        out = jax.sharding.NamedSharding(sharding.mesh, spec)
        return x.reshape(shape, order="F", out_sharding=out)

    return jax.tree.map(split, tree)


def _number_of_parts(given: Any, places: Any, microbatch_size: int) -> int:
    lengths = {}
    for key, axis in places:
        for path, leaf in leaves_with_names(given[key]):
            name = f"argument {key!r}" + (f", leaf {path!r}" if path else "")
            lengths[name] = np.shape(leaf)[axis]
    if len(set(lengths.values())) != 1:
        raise ValueError(
            "all leaves of the batch must have the same number of examples, but the "
            f"lengths are {lengths}"
        )
    (length,) = set(lengths.values())
    if length % microbatch_size:
        raise ValueError(
            f"a batch of {length} is not divisible into parts of "
            f"microbatch_size={microbatch_size}. Choose a divisor, or pad the batch"
        )
    return length // microbatch_size


def _combined(accumulators: Any, parts: int) -> Accumulator:
    """Return the accumulator of trees for a tree of accumulators of arrays or trees."""
    arguments.at_least(1, num_microbatches=parts)
    each = jax.tree.map(lambda kind: _one(kind, parts), accumulators)

    def over(method):
        def apply(*trees_and_index):
            *trees, index = trees_and_index
            return jax.tree.map(
                lambda one, *subtrees: getattr(one, method)(*subtrees, *index),
                each,
                *trees,
            )

        return apply

    init, update, finalize, aggregate = map(
        over, ("init", "update", "finalize", "aggregate")
    )
    return Accumulator(
        lambda shapes: init(shapes, ()),
        lambda carry, result, i: update(carry, result, (i,)),
        lambda carry: finalize(carry, ()),
        lambda results: aggregate(results, ()),
    )


def _one(kind: Any, parts: int) -> Accumulator:
    """Return the accumulator of trees for one kind."""
    if isinstance(kind, Accumulator):
        return kind
    if not isinstance(kind, AccumulationType):
        kinds = [x.name for x in AccumulationType]
        raise ValueError(
            f"accumulator must consist of AccumulationType ({', '.join(kinds)}) and "
            f"Accumulator, got {text_of(kind)}"
        )

    def running(carry, x, i):
        return carry + ((x - carry) / (i + 1)).astype(carry.dtype)

    zeros, add, same = jnp.zeros_like, lambda carry, x, i: carry + x, lambda x: x
    mean = functools.partial(jnp.mean, axis=0)
    rules = {
        AccumulationType.SUM: (zeros, add, same, functools.partial(jnp.sum, axis=0)),
        AccumulationType.MEAN: (_zeros, add, lambda x: x / parts, mean),
        AccumulationType.RUNNING_MEAN: (_zeros, running, same, mean),
        AccumulationType.CONCAT: (
            lambda x: jnp.broadcast_to(jnp.zeros_like(x), (parts, *x.shape)),
            lambda carry, x, i: carry.at[i].set(x),
            _joined,
            same,
        ),
    }
    init, update, finalize, aggregate = rules[kind]
    return Accumulator(
        lambda shapes: jax.tree.map(init, shapes),
        lambda carry, value, i: jax.tree.map(
            lambda c, x: update(c, x, i), carry, value
        ),
        lambda carry: jax.tree.map(finalize, carry),
        lambda values: jax.tree.map(aggregate, values),
    )


def _zeros(x: Any) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"the mean of a result of {x.dtype} is not defined: it must be a floating "
            "point number. Use SUM or CONCAT for it"
        )
    return jnp.zeros_like(x)


def _joined(x: jax.Array) -> jax.Array:
    """Return the parts' results in the order of the examples."""
    shape = (-1, *x.shape[2:])
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.are_all_axes_explicit:
        return x.reshape(shape, order="F")
    spec = jax.P(*sharding.spec[1:])
    out = jax.sharding.NamedSharding(sharding.mesh, spec)
    return x.reshape(shape, order="F", out_sharding=out)
