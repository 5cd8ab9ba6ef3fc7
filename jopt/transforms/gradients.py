"""Small changes to a gradient: its mean, its sign, its NaNs, its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import tree_checks
from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.leafwise import leafwise
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation, Params, Place, Updates
from jopt.values import arguments
from jopt.values.arguments import text_of
from jopt.values.numbers import ScalarOrSchedule


@transformation
def identity() -> GradientTransformation:
    """Leave the updates as they are: ``u <- g``.

    Returns:
      A transformation without state.

    >>> import jopt
    >>> jopt.identity().update(jnp.ones(1), ())[0]
    Array([1.], dtype=float32)
    """
    return leafwise(lambda g: g, place=Place(keeps_updates=True))


@transformation
def stateless(
    f: Callable[[Updates, Params | None], Updates],
) -> GradientTransformation:
    """Make a transformation from a function of the whole tree of updates.

    Args:
      f: ``f(updates, params) -> updates``; ``params`` is None if the caller omits it.

    Returns:
      A transformation without state.

    Raises:
      TypeError: ``f`` is not a function.

    >>> import jopt
    >>> tx = jopt.stateless(lambda updates, params: jax.tree.map(jnp.tanh, updates))
    >>> tx.update({"w": jnp.zeros(1)}, ())[0]
    {'w': Array([0.], dtype=float32)}
    """

    if not callable(f):
        raise TypeError(
            f"f must be a function of updates and params, got f={text_of(f)}"
        )

    def init(params):
        del params
        return NO_STATE

    def update(updates, state, params=None):
        return f(updates, params), state

    return GradientTransformation(init, update)


@transformation
def stateless_with_tree_map(
    f: Callable[[jax.Array, jax.Array | None], jax.Array],
) -> GradientTransformation:
    """Make a transformation from a function of one leaf.

    Args:
      f: ``f(update, param) -> update``, in the leaves' own dtypes; ``param`` is None if
        the caller omits ``params``. `leafwise` computes in float32 or wider instead.

    Returns:
      A transformation without state.

    Raises:
      TypeError: ``f`` is not a function.

    >>> import jopt
    >>> tx = jopt.stateless_with_tree_map(lambda g, p: jnp.tanh(g))
    >>> tx.update({"w": jnp.zeros(1)}, ())[0]
    {'w': Array([0.], dtype=float32)}
    """
    if not callable(f):
        raise TypeError(
            f"f must be a function of a leaf and its param, got f={text_of(f)}"
        )

    def init(params):
        del params
        return NO_STATE

    def update(updates, state, params=None):
        leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
        ps = [None] * len(leaves)
        if params is not None:
            ps = tree_checks.aligned(updates, leaves, treedef, params, "params")
        new = [None if g is None else f(g, p) for g, p in zip(leaves, ps, strict=True)]
        return treedef.unflatten(new), state

    return GradientTransformation(init, update)


@transformation
def centralize() -> GradientTransformation:
    """Subtract the mean over all axes but the first from leaves with two or more axes.

    Returns:
      A transformation without state.

    Yong, Huang, Hua & Zhang, "Gradient centralization", 2020.

    >>> import jopt
    >>> jopt.centralize().update(jnp.array([[1.0, 3.0]]), ())[0]
    Array([[-1.,  1.]], dtype=float32)
    """

    def rule(g):
        if g.ndim < 2 or not g.size:
            return g
        return g - jnp.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True)

    return leafwise(rule)


@transformation
def set_to_zero() -> GradientTransformation:
    """Make all updates zero, so that the parameters do not change: ``u <- 0``.

    Returns:
      A transformation without state.

    >>> import jopt
    >>> jopt.set_to_zero().update(jnp.array([jnp.nan, 1.0]), ())[0]
    Array([0., 0.], dtype=float32)
    """
    # zeros_like, not 0 * g: that would keep a NaN.
    return leafwise(
        lambda g: jnp.zeros_like(g), place=Place(freezes=True), any_dtype=True
    )


@transformation
def freeze(mask: Mask) -> GradientTransformation:
    """Make the updates of some leaves zero, ``u <- 0``; pass the others unchanged.

    Put it last in a chain: a weight decay after it would move the frozen leaves, and is
    an error unless it has a mask. Earlier transformations still keep state for the
    frozen leaves; use `selective_transform` to avoid that.

    Args:
      mask: The leaves to freeze; see `jopt.Mask`.

    Returns:
      A transformation without state.

    Raises:
      ValueError: The mask does not fit the parameters.

    >>> import jopt
    >>> jopt.freeze("b").update({"b": jnp.ones(1), "w": jnp.ones(1)}, ())[0]
    {'b': Array([0.], dtype=float32), 'w': Array([1.], dtype=float32)}
    """
    return leafwise(
        lambda g: jnp.zeros_like(g),
        mask=mask,
        place=Place(freezes=True),
        any_dtype=True,
    )


@transformation
def zero_nans() -> GradientTransformation:
    """Replace NaN with zero; keep infinities, so that a later clip sees them.

    Returns:
      A transformation without state.

    >>> import jopt
    >>> jopt.zero_nans().update(jnp.array([jnp.nan, 1.0]), ())[0]
    Array([0., 1.], dtype=float32)
    """
    return leafwise(lambda g: jnp.where(jnp.isnan(g), jnp.zeros_like(g), g))


@transformation
def scale_by_sign() -> GradientTransformation:
    """Keep the sign: ``u <- sign(g)``, with ``sign(0) = 0``; ``g / |g|`` if complex.

    Returns:
      A transformation without state.

    Bernstein et al., "signSGD: compressed optimisation for non-convex problems", 2018.

    >>> import jopt
    >>> jopt.scale_by_sign().update(jnp.array([-3.0, 0.0]), ())[0]
    Array([-1.,  0.], dtype=float32)
    """
    return leafwise(lambda g: jnp.sign(g))


@transformation
def scale_by_trust_ratio(
    min_norm: ScalarOrSchedule = 0.0,
    trust_coefficient: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 0.0,
    *,
    mask: Mask = None,
    bounded: bool = False,
) -> GradientTransformation:
    """Scale each leaf's update to the norm of its parameter.

        u <- g trust_coefficient |p| / (|g| + eps),   or g where |p| or |g| is zero

    Args:
      min_norm: Lower bound of both norms, >= 0.
      trust_coefficient: Norm of the update relative to the parameter's, >= 0.
      eps: Added to the norm of the update, >= 0.
      mask: The leaves to scale; see `jopt.Mask`.
      bounded: Whether the elements of the updates are below 1e3, as Adam's are. Their
        norm is then a single sum, and the step moves fewer bytes.

    Returns:
      A transformation without state that needs params.

    Raises:
      ValueError: A number is negative.

    You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017.

    >>> import jopt
    >>> tx, params = jopt.scale_by_trust_ratio(), jnp.array([3.0, 4.0])
    >>> tx.update(jnp.array([0.0, 1.0]), (), params)[0]
    Array([0., 5.], dtype=float32)
    """
    arguments.nonnegative(
        min_norm=min_norm, trust_coefficient=trust_coefficient, eps=eps
    )

    def rule(g, *, p):
        norms = {"min_norm": min_norm, "bounded": bounded}
        return trust_ratio(g, p, trust_coefficient, eps, **norms) * g

    return leafwise(rule, mask=mask)


def trust_ratio(
    g: jax.Array,
    p: jax.Array,
    coefficient: Any = 1.0,
    eps: Any = 0.0,
    *,
    min_norm: Any = 0.0,
    weight_decay: Any = 0.0,
    bounded: bool = False,
) -> jax.Array:
    """Return ``coefficient |p| / (|g| + weight_decay |p| + eps)``, or 1 at a zero norm.

    Both norms count as at least ``min_norm``.
    """
    p_norm = jnp.maximum(tree.norm_along(p, None), min_norm)
    g_norm = tree.norm_of_bounded(g) if bounded else tree.norm_along(g, None)
    g_norm = jnp.maximum(g_norm, min_norm)
    nonzero = (p_norm > 0) & (g_norm > 0)
    divisor = jnp.where(nonzero, g_norm + weight_decay * p_norm + eps, 1)
    return jnp.where(nonzero, coefficient * p_norm / divisor, 1)
