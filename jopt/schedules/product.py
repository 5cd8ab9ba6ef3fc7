"""Products of schedules, and of one factor per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jopt.core.changing_numbers import is_traceable
from jopt.core.factory import schedule
from jopt.schedules import ramp
from jopt.tree import scalar_dtype
from jopt.values import arguments
from jopt.values.arguments import abbreviated, shown_function, text_of
from jopt.values.numbers import perhaps_traced


TABLE = 10_000  # steps, for a product without an end


@schedule
def multiply_schedules(
    schedules: Sequence[float | Callable[[Any], Any]],
) -> ramp.Function:
    """The product of several schedules at the same step.

    torch's LambdaLR is ``multiply_schedules([lr, function])``. Its ChainedScheduler is
    the product of the learning rate and each scheduler applied to a rate of 1.

    Args:
      schedules: Schedules, any functions of the integer step, or numbers.

    Returns:
      A schedule.

    Raises:
      ValueError: ``schedules`` is empty, or a number is not finite.
      TypeError: An element is neither a function nor a number.

    >>> import jopt
    >>> warmup = jopt.linear_schedule(0.0, 1.0, 2)
    >>> decay = jopt.exponential_decay(1.0, 1, 0.5)
    >>> jopt.multiply_schedules([2.0, warmup, decay])(jnp.arange(5))
    Array([0.   , 0.5  , 0.5  , 0.25 , 0.125], dtype=float32)
    """
    if not schedules:
        raise ValueError("schedules must be one or more, got none")
    functions, numbers = [], []
    for i, part in enumerate(schedules):
        name = f"schedules[{i}]"
        if callable(part):
            arguments.function_of_step(name, part)
            functions.append(part)
        elif arguments.is_number(part):
            numbers.append(perhaps_traced(name, part))
            arguments.finite(**{name: numbers[-1]})
        else:
            shown = abbreviated(part)
            raise TypeError(f"{name} must be a schedule or a number, got {shown}")
    constant = ramp.constant(math.prod(numbers))

    def function(count):
        value = constant(count)
        for part in functions:
            value = value * jnp.asarray(part(count), scalar_dtype())
        return value

    return function


@schedule
def multiplicative_schedule(
    init_value: float, factor_fn: Callable[[Any], Any], total_steps: int | None = None
) -> ramp.Function:
    """Multiply a value by a factor at each step, torch's MultiplicativeLR.

        init_value factor_fn(1) factor_fn(2) … factor_fn(t)

    The products are computed once, in double precision. A compiled step contains them
    as a table of 4 bytes per step. Without ``total_steps`` the table ends after 10,000
    steps, and each later step multiplies all factors since then. If the product has a
    formula, as for a constant factor (`exponential_decay`), prefer that.

    Args:
      init_value: The value at step 0.
      factor_fn: A schedule, or any function of the integer step.
      total_steps: The last step with a factor, 1 to 10,000,000; the value then stays
        constant. None means that every step has one.

    Returns:
      A schedule.

    Raises:
      ValueError: An argument is out of range, or a product is not finite.
      TypeError: ``factor_fn`` is not a function of the step; or it needs the value of
        the step, as an ``if`` does, and there is no ``total_steps``.

    >>> import jopt
    >>> factor = jopt.piecewise_constant([3], [0.5, 0.1])
    >>> jopt.multiplicative_schedule(1.0, factor, 4)(jnp.arange(6))
    Array([1.    , 0.5   , 0.25  , 0.025 , 0.0025, 0.0025], dtype=float32)
    """
    arguments.finite(init_value=init_value)
    length = TABLE if total_steps is None else total_steps
    arguments.at_least(1, total_steps=length)
    arguments.at_most(10_000_000, total_steps=length)
    if not callable(factor_fn):
        raise TypeError(
            f"factor_fn must be a function of the step, got {text_of(factor_fn)}. For "
            "a number, use jopt.exponential_decay(init_value, 1, number)."
        )
    arguments.function_of_step("factor_fn", factor_fn)

    def factor(step):
        value = factor_fn(step)
        arguments.one_number("what factor_fn returns", value)
        return jnp.asarray(value, float)

    compiles = is_traceable(factor)
    if total_steps is None and not compiles:
        raise TypeError(
            f"factor_fn {shown_function(factor_fn)} needs the value of the step, as an "
            "if does: give total_steps, up to which its products are computed once, or "
            "write it with jnp.where"
        )

    # Concrete values even if the schedule is built inside a traced function.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        if compiles:
            factors = np.asarray(jax.vmap(factor)(jnp.arange(1, length + 1)))
        else:
            steps = np.arange(1, length + 1, dtype=np.int32)
            factors = np.array([float(factor(step)) for step in steps])
    with np.errstate(all="ignore"):
        products = np.cumprod(factors, dtype=float)
    products = np.concatenate([[1.0], products])
    if arguments.known(init_value) is None:
        values = init_value * jnp.asarray(products, scalar_dtype())
    else:
        values = products = init_value * products
    if not np.isfinite(products).all():
        step = int(np.argmin(np.isfinite(products)))
        raise ValueError(
            f"factor_fn must have finite products, got {products[step]} at step {step}"
        )

    def function(count):
        steps = ramp.whole_steps(count)
        within = steps - ramp.since(steps, length)
        value = jnp.asarray(values, scalar_dtype())[within]
        return value if total_steps else value * _product(factor, length, steps)

    return function


def _product(
    factor: Callable[[Any], jax.Array], first: int, steps: jax.Array
) -> jax.Array:
    """Return the product of the factors of all steps after ``first``."""

    def multiply(i, product):
        x = factor(i.astype(jnp.int32)).astype(product.dtype)
        return jnp.where(i <= steps, product * x, product)

    last = jnp.max(steps, initial=0) + 1
    ones = jnp.ones(steps.shape, scalar_dtype())
    return lax.fori_loop(jnp.asarray(first + 1, steps.dtype), last, multiply, ones)
