"""Muon: momentum, orthogonalized.

    B <- beta B + (1 - beta) g            momentum
    U <- beta B + (1 - beta) g            nesterov; else B
    O <- P Q^T   of   U = P S Q^T         all singular values become 1, see `polar`
    p <- p - learning_rate (s O + weight_decay p)

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The
scale s by the matrix's shape: Liu et al., "Muon is scalable for LLM training", 2025;
Bernstein & Newhouse, "Modular duality in deep learning", 2024 (spectral).

A step changes a matrix by the same amount in all directions of its inputs. This suits
the weights of hidden layers: dense, attention and convolution kernels. Embeddings,
heads, norms and biases do better with AdamW; `muon` combines both.

State: 4 bytes per float32 parameter, 1 with ``mu_dtype="int8"``. Each iteration
takes three matrix products; on GPU and TPU use ``ns_dtype="bfloat16"``. Settings:
learning rate 0.02 with ``shape_scale="kj"``, and a smaller one for AdamW; or AdamW's
learning rate for both, with ``consistent_rms=0.2`` and weight decay 0.1. beta may rise
from 0.85 to 0.95 in the first few hundred steps.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.algorithms.adam import EpsMode, adamw
from jopt.algorithms.hidden import for_hidden
from jopt.algorithms.matrices import (
    Axes,
    ShapeScale,
    letters,
    positions,
    shape_factor,
    sizes,
)
from jopt.algorithms.norm_control import nonzero, norms, times
from jopt.algorithms.polar import (
    CoefficientsName,
    NsMethod,
    Start,
    coefficients,
    orthogonalize,
)
from jopt.core import tree_checks
from jopt.core.chain import chain
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import PlainDtype, StorageDtype, transformation
from jopt.core.leafwise import zeros
from jopt.core.leaves import Leaves, wide
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation
from jopt.core.treatment import Treatment
from jopt.core.wide_slots import with_slots
from jopt.transforms.gradients import identity
from jopt.transforms.learning_rate import scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.tree.like import spread_like
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


class ScaleByMuonState(NamedTuple):
    """State of `scale_by_muon`."""

    mu: Any  # momentum, like params


@transformation
def scale_by_muon(
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 0.0,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    axes: Axes = None,
    shape_scale: ShapeScale | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
    equilibrate: bool | Literal["aurora"] = False,
    ns_start: Start = "divide",
    ns_method: NsMethod = "standard",
    renormalize: bool = False,
) -> GradientTransformation:
    """Orthogonalize the momentum: ``u <- s O``; for matrices only.

    Args:
      ns_coeffs: Coefficients of the iteration: ``"simple"``, ``"quintic"``,
        ``"polar_express"``, ``"polar_express_safe"`` (for bfloat16), ``"cans"``,
        ``"deepseek_v4"`` or ``"newton_schulz"``; one triple (a, b, c) for all steps, or
        a sequence of one triple per step.
      ns_steps: Number of iterations; None means the number that the coefficients are
        made for.
      beta: Decay of the momentum, in [0, 1).
      eps: Added to the norm of U, >= 0; with 0 the update does not depend on the scale
        of the gradients.
      mu_dtype: Storage dtype of ``mu``, or a format, see `scale_by_adam`; None means
        float32 or wider.
      nesterov: Whether to use Nesterov's look-ahead momentum.
      axes: The matrix layout of the leaves: one for all, rules, or a tree. It has a
        letter for each axis, ``i`` for inputs, ``o`` for outputs and ``b`` for a batch:
        ``"io"`` is a dense kernel, ``"bio"`` a stack of them. None, or ``"auto"``,
        recognizes the layers of Flax and Equinox, stacked or not, and takes every other
        leaf of two axes as (inputs, outputs). For other leaves of three or more axes,
        give rules such as ``jopt.rules(("blocks/.*/kernel", "bio"), ("", "auto"))``.
      shape_scale: The scale s. ``"kj"`` is sqrt(max(1, outputs / inputs)),
        ``"spectral"`` sqrt(outputs / inputs), ``"match_rms_adamw"`` 0.2
        sqrt(max(inputs, outputs)), and None 1.
      consistent_rms: If given, a number r that replaces ``shape_scale`` by
        s = r sqrt(max(inputs, outputs)); 0.2 gives updates the size of AdamW's.
      ns_dtype: Dtype of the iteration; None means float32 or wider. Norms are always
        computed in float32 or wider.
      mesh_axis: Name of an axis of the mesh set by ``jax.set_mesh``. The matrices are
        spread over it, so that each device iterates on whole matrices. This takes two
        exchanges between devices; parameters sharded over devices need many otherwise.
      equilibrate: Whether to first give all outputs of U the same norm (MuonEq, 2026).
        ``"aurora"`` scales the outputs, or the inputs if there are more of them, until
        those of O have nearly the same norm, for one more iteration; square matrices
        stay as they are (Aurora, 2026).
      ns_start: What comes before the iteration first: ``"divide"`` divides by the norm
        and then rounds to ``ns_dtype``; ``"round"`` also rounds before, and the norm,
        which ``eps`` then bounds from below. The latter is what torch does. So
        does the iteration of a square matrix, whose rows are then the outputs.
        ``"aol"`` scales each row of the shorter side, so that a step less is enough
        (Turbo-Muon, 2025); ``"schatten"`` and ``"spectral"`` divide by other norms.
      ns_method: ``"gram"`` iterates on U U^T where a matrix is at least twice as long
        as wide, which is less work: a third less where it is four times as long (Gram
        Newton-Schulz, 2026). It is not for an ``ns_dtype`` narrower than float32.
      renormalize: Whether to give O the norm that it would have if the iteration were
        exact, sqrt(min(inputs, outputs)) (Muon+, 2026).

    Returns:
      A transformation.

    Raises:
      ValueError: An argument is out of range, a leaf is not a matrix, or ``axes`` does
        not say how a leaf of three or more axes is one.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    Equal to Jordan's code and torch's, which iterate in bfloat16: for that precision
    ``ns_dtype="bfloat16", ns_start="round", eps=1e-7``. optax bias-corrects both parts
    of U, which changes its direction.

    >>> import jopt
    >>> tx, g = jopt.scale_by_muon("polar_express", 8), jnp.array([[3.0, 0], [0, 0.01]])
    >>> tx.update(g, tx.init(g))[0].round(3)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    arguments.decay_rate(beta=beta)
    slot = zeros(mu_dtype)
    polar = _Polar(
        *(ns_coeffs, ns_steps, eps, axes, shape_scale, consistent_rms),
        *(ns_dtype, mesh_axis, equilibrate, ns_start, ns_method, renormalize),
    )

    def init(params):
        Leaves(params, "params")
        letters(axes, params)
        return ScaleByMuonState(slot.initial(params))

    def update(updates, state, params=None):
        leaves = Leaves(updates)
        if params is not None:
            leaves.aligned(params, "params")
        mu = leaves.aligned(state.mu, "the state's mu")
        directions = list(leaves.values)
        for i in leaves.present:
            tree_checks.dtypes(directions[i], None, mu[i])
            # `1 - beta` is formed here, while beta may still be a Python double.
            numbers = beta, 1 - beta, nesterov
            directions[i], mu[i] = _momentum(directions[i], mu[i], *numbers)
        return polar.of(leaves, directions), ScaleByMuonState(leaves.tree(mu))

    treatment = Treatment(
        layouts=functools.partial(letters, axes), whole=True, mesh_axis=mesh_axis
    )
    tx = GradientTransformation(init, update, treatment=treatment)
    return with_slots(tx, ScaleByMuonState, mu=slot)


