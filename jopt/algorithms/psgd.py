"""PSGD Kron: the gradient, whitened by a fitted Kronecker product.

    M <- b1 M + (1 - b1) G,   m = M / (1 - b1^t)         momentum, without its bias
    A = Qi m Qo^T,   B = Qi^-T V Qo^-1,   V ~ N(0, I)    only in steps that fit
    Q <- Q - lr / |A A^T + B B^T| triu(A A^T - B B^T) Q  Qo with A^T and B^T
    u <- Qi^T Qi m Qo^T Qo,   scaled down to an RMS of 1.1
    p <- p - learning_rate (u + weight_decay p)

Qi and Qo are upper triangular matrices for the inputs and outputs of a matrix, or
vectors that stand for diagonal matrices. The fit makes ``A`` as random as ``B``: then
P = Q^T Q is the inverse root of the gradients' covariance, the whitening that Adam
does per element and Shampoo with roots. It needs triangular solves but neither
eigenvectors nor inverses, and corrects itself, so that it works in float32 and keeps
working if it runs only now and then.

Li, "Preconditioned stochastic gradient descent", 2018; "Black box Lie group
preconditioners for SGD", 2022. Walters, psgd_jax and kron_torch, 2024, whose defaults
and numbers these are.

State: ``4 (1 + (m^2 + n^2) / (m n))`` bytes per float32 parameter of an (m, n) matrix,
8 of a vector. It suits all weights, also embeddings, whose large side gets a diagonal
factor with ``memory_save_mode="one_diag"``. Settings: a third of Adam's learning rate,
0.0003 to 0.001, with up to three times its weight decay. A step that fits costs two to
three times one that does not; all of the first 500 steps fit, and later every 34th.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt import tree
from jopt.algorithms.matrices import (
    Axes,
    check_range,
    layouts_of,
    positions,
    sizes,
)
from jopt.algorithms.stacks import (
    as_leaf,
    as_matrices,
    filled,
    on_each_device,
    one_by_one,
    placed,
    share,
    split,
    stacked,
    stacks,
)
from jopt.core import tree_checks
from jopt.core.chain import chain
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.key_stream import KeyStream
from jopt.core.leafwise import full, zeros
from jopt.core.leaves import Leaves
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.core.wide_slots import with_slots
from jopt.core.widening import widened
from jopt.schedules.decay import exponential_decay
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


MemorySaveMode: TypeAlias = Literal["one_diag", "smart_one_diag", "all_diag"]
Kind: TypeAlias = Literal["triangular", "diagonal"] | None
# Of the inputs and of the outputs.
Factors: TypeAlias = tuple[jax.Array, jax.Array | None]

# How often to fit: every step at first, because Q starts far from its place.
PROBABILITY = exponential_decay(1.0, 1000, math.exp(-1), 500, end_value=0.03)
_MOST_RMS = 1.1
_BALANCE_PROBABILITY = 0.01
# A fit takes many operations, of which each stack has a copy to compile; stacks of
# more leaves take longer to compile themselves.
_MOST_LEAVES = 32
# Noise on what is fitted, relative to its mean size, so that Q stays bounded.
_DAMPING = math.sqrt(np.finfo(np.float32).eps)


class ScaleByKronState(NamedTuple):
    """State of `scale_by_kron`."""

    count: jax.Array  # int32 scalar, updates so far
    mu: Any  # momentum, like params
    q_in: Any  # factors of the inputs, (…, m, m), or (…, m) where diagonal
    q_out: Any  # factors of the outputs; None for vectors and numbers
    waited: jax.Array  # int32 scalar, steps since the last fit
    key: jax.Array  # uint32 key data of the next fit


@transformation
def scale_by_kron(
    b1: ScalarOrSchedule = 0.9,
    preconditioner_update_probability: ScalarOrSchedule = PROBABILITY,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    memory_save_mode: MemorySaveMode | None = None,
    momentum_into_precond_update: bool = True,
    preconditioner_lr: ScalarOrSchedule = 0.1,
    preconditioner_init_scale: float = 1.0,
    mu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    *,
    axes: Axes = None,
    mesh_axis: str | None = None,
    key: int | jax.Array = 0,
) -> GradientTransformation:
    """Whiten the momentum by Kronecker factors: ``u <- Qi^T Qi m Qo^T Qo``.

    Matrices, and stacks of them, have two factors. Vectors and numbers have one, which
    is diagonal, so that each element is scaled for itself.

    Args:
      b1: Decay of the momentum, in [0, 1).
      preconditioner_update_probability: The share of steps that fit Q, in [0, 1]. It
        is kept without chance: a step fits if the last fit is ``1 / share`` steps ago.
      max_size_triangular: Largest side with a triangular factor; larger ones have a
        diagonal factor.
      min_ndim_triangular: Fewest sides of a leaf with triangular factors; with 1,
        vectors have one too.
      memory_save_mode: ``"one_diag"`` makes the factor of the longer side diagonal,
        ``"smart_one_diag"`` does so unless the sides are equal, ``"all_diag"`` makes
        both diagonal. None leaves both triangular.
      momentum_into_precond_update: Whether Q is fitted to the momentum, not to the
        gradient.
      preconditioner_lr: Step size of the fit, >= 0, relative to Q.
      preconditioner_init_scale: Product of the factors before the first fit, > 0.
      mu_dtype: Storage dtype of ``mu``; None means float32 or wider.
      precond_dtype: Storage dtype of the factors; None means float32 or wider. The
        computation is in float32 or wider in any case.
      axes: The matrix layout of the leaves of two or more axes; see `scale_by_muon`.
      mesh_axis: See `scale_by_muon`.
      key: A key of ``jax.random`` for the fit, or the seed of one.

    Returns:
      A transformation, for real numbers. The same key gives the same numbers on any
      number of devices.

    Raises:
      ValueError: A number is out of range, ``axes`` does not say how a leaf of three or
        more axes is a matrix, or ``precond_dtype`` has a smaller range than float32.

    Equal to psgd_jax, given its random numbers and ``share(count + 1)``, except that a
    matrix whose gradients are all zero keeps its factors. Leaves of three or more axes
    are matrices, as in kron_torch.

    >>> import jopt
    >>> tx, g = jopt.scale_by_kron(b1=0.0), jnp.array([[100.0, 0.0], [0.0, 1.0]])
    >>> state = tx.init(g)
    >>> for _ in range(200):
    ...     u, state = tx.update(g, state)
    >>> bool(u[0, 0] < 3 * u[1, 1])
    True
    """
    arguments.decay_rate(b1=b1)
    arguments.fraction(
        preconditioner_update_probability=preconditioner_update_probability
    )
    arguments.at_least(0, max_size_triangular=max_size_triangular)
    arguments.at_least(1, min_ndim_triangular=min_ndim_triangular)
    arguments.one_of(
        ("one_diag", "smart_one_diag", "all_diag", None),
        memory_save_mode=memory_save_mode,
    )
    arguments.nonnegative(preconditioner_lr=preconditioner_lr)
    arguments.positive(preconditioner_init_scale=preconditioner_init_scale)
    check_range(precond_dtype)
    keys, mu_slot = KeyStream(key), zeros(mu_dtype)

    def layouts(leaves):
        given = layouts_of(axes, leaves)
        # A vector has inputs only, a number has no axes.
        return [
            None if x is None else layout or "i" * jnp.ndim(x)
            for x, layout in zip(leaves.values, given, strict=True)
        ]

    def kinds(leaves, each):
        return leaves.each(
            lambda x, layout: _kinds(
                layout,
                jnp.shape(x),
                max_size_triangular,
                min_ndim_triangular,
                memory_save_mode,
            ),
            each,
        )

    def init(params):
        leaves = Leaves(params, "params", real_only="scale_by_kron")
        each = layouts(leaves)
        of_kind = kinds(leaves, each)

        def factor(letter):
            def of_leaf(x, layout, both):
                fill = preconditioner_init_scale ** (1 / (2 - both.count(None)))
                slot = full(fill, precond_dtype)
                kind = both["io".index(letter)]
                return _initial(x, slot, layout, letter, kind, mesh_axis)

            return leaves.tree(leaves.each(of_leaf, each, of_kind))

        return ScaleByKronState(
            jnp.zeros((), jnp.int32),
            mu_slot.initial(params),
            factor("i"),
            factor("o"),
            jnp.zeros((), jnp.int32),
            keys.initial(),
        )

    def update(updates, state, params=None):
        leaves = Leaves(updates, real_only="scale_by_kron")
        if params is not None:
            leaves.aligned(params, "params")
        mus = leaves.aligned(state.mu, "the state's mu")
        each = layouts(leaves)
        count = tree.safe_increment(state.count)
        waited = tree.safe_increment(state.waited)
        share = tree.scalar(preconditioner_update_probability)
        due = tree.scalar(waited) >= 1 / share

        of_kind = kinds(leaves, each)

        def factors(letter, name):
            def shape(x, layout, both):
                return _shape(layout, x.shape, letter, both["io".index(letter)])

            shapes = leaves.each(shape, each, of_kind)
            kept = getattr(state, name)
            what = f"the state's {name}"
            return tree_checks.aligned(updates, shapes, leaves.treedef, kept, what)

        q_ins, q_outs = factors("i", "q_in"), factors("o", "q_out")
        new, ms, fitted = leaves.values, {}, {}
        for i in leaves.present:
            tree_checks.dtypes(new[i], None, mus[i])
            # `1 - b1` is formed here, while b1 may still be a Python double.
            m, mus[i] = _momentum(new[i], mus[i], b1, 1 - b1, count)
            ms[i] = m
            fitted[i] = m if momentum_into_precond_update else new[i].astype(m.dtype)

        next_key, (subkey,) = keys.split(state.key, 1)
        at = [i for i in leaves.present if new[i].size]
        us, fresh = _kron(
            [ms[i] for i in at],
            [fitted[i] for i in at],
            [(q_ins[i], q_outs[i]) for i in at],
            subkey,
            due,
            preconditioner_lr,
            places=tuple(at),
            layouts=tuple(each[i] for i in at),
            mesh_axis=mesh_axis,
        )
        for i, u, (q_in, q_out) in zip(at, us, fresh, strict=True):
            new[i] = spread_like(u.astype(new[i].dtype), new[i])
            q_ins[i], q_outs[i] = q_in, q_out
        return leaves.tree(new), ScaleByKronState(
            count,
            leaves.tree(mus),
            leaves.tree(q_ins),
            leaves.tree(q_outs),
            jnp.where(due, 0, waited),
            jnp.where(due, next_key, state.key),
        )

    def shown(params):
        leaves = Leaves(params, "params")
        return [x if x and "o" in x else None for x in layouts(leaves)]

    treatment = Treatment(layouts=shown, whole=True, mesh_axis=mesh_axis)
    tx = GradientTransformation(init, update, treatment=treatment)
    return with_slots(tx, ScaleByKronState, mu=mu_slot)


def _kinds(
    layout: str, shape: tuple[int, ...], most: int, fewest: int, mode: Any
) -> tuple[Kind, Kind]:
    """Return which factors the inputs and the outputs of a leaf have."""
    _, inputs, outputs = sizes(layout, shape)
    sides = [inputs, outputs] if "o" in layout else [inputs] if layout else []
    thin = [n == 1 or n > most or len(sides) < fewest for n in sides]
    if sides and mode in ("one_diag", "smart_one_diag"):
        longer = len(sides) - 1 if sides[-1] == max(sides) else 0
        if mode == "one_diag" or len({*sides}) == 2:
            thin[longer] = True
    both: list[Kind] = [
        "diagonal" if x or mode == "all_diag" else "triangular" for x in thin
    ]
    # A number has a factor too.
    first, second, *_ = [*(both or ["diagonal"]), None]
    return first, second


def _shape(
    layout: str, shape: tuple[int, ...], letter: str, kind: Kind
) -> jax.ShapeDtypeStruct | None:
    """Return the shape of a factor."""
    if kind is None:
        return None
    batch = [shape[i] for i in positions(layout, "b")]
    side = [math.prod(shape[i] for i in positions(layout, letter))]
    sides = side * (2 if kind == "triangular" else 1 if layout else 0)
    return jax.ShapeDtypeStruct((*batch, *sides), jnp.float32)


def _initial(
    x: Any, slot: Any, layout: str, letter: str, kind: Kind, mesh_axis: str | None
) -> jax.Array | None:
    """Return a multiple of the identity, sharded like this side of the leaf.

    With ``mesh_axis`` each device keeps a share of it, unless the types say otherwise.
    """
    diagonal = _shape(layout, jnp.shape(x), letter, kind and "diagonal")
    if diagonal is None:
        return None
    other = "o" if letter == "i" else "i"
    thin = slot._replace(over=lambda _: positions(layout, other)).init(x)
    q = thin.transpose(positions(layout, f"b{letter}{other}")).reshape(diagonal.shape)
    if kind != "diagonal":
        identity = jnp.eye(q.shape[-1], dtype=q.dtype)
        q = q[..., None] * jnp.expand_dims(identity, range(q.ndim - 1))
    over = share(q.shape, mesh_axis)
    if over is None or jax.typeof(q).sharding.mesh.explicit_axes:
        return q
    return lax.with_sharding_constraint(q, over)


@jax.jit
def _momentum(
    g: jax.Array, mu: jax.Array, b1: Any, rest: Any, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    wide = np.promote_types(tree.compute_dtype(g.dtype), mu.dtype)
    g, old, b1, rest = (jnp.asarray(x).astype(wide) for x in (g, mu, b1, rest))
    new = b1 * old + rest * g
    return new / tree.one_minus_power(b1, count.astype(wide)), new.astype(mu.dtype)


@functools.partial(jax.jit, static_argnames=("places", "layouts", "mesh_axis"))
def _kron(
    ms: list[jax.Array],
    fitted: list[jax.Array],
    qs: list[Factors],
    key: jax.Array,
    due: jax.Array,
    lr: Any,
    *,
    places: tuple[int, ...],
    layouts: tuple[str, ...],
    mesh_axis: str | None,
) -> tuple[list[jax.Array], list[Factors]]:
    """Return the updates and the factors, which are new if a fit is due.

    Args:
      ms: The momenta.
      fitted: What to fit to.
      qs: The factors.
      key: A key for this step.
      due: Whether to fit.
      lr: Step size of the fit.
      places: The positions of the leaves in the whole tree. A leaf's random numbers
        depend on them alone, also if a mask hides other leaves.
      layouts: The layouts of the leaves.
      mesh_axis: See `scale_by_muon`.
    """
    run = functools.partial(
        _of_all, places=places, layouts=layouts, mesh_axis=mesh_axis
    )
    return placed(run, (ms, qs))(ms, fitted, qs, key, due, lr)


def _of_all(
    ms: list[jax.Array],
    fitted: list[jax.Array],
    qs: list[Factors],
    key: jax.Array,
    due: jax.Array,
    lr: Any,
    *,
    places: tuple[int, ...],
    layouts: tuple[str, ...],
    mesh_axis: str | None,
) -> tuple[list[jax.Array], list[Factors]]:
    counts = [sizes(x, m.shape)[0] for x, m in zip(layouts, ms, strict=True)]
    rows = [
        (_rows(q, n, layout), as_matrices(x, layout), as_matrices(m, layout))
        for q, n, x, m, layout in zip(qs, counts, fitted, ms, layouts, strict=True)
    ]
    groups = stacks(rows, mesh_axis, _MOST_LEAVES)
    whole = [filled([rows[i] for i in group], mesh_axis) for group in groups]
    batches = [stacked(each, mesh_axis) for each in whole]
    names = [[(places[i], k) for i in g for k in range(counts[i])] for g in groups]
    if mesh_axis is not None:  # the first matrices of all leaves come first
        names = [sorted(stack, key=lambda name: name[1]) for stack in names]
    for stack, (_, x, _) in zip(names, batches, strict=True):
        stack += stack[:1] * (len(x) - len(stack))  # of rows that only fill it

    def renew(factors, fitted):
        balance_key, noise_key = jax.random.split(key)
        chance = jax.random.uniform(balance_key, dtype=jnp.float32)
        balance = chance < _BALANCE_PROBABILITY

        def fit(q, x, keys):
            return _fit(q, x, keys, balance, lr)

        return [
            on_each_device(fit, x, mesh_axis)(q, x, k)
            for q, x, k in zip(factors, fitted, _keys(noise_key, names), strict=True)
        ]

    # A conditional, so that other steps do not pay for a fit; its results are whole
    # stacks. The factors are constants to autodiff.
    factors = lax.cond(
        due,
        renew,
        lambda factors, _: factors,
        *lax.stop_gradient(([q for q, _, _ in batches], [x for _, x, _ in batches])),
    )
    us, new = list(ms), list(qs)
    results = zip(groups, whole, factors, batches, strict=True)
    for group, each, q, (_, _, m) in results:
        u = on_each_device(_update, m, mesh_axis)(q, m)
        parts = split((q, u), len(each), mesh_axis)
        for i, (part, u) in zip(group, parts, strict=False):
            us[i] = as_leaf(u, layouts[i], ms[i].shape)
            new[i] = jax.tree.map(
                lambda x, old: spread_like(x.reshape(old.shape), old), part, qs[i]
            )
    return us, new


def _rows(factors: Factors, count: int, layout: str) -> Factors:
    """Return the factors with one axis for the matrices of the leaf."""
    batch = layout.count("b")
    return jax.tree.map(
        lambda q: q.reshape(count, *(q.shape[batch:] or (1,))),
        factors,
    )


def _keys(key: jax.Array, names: list[list[tuple[int, int]]]) -> list[jax.Array]:
    """Return keys for the matrices of each stack.

    Args:
      key: A key.
      names: For each matrix, its leaf's place in the tree and its place in the leaf.
    """
    place, number = np.array([x for stack in names for x in stack]).reshape(-1, 2).T
    fold_in = jax.vmap(jax.random.fold_in)
    keys = fold_in(fold_in(jnp.broadcast_to(key, place.shape), place), number)
    ends = np.cumsum([0, *map(len, names)])
    return [keys[a:b] for a, b in itertools.pairwise(ends)]


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return matrices divided by their largest magnitude, and that magnitude.

    Products of Q with gradients of 1e-30 or 1e30 do not overflow then.
    """
    most = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)
    most = jnp.where(most < jnp.finfo(x.dtype).tiny, 1, most)
    return x / most, most


