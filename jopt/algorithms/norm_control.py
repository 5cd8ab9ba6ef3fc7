"""The norm of a matrix and of its update: floors, brakes, and a fixed ratio.

    relative_norm   u <- u |W| / |u|            the rate is |update| / |W|
    match_rms       u <- r u / rms(u)
    norm_floor      u <- u max(1, f |W| / |u|)  no update is below f of its matrix
    radial_brake    |W + u| <- |W| + s (|W + u| - |W|)    where the norm would grow

Norms are those of whole matrices, Frobenius norms. Without control, weights grow until
the updates are small beside them, and weight decay is there to stop it: these replace
it. They stand in the records of the NanoGPT speedruns (modded-nanogpt, track 3, 2026);
`hyperball` fixes the norm altogether.

State: none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.matrices import Axes, layouts_of, positions
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leaves import Leaves
from jopt.core.transformation import ANYWHERE, GradientTransformation, Place
from jopt.core.treatment import Treatment
from jopt.transforms.constraints import LAST
from jopt.values import arguments
from jopt.values.numbers import ScalarOrSchedule


@transformation
def relative_norm(*, axes: Axes = None) -> GradientTransformation:
    """Give each update the norm of its matrix: ``u <- u |W| / |u|``.

    The learning rate after it is the ratio of update and weights; 0.01 to 0.02 is
    usual. Where the update or the matrix is zero, the update becomes zero. Leaves with
    fewer than two axes count as one vector.

    Args:
      axes: The matrix layout of the leaves, as for `scale_by_muon`.

    Returns:
      A transformation without state, which needs params. A complex number counts by its
      magnitude.

    Raises:
      ValueError: ``axes`` does not say how a leaf of three or more axes is a matrix.

    You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017;
    equal to ``RelativeUpdateHook`` of Emerging-Optimizers.

    >>> import jopt
    >>> tx, params = jopt.relative_norm(), jnp.array([[3.0], [4.0]])
    >>> tx.update(jnp.array([[0.0], [0.1]]), tx.init(params), params)[0].ravel()
    Array([0., 5.], dtype=float32)
    """
    return per_matrix(_relative, axes)


def _relative(u: jax.Array, p: jax.Array, *, layout: str | None) -> jax.Array:
    return times(u, norms(p, layout) / nonzero(norms(u, layout)))


@transformation
def match_rms(
    rms: ScalarOrSchedule = 0.2, *, axes: Axes = None
) -> GradientTransformation:
    """Give each matrix of updates one root mean square: ``u <- rms sqrt(n) u / |u|``.

    AdamW's updates have a root mean square of about 0.2, so that its learning rate and
    weight decay suit what comes before this as well. A zero update stays zero.

    Args:
      rms: The root mean square of the elements, >= 0.
      axes: The matrix layout of the leaves, as for `scale_by_muon`. Leaves with fewer
        than two axes count as one vector.

    Returns:
      A transformation without state, which needs params. A complex number counts by its
      magnitude.

    Raises:
      ValueError: ``rms`` is negative, or ``axes`` does not say how a leaf of three or
        more axes is a matrix.

    Liu et al., "Muon is scalable for LLM training", 2025.

    >>> import jopt
    >>> tx, u = jopt.match_rms(0.2), jnp.array([[3.0, 4.0], [0.0, 0.0]])
    >>> tx.update(u, tx.init(u), u)[0]
    Array([[0.24, 0.32],
           [0.  , 0.  ]], dtype=float32)
    """
    arguments.nonnegative(rms=rms)
    return per_matrix(_matched, axes, rms)


def _matched(u: jax.Array, p: jax.Array, rms: Any, *, layout: str | None) -> jax.Array:
    del p
    norm = norms(u, layout)
    return times(u, rms * math.sqrt(u.size // max(norm.size, 1)) / nonzero(norm))


@transformation
def norm_floor(
    floor: ScalarOrSchedule = 0.35,
    per: Literal["matrix", "output"] = "matrix",
    *,
    axes: Axes = None,
) -> GradientTransformation:
    """Enlarge updates that are small beside their matrix: ``|u| >= floor |W|``.

    It stands before the learning rate, after Muon or another method whose updates have
    a norm of their own, and replaces weight decay: while a matrix is small, updates are
    large beside it; as it grows, they grow with it. A zero update stays zero.

    Args:
      floor: The smallest ratio of update and matrix, >= 0; 0.35 to 0.3825 with Muon's
        learning rate of 0.0375.
      per: ``"output"`` first holds the ratio of each output, and then scales the whole
        to the norm that ``"matrix"`` gives.
      axes: The matrix layout of the leaves, as for `scale_by_muon`. Leaves with fewer
        than two axes count as one vector.

    Returns:
      A transformation without state, which needs params. A complex number counts by its
      magnitude.

    Raises:
      ValueError: ``floor`` is negative, or ``axes`` does not say how a leaf of three or
        more axes is a matrix.

    The NanoGPT speedruns, 2026.

    >>> import jopt
    >>> tx, params = jopt.norm_floor(0.5), jnp.array([[3.0], [4.0]])
    >>> tx.update(jnp.array([[0.0], [0.1]]), tx.init(params), params)[0].ravel()
    Array([0. , 2.5], dtype=float32)
    """
    arguments.nonnegative(floor=floor)
    arguments.one_of(("matrix", "output"), per=per)
    return per_matrix(_floored, axes, floor, per_output=per == "output")


def _floored(
    u: jax.Array, p: jax.Array, floor: Any, *, layout: str | None, per_output: bool
) -> jax.Array:
    smallest = norms(u, layout)
    size = jnp.maximum(smallest, floor * norms(p, layout))
    if per_output and layout is not None:
        neurons = positions(layout, "i")
        own = tree.norm_along(u, neurons)
        least = floor * tree.norm_along(p, neurons)
        u = times(u, jnp.maximum(own, least) / nonzero(own))
        smallest = norms(u, layout)
    return times(u, size / nonzero(smallest))


@transformation
def radial_brake(
    outward: ScalarOrSchedule = 0.5,
    inward: ScalarOrSchedule = 1.0,
    *,
    axes: Axes = None,
) -> GradientTransformation:
    """Let the norms of matrices change by a part only, last in a chain.

    The step keeps its direction on the sphere, and of the change of the norm the part
    ``outward`` if it grows, ``inward`` if it shrinks.

    Args:
      outward: The part of a growth of the norm that stays, in [0, 1].
      inward: The part of a decrease that stays, in [0, 1].
      axes: The matrix layout of the leaves, as for `scale_by_muon`. Leaves with fewer
        than two axes count as one vector.

    Returns:
      A transformation without state, which needs params. No later member of a chain may
      change the updates. A complex number counts by its magnitude.

    Raises:
      ValueError: A part is not in [0, 1], or ``axes`` does not say how a leaf of three
        or more axes is a matrix.

    The NanoGPT speedruns, 2026; equal to ``RadialBrakeHook`` of Emerging-Optimizers.

    >>> import jopt
    >>> tx = jopt.chain(jopt.sgd(1.0), jopt.radial_brake(0.5))
    >>> params = jnp.array([[1.0], [0.0]])
    >>> jopt.step(tx, -params, tx.init(params), params)[0].ravel()
    Array([1.5, 0. ], dtype=float32)
    """
    arguments.fraction(outward=outward, inward=inward)
    return per_matrix(_braked, axes, outward, inward, place=LAST)


def _braked(
    u: jax.Array, p: jax.Array, outward: Any, inward: Any, *, layout: str | None
) -> jax.Array:
    before, after = norms(p, layout), norms(p + u, layout)
    change = after - before
    part = jnp.where(change > 0, outward, inward)
    # Written for the update, so that a part of 1 changes no bit of it.
    return u + times(p + u, (part - 1) * change / nonzero(after))


def norms(x: jax.Array, layout: str | None) -> jax.Array:
    """Return the norm of each matrix of a leaf; of the whole leaf without a layout."""
    return tree.norm_along(x, None if layout is None else positions(layout, "io"))


def nonzero(norm: jax.Array) -> jax.Array:
    """Return norms to divide by: 1 for 0."""
    return jnp.where(norm > 0, norm, 1)


def times(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Return an array, which may be complex, times real numbers."""
    return x * factor.astype(x.dtype)