@transformation
def scale_by_polar(
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    eps: ScalarOrSchedule = 0.0,
    *,
    axes: Axes = None,
    shape_scale: ShapeScale | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
    equilibrate: bool | Literal["aurora"] = False,
    ns_start: Start = "divide",
    ns_method: NsMethod = "standard",
    renormalize: bool = False,
) -> GradientTransformation:
    """Orthogonalize the updates as they come: `scale_by_muon` without its momentum.

    Args:
      ns_coeffs, ns_steps, eps, axes, shape_scale, consistent_rms: See `scale_by_muon`.
      ns_dtype, mesh_axis, equilibrate, ns_start, ns_method: See `scale_by_muon`.
      renormalize: See `scale_by_muon`.

    Returns:
      A transformation without state, for matrices only. A complex matrix becomes
      unitary.

    Raises:
      ValueError: An argument is out of range, or a leaf is not a matrix.

    >>> import jopt
    >>> tx, g = jopt.scale_by_polar("deepseek_v4"), jnp.array([[0.0, 2.0], [0.1, 0.0]])
    >>> tx.update(g, tx.init(g))[0].round(2)
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    polar = _Polar(
        *(ns_coeffs, ns_steps, eps, axes, shape_scale, consistent_rms),
        *(ns_dtype, mesh_axis, equilibrate, ns_start, ns_method, renormalize),
    )

    def init(params):
        Leaves(params, "params")
        letters(axes, params)
        return NO_STATE

    def update(updates, state, params=None):
        leaves = Leaves(updates)
        if params is not None:
            leaves.aligned(params, "params")
        return polar.of(leaves, leaves.each(wide)), state

    treatment = Treatment(
        layouts=functools.partial(letters, axes), whole=True, mesh_axis=mesh_axis
    )
    return GradientTransformation(init, update, treatment=treatment)


class _Polar:
    """The iteration with its arguments, and the scale s."""

    def __init__(
        self,
        ns_coeffs: Any,
        ns_steps: int | None,
        eps: Any,
        axes: Axes,
        shape_scale: ShapeScale | None,
        consistent_rms: Any,
        ns_dtype: Any,
        mesh_axis: str | None,
        equilibrate: bool | str,
        ns_start: Start,
        ns_method: NsMethod,
        renormalize: bool,
    ):
        self.triples = coefficients(ns_coeffs, ns_steps)
        arguments.nonnegative(eps=eps)
        arguments.one_of(
            ("kj", "match_rms_adamw", "spectral", None), shape_scale=shape_scale
        )
        arguments.nonnegative(consistent_rms=consistent_rms)
        arguments.one_of(get_args(Start), ns_start=ns_start)
        arguments.one_of((False, True, "aurora"), equilibrate=equilibrate)
        arguments.one_of(get_args(NsMethod), ns_method=ns_method)
        is_narrow = ns_dtype is not None and jnp.finfo(ns_dtype).bits < 32
        if ns_method == "gram" and is_narrow:
            raise ValueError(
                f'ns_method="gram" needs float32, got ns_dtype={text_of(ns_dtype)}: '
                "the rounding errors of U U^T grow a thousandfold in two steps"
            )
        self.axes, self.renormalize = axes, renormalize
        self.scale = shape_scale, consistent_rms
        self.options: dict[str, Any] = {
            "eps": eps,
            "dtype": ns_dtype,
            "mesh_axis": mesh_axis,
            "equilibrate": equilibrate is True,
            "start": ns_start,
            "method": ns_method,
        }
        self.balances = equilibrate == "aurora"

    def of(self, leaves: Leaves, directions: list[Any]) -> Any:
        """The tree of ``s O`` of directions, in the dtypes of the leaves."""
        layouts, present = letters(self.axes, leaves.whole), leaves.present

        def factors(which):
            leaves = [directions[i] for i in which]
            each = [layouts[i] for i in which]
            return orthogonalize(leaves, each, self.triples, **self.options)

        if self.balances:
            directions = list(directions)
            oblong = [i for i in present if _longer(layouts[i], directions[i].shape)]
            for i in oblong:
                directions[i] = _balanced(directions[i], directions[i], layouts[i])
            for i, o in zip(oblong, factors(oblong), strict=True):
                directions[i] = _balanced(directions[i], o, layouts[i])
        results, new = factors(present), list(leaves.values)
        for i, o in zip(present, results, strict=True):
            scale = shape_factor(layouts[i], o.shape, *self.scale)
            o = _with_norm(o, layouts[i]) if self.renormalize else o
            new[i] = _scaled(o, scale, new[i])
        return leaves.tree(new)


@functools.partial(jax.jit, static_argnums=4)
def _momentum(
    g: jax.Array, mu: jax.Array, beta: Any, rest: Any, nesterov: bool
) -> tuple[jax.Array, jax.Array]:
    wide = np.promote_types(tree.compute_dtype(g.dtype), mu.dtype)
    g, old, beta, rest = (jnp.asarray(x).astype(wide) for x in (g, mu, beta, rest))
    new = beta * old + rest * g
    return (beta * new + rest * g if nesterov else new), new.astype(mu.dtype)


def _longer(layout: str, shape: tuple[int, ...]) -> str | None:
    """The side of a matrix with more neurons, "i" or "o"; None if it is square."""
    _, inputs, outputs = sizes(layout, shape)
    return None if inputs == outputs else "i" if inputs > outputs else "o"


@functools.partial(jax.jit, static_argnums=2)
def _balanced(u: jax.Array, o: jax.Array, layout: str) -> jax.Array:
    """Divide the neurons of the longer side by their norms in ``o``."""
    along = positions(layout, "o" if _longer(layout, u.shape) == "i" else "i")
    return times(u, 1 / nonzero(tree.norm_along(o, along)))


@functools.partial(jax.jit, static_argnums=1)
def _with_norm(o: jax.Array, layout: str) -> jax.Array:
    size = math.sqrt(min(sizes(layout, o.shape)[1:]))
    return times(o, size / nonzero(norms(o, layout)))


@jax.jit
def _scaled(o: jax.Array, scale: Any, g: jax.Array) -> jax.Array:
    u = (jnp.asarray(scale).astype(o.dtype) * o).astype(g.dtype)
    # The iteration may have spread the matrices over devices in another way.
    return spread_like(u, g)


@transformation
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: CoefficientsName | tuple[Any, ...] | list[Any] = "simple",
    ns_steps: int | None = None,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: StorageDtype | None = None,
    *,
    nesterov: bool = True,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps_root: ScalarOrSchedule = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    hidden: Mask = None,
    axes: Axes = None,
    shape_scale: ShapeScale | None = "kj",
    ns_dtype: PlainDtype | None = None,
    mesh_axis: str | None = None,
    equilibrate: bool | Literal["aurora"] = False,
    ns_method: NsMethod = "standard",
    renormalize: bool = False,
    after: GradientTransformation | None = None,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_eps_mode: EpsMode = "after",
) -> GradientTransformation:
    """Muon for the hidden matrices, AdamW for everything else.

        p <- p - learning_rate (s O + weight_decay p)

    ``O`` is the momentum with all singular values set to 1. Usual settings are a
    learning rate of 0.02 with a smaller ``adam_learning_rate``, or AdamW's learning
    rate for both with ``consistent_rms=0.2`` and a weight decay of 0.1.

    Args:
      learning_rate: Step size of the hidden matrices, >= 0.
      ns_coeffs, ns_steps, beta, eps: See `scale_by_muon`.
      weight_decay: Decoupled decay of the hidden matrices, >= 0, multiplied by the
        learning rate.
      weight_decay_mask: The hidden matrices to decay; see `jopt.Mask`.
      mu_dtype: Storage dtype of the momentum and of AdamW's first moment; None means
        float32 or wider.
      nesterov: See `scale_by_muon`.
      adam_b1: ``b1`` of `adamw`, for the leaves that are not hidden matrices.
      adam_b2: ``b2`` of `adamw`; 0.95 is usual for language models.
      adam_eps_root: ``eps_root`` of `adamw`.
      adam_weight_decay: Decoupled decay of the other leaves, >= 0.
      adam_learning_rate: Step size of the other leaves; None means ``learning_rate``,
        which suits ``consistent_rms=0.2`` only.
      consistent_rms: See `scale_by_muon`.
      hidden: The leaves for Muon; see `jopt.Mask`. None selects by shape and name:
        leaves of two or more axes whose path names no embedding, head, bias or norm.
      axes, shape_scale, ns_dtype, mesh_axis, equilibrate: See `scale_by_muon`.
      ns_method, renormalize: See `scale_by_muon`.
      after: A transformation of s O; `normalize_neurons`, with the same ``axes``, makes
        this NorMuon.
      adam_eps: ``eps`` of `adamw`.
      adam_eps_mode: ``eps_mode`` of `adamw`.

    Returns:
      A `partition` into ``"muon"`` and ``"adam"``, which needs params. A complex matrix
      becomes unitary.

    Raises:
      ValueError: An argument is out of range, or a leaf of ``hidden`` is not a matrix.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    optax treats embeddings and heads as hidden matrices, and uses NAdamW for the rest.

    >>> import jopt
    >>> tx = jopt.muon(0.02, adam_learning_rate=3e-3)
    >>> params = {name: jnp.ones((4, 4)) for name in ("embed", "hidden", "head")}
    >>> mu = tx.init(params)["muon"]["scale_by_muon"].mu
    >>> [name for name, slot in mu.items() if slot is not None]
    ['hidden']
    """
    if adam_learning_rate is None:
        adam_learning_rate = learning_rate
    orthogonal = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        axes=axes,
        shape_scale=shape_scale,
        consistent_rms=consistent_rms,
        ns_dtype=ns_dtype,
        mesh_axis=mesh_axis,
        equilibrate=equilibrate,
        ns_method=ns_method,
        renormalize=renormalize,
    )
    for_matrices = chain(
        orthogonal,
        after or identity(),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    for_others = adamw(
        adam_learning_rate,
        adam_b1,
        adam_b2,
        adam_eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        eps_mode=adam_eps_mode,
    )

    return for_hidden("muon", for_matrices, for_others, hidden)
