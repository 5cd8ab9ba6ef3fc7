"""The numbers of schedules may be traced, as those of optimizers may."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop.torch import lr_scheduler
from tests.schedules.test_schedules import EACH, EVERY, LAST, ODD, build


STEPS = jnp.array([0, 1, 4, 5, 7, 13, 100, ODD, LAST // 2, LAST])
# They decide at which step a part of the schedule ends, as numbers of steps do.
OF_STEPS = {"t_mul", "num_periods", "pct_start", "pct_final"}
# Further calls, in which a number matters that does not in those of the tables.
FURTHER = (
    "exponential_decay(1.0, 5, 0.9, end_value=0.5)",
    "warmup_exponential_decay_schedule(0.0, 1.0, 2, 5, 0.9, end_value=0.5)",
    "cyclic_schedule(0.0, 1.0, 2, mode='exp_range', gamma=0.5)",
    "ema_warmup_schedule(0.9)",
)


def numbers():
    """For each number of each factory, the calls that it is in, with its values."""
    found = {}
    for text in (*FURTHER, *EVERY):
        recipe = build(text).recipe
        function = inspect.unwrap(recipe.factory)
        parameters = inspect.signature(function, eval_str=True).parameters
        kwargs = recipe.arguments
        for name, p in parameters.items():
            if p.annotation not in (float, float | None):
                continue
            has_default = text in EACH and p.default is not None and name != "gamma"
            if name in kwargs or has_default:
                case = (recipe.factory, kwargs, kwargs.get(name, p.default))
                found.setdefault((recipe.name, name), []).append(case)
    return found


NUMBERS = numbers()
IN_LISTS = {
    "values": lambda x: jopt.piecewise_constant([5, 100], [1.0, x, 0.5]),
    "boundaries_and_scales": lambda x: jopt.piecewise_constant_schedule(1.0, {5: x}),
    "points": lambda x: jopt.piecewise_interpolate_schedule("linear", 1.0, {5: x}),
    "schedules": lambda x: jopt.multiply_schedules([x, jopt.linear_schedule(1, 0, 9)]),
    "cosine_kwargs": lambda x: jopt.sgdr_schedule(
        [dict(init_value=0.0, peak_value=x, warmup_steps=1, decay_steps=200)]
    ),
    "arithmetic": lambda x: 1 - x * jopt.linear_schedule(1.0, 0.0, 9) / x**2,
    "one inside another": lambda x: jopt.join_schedules(
        [jopt.constant_schedule(x), jopt.linear_schedule(x, 0.0, 9)], [5]
    ),
    "torch": lambda x: lr_scheduler.StepLR(x, 5, gamma=x),
}


def check(make, low, high):
    """Test that vmap over a number equals the loop; return whether it matters."""
    values = jnp.array([low, high], jnp.float32)
    mapped = jax.vmap(lambda x: make(x)(STEPS))(values)
    # A Python number that float32 holds, because a traced one is float32.
    loop = jnp.stack([make(float(x))(STEPS) for x in values])
    assert mapped.dtype == loop.dtype
    np.testing.assert_allclose(mapped, loop, 3e-5, 1e-7)
    return bool((loop[0] != loop[1]).any())


@pytest.mark.parametrize(("factory", "name"), NUMBERS)
def test_vmap_over_a_number_equals_the_loop(factory, name):
    matters = []
    for make, kwargs, value in NUMBERS[factory, name]:

        def with_number(x, make=make, kwargs=kwargs):
            return make(**(kwargs | {name: x}))

        if name in OF_STEPS:
            message = f"{name} must be a Python number, because it decides what is"
            with pytest.raises(TypeError, match=re.escape(message)):
                jax.vmap(lambda x, f=with_number: f(x)(0))(jnp.array([value, value]))
            matters.append(True)
        else:
            low, high = (0.0, 0.1) if value == 0 else (0.8 * value, value)
            matters.append(check(with_number, low, high))
    assert any(matters)


@pytest.mark.parametrize("case", IN_LISTS)
def test_so_does_one_inside_a_list_or_another_schedule(case):
    assert check(IN_LISTS[case], 0.25, 0.5)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("transition_steps", lambda n: jopt.linear_schedule(1.0, 0.0, n)),
        (
            "warmup_steps",
            lambda n: jopt.warmup_linear(1.0, warmup_steps=n, total_steps=9),
        ),
        ("boundaries[1]", lambda n: jopt.piecewise_constant([1, n], [1.0, 0.5, 0.2])),
        ("steps", lambda n: jopt.accumulate(jopt.sgd(0.1), n)),
        ("nesterov", lambda n: jopt.sgd(0.1, nesterov=n)),
    ],
)
def test_what_decides_what_is_compiled_is_refused_by_name(name, make):
    with pytest.raises(TypeError, match=rf"^{re.escape(name)} must be "):
        jax.jit(lambda n: make(n) and 0)(3)


def train(peak):
    """Some steps with a schedule of a traced number; the parameters after each."""
    rate = jopt.warmup_cosine(peak, warmup_steps=2, total_steps=5)
    tx = jopt.adamw(rate, weight_decay=0.1 * rate)
    params = jnp.array([1.0, -2.0])

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(0.5 * params, state, params)
        params = jopt.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, tx.init(params)), length=5)[1]


def test_a_peak_is_searched_with_vmap_in_one_program():
    peaks = jnp.array([0.1, 0.2, 0.4])
    loop = jnp.stack([train(float(peak)) for peak in peaks])
    np.testing.assert_allclose(jax.vmap(train)(peaks), loop, 1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(train))(peaks), loop, 1e-6)


def test_the_loss_can_be_differentiated_for_the_peak():
    def loss(peak):
        return jnp.sum(train(peak)[-1] ** 2)

    with jax.enable_x64(True):
        difference = (loss(0.1 + 1e-6) - loss(0.1 - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.grad(loss)(0.1), difference, 1e-6)


def test_kernels_are_shared_by_schedules_of_other_traced_numbers():
    from jopt.core.kernels import _kernel

    jax.vmap(train)(jnp.array([0.1, 0.2]))
    before = _kernel.cache_info().misses
    jax.vmap(train)(jnp.array([0.1, 0.2]))
    assert _kernel.cache_info().misses == before
