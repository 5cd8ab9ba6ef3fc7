"""Hostile configs: a short text must not hang a program or exhaust its stack."""

from __future__ import annotations

import inspect
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jopt
from tests.catalogue import CASES


@contextmanager
def seconds(most: int) -> Iterator[None]:
    """Fail what takes longer, in place of waiting for it."""

    def too_long(*args):
        pytest.fail(f"takes more than {most} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(most)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def doubling(levels: int) -> str:
    """YAML in which each line stands for two of the line before."""
    lines = ["a0: &a0 {learning_rate: 0.1}"]
    for i in range(levels):
        lines.append(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]")
    return "\n".join([*lines, "name: sgd", f"config: {{learning_rate: *a{levels}}}"])


def shared(levels: int) -> Any:
    """The same as a dict: small in memory, and huge as a tree."""
    part: Any = {"$tunable": 0.1}
    for _ in range(levels):
        part = {"$tuple": [part, part]}
    return {"name": "sgd", "config": {"learning_rate": part}}


def nested(levels: int) -> dict[str, Any]:
    config: dict[str, Any] = {"name": "sgd", "config": {"learning_rate": 0.1}}
    for _ in range(levels):
        config = {"name": "masked", "config": {"inner": config, "mask": True}}
    return config


def endless() -> dict[str, Any]:
    config: dict[str, Any] = {"name": "masked", "config": {"mask": True}}
    config["config"]["inner"] = config
    return config


LARGE = {"name": "sgd", "config": {"learning_rate": [0.0] * 200_000}}
ALIAS = r"alias \*\w+ in line \d+\. Write out"
DEEP = "nested more than 100 levels deep"
MANY = "more than 100000 parts"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (doubling(25), ALIAS),
        ("name: &a sgd\nconfig: {learning_rate: *a}", ALIAS),
        ("name: sgd\nconfig: &a\n  <<: *a", ALIAS),
        (f"name: {'[' * 50_000}", DEEP),
        (f"name: {'[' * 150}{']' * 150}", DEEP),
        (json.dumps(nested(150)).replace("{", "name: {", 1)[:-1] + "}", DEEP),
        (json.dumps(nested(150)), DEEP),
        ('{"name": ' + "[" * 100_000, "is not valid JSON"),
        (nested(150), DEEP),
        (endless(), DEEP),
        ("masked(" * 150 + "sgd(0.1)" + ", True)" * 150, DEEP),
        ("sgd(" + "-" * 100_000 + "1)", "is not a call"),
        ("sgd(" + "(" * 100_000, "is not a call"),
        ("sgd(" + "1+" * 100_000 + "1)", "is not a call|" + DEEP),
        (shared(40), MANY),
        (LARGE, MANY),
        (json.dumps(LARGE), MANY),
        (f"name: sgd\nconfig: [{'1,' * 110_000}]", MANY),
        (f"sgd([{'1,' * 110_000}])", MANY),
        ('{"name": "sgd", "config": {"learning_rate": ' + "9" * 5000 + "}}", "JSON"),
    ],
)
def test_a_config_that_would_hang_or_overflow_is_refused(
    config: Any, message: str
) -> None:
    with seconds(60), pytest.raises(ValueError, match=message) as refused:
        jopt.from_config(config)
    assert len(str(refused.value)) < 500


def test_what_real_configs_need_is_far_from_the_limits() -> None:
    deep = jopt.sgd(0.1)
    for _ in range(10):
        deep = jopt.masked(jopt.chain(jopt.clip(1.0), deep), True)
    mask = {f"layer_{i}": {"kernel": True, "bias": False} for i in range(2000)}
    for tx in (deep, jopt.adamw(0.1, mask=mask)):
        assert jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))) == tx
        assert jopt.from_config(repr(tx)) == tx


def whole_numbers() -> Iterator[Any]:
    """Every call of a case with one whole number made huge."""
    seen = set()
    for case in CASES:
        recipe = case.make().recipe
        assert recipe is not None
        signature = inspect.signature(recipe.factory.__wrapped__, eval_str=True)
        for name, parameter in signature.parameters.items():
            is_whole = int in (parameter.annotation, *_members(parameter.annotation))
            if is_whole and (case.name, name) not in seen:
                seen.add((case.name, name))
                yield pytest.param(case.make, name, id=f"{case.name}-{name}")


def _members(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


@pytest.mark.parametrize(("make", "name"), list(whole_numbers()))
def test_a_huge_whole_number_is_refused_or_costs_nothing(
    make: Callable[..., Any], name: str
) -> None:
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}

    def step(params):
        tx = make(**{name: 10**7})
        return tx.update(params, tx.init(params), params, value=1.0)

    with seconds(30):
        try:
            jaxpr = jax.make_jaxpr(step)(params)
        except ValueError as refused:
            assert name in str(refused)
        else:
            assert len(str(jaxpr)) < 200_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # torch.optim.Muon: "Number of steps must be less than 100".
        (
            lambda: jopt.muon(0.1, ns_steps=100),
            "ns_steps must be <= 99, got ns_steps=100",
        ),
        (lambda: jopt.scale_by_muon(ns_steps=10**7), "ns_steps must be <= 99"),
        (lambda: jopt.grokfast_ma(10**7), "window_size must be <= 1000"),
        (
            lambda: jopt.mechanize(jopt.sgd(1.0), num_betas=10**7),
            "num_betas must be <= 16",
        ),
        (
            lambda: jopt.linear_cosine_decay(1.0, 9, num_periods=1e9),
            "num_periods must be <=",
        ),
        (
            lambda: jopt.multiplicative_schedule(1.0, lambda step: 1.0, 10**7 + 1),
            "total_steps must be <= 10000000",
        ),
    ],
)
def test_numbers_that_python_loops_over_have_an_upper_limit(
    make: Callable[[], Any], message: str
) -> None:
    with seconds(30), pytest.raises(ValueError, match=message):
        make()
