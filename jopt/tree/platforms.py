"""Functions that have a form of their own on CPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def per_platform(
    default: Callable[..., Any], cpu: Callable[..., Any], *arrays: Any
) -> Any:
    """Return ``default(*arrays)``, compiled as ``cpu(*arrays)`` for a CPU.

    ``lax.platform_dependent`` leaves a conditional behind, which XLA resolves too late
    to unite what is inside with what is outside. Here nothing is left of the choice.

    Args:
      default: A function of arrays. Its derivatives are those of the result, and
        `jax.vmap` maps it.
      cpu: A function with the same results.
      *arrays: Trees of arrays.

    Returns:
      A tree of arrays.

    >>> import jax.numpy as jnp
    >>> per_platform(jnp.sum, lambda x: jnp.cumsum(x)[-1], jnp.arange(4.0))
    Array(6., dtype=float32)
    """
    leaves, treedef = jax.tree.flatten(arrays)

    def flat(function):
        return lambda *leaves: jax.tree.leaves(function(*treedef.unflatten(leaves)))

    jaxpr, shapes = jax.make_jaxpr(default, return_shape=True)(*arrays)
    outputs = _differentiable(jaxpr, flat(cpu))(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _differentiable(jaxpr: Any, cpu: Callable[..., Any]) -> Callable[..., Any]:
    @jax.custom_jvp
    def function(*leaves):
        return _primitive().bind(*leaves, jaxpr=jaxpr, cpu=cpu)

    def derivative(primals, tangents):
        return jax.jvp(_evaluate(jaxpr), primals, tangents)

    function.defjvp(derivative)
    return function


def _evaluate(jaxpr: Any) -> Callable[..., list[Any]]:
    from jax.extend.core import jaxpr_as_fun

    return jaxpr_as_fun(jaxpr)


@functools.cache
def _primitive() -> Any:
    # Slow to import, and only large leaves need it.
    from jax.extend.core import Primitive
    from jax.interpreters import batching, mlir

    primitive = Primitive("per_platform")
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda *_, jaxpr, cpu: jaxpr.out_avals)
    primitive.def_impl(lambda *leaves, jaxpr, cpu: _evaluate(jaxpr)(*leaves))

    def batched(leaves, axes, *, jaxpr, cpu):
        outputs = jax.vmap(_evaluate(jaxpr), axes)(*leaves)
        return outputs, [0] * len(outputs)

    def on_cpu(*leaves, jaxpr, cpu):
        return cpu(*leaves)

    def elsewhere(*leaves, jaxpr, cpu):
        return _evaluate(jaxpr)(*leaves)

    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(elsewhere))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu), platform="cpu")
    return primitive
