"""Matrices of one shape as one batch, whichever leaves they come from.

Two hundred leaves of one shape need one trace, and few calls: they are stacked, up to
eight leaves at a time. A matrix method hands over all that it keeps of a leaf as one
row, such as its gradient, moments and statistics, and gets back what became of it.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from jopt.algorithms.matrices import devices_along, positions, sizes


# Larger stacks are no faster on any device, but take more memory and compile slower.
_MOST_LEAVES, _MOST_NUMBERS = 8, 2**22


def as_matrices(leaf: jax.Array, axes: str) -> jax.Array:
    """Return the leaf as matrices ``(count, inputs, outputs)``.

    >>> as_matrices(jnp.ones((3, 3, 16, 32)), "iiio").shape
    (1, 144, 32)
    """
    return leaf.transpose(positions(axes, "bio")).reshape(sizes(axes, leaf.shape))


def as_leaf(matrices: jax.Array, axes: str, shape: tuple[int, ...]) -> jax.Array:
    """Invert `as_matrices`.

    >>> as_leaf(jnp.ones((1, 144, 32)), "iiio", (3, 3, 16, 32)).shape
    (3, 3, 16, 32)
    """
    order = positions(axes, "bio")
    return matrices.reshape([shape[i] for i in order]).transpose(
        np.argsort(order).tolist()
    )


def together(
    f: Callable[..., list[Any]], rows: Sequence[Any], *shared: Any, **options: Any
) -> list[Any]:
    """Run a function over lists of equal rows.

    Args:
      f: ``f(rows, *shared, **options)``, which returns a list of one result for each
        row; `stacked` and `split` help it. It is traced once for each shape, by an
        inner jit, so it must be the same function each time, and no closure made anew.
      rows: For each leaf, a tree of arrays. Rows of one structure, of the same shapes
        and dtypes, come in one list.
      *shared: What all rows share, such as numbers that may be traced.
      **options: What ``f`` is compiled for; hashable. ``mesh_axis``, the name of a mesh
        axis, makes the lists as many times longer as there are devices along it.

    Returns:
      For each row, the result for it.

    >>> rows = [(jnp.ones((1, 2, 3)),), (jnp.ones((4, 2, 2)),), (jnp.ones((1, 2, 3)),)]
    >>> [x.shape for x in together(_sums, rows)]
    [(1, 2), (4, 2), (1, 2)]
    """
    results = list(rows)
    static = tuple(sorted(options.items()))
    for stack in stacks(rows, options.get("mesh_axis")):
        new = _together(f, [rows[i] for i in stack], shared, static)
        for i, result in zip(stack, new, strict=True):
            results[i] = result
    return results


def spread(
    f: Callable[[list[Any]], list[Any]], rows: Sequence[Any], mesh_axis: str | None
) -> list[Any]:
    """Return ``f(rows)``, computed where the matrices are whole.

    Args:
      f: From a list of rows to one of as many. With ``mesh_axis`` it gets a list of one
        row, the stack of all, whose matrices are spread over the devices.
      rows: See `together`.
      mesh_axis: See `stacked`. All that a row holds goes there in one exchange, and
        all of the results comes back in another.
    """
    if mesh_axis is None:
        return f(list(rows))
    whole = filled(rows, mesh_axis)
    stack = stacked(whole, mesh_axis)
    run = on_each_device(lambda stack: f([stack])[0], stack, mesh_axis)
    return split(run(stack), len(whole), mesh_axis)[: len(rows)]


def filled(rows: Sequence[Any], mesh_axis: str | None) -> list[Any]:
    """Return the rows, and some again, so that each device has as many matrices.

    Args:
      rows: See `together`.
      mesh_axis: See `stacked`.
    """
    is_alone = all(len(x) == 1 for x in jax.tree.leaves(rows[0]))
    return [*rows, *[rows[0]] * (-len(rows) % devices_along(mesh_axis) * is_alone)]


def on_each_device(
    run: Callable[..., Any], stack: Any, mesh_axis: str | None
) -> Callable[..., Any]:
    """Return ``run`` such that each device sees its own matrices only.

    Loops and decompositions that the compiler spreads need exchanges of their own.

    Args:
      run: A function of arrays, and of results, whose first axes count matrices.
      stack: A tree of such arrays.
      mesh_axis: See `stacked`.
    """
    if mesh_axis is None or len(jax.tree.leaves(stack)[0]) % devices_along(mesh_axis):
        return run
    spec = PartitionSpec(mesh_axis)
    return jax.shard_map(
        run, in_specs=spec, out_specs=spec, axis_names={mesh_axis}, check_vma=False
    )


def stacked(rows: Sequence[Any], mesh_axis: str | None = None) -> Any:
    """Return one row with the matrices of all rows, along the first axes of its arrays.

    Args:
      rows: Trees of arrays whose first axes count matrices.
      mesh_axis: Name of a mesh axis over which to spread the matrices, so that each
        device works on whole ones. The first matrices of all rows come first then, so
        that rows whose matrices are spread already are stacked where they lie.
    """
    if mesh_axis is None:
        return jax.tree.map(lambda *xs: jnp.concatenate(xs), *rows)
    stack = jax.tree.map(
        lambda *xs: jnp.stack(xs, 1).reshape(-1, *xs[0].shape[1:]), *rows
    )
    return _exchanged(stack, len(rows), mesh_axis, back=False)


def split(stack: Any, n: int, mesh_axis: str | None = None) -> list[Any]:
    """Return the ``n`` rows of a stack, the inverse of `stacked`.

    Args:
      stack: A tree of arrays.
      n: The number of rows.
      mesh_axis: That of `stacked`. All rows come back in one exchange then, and not
        each in its own.
    """

    def part(x, i):
        count = len(x) // n
        return x[i * count : (i + 1) * count]

    if mesh_axis is None:
        return [jax.tree.map(lambda x, i=i: part(x, i), stack) for i in range(n)]
    stack = _exchanged(stack, n, mesh_axis, back=True)
    apart = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]), stack)
    return [jax.tree.map(lambda x, i=i: x[:, i], apart) for i in range(n)]


def _exchanged(stack: Any, n: int, mesh_axis: str, *, back: bool) -> Any:
    """Return a stack of ``n`` rows, with whole matrices on each device; or back.

    Devices exchange one array of a dtype in place of many: the parts of all arrays that
    one device has of a matrix, beside each other.
    """
    arrays, treedef = jax.tree.flatten(stack)
    devices = devices_along(mesh_axis)

    def alike(x):
        # The matrices may lie as they like, but all of them alike.
        spec = PartitionSpec(None, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 1))
        return lax.with_sharding_constraint(x, spec)

    def placed(x):
        return lax.with_sharding_constraint(x, PartitionSpec(mesh_axis))

    def exchanged(x):
        return alike(x) if back else placed(alike(x))

    if any(len(x) // n % devices == 0 for x in arrays):  # each row is spread already
        return stack if back else jax.tree.map(placed, stack)
    if len(arrays) == 1 or any(x.shape[1] % devices for x in arrays):
        return jax.tree.map(exchanged, stack)
    # Arrays of one shape have one sharding, mostly, which may be along their columns.
    groups = collections.defaultdict(list)
    for i, x in enumerate(arrays):
        groups[x.dtype, x.shape].append(i)
    for dtype in {dtype: None for dtype, _ in groups}:
        same = [group for (of, _), group in groups.items() if of == dtype]
        beside = [jnp.stack([arrays[i] for i in group], 2) for group in same]
        parts = [x.reshape(len(x), devices, -1) for x in beside]
        whole = exchanged(jnp.concatenate(parts, -1))
        ends = np.cumsum([x.shape[-1] for x in parts])[:-1]
        for group, x, part in zip(
            same, beside, jnp.split(whole, ends, -1), strict=True
        ):
            part = part.reshape(x.shape)
            part = alike(part) if back else part
            for k, i in enumerate(group):
                arrays[i] = part[:, :, k]
    return treedef.unflatten(arrays)


def share(shape: Sequence[int], mesh_axis: str | None) -> PartitionSpec | None:
    """Return how each device keeps a share of what is kept of matrices, if it can.

    Args:
      shape: That of an array whose first axes count matrices or rows of them.
      mesh_axis: See `stacked`.
    """
    devices = devices_along(mesh_axis)
    for i, n in enumerate(shape):
        if devices > 1 and n and n % devices == 0:
            return PartitionSpec(*[None] * i, mesh_axis)
    return None


def one_by_one(f: Callable[..., Any], *stacks: jax.Array) -> Any:
    """Return ``f`` of each matrix: a decomposition, or the solution of a system.

    XLA:CPU hands a batch of these to its threads, and waits for them in one of these
    threads: several such batches at once wait forever. One matrix at a time needs no
    other thread. Other devices get the whole batch.

    >>> one_by_one(jnp.linalg.eigvalsh, jnp.eye(2)[None])
    Array([[1., 1.]], dtype=float32)
    """

    def on_cpu(*stacks):
        one = jax.custom_batching.sequential_vmap(lambda *matrices: f(*matrices))
        return lax.map(lambda matrices: one(*matrices), stacks)

    return lax.platform_dependent(*stacks, cpu=on_cpu, default=f)


def stacks(
    rows: Sequence[Any], mesh_axis: str | None = None, most_leaves: int = _MOST_LEAVES
) -> list[list[int]]:
    """Return the positions of the rows that `together` stacks, stack by stack.

    Args:
      rows: See `together`.
      mesh_axis: See `stacked`.
      most_leaves: The most leaves of a stack, for each device along ``mesh_axis``.

    >>> stacks([np.ones((1, 2, 2)), np.ones((1, 3, 3)), np.ones((1, 2, 2))])
    [[0, 2], [1]]
    """
    groups = collections.defaultdict(list)
    for i, row in enumerate(rows):
        arrays, treedef = jax.tree.flatten(row)
        groups[treedef, *((x.shape, x.dtype) for x in arrays)].append(i)
    devices, found = devices_along(mesh_axis), []
    for group in groups.values():
        n, numbers = len(group), max(x.size for x in jax.tree.leaves(rows[group[0]]))
        most = max(1, min(most_leaves, _MOST_NUMBERS // max(1, numbers))) * devices
        # Stacks of one size share a trace, so a divisor of n is worth a smaller stack.
        size = next((k for k in range(most, most // 2, -1) if n % k == 0), most)
        found += [group[i : i + size] for i in range(0, n, size)]
    return found


def placed(run: Callable[..., Any], like: Any) -> Callable[..., Any]:
    """Return ``run`` with results sharded like ``like``, if sharding is a type.

    With explicit axes it is, and a product X X^T of a sharded X has none that JAX could
    infer. The compiler decides then how matrices are spread inside ``run``.

    Args:
      run: A function of arrays.
      like: A tree of arrays like that of the results.
    """
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding, like)
    if not any(s.mesh.explicit_axes for s in jax.tree.leaves(shardings)):
        return run
    auto_axes: Any = jax.sharding.auto_axes
    return auto_axes(run, out_sharding=shardings)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _together(
    f: Callable[..., list[Any]],
    rows: list[Any],
    shared: tuple[Any, ...],
    options: tuple[tuple[str, Any], ...],
) -> list[Any]:
    return f(rows, *shared, **dict(options))


def _sums(rows: list[tuple[jax.Array]]) -> list[jax.Array]:
    return split(stacked(rows)[0].sum(axis=-1), len(rows))
