"""Solvers compiled for a CPU: in half the time, and small ones into one function.

XLA:CPU has two ways to make code of fused operations. For the hundreds of small ones of
a solver the newer way takes twice as long, and its code is no faster. Between these
operations it hands over buffers and asks its threads, which takes longer than what is
done with a few hundred numbers. A loop whose call says so becomes one function instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, get_opaque_trace_state


Function = Callable[..., Any]

OPTIONS: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
REFUSALS = "No such compile option", "UNIMPLEMENTED", "Failed to materialize symbols"
OUTSIDE = get_opaque_trace_state()  # of every transformation of JAX

# What XLA can put into one function, as far as it is known here. Larger arrays gain
# nothing, and lose the other threads.
LARGEST = 2**14
SIMPLE = set(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp cos cosh
    digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le
    lgamma log log1p logistic lt max min mul ne neg not or pow rem round rsqrt select_n
    sign sin sinh sqrt square sub tan tanh xor
    argmax argmin cumprod cumsum reduce_and reduce_max reduce_min reduce_or reduce_prod
    reduce_sum
    broadcast_in_dim concatenate convert_element_type copy dynamic_slice
    dynamic_update_slice empty empty2 gather iota optimization_barrier pad
    reduce_precision reshape rev scatter-add slice split squeeze stack stop_gradient
    tile transpose unstack zeros_like
    """.split()  # noqa: SIM905
)
WITH_PARTS = {"jit", "while", "cond", "scan", "custom_jvp_call", "custom_vjp_call"}


def compiled(function: Function, *, static_argnums: Any) -> Function:
    """Return a function as `jax.jit` compiles it; on a CPU in the older way.

    Inside a transformation JAX takes no options, so there it is `jax.jit` alone. So it
    is where arrays are on several devices, and where XLA no longer knows the older way.

    Args:
      function: ``function(whole, …)``, which calls ``whole(loop)(start)`` for
        ``loop(start)``. On a CPU `whole` is `in_one_piece`.
      static_argnums: As for `jax.jit`, without ``whole``.

    >>> double = compiled(lambda whole, x: whole(lambda x: 2 * x)(x), static_argnums=())
    >>> float(double(3.0)), float(jax.jit(double)(3.0))
    (6.0, 6.0)
    """
    jitted = functools.partial(jax.jit, static_argnums=static_argnums)
    plain = jitted(functools.partial(function, lambda loop: loop))
    quick = jitted(functools.partial(function, in_one_piece), compiler_options=OPTIONS)
    is_known = True

    @functools.wraps(function)
    def call(*args):
        nonlocal is_known
        outside = is_known and get_opaque_trace_state() == OUTSIDE
        if outside and jax.default_backend() == "cpu" and _on_one_device(args):
            try:
                return quick(*args)
            except jax.errors.JaxRuntimeError as error:
                if not any(text in str(error) for text in REFUSALS):
                    raise
                is_known = False
        return plain(*args)

    return call


def _on_one_device(args: Any) -> bool:
    arrays = [x for x in jax.tree.leaves(args) if isinstance(x, jax.Array)]
    return all(len(x.sharding.device_set) == 1 for x in arrays)


def in_one_piece(function: Function) -> Function:
    """Return a function of a tree of arrays whose code is one function, if it is small.

    >>> in_one_piece(lambda x: 2 * x)(3.0)
    Array(6., dtype=float32, weak_type=True)
    """

    def call(x):
        jitted = jax.jit(function)
        if not is_small(jitted.trace(x).jaxpr.jaxpr):
            return jitted(x)
        # Kept apart, for attributes of a call that is inlined are lost.
        marks = {"xla_cpu_small_call": "true", "inlineable": "false"}
        return set_xla_metadata(jitted(x), **marks)

    return call


def is_small(jaxpr: Jaxpr) -> bool:
    """Whether a program works on small arrays, and in ways that XLA takes in one piece.

    >>> [is_small(jax.make_jaxpr(f)(jax.numpy.ones((2, 2))).jaxpr)
    ...  for f in (lambda x: x * x, lambda x: x @ x[0], lambda x: x @ x)]
    [True, True, False]
    """
    return all(_is_small(eqn) for eqn in jaxpr.eqns)


def _is_small(eqn: Any) -> bool:
    variables = (*eqn.invars, *eqn.outvars)
    if any(getattr(x.aval, "size", LARGEST + 1) > LARGEST for x in variables):
        return False
    if eqn.primitive.name in WITH_PARTS:
        parts = jax.tree.leaves(eqn.params)
        return all(is_small(x.jaxpr) for x in parts if isinstance(x, ClosedJaxpr))
    if eqn.primitive.name == "dot_general":  # by a vector; others have their libraries
        return any(x.aval.ndim == 1 for x in eqn.invars)
    return eqn.primitive.name in SIMPLE
