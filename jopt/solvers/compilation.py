"""Solvers compiled in half the time.

XLA:CPU has two ways to make code of fused operations. For the hundreds of small ones of
a solver the newer way takes twice as long, and its code is no faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state


Function = Callable[..., Any]

OPTIONS: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
OUTSIDE = get_opaque_trace_state()  # of every transformation of JAX


def compiled(static_argnums: tuple[int, ...]) -> Callable[[Function], Function]:
    """A decorator: `jax.jit` that compiles in the older way on a CPU.

    It is `jax.jit` alone inside a transformation, where JAX takes no options, and where
    XLA knows the older way no more.

    Args:
      static_argnums: As for `jax.jit`.

    >>> double = compiled(static_argnums=())(lambda x: 2 * x)
    >>> double(3.0), jax.jit(double)(3.0)
    (Array(6., dtype=float32, weak_type=True), Array(6., dtype=float32, weak_type=True))
    """

    def decorate(function):
        jitted = jax.jit(function, static_argnums=static_argnums)
        quick = jax.jit(
            function, static_argnums=static_argnums, compiler_options=OPTIONS
        )
        known = True

        @functools.wraps(function)
        def call(*args):
            nonlocal known
            here = known and jax.default_backend() == "cpu"
            if here and get_opaque_trace_state() == OUTSIDE:
                try:
                    return quick(*args)
                except jax.errors.JaxRuntimeError as error:
                    if "No such compile option" not in str(error):
                        raise
                    known = False
            return jitted(*args)

        return call

    return decorate
