"""The orthogonal factor of a matrix, by Newton-Schulz iteration.

    X <- U / |U|_F,   then   A <- X X^T,   X <- a X + (b A + c A^2) X   a few times

Each step maps every singular value s of X to a s + b s^3 + c s^5, so that U = P S Q^T
becomes P p(S) Q^T with p(S) near 1. This is the polar factor P Q^T, except for singular
values that are zero, or too small for the number of steps.

All steps are polynomials of one matrix, so they can be taken on A, which is small if X
is long: Q <- P Q, A <- P A P with P = a I + b A + c A^2, and X <- Q X at the end.

Matrices of one shape are orthogonalized together, see `stacks`.

Zhang, Amsel, Chen & Dao, "Gram Newton-Schulz", 2026, for the iteration on A.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt import tree
from jopt.algorithms import stacks
from jopt.algorithms.matrices import sizes
from jopt.values import arguments
from jopt.values.arguments import abbreviated, suggestion, text_of


Triple: TypeAlias = tuple[float, float, float]
Start: TypeAlias = Literal["divide", "round", "spectral", "schatten", "aol"]
NsMethod: TypeAlias = Literal["standard", "gram"]

UNCHANGED = (1.0, 0.0, 0.0)  # the coefficients of a step that does nothing
_SIMPLE = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ = (2.0, -1.5, 0.5)
_QUINTIC = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

CoefficientsName = Literal[
    "simple",
    "standard",
    "quintic",
    "dion",
    "polar_express",
    "polar_express_safe",
    "cans",
    "deepseek_v4",
    "newton_schulz",
    "cubic",
]
# By name: the default number of steps, and (a, b, c) of each step. In brackets is the
# range to which singular values in [1e-3, 1] are mapped.
PRESETS: Mapping[str, tuple[int, tuple[Triple, ...]]] = {
    # Jordan, 2024: steep at zero, but more steps come no closer to 1. [0.47, 1.21]
    "simple": (5, (_SIMPLE,)),
    "standard": (5, (_SIMPLE,)),  # optax's name
    # A different polynomial for each step. [0.47, 1.15]
    "quintic": (5, _QUINTIC),
    "dion": (5, _QUINTIC),  # optax's name
    # Amsel et al., "The Polar Express", 2025, proven optimal for its range: each step
    # is the minimax polynomial on the range that the last step left, with a margin
    # for rounding. [0.86, 1.14]; with 8 steps [0.999, 1.001]
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
    # The same with a wider margin for bfloat16, from the NanoGPT speedruns.
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
    # Fast steps first, then two that converge. [1.000, 1.001], also on [1e-4, 1]
    "deepseek_v4": (10, (*[_SIMPLE] * 8, *[_NEWTON_SCHULZ] * 2)),
    # Converges, but slowly. [1.000, 1.000]
    "newton_schulz": (12, (_NEWTON_SCHULZ,)),
    # Two products per step instead of three. [0.11, 1.30]
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


def coefficients(ns_coeffs: Any, ns_steps: int | None) -> tuple[Triple, ...]:
    """Return the coefficients ``(a, b, c)`` of each step.

    Args:
      ns_coeffs: The name of a preset, one triple, or a sequence of triples.
      ns_steps: Number of steps, 1 to 99; the last triple is repeated if there are too
        few. None means the preset's default, 5 for one triple, and all of a sequence.

    Returns:
      A tuple of triples, one for each step.

    Raises:
      ValueError: ``ns_coeffs`` is neither a preset nor triples, or ``ns_steps`` is out
        of range.

    >>> coefficients("newton_schulz", 2)
    ((2.0, -1.5, 0.5), (2.0, -1.5, 0.5))
    """
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in PRESETS:
            raise ValueError(
                f"ns_coeffs must be one of {', '.join(map(repr, PRESETS))} or triples, "
                f"got {text_of(ns_coeffs)}.{suggestion(ns_coeffs, PRESETS)}"
            )
        default_steps, triples = PRESETS[ns_coeffs]
    else:
        try:
            table = np.asarray(ns_coeffs, np.float64)
        except (TypeError, ValueError):
            table = np.zeros(0)
        is_triples = table.ndim in (1, 2) and table.shape[-1] == 3 and table.size
        if not is_triples or not np.isfinite(table).all():
            raise ValueError(
                "ns_coeffs must be the name of a preset, a triple (a, b, c), or a "
                f"sequence of triples, got ns_coeffs={abbreviated(ns_coeffs)}"
            )
        default_steps = 5 if table.ndim == 1 else len(table)
        triples = tuple((a, b, c) for a, b, c in np.atleast_2d(table).tolist())
    steps = default_steps if ns_steps is None else ns_steps
    arguments.at_least(1, ns_steps=steps)
    arguments.at_most(99, ns_steps=steps)  # torch's limit
    return tuple(triples[min(i, len(triples) - 1)] for i in range(steps))


def newton_schulz(
    x: jax.Array, triples: Sequence[Triple] | jax.Array, dtype: Any
) -> jax.Array:
    """Iterate on matrices ``(…, m, n)`` of norm <= 1; fastest with m <= n.

    Args:
      x: Real or complex matrices.
      triples: ``(a, b, c)`` of each step; the numbers of an array may be traced.
      dtype: Dtype to which ``X`` and the factors of its products are rounded; sums stay
        in the dtype of ``x``.

    Returns:
      Matrices of the dtype of ``x``.
    """
    wide = x.dtype
    is_array = isinstance(triples, jax.Array)
    if not is_array and all(x == UNCHANGED for x in triples):  # torch's ns_steps=0
        return x.astype(dtype).astype(wide)
    has_squares = is_array or any(c for _, _, c in triples)

    def product(p, q):
        return jnp.matmul(p, q, preferred_element_type=wide)

    def step(x, abc):
        a, b, c = abc
        # Rounded once, before both uses: b A + c A^2 must be in powers of one matrix.
        gram = product(x, jnp.conj(x.mT)).astype(dtype)
        polynomial = b * gram.astype(wide)
        if has_squares:  # else two products are enough
            polynomial += c * product(gram, gram)
        x = a * x.astype(wide) + product(polynomial.astype(dtype), x)
        return x.astype(dtype), None

    return lax.scan(step, x.astype(dtype), jnp.asarray(triples, wide))[0].astype(wide)


def gram_newton_schulz(
    x: jax.Array, triples: Sequence[Triple] | jax.Array
) -> jax.Array:
    """Return `newton_schulz` by products of ``(m, m)`` matrices, for m < n.

    Each step multiplies the rounding errors of A by a^2, so A is formed anew after two
    steps, and after each three more.

    Args:
      x: Real or complex matrices of norm <= 1.
      triples: See `newton_schulz`.
    """

    def product(p, q):
        return jnp.matmul(p, q, precision="highest")

    has_squares = isinstance(triples, jax.Array) or any(c for _, _, c in triples)
    steps = [tuple(abc) for abc in triples]
    for segment in (steps[:2], *(steps[i : i + 3] for i in range(2, len(steps), 3))):
        gram = product(x, jnp.conj(x.mT))
        eye, q = jnp.broadcast_to(jnp.eye(x.shape[-2], dtype=x.dtype), gram.shape), None
        for i, (a, b, c) in enumerate(segment):
            p = a * eye + b * gram
            if has_squares:
                p += c * product(gram, gram)
            q = p if q is None else product(p, q)
            if i + 1 < len(segment):
                gram = product(product(p, gram), p)
        x = product(q, x)
    return x


def orthogonalize(
    leaves: Sequence[jax.Array],
    axes: Sequence[str],
    triples: tuple[Triple, ...] | jax.Array,
    *,
    eps: Any = 0.0,
    dtype: Any = None,
    mesh_axis: str | None = None,
    equilibrate: bool = False,
    start: Start = "divide",
    method: NsMethod = "standard",
) -> list[jax.Array]:
    """Return the polar factors of the matrices in all leaves.

    Args:
      leaves: Arrays in the compute dtype.
      axes: The layout of each leaf, see `matrices.letters`.
      triples: ``(a, b, c)`` of each step, see `polar.coefficients`; or an array of
        them, whose numbers may be traced.
      eps: Added to the norms; 0 makes the result independent of a leaf's scale.
      dtype: Dtype of the iteration; None means each leaf's. Complex leaves keep theirs.
      mesh_axis: Name of a mesh axis over which to spread the matrices.
      equilibrate: Whether to first give all outputs of a matrix the same norm.
      start: What comes before the iteration. ``"divide"`` divides by the Frobenius
        norm. ``"round"`` rounds to ``dtype`` before; the norm is then rounded too, and
        ``eps`` is its lower bound. ``"spectral"`` divides by the largest singular
        value, ``"schatten"`` by the Schatten-4 norm, the root of the norm of
        ``A = U U^T``, and ``"aol"`` each row by the root of the sum of the magnitudes
        in its row of A (Prach & Lampert, "Almost-orthogonal layers for efficient
        general-purpose Lipschitz networks", 2022); ``eps`` bounds what these two take
        the root of.
      method: ``"gram"`` iterates on A where a matrix is at least twice as long as wide.

    Returns:
      Arrays like the leaves.
    """
    run: Callable[..., Any] = functools.partial(
        _orthogonalize,
        axes=axes,
        dtype=dtype,
        mesh_axis=mesh_axis,
        equilibrate=equilibrate,
        start=start,
        method=method,
    )
    run = stacks.placed(run, list(leaves))
    steps = _Constant(triples) if isinstance(triples, tuple) else triples
    return run(list(leaves), tree.scalar(eps), steps)


@jax.tree_util.register_static
class _Constant(tuple):
    """Triples that are constants to a trace."""


def _orthogonalize(
    leaves: list[jax.Array],
    eps: jax.Array,
    triples: _Constant | jax.Array,
    *,
    axes: Sequence[str],
    dtype: str | None,
    mesh_axis: str | None,
    equilibrate: bool,
    start: Start,
    method: NsMethod,
) -> list[jax.Array]:
    results = list(leaves)  # leaves of size 0 stay as they are
    filled = [i for i, leaf in enumerate(leaves) if leaf.size]
    matrices = [_as_matrices(leaves[i], axes[i], equilibrate, start) for i in filled]
    run = functools.partial(stacks.together, _factors, matrices, eps, triples)
    factors = run(mesh_axis=mesh_axis, dtype=dtype, start=start, method=method)
    for i, o in zip(filled, factors, strict=True):
        results[i] = _as_leaf(o, axes[i], leaves[i].shape, start)
    return results


def _turns(inputs: int, outputs: int, start: Start) -> bool:
    """Whether the rows of the matrices are the outputs, of which there are fewer."""
    # Of square matrices too, if as in torch: X X^T and X^T X round differently.
    return inputs > outputs or (inputs == outputs and start == "round")


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _as_matrices(
    leaf: jax.Array, axes: str, equilibrate: bool, start: Start
) -> jax.Array:
    """Return the leaf as matrices ``(count, m, n)`` with m <= n."""
    _, inputs, outputs = sizes(axes, leaf.shape)
    x = stacks.as_matrices(leaf, axes)
    x = _divided(x, tree.norm_along(x, -2)) if equilibrate else x
    return x.mT if _turns(inputs, outputs, start) else x


def _divided(x: jax.Array, norm: jax.Array) -> jax.Array:
    return x / jnp.maximum(norm, jnp.finfo(x.dtype).tiny).astype(x.dtype)


def _factors(
    xs: list[jax.Array],
    eps: jax.Array,
    triples: _Constant | jax.Array,
    *,
    dtype: str | None,
    mesh_axis: str | None,
    start: Start,
    method: NsMethod,
) -> list[jax.Array]:
    x = stacks.stacked(xs, mesh_axis)
    wide = x.dtype
    low = wide if dtype is None or jnp.iscomplexobj(x) else jnp.dtype(dtype)
    if start == "round":
        x = x.astype(low).astype(wide)
        norm = tree.norm_along(x, (-2, -1)).astype(low)
        norm = jnp.maximum(norm, eps.astype(low)).astype(wide)
    else:
        norm = _norm(x, eps, start)
    x = _divided(x, norm)
    if method == "gram" and x.shape[-1] >= 2 * x.shape[-2]:
        factors = gram_newton_schulz(x, triples)
    else:
        factors = newton_schulz(x, triples, low)
    return stacks.split(factors, len(xs), mesh_axis)


def _norm(x: jax.Array, eps: jax.Array, start: Start) -> jax.Array:
    """Return what to divide the matrices by, with axes of length 1."""
    eps = eps.astype(jnp.finfo(x.dtype).dtype)
    if start == "divide":
        return tree.norm_along(x, (-2, -1)) + eps
    if start == "spectral":
        return jnp.linalg.norm(x, 2, (-2, -1), keepdims=True) + eps
    gram = x @ jnp.conj(x.mT)
    if start == "schatten":
        squares = tree.norm_along(gram, (-2, -1))
    else:
        squares = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, eps))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _as_leaf(
    o: jax.Array, axes: str, shape: tuple[int, ...], start: Start
) -> jax.Array:
    """Invert `_as_matrices`."""
    _, inputs, outputs = sizes(axes, shape)
    o = o.mT if _turns(inputs, outputs, start) else o
    return stacks.as_leaf(o, axes, shape)