def _times(q: jax.Array, x: jax.Array, precision: Any = None) -> jax.Array:
    """Return Q X of matrices X; a Q of two axes is diagonal."""
    if q.ndim == 2:
        return q[..., None] * x
    return jnp.matmul(q, x, precision=precision)


def _both(f: Any, factors: Factors, x: jax.Array) -> jax.Array:
    """Apply ``f(Q, X)`` from the left with Qi, and with Qo to the other side."""
    q_in, q_out = factors
    x = f(q_in, x)
    return x if q_out is None else f(q_out, x.mT).mT


@jax.jit
def _update(factors: Factors, m: jax.Array) -> jax.Array:
    """Return the whitened matrices, with an RMS of at most 1.1."""
    factors = jax.tree.map(lambda q: q.astype(m.dtype), factors)
    x, size = _unit(m)
    x, first = _unit(_both(_times, factors, x))
    u, second = _unit(
        _both(lambda q, x: _times(q.mT if q.ndim > 2 else q, x), factors, x)
    )
    rms = tree.norm_along(u, (-2, -1)) / math.sqrt(math.prod(u.shape[1:]))
    most = jnp.minimum(size * first * second * rms, _MOST_RMS)
    return u * (most / jnp.where(rms == 0, 1, rms))


@jax.jit
def _fit(
    stored: Factors, g: jax.Array, keys: jax.Array, balance: jax.Array, lr: Any
) -> Factors:
    """Return the factors after one step of the fit."""
    factors = jax.tree.map(lambda q: q.astype(g.dtype), stored)
    factors = _balanced(factors, balance)
    # Drawn in float32, so that float64 has the same numbers.
    shape = g.shape[1:]
    v = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    v = v.astype(g.dtype)

    x, size = _unit(g)
    x = x + _DAMPING * jnp.mean(jnp.abs(x), (-2, -1), keepdims=True) * v
    a, scale_a = _unit(_both(functools.partial(_times, precision="high"), factors, x))
    b, scale_b = _unit(_both(_solved, factors, v))
    # Only the ratio of A and B counts, which is taken where neither overflows.
    scale_a = jnp.minimum(size * scale_a, jnp.finfo(g.dtype).max)
    most = jnp.maximum(scale_a, scale_b)
    a, b = a * (scale_a / most), b * (scale_b / most)

    # Without a gradient there is nothing to fit: the factors would grow without limit.
    has_gradient = jnp.any(g != 0, (-2, -1))
    lr = jnp.where(has_gradient, jnp.asarray(lr).astype(g.dtype), 0)
    q_in, q_out = factors
    new = (
        _moved(q_in, a, b, lr),
        None if q_out is None else _moved(q_out, a.mT, b.mT, lr),
    )
    return jax.tree.map(lambda q, like: q.astype(like.dtype), new, stored)


