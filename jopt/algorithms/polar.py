"""The orthogonal factor of a matrix, by Newton-Schulz iteration.

    X <- U / |U|_F,   then   A <- X X^T,   X <- a X + (b A + c A^2) X   a few times

Each step puts every singular value s of X through the polynomial a s + b s^3 + c s^5,
so that U = P S Q^T becomes P p(S) Q^T with p(S) near 1: the polar factor P Q^T, but for
the singular values that are exactly zero, or too small for the number of steps.

Matrices of one shape, in whatever leaves, are orthogonalized together: they are
stacked, up to eight at a time, so that two hundred equal leaves are one trace.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from jopt import tree
from jopt.algorithms.matrices import devices_along, positions, sizes
from jopt.values import arguments
from jopt.values.arguments import abbreviated, suggestion


Triple: TypeAlias = tuple[float, float, float]

_SIMPLE = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ = (2.0, -1.5, 0.5)
_QUINTIC = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

# By name: the usual number of steps, and (a, b, c) of each step. What the singular
# values from 1e-3 to 1 become is in brackets.
PRESETS: Mapping[str, tuple[int, tuple[Triple, ...]]] = {
    # Jordan, 2024: steep at zero, and never closer to 1 than this. [0.47, 1.21]
    "simple": (5, (_SIMPLE,)),
    "standard": (5, (_SIMPLE,)),  # as optax calls it
    # A polynomial of its own for each step. [0.47, 1.15]
    "quintic": (5, _QUINTIC),
    "dion": (5, _QUINTIC),  # as optax calls it
    # Amsel et al., "The Polar Express", 2025, which has proven the best for its range:
    # each step is the minimax polynomial for what the last one left, with a margin for
    # rounding. [0.86, 1.14]; with 8 steps [0.999, 1.001]
    "polar_express": (
        5,
        (
            (8.2373125, -23.1577474, 16.6805684),
            (4.0824420, -2.8930477, 0.5252849),
            (3.9263480, -2.8547468, 0.5318022),
            (3.2982187, -2.4245420, 0.4863201),
            (2.2970369, -1.6366256, 0.4002628),
            (1.87638054, -1.23478966, 0.35891888),
            (1.85644235, -1.21324499, 0.35680035),
            (1.875, -1.25, 0.375),
        ),
    ),
    # The same with a wider margin, for bfloat16, from the NanoGPT speedruns.
    # [0.85, 1.15]
    "polar_express_safe": (
        5,
        (
            (8.15655, -22.48329, 15.87877),
            (4.04293, -2.80892, 0.50002),
            (3.89167, -2.77248, 0.50606),
            (3.28575, -2.36813, 0.46449),
            (2.34654, -1.70978, 0.42324),
        ),
    ),
    # Grishina et al., "Accelerating Newton-Schulz iteration for orthogonalization via
    # Chebyshev-type polynomials", 2025. [0.88, 1.12], but above 1.3 in bfloat16
    "cans": (
        5,
        (
            (8.4703, -25.1081, 18.6293),
            (4.1828, -3.1087, 0.5806),
            (3.9619, -2.9541, 0.5630),
            (3.2866, -2.4647, 0.5074),
            (2.2737, -1.6447, 0.4162),
        ),
    ),
    # The fast steps first, then two that converge. [1.000, 1.001], from 1e-4 on
    "deepseek_v4": (10, (*[_SIMPLE] * 8, *[_NEWTON_SCHULZ] * 2)),
    # Converges by itself, slowly. [1.000, 1.000]
    "newton_schulz": (12, (_NEWTON_SCHULZ,)),
    # Two products a step instead of three. [0.11, 1.30]
    "cubic": (
        5,
        (
            (3.36566, -3.34210, 0.0),
            (2.57444, -1.49574, 0.0),
            (2.53690, -1.43126, 0.0),
            (2.44189, -1.27640, 0.0),
            (2.22305, -0.96307, 0.0),
        ),
    ),
}

# More matrices in one stack make no device faster, but take memory, and compile slower.
_MOST_LEAVES, _MOST_NUMBERS = 8, 2**22


def coefficients(ns_coeffs: Any, ns_steps: int | None) -> tuple[Triple, ...]:
    """``(a, b, c)`` of each step.

    Args:
      ns_coeffs: The name of a preset, one triple, or a sequence of triples.
      ns_steps: How many steps; the last triple is repeated if there are fewer. None is
        the preset's own number, 5 of one triple, and all of a sequence.

    Returns:
      A tuple of triples, one for each step.

    Raises:
      ValueError: An unknown preset, no triples, or less than one step.

    >>> coefficients("newton_schulz", 2)
    ((2.0, -1.5, 0.5), (2.0, -1.5, 0.5))
    """
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in PRESETS:
            raise ValueError(
                f"ns_coeffs must be one of {', '.join(map(repr, PRESETS))} or triples, "
                f"got {ns_coeffs!r}.{suggestion(ns_coeffs, PRESETS)}"
            )
        usual, triples = PRESETS[ns_coeffs]
    else:
        try:
            found = np.asarray(ns_coeffs, np.float64)
        except (TypeError, ValueError):
            found = np.zeros(0)
        is_triples = found.ndim in (1, 2) and found.shape[-1] == 3 and found.size
        if not is_triples or not np.isfinite(found).all():
            raise ValueError(
                "ns_coeffs must be the name of a preset, a triple (a, b, c), or a "
                f"sequence of triples, got ns_coeffs={abbreviated(ns_coeffs)}"
            )
        usual = 5 if found.ndim == 1 else len(found)
        triples = tuple((a, b, c) for a, b, c in np.atleast_2d(found).tolist())
    steps = usual if ns_steps is None else ns_steps
    arguments.at_least(1, ns_steps=steps)
    return tuple(triples[min(i, len(triples) - 1)] for i in range(steps))


def newton_schulz(x: jax.Array, triples: Sequence[Triple], dtype: Any) -> jax.Array:
    """The iteration, on matrices ``(…, m, n)`` with norm <= 1 and best with m <= n.

    Args:
      x: Real or complex matrices.
      triples: ``(a, b, c)`` of each step.
      dtype: What ``X`` and the factors of its products are rounded to; sums stay in the
        dtype of ``x``.

    Returns:
      Matrices of the dtype of ``x``.
    """
    wide = x.dtype

    def product(p, q):
        return jnp.matmul(p, q, preferred_element_type=wide)

    def step(x, abc):
        a, b, c = abc
        # Rounded before it is used twice: the polynomial must be one of one matrix.
        gram = product(x, jnp.conj(x.mT)).astype(dtype)
        polynomial = b * gram.astype(wide)
        if any(c for _, _, c in triples):
            polynomial += c * product(gram, gram)
        x = a * x.astype(wide) + product(polynomial.astype(dtype), x)
        return x.astype(dtype), None

    return lax.scan(step, x.astype(dtype), jnp.asarray(triples, wide))[0].astype(wide)


def orthogonalize(
    leaves: Sequence[jax.Array],
    axes: Sequence[str],
    triples: tuple[Triple, ...],
    *,
    eps: Any = 0.0,
    dtype: Any = None,
    mesh_axis: str | None = None,
    equilibrate: bool = False,
) -> list[jax.Array]:
    """The polar factors of the matrices in all leaves.

    Args:
      leaves: Arrays in the compute dtype.
      axes: The letters of each leaf.
      triples: ``(a, b, c)`` of each step, see `polar.coefficients`.
      eps: Added to the norms; 0 makes the result independent of the leaf's magnitude.
      dtype: What to iterate in; None is the leaf's own. Complex leaves keep theirs.
      mesh_axis: A mesh axis over which to spread the matrices.
      equilibrate: Whether to give all outputs of a matrix the same norm before.

    Returns:
      Arrays like the leaves.
    """
    run: Callable[..., Any] = functools.partial(
        _orthogonalize,
        axes=axes,
        triples=triples,
        dtype=dtype,
        mesh_axis=mesh_axis,
        equilibrate=equilibrate,
    )
    shardings = [jax.typeof(x).sharding for x in leaves]
    if any(sharding.mesh.explicit_axes for sharding in shardings):
        # Where sharding is part of the types, the product of a matrix that is spread
        # over devices with itself has none; here the compiler is to find one.
        spread: Any = jax.sharding.auto_axes
        run = spread(run, out_sharding=shardings)
    return run(list(leaves), tree.scalar(eps))


def _orthogonalize(
    leaves: list[jax.Array],
    eps: jax.Array,
    *,
    axes: Sequence[str],
    triples: tuple[Triple, ...],
    dtype: str | None,
    mesh_axis: str | None,
    equilibrate: bool,
) -> list[jax.Array]:
    found = list(leaves)  # what has no numbers stays as it is
    alike = collections.defaultdict(list)
    for i, leaf in enumerate(leaves):
        if leaf.size:
            x = _as_matrices(leaf, axes[i], equilibrate)
            alike[x.shape, x.dtype].append((i, x))
    devices = devices_along(mesh_axis)
    for group in alike.values():
        for stack in _stacks(group, devices):
            xs = [x for _, x in stack]
            results = _together(xs, eps, triples, dtype, mesh_axis)
            for (i, _), o in zip(stack, results, strict=True):
                found[i] = _as_leaf(o, axes[i], leaves[i].shape)
    return found


def _stacks(group: list[Any], devices: int) -> list[list[tuple[int, jax.Array]]]:
    """The leaves of one shape in stacks, of one size if there is one that fits."""
    n, numbers = len(group), group[0][1].size
    most = max(1, min(_MOST_LEAVES, _MOST_NUMBERS // numbers)) * devices
    size = next((k for k in range(most, most // 2, -1) if n % k == 0), most)
    return [group[i : i + size] for i in range(0, n, size)]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _as_matrices(leaf: jax.Array, axes: str, equilibrate: bool) -> jax.Array:
    """The leaf as matrices ``(count, m, n)`` with m <= n."""
    _, inputs, outputs = shape = sizes(axes, leaf.shape)
    x = leaf.transpose(positions(axes, "bio")).reshape(shape)
    x = _divided(x, tree.norm_along(x, -2)) if equilibrate else x
    return x.mT if inputs > outputs else x


def _divided(x: jax.Array, norm: jax.Array) -> jax.Array:
    return x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny).astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _together(
    xs: list[jax.Array],
    eps: jax.Array,
    triples: tuple[Triple, ...],
    dtype: str | None,
    mesh_axis: str | None,
) -> list[jax.Array]:
    own, count = xs[0].dtype, len(xs[0])
    low = own if dtype is None or jnp.iscomplexobj(xs[0]) else jnp.dtype(dtype)
    x = jnp.concatenate(xs)
    if mesh_axis is not None:
        x = lax.with_sharding_constraint(x, PartitionSpec(mesh_axis))
    norm = tree.norm_along(x, (-2, -1))
    x = newton_schulz(_divided(x, norm + eps.astype(norm.dtype)), triples, low)
    return [x[i * count : (i + 1) * count] for i in range(len(xs))]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _as_leaf(o: jax.Array, axes: str, shape: tuple[int, ...]) -> jax.Array:
    """The reverse of `_as_matrices`."""
    _, inputs, outputs = sizes(axes, shape)
    order = positions(axes, "bio")
    o = o.mT if inputs > outputs else o
    return o.reshape([shape[i] for i in order]).transpose(np.argsort(order).tolist())
