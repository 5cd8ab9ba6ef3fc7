"""Scion: steps of a fixed norm, chosen for each kind of layer.

    m <- beta m + (1 - beta) g
    u <- radius argmax { <m, d> : |d| <= 1 }
    p <- p - learning_rate (u + p)        constrained; without p unconstrained

with the norm of the layer:

    spectral    hidden matrices: sqrt(outputs / inputs) P Q^T of m = P S Q^T
    sign        output layers:   sign(m) / inputs
    column      embeddings:      m / rms(m), the mean over the outputs
    row         output layers:   m / (|m| sqrt(inputs)), the norm over the inputs
    rms         vectors:         m / rms(m)

Pethick, Xie, Antonakopoulos, Zhu, Silveti-Falls & Cevher, "Training deep learning
models with norm-constrained LMOs", 2025. In the constrained form p is an average of the
u, so that it stays in the ball of the radius; the initial p has to be in it as well.

State: 4 bytes per float32 parameter. Learning rate 2^-12 with a decay to zero; it and
the radii transfer between widths.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jopt.algorithms.matrices import Axes, is_hidden, letters, positions, shape_factor
from jopt.algorithms.norm_control import nonzero, norms, times
from jopt.algorithms.polar import CoefficientsName, coefficients, orthogonalize
from jopt.core import masks
from jopt.core.chain import chain
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leaves import Leaves, wide
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.core.widening import widened
from jopt.transforms.gradients import identity
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.momentum import ema
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree.like import spread_like
from jopt.tree.norms import norm_along
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule
from jopt.values.registry import config_function
from jopt.wrappers.masking import partition


NORMS = ("spectral", "sign", "column", "row", "rms")


@config_function
def norm_of_layer(path: str, leaf: Any) -> str:
    """Return the norm of a leaf by its shape and name.

    Hidden matrices, see `muon`, have the spectral norm; vectors and scalars ``"rms"``;
    embeddings and output layers ``"sign"``.
    """
    if jnp.ndim(leaf) < 2:
        return "rms"
    return "spectral" if is_hidden(path, leaf) else "sign"


@transformation
def scale_by_lmo(
    radius: ScalarOrSchedule = 50.0,
    sign_radius: ScalarOrSchedule = 3000.0,
    norms: Any = norm_of_layer,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    *,
    axes: Axes = None,
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """The longest step along the updates in a ball, of a norm for each layer.

        u <- radius argmax { <g, d> : |d| <= 1 }

    Args:
      radius: The radius of the ball, >= 0.
      sign_radius: That of the leaves with ``"sign"``, >= 0.
      norms: The norm of each leaf, ``"spectral"``, ``"sign"``, ``"column"``, ``"row"``
        or ``"rms"``: one for all, `rules`, a function ``(path, leaf) -> norm``, or a
        tree. The default looks at shape and name.
      ns_coeffs, ns_steps: See `scale_by_muon`.
      axes: The matrix layout of the leaves, as for `scale_by_muon`.
      ns_dtype, mesh_axis: See `scale_by_muon`.

    Returns:
      A transformation without state. A complex number counts by its magnitude.

    Raises:
      ValueError: A number is out of range, a leaf has a norm with another name, or one
        for matrices and is not a matrix.

    >>> import jopt
    >>> tx, g = jopt.scale_by_lmo(1.0), {"bias": jnp.array([3.0, 4.0, 0.0, 0.0])}
    >>> tx.update(g, tx.init(g))[0]["bias"]
    Array([1.2, 1.6, 0. , 0. ], dtype=float32)
    """
    triples = coefficients(ns_coeffs, ns_steps)
    arguments.nonnegative(radius=radius, sign_radius=sign_radius)

    def kinds_and_layouts(leaves):
        kinds = masks.labels(norms, leaves.whole)
        for kind, x in zip(kinds, leaves.values, strict=True):
            if x is not None and kind not in NORMS:
                raise ValueError(
                    f"norms must be one of {', '.join(map(repr, NORMS))} for each "
                    f"leaf, got {text_of(kind)}"
                )
        matrices = [
            None if kind == "rms" else x
            for kind, x in zip(kinds, leaves.values, strict=True)
        ]
        return kinds, letters(axes, leaves.tree(matrices))

    def init(params):
        kinds_and_layouts(Leaves(params, "params"))
        return NO_STATE

    def update(updates, state, params=None):
        leaves = Leaves(updates)
        if params is not None:
            leaves.aligned(params, "params")
        kinds, layouts = kinds_and_layouts(leaves)
        new, values = list(leaves.values), leaves.each(wide)
        spectral = [i for i in leaves.present if kinds[i] == "spectral"]
        factors = orthogonalize(
            [values[i] for i in spectral],
            [layouts[i] for i in spectral],
            triples,
            dtype=ns_dtype,
            mesh_axis=mesh_axis,
        )
        for i, o in zip(spectral, factors, strict=True):
            scale = shape_factor(layouts[i], o.shape, "spectral")
            new[i] = _scaled(o, radius, new[i], scale)
        for i in leaves.present:
            if kinds[i] != "spectral":
                size = sign_radius if kinds[i] == "sign" else radius
                new[i] = _scaled(_step(values[i], kinds[i], layouts[i]), size, new[i])
        return leaves.tree(new), state

    def letters_of(params):
        return kinds_and_layouts(Leaves(params, "params"))[1]

    treatment = Treatment(layouts=letters_of, whole=True, mesh_axis=mesh_axis)
    return GradientTransformation(init, update, treatment=treatment)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _step(u: jax.Array, kind: str, layout: str | None) -> jax.Array:
    """The step of radius 1, for the norms of elements and of slices."""
    if layout is None:
        return times(u, math.sqrt(u.size) / nonzero(norms(u, None)))
    inputs, outputs = (positions(layout, letter) for letter in "io")
    count_in, count_out = (math.prod(u.shape[i] for i in x) for x in (inputs, outputs))
    if kind == "sign":
        return jnp.sign(u) / max(count_in, 1)
    if kind == "column":
        return times(u, math.sqrt(count_out) / nonzero(norm_along(u, outputs)))
    return times(u, 1 / (nonzero(norm_along(u, inputs)) * math.sqrt(max(count_in, 1))))


@functools.partial(jax.jit, static_argnums=3)
def _scaled(u: jax.Array, radius: Any, g: jax.Array, scale: float = 1.0) -> jax.Array:
    radius = jnp.asarray(radius).astype(jnp.finfo(u.dtype).dtype)
    return spread_like(times(u, radius * scale).astype(g.dtype), g)


@transformation
def scion(
    learning_rate: ScalarOrSchedule = 2.0**-12,
    beta: ScalarOrSchedule = 0.9,
    radius: ScalarOrSchedule = 50.0,
    sign_radius: ScalarOrSchedule = 3000.0,
    norms: Any = norm_of_layer,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    mu_dtype: StorageDtype | None = None,
    *,
    constrained: bool = True,
    axes: Axes = None,
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
) -> GradientTransformation:
    """Scion: steps of a fixed norm, chosen for each kind of layer.

        p <- p - learning_rate (radius lmo(m) + p)

    Args:
      learning_rate: Step size, >= 0; constrained, below 1.
      beta: Decay of the momentum, in [0, 1); the authors' ``momentum`` is 1 - beta.
      radius, sign_radius, norms, ns_coeffs, ns_steps: See `scale_by_lmo`.
      mu_dtype: Storage dtype of the momentum; None means float32 or wider.
      constrained: Whether the parameters stay in the balls; else they do not decay.
      axes, ns_dtype, mesh_axis: See `scale_by_lmo`.

    Returns:
      A `partition` of one part, ``"scion"``, which needs params. A complex number
      counts by its magnitude.

    Raises:
      ValueError: A number is out of range, or the norm of a leaf is unknown or does not
        fit its shape.

    Pethick, Xie, Antonakopoulos, Zhu, Silveti-Falls & Cevher, "Training deep learning
    models with norm-constrained LMOs", 2025. Equal to the authors' code, except that
    for them a step of a convolution of size k is k times smaller.

    >>> import jopt
    >>> tx, params = jopt.scion(0.5, radius=1.0), {"hidden": 3.0 * jnp.eye(2)}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> jopt.apply_updates(params, updates)["hidden"][0].round(2)
    Array([0.95, 0.  ], dtype=float32)
    """
    steps = chain(
        ema(beta, debias=False, accumulator_dtype=mu_dtype),
        scale_by_lmo(
            radius,
            sign_radius,
            norms,
            ns_coeffs,
            ns_steps,
            axes=axes,
            ns_dtype=ns_dtype,
            mesh_axis=mesh_axis,
        ),
        add_decayed_weights(1.0) if constrained else identity(),
        scale_by_learning_rate(learning_rate),
    )
    return partition({"scion": widened(steps)}, "scion")