def _balanced(factors: Factors, balance: jax.Array) -> Factors:
    """Give both factors the same largest magnitude; their product stays."""
    q_in, q_out = factors
    if q_out is None:
        return factors
    first, second = (
        jnp.max(jnp.abs(q), tuple(range(1, q.ndim))) for q in (q_in, q_out)
    )
    ratio = jnp.where(balance, jnp.sqrt(second) / jnp.sqrt(first), 1)
    return _scaled(q_in, ratio), _scaled(q_out, 1 / ratio)


def _scaled(q: jax.Array, factor: jax.Array) -> jax.Array:
    return q * factor.reshape(-1, *[1] * (q.ndim - 1))


def _solved(q: jax.Array, v: jax.Array) -> jax.Array:
    """Return Q^-T V."""
    if q.ndim == 2:
        return v / q[..., None]
    solve = functools.partial(
        lax.linalg.triangular_solve, left_side=True, transpose_a=True
    )
    return one_by_one(solve, q, v)


def _moved(q: jax.Array, a: jax.Array, b: jax.Array, lr: jax.Array) -> jax.Array:
    """Return Q after a step that brings A A^T closer to B B^T."""
    if q.ndim == 2:
        of_a, of_b = (jnp.sum(x * x, -1) for x in (a, b))
        step = (of_a - of_b) / jnp.max(of_a + of_b, -1, keepdims=True)
        return q - lr[:, None] * step * q
    of_a, of_b = (jnp.matmul(x, x.mT, precision="high") for x in (a, b))
    step = lr / _norm_bound(of_a + of_b)
    triangle = jnp.triu(step[:, None, None] * (of_a - of_b))
    return q - jnp.matmul(triangle, q, precision="high")