def per_matrix(
    rule: Callable[..., jax.Array],
    axes: Axes,
    *numbers: Any,
    place: Place = ANYWHERE,
    **options: Any,
) -> GradientTransformation:
    """Lift a rule for a leaf that looks at the norms of its matrices.

    Args:
      rule: ``rule(u, p, *numbers, layout=…, **options)``, in the compute dtype.
      axes: The layouts, in any of the forms of `matrices.Axes`.
      *numbers: Numbers that may be traced.
      place: Where the transformation belongs in a chain, if not anywhere.
      **options: What the rule is compiled for.
    """
    static = tuple(options.items())

    def init(params):
        layouts_of(axes, Leaves(params, "params"))
        return NO_STATE

    def update(updates, state, params):
        leaves = Leaves(updates)
        olds, layouts = leaves.aligned(params, "params"), layouts_of(axes, leaves)
        new = leaves.each(
            lambda u, p, layout: _run(rule, u, p, numbers, layout, static),
            olds,
            layouts,
        )
        return leaves.tree(new), state

    def letters_of(params):
        return layouts_of(axes, Leaves(params, "params"))

    treatment = Treatment(layouts=letters_of)
    return GradientTransformation(init, update, place=place, treatment=treatment)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _run(
    rule: Callable[..., jax.Array],
    u: jax.Array,
    p: jax.Array,
    numbers: tuple[Any, ...],
    layout: str | None,
    options: tuple[tuple[str, Any], ...],
) -> jax.Array:
    wide = np.promote_types(tree.compute_dtype(u.dtype), tree.compute_dtype(p.dtype))
    real = jnp.finfo(wide).dtype
    given = [jnp.asarray(x).astype(real) for x in numbers]
    new = rule(u.astype(wide), p.astype(wide), *given, layout=layout, **dict(options))
    return new.astype(u.dtype)
