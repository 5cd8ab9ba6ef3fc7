"""A slot's storage dtype holds what the slot needs, or is refused."""

from __future__ import annotations

import inspect
import itertools
import re
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core.factory import PlainDtype, StorageDtype
from jopt.testing.problem import update
from jopt.values import registry
from tests.catalogue import CASES, Case


def storage_arguments(factory: Any) -> list[str]:
    signature = inspect.signature(inspect.unwrap(factory), eval_str=True)
    return [
        name
        for name, p in signature.parameters.items()
        if any(
            kind in (p.annotation, *get_args(p.annotation))
            for kind in (StorageDtype, PlainDtype)
        )
    ]


ARGUMENTS = {
    name: storage_arguments(factory) for name, factory in registry.factories().items()
}
ONCE = {case.name: case for case in reversed(CASES) if ARGUMENTS.get(case.name)}
NARROW = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn"]
DTYPES = ["float16", "bfloat16", "float32"]
rng = np.random.default_rng(0)
# Exact in 16 bits, so that a copy of them is.
PARAMS = {"w": jnp.asarray(rng.integers(-8, 9, (4, 8)) / 8, jnp.float32)}
GRADS = {"w": jnp.asarray(rng.normal(0, 1e-3, (300, 4, 8)), jnp.float32)}


def final_updates(tx: Any) -> Any:
    def body(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = update(tx, g, state, params)
        return (jopt.apply_updates(params, updates), state), updates["w"]

    start = PARAMS, tx.init(PARAMS)
    return jax.lax.scan(body, start, GRADS)[1][-100:]


# Copies of the parameters, in which steps as small as these are lost.
COPIES = ["slow_dtype", "state_dtype"]


@pytest.mark.parametrize("case", ONCE.values(), ids=lambda case: case.id)
def test_a_storage_dtype_gives_the_steps_of_float32_or_is_refused(case: Case) -> None:
    made = {}
    for name, dtype in itertools.product(ARGUMENTS[case.name], DTYPES):
        try:
            made[name, dtype] = case.make(**{name: dtype})
        except ValueError as error:
            assert dtype == "float16"
            assert "Use 'bfloat16' or 'float32', got 'float16'" in str(error)
    right, found = jax.jit(
        lambda: (final_updates(case.make()), {k: final_updates(made[k]) for k in made})
    )()
    norm = np.linalg.norm
    for (name, dtype), updates in found.items():
        np.testing.assert_allclose(norm(updates), norm(right), rtol=0.5)
        if name not in COPIES:
            assert norm(updates - right) < 0.25 * norm(right), (name, dtype)


@pytest.mark.parametrize("dtype", NARROW)
def test_fewer_than_16_bits_are_refused_everywhere(dtype: str) -> None:
    for case in ONCE.values():
        for name in ARGUMENTS[case.name]:
            with pytest.raises(
                ValueError, match=f"^{name} must have 16 bits .*{dtype}"
            ):
                case.make(**{name: dtype})


@pytest.mark.parametrize("case", ONCE.values(), ids=lambda case: case.id)
def test_a_format_reaches_its_slot_or_is_refused(case: Case) -> None:
    params = {"w": jax.ShapeDtypeStruct((64, 128), jnp.float32)}
    # Those of an average that is there only if it is asked for.
    average = {"momentum": 0.9} if case.name in ("sgd", "adafactor") else {}
    for name in ARGUMENTS[case.name]:
        try:
            tx = case.make(**{name: "int8", **average})
        except ValueError as error:
            assert re.search("for arrays of the state|holds parameters", str(error))
            continue
        kept = jax.tree.leaves(jax.eval_shape(tx.init, params))
        assert any(x.dtype in (jnp.int8, jnp.uint8) for x in kept), name


def test_a_second_moment_in_float16_is_refused_by_the_name_of_the_slot() -> None:
    # The squares of gradients of 1e-3 are 0 in float16: it gave steps of 2,216 times
    # the learning rate, where 0.9 is right.
    with pytest.raises(ValueError, match=r"divided by the slot 'nu'.*'bfloat16'"):
        jopt.adam(1e-3, nu_dtype="float16")
    with pytest.raises(ValueError, match="divided by the slot 'sum_of_squares'"):
        jopt.adagrad(0.1, accumulator_dtype=jnp.float16)

    class Sums(NamedTuple):
        sums: Any

    def rule(g: Any, sums: Any) -> Any:
        return g / jnp.sqrt(sums + g * g), sums + g * g

    with pytest.raises(ValueError, match="divided by the slot 'sums'"):
        jopt.leafwise(rule, state=Sums, sums=jopt.zeros("float16", divides=True))