def _norm_bound(x: jax.Array) -> jax.Array:
    """Return a lower bound, within a factor of sqrt(2), of symmetric matrices' norms.

    Two products with the longest row, which is one power iteration.
    """
    longest = jnp.argmax(jnp.sum(x * x, -1), -1)
    row = jnp.take_along_axis(x, longest[:, None, None], 1).mT
    row = jnp.matmul(x, row, precision="high")
    row = row / jnp.linalg.norm(row, axis=1, keepdims=True)
    return jnp.linalg.norm(jnp.matmul(x, row, precision="high"), axis=(1, 2))


@transformation
def psgd_kron(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    preconditioner_update_probability: ScalarOrSchedule = PROBABILITY,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    memory_save_mode: MemorySaveMode | None = None,
    momentum_into_precond_update: bool = True,
    preconditioner_lr: ScalarOrSchedule = 0.1,
    preconditioner_init_scale: float = 1.0,
    mu_dtype: StorageDtype | None = None,
    precond_dtype: PlainDtype | None = None,
    *,
    axes: Axes = None,
    mesh_axis: str | None = None,
    key: int | jax.Array = 0,
) -> GradientTransformation:
    """PSGD Kron: ``p <- p - learning_rate (u + weight_decay p)``.

    ``u`` is the momentum, whitened; its RMS is near 1 and at most 1.1. All leaves take
    part, as with the authors: a vector's elements are scaled each for itself.

    Args:
      learning_rate: The step size, >= 0; 0.0003 to 0.001, a third of Adam's.
      b1: See `scale_by_kron`.
      weight_decay: Decay coefficient, >= 0, multiplied by the learning rate.
      weight_decay_mask: See `add_decayed_weights`. kron_torch decays leaves of two or
        more axes only: ``lambda path, p: p.ndim > 1``.
      preconditioner_update_probability, max_size_triangular: See `scale_by_kron`.
      min_ndim_triangular, memory_save_mode: See `scale_by_kron`.
      momentum_into_precond_update, preconditioner_lr: See `scale_by_kron`.
      preconditioner_init_scale, mu_dtype, precond_dtype: See `scale_by_kron`.
      axes, mesh_axis, key: See `scale_by_kron`.

    Returns:
      A transformation, for real numbers; it needs params.

    Raises:
      ValueError: A number is out of range, ``axes`` does not say how a leaf of three or
        more axes is a matrix, or ``precond_dtype`` has a smaller range than float32.

    Li, "Preconditioned stochastic gradient descent", 2018; Walters, psgd_jax, 2024.

    >>> import jopt
    >>> jopt.psgd_kron(3e-4, weight_decay=0.5)
    psgd_kron(learning_rate=0.0003, weight_decay=0.5)
    """
    members: Any = chain(
        scale_by_kron(
            b1,
            preconditioner_update_probability,
            max_size_triangular,
            min_ndim_triangular,
            memory_save_mode,
            momentum_into_precond_update,
            preconditioner_lr,
            preconditioner_init_scale,
            mu_dtype,
            precond_dtype,
            axes=axes,
            mesh_axis=mesh_axis,
            key=key,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    # scale_by_kron is not leafwise, so without `widened` each member would round.
    return widened(members)
