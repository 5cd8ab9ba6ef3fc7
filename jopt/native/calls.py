"""A jaxpr as a call of one loop of C."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.extend.core import ClosedJaxpr

from jopt.native import switch
from jopt.native.compilation import TARGET, Unavailable, kernel
from jopt.native.emission import Unsupported, c_source


log = logging.getLogger(__name__)


def kernel_for(
    closed: ClosedJaxpr, aliases: Mapping[int, int]
) -> Callable[..., Sequence[jax.Array]] | None:
    """An elementwise jaxpr as a call of one loop of C, if that is possible here.

    Args:
      closed: A jaxpr of arrays of one size, float32 or float64, and scalars. The
        results are arrays of that size. Shapes may differ.
      aliases: The results that take the place of an argument of their shape and dtype:
        {index of the argument: index of the result}. XLA copies those arguments that
        are needed later.

    Returns:
      A function of the jaxpr's arguments that returns the list of its results, for
      programs that run on one CPU; elsewhere, under `jax.vmap` and for derivatives its
      caller takes the jaxpr. None where native kernels are off, or the jaxpr has
      something that is not supported. The logger ``jopt.native.calls`` says why, at
      level DEBUG.
    """
    tools = switch.toolchain()
    if tools is None:
        return None
    try:
        name = kernel(tools, c_source(closed))
    except (Unsupported, Unavailable) as error:
        log.debug("no native kernel: %s", error)
        return None
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in closed.out_avals]
    call = jax.ffi.ffi_call(TARGET, shapes, input_output_aliases=dict(aliases))
    return functools.partial(call, kernel=name)
