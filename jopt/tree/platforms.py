"""Functions that have a form of their own on CPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def per_platform(
    default: Callable[..., Any],
    cpu: Callable[..., Any],
    *arrays: Any,
    one_device: bool = False,
    tpu: Callable[..., Any] | None = None,
    tpus: Callable[..., Any] | None = None,
) -> Any:
    """Return ``default(*arrays)``, compiled as ``cpu(*arrays)`` for a CPU.

    ``lax.platform_dependent`` leaves a conditional behind, which XLA resolves too late
    to unite what is inside with what is outside. Here nothing is left of the choice.

    Args:
      default: A function of arrays. Its derivatives are those of the result, and
        `jax.vmap` maps it.
      cpu: A function with the same results.
      *arrays: Trees of arrays.
      one_device: Whether ``cpu`` is only for programs that run on one device, on which
        no array is sharded.
      tpu: A function with the same results, for programs that run on one TPU.
      tpus: Such a function for several, on which arrays may be sharded.

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
    of_tpus = tuple(None if f is None else flat(f) for f in (tpu, tpus))
    outputs = _differentiable(jaxpr, flat(cpu), one_device, of_tpus)(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _differentiable(
    jaxpr: Any,
    cpu: Callable[..., Any],
    one_device: bool,
    tpus: tuple[Callable[..., Any] | None, ...],
) -> Callable[..., Any]:
    @jax.custom_jvp
    def function(*leaves):
        return _primitive().bind(
            *leaves, jaxpr=jaxpr, cpu=cpu, one_device=one_device, tpus=tpus
        )

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
    primitive.def_abstract_eval(lambda *_, jaxpr, **__: jaxpr.out_avals)
    primitive.def_impl(lambda *leaves, jaxpr, **_: _evaluate(jaxpr)(*leaves))

    def batched(leaves, axes, *, jaxpr, **_):
        outputs = jax.vmap(_evaluate(jaxpr), axes)(*leaves)
        return outputs, [0] * len(outputs)

    default = mlir.lower_fun(lambda *leaves, jaxpr, **_: _evaluate(jaxpr)(*leaves))
    in_its_form = mlir.lower_fun(lambda *leaves, cpu, **_: cpu(*leaves))

    def devices(context):
        return getattr(context.module_context.axis_context, "num_devices", None)

    def on_cpu(context, *leaves, one_device, **params):
        lower = default if one_device and devices(context) != 1 else in_its_form
        return lower(context, *leaves, **params)

    def on_tpu(context, *leaves, tpus, **params):
        count, (one, several) = devices(context), tpus
        form = one if count == 1 else several if count else None
        if form is None:
            return default(context, *leaves, tpus=tpus, **params)
        return mlir.lower_fun(form)(context, *leaves)

    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, default)
    mlir.register_lowering(primitive, on_cpu, platform="cpu")
    mlir.register_lowering(primitive, on_tpu, platform="tpu")
    return primitive


def read_apart(arrays: Any) -> Any:
    """Return the arrays; on CPU, in a way that hides that they are the same.

    If two computations need the square of an array, XLA for the CPU writes it to memory
    for both. With the arrays from here, one of the two squares what it reads itself.
    Other compilers compute both in one pass.

    Args:
      arrays: A tree of arrays, which should lie in memory in any case.

    >>> import jax.numpy as jnp
    >>> read_apart(jnp.ones(2))
    Array([1., 1.], dtype=float32)
    """

    def apart(arrays):
        # One barrier for all would let an array vary over the mesh axes of the others.
        return jax.tree.map(jax.lax.optimization_barrier, arrays)

    return per_platform(lambda arrays: arrays, apart, arrays)
