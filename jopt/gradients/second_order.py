"""Curvature: products with the Hessian, and diagonals of Hessian and Fisher matrix.

A product with the Hessian costs a few gradients, however many parameters there are; a
diagonal costs one product for each parameter. Estimates of a diagonal from one product
are in `jopt.hutchinson_estimator_diag_hessian`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jopt import tree
from jopt.core import tree_checks
from jopt.tree.variables import with_variables, without_variables


def hvp(loss: Callable[..., Any], params: Any, vector: Any, *args: Any) -> Any:
    """Return the product of the Hessian of a loss with a vector.

    Args:
      loss: A function of params and ``args`` that returns one number.
      params: The point.
      vector: A tree like ``params``.
      *args: Further arguments of ``loss``, such as a batch.

    Returns:
      A tree like ``params``.

    >>> import jopt
    >>> params, vector = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, 0.0])}
    >>> jopt.hvp(lambda p: jnp.prod(p["w"]), params, vector)
    {'w': Array([0., 1.], dtype=float32)}
    """

    tree_checks.arrays(params, "params")
    tree_checks.arrays(vector, "vector")
    bare = without_variables(params)

    def gradient(bare):
        grads = jax.grad(loss)(with_variables(bare, params), *args)
        return without_variables(grads)

    direction = tree.cast_like(without_variables(vector), bare)
    product = jax.jvp(gradient, (bare,), (direction,))[1]
    return with_variables(product, params)


def hessian_diag(loss: Callable[..., Any], params: Any, *args: Any) -> Any:
    """Return the diagonal of the Hessian of a loss.

    It takes a product with the Hessian, and memory for a copy of ``params``, for each
    parameter. For large models see `jopt.hutchinson_estimator_diag_hessian`.

    Args:
      loss: A function of params and ``args`` that returns one number.
      params: The point.
      *args: Further arguments of ``loss``, such as a batch.

    Returns:
      A tree like ``params``.

    >>> import jopt
    >>> jopt.hessian_diag(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))
    Array([ 6., 12.], dtype=float32)
    """
    flat, unravel = ravel_pytree(params)

    def element(one):
        product, _ = ravel_pytree(hvp(loss, params, unravel(one), *args))
        return jnp.vdot(one, product)

    return unravel(jax.vmap(element)(jnp.eye(flat.size, dtype=flat.dtype)))


def fisher_diag(loss: Callable[..., Any], params: Any, *args: Any) -> Any:
    """Return the squared gradient, the diagonal of the observed Fisher matrix.

    Args:
      loss: The negative log likelihood of one observation: a function of params and
        ``args`` that returns one number.
      params: The point.
      *args: Further arguments of ``loss``, such as an observation.

    Returns:
      A real tree like ``params``.

    >>> import jopt
    >>> jopt.fisher_diag(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))
    Array([  9., 144.], dtype=float32)
    """
    return jax.tree.map(tree.abs_sq, jax.grad(loss)(params, *args))
