"""`check` and `report`: which laws are tested, what they find and what they say."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import testing
from jopt.testing.laws import LAWS


def test_a_report_has_one_line_for_each_law_and_says_why_one_is_skipped() -> None:
    found = testing.report(jopt.sgd(0.1), only=["equal_recipes*", "twenty*32"])
    assert [r.outcome for r in found] == ["ok", "skipped"]
    assert found.ok
    assert str(found).startswith("sgd(learning_rate=0.1): 1 law holds, 1 skipped\n")
    assert "no second implementation was given: expected=twin" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["results"][0]["outcome"] == "ok"


def test_laws_are_chosen_by_name_by_pattern_and_by_subject_and_left_out() -> None:
    found = testing.check(
        jopt.clip(1.0),
        only=["memory", "types_*", "the_second_call_does_not_compile"],
        without={"types": "it is tested elsewhere"},
    )
    names = [r.law for r in found]
    assert names == [
        "the_second_call_does_not_compile",
        "types_never_change",
        "params_and_state_can_be_donated_right_after_init",
    ]
    assert [r.message for r in found.skipped] == ["it is tested elsewhere"]


@pytest.mark.parametrize("where", ["only", "without"])
def test_a_law_that_does_not_exist_is_an_error_that_suggests_one(where: str) -> None:
    with pytest.raises(ValueError, match=r"no law 'types_change'.*types_never_change"):
        testing.check(jopt.sgd(0.1), **{where: {"types_change": "why"}})


def test_every_law_has_a_name_a_statement_and_an_advice() -> None:
    assert len({law.name for law in LAWS}) == len(LAWS) == len(testing.names())
    for law in LAWS:
        assert law.statement.endswith(".") and len(law.statement) < 88, law
        assert law.fix.endswith("."), law


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (jopt.adam, r"adam is not called yet.*check\(adam\(…\)\)"),
        (0.1, r"a transformation, a pair \(init, update\), a schedule or a wrapper"),
        (lambda a, b: a, "takes the number of a step, and a wrapper takes a transf"),
        (jopt.constant_schedule, "constant_schedule is not called yet"),
        (jopt.masked, r"'mask' in .*check\(lambda inner: masked\(inner, …\)\)"),
    ],
)
def test_what_the_laws_are_not_about_is_an_error_that_says_what_to_give(
    what: Any, error: str
) -> None:
    with pytest.raises(TypeError, match=error):
        testing.check(what)


# Each of these is wrong in one way, and one law says which.


class Means(NamedTuple):
    mu: Any


def pair(start: Any = jnp.zeros_like, step: Any = None) -> Any:
    """A mean of gradients in float32, by hand, with something wrong."""

    def init(params: Any) -> Means:
        return Means(jax.tree.map(lambda p: start(p, dtype=jnp.float32), params))

    def right(m: Any, g: Any) -> Any:
        return jnp.float32(0.9) * m + jnp.float32(0.1) * g.astype(jnp.float32)

    def update(updates: Any, state: Means, params: Any = None) -> Any:
        mu = jax.tree.map(step or right, state.mu, updates)
        return jax.tree.map(lambda m, g: m.astype(g.dtype), mu, updates), Means(mu)

    return init, update


def stepping() -> Any:
    count = []

    def step(m: Any, g: Any) -> Any:
        count.append(1)
        return m + len(count) * g.astype(jnp.float32)

    return pair(step=step)


def narrow(m: Any, g: Any) -> Any:
    return m.astype(g.dtype) * jnp.asarray(0.9, g.dtype) + g


def dividing(m: Any, g: Any) -> Any:
    return m + (g / jnp.abs(g)).astype(jnp.float32)


def aliasing(p: Any, dtype: Any) -> Any:
    return p if p.dtype == dtype else p.astype(dtype)


WRONG = {
    "a step in Python": (stepping(), "running", "jit_scan_and_vmap*", "pure functions"),
    "aliases": (pair(aliasing), "memory", "params_and_state*", "copy=True"),
    "a narrow slot": (
        pair(step=narrow),
        "types",
        "types_never*",
        r"float16\[4\], expected float32\[4\]",
    ),
    "0/0": (pair(step=dividing), "sizes", "zero_tiny*", "has the value nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_pair_is_found_by_its_law(name: str) -> None:
    tx, group, law, says = WRONG[name]
    with pytest.raises(AssertionError, match=f"(?s)FAILED.*{says}") as raised:
        testing.check(tx, only=[law])
    assert f"\n{group}\n" in str(raised.value)
    assert raised.value.__cause__ is not None


def test_a_pair_that_is_right_passes_these_laws_and_is_told_what_it_lacks() -> None:
    found = testing.report(
        pair(), only=[*(law for _, _, law, _ in WRONG.values()), "values", "errors"]
    )
    assert found.ok and len(found.passed) == 4
    reasons = {r.message for r in found.skipped}
    assert any("decorate the function" in reason for reason in reasons)
    assert any("a plain (init, update) pair does not have" in r for r in reasons)


def test_the_sign_of_an_optimizer_is_tested() -> None:
    tx = jopt.chain(jopt.sgd(0.1), jopt.scale(-1.0))
    assert not testing.Subject(tx).is_optimizer

    @jopt.transformation
    def uphill(learning_rate: float):
        return jopt.scale(learning_rate)

    with pytest.raises(AssertionError, match="1,500 steps on quadratic lead from"):
        testing.check(uphill(0.1), only=["descent"])


def mean_twin(p: Any, grads: Any, decay: float = 0.9, wrong: float = 0.0) -> Any:
    mu = np.zeros_like(p)
    for g in grads:
        mu = decay * mu + (1 - decay) * g + wrong
        yield mu


def test_a_second_implementation_is_compared_in_float64_and_float32() -> None:
    tx = jopt.ema(0.8, debias=False)

    def twin(p: Any, grads: Any, decay: float, debias: bool) -> Any:
        assert not debias
        return mean_twin(p, grads, decay)

    assert len(testing.check(tx, expected=twin, only=["numbers"]).passed) == 2

    def of_trees(params: Any, grads: Any, decay: float, debias: bool) -> Any:
        runs = {n: mean_twin(p, [g[n] for g in grads]) for n, p in params.items()}
        for _ in grads:
            yield {n: next(run) for n, run in runs.items()}

    with pytest.raises(AssertionError, match=r"leaf 'bias' \[0, 0\] is .*, expected"):
        testing.check(tx, expected=of_trees, whole_trees=True, only=["*float64"])


def test_parameters_of_ones_own_are_used_and_nothing_else() -> None:
    tx = jopt.partition(
        {"a": jopt.sgd(0.1), "b": jopt.adam(0.01)},
        jopt.rules(("encoder", "a"), ("decoder/w", "b")),
    )
    shape = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
    params = {"encoder": {"w": jnp.ones((2, 3))}, "decoder": {"w": shape}}
    found = testing.check(
        tx, params, only=["types", "*shapes*", "*structures*", "trees", "*nnx"]
    )
    skipped = {r.law for r in found.skipped}
    assert skipped == {
        "none_empty_zero_size_and_scalar_leaves_work",
        "an_empty_tree_works",
    }
    with pytest.raises(TypeError, match=r"params: leaf 'n' is .*real parameters"):
        testing.check(tx, {"n": jnp.arange(3)})
