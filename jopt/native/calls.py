"""A jaxpr as one equation, which XLA:CPU runs as one loop of C.

On other platforms, on several devices, under `vmap` and for derivatives the equation is
the jaxpr.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jopt.native import switch
from jopt.native.compilation import TARGET, Unavailable, kernel
from jopt.native.emission import Unsupported, c_source


log = logging.getLogger(__name__)


def kernel_for(
    closed: ClosedJaxpr, aliases: Mapping[int, int]
) -> Callable[..., list[jax.Array]] | None:
    """An elementwise jaxpr as a call of one loop of C, if that is possible here.

    Args:
      closed: A jaxpr of arrays of one size, float32 or float64, and scalars. The
        results are arrays of that size. Shapes may differ.
      aliases: The results that take the place of an argument of their shape and dtype:
        {index of the argument: index of the result}. XLA copies those arguments that
        are needed later.

    Returns:
      A function of the jaxpr's arguments that returns the list of its results, or None
      where native kernels are off, JAX's default device is not a CPU, or the jaxpr has
      something that is not supported. The logger ``jopt.native.calls`` says why, at
      level DEBUG.
    """
    tools = switch.toolchain()
    if tools is None:
        return None
    try:
        if jax.default_backend() != "cpu":
            raise Unavailable("programs run on another device than the CPU")
        name = kernel(tools, c_source(closed))
    except (Unsupported, Unavailable) as error:
        log.debug("no native kernel: %s", error)
        return None
    pairs = tuple(sorted(aliases.items()))
    return functools.partial(
        native_kernel.bind, jaxpr=closed, kernel=name, aliases=pairs
    )


native_kernel = Primitive("jopt_native_kernel")
native_kernel.multiple_results = True


@native_kernel.def_abstract_eval
def _results(*_: Any, jaxpr: ClosedJaxpr, **__: Any) -> Sequence[Any]:
    return jaxpr.out_avals


@native_kernel.def_impl
def _run(*arguments: jax.Array, **params: Any) -> list[jax.Array]:
    # Under disable_jit, the call would come back to this function.
    with jax.disable_jit(False):
        return _compiled(**params)(*arguments)


@functools.lru_cache(maxsize=4096)
def _compiled(**params: Any) -> Callable[..., list[jax.Array]]:
    return jax.jit(functools.partial(native_kernel.bind, **params))


def _plain(*arguments: Any, jaxpr: ClosedJaxpr, **_: Any) -> list[Any]:
    return jaxpr_as_fun(jaxpr)(*arguments)


def _native(
    ctx: Any,
    *operands: Any,
    jaxpr: ClosedJaxpr,
    kernel: str,
    aliases: tuple[tuple[int, int], ...],
) -> Any:
    if getattr(ctx.module_context.axis_context, "num_devices", None) == 1:
        lowering = jax.ffi.ffi_lowering(TARGET, operand_output_aliases=dict(aliases))
        return lowering(ctx, *operands, kernel=kernel)
    # XLA cannot split a call, and would gather arrays that several devices share.
    return _plain_lowering(ctx, *operands, jaxpr=jaxpr)


def _batched(arguments: Any, axes: Any, **params: Any) -> Any:
    results = jax.vmap(functools.partial(_plain, **params), axes)(*arguments)
    return results, [0] * len(results)


def _jvp(arguments: Any, tangents: Any, **params: Any) -> Any:
    tangents = tuple(ad.instantiate_zeros(t) for t in tangents)
    return jax.jvp(functools.partial(_plain, **params), tuple(arguments), tangents)


_plain_lowering = mlir.lower_fun(_plain, multiple_results=True)
mlir.register_lowering(native_kernel, _plain_lowering)
mlir.register_lowering(native_kernel, _native, platform="cpu")
batching.primitive_batchers[native_kernel] = _batched
ad.primitive_jvps[native_kernel] = _jvp
