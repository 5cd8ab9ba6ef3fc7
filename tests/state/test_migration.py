"""Checkpoints of yesterday's recipe, restored into that of today."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import Cast, Drop, Rename, Reset
from jopt.testing.problem import as_dtype, draw


PARAMS, GRADS = as_dtype(draw(steps=4), jnp.float32)
CONSTANT = jopt.constant_schedule(0.01)


def trained(tx: Any) -> Any:
    state = tx.init(PARAMS)
    for g in GRADS[:3]:
        _, state = tx.update(g, state, PARAMS)
    return state


class Change(NamedTuple):
    """A recipe, a later one that takes the same steps, and what is new in its state."""

    old: Any
    new: Any
    added: str = "(?!)"  # nothing


ADAM, ADAMW = jopt.adam(0.01), jopt.adamw(0.01, weight_decay=0.1)
NOISE = jopt.add_noise(0.1, 0.5, key=0)
CHANGES = {
    "constant rate, schedule": Change(ADAM, jopt.adam(CONSTANT)),
    "adam, clip + adam": Change(ADAM, jopt.chain(jopt.clip_by_global_norm(1e9), ADAM)),
    "adam, adamw": Change(ADAM, jopt.adamw(0.01, weight_decay=0.0)),
    "adamw, adamw + mask": Change(
        ADAMW, jopt.adamw(0.01, weight_decay=0.1, mask=jopt.ndim_at_least(0))
    ),
    "constant decay, schedule": Change(
        ADAMW,
        jopt.adamw(0.01, weight_decay=jopt.constant_schedule(0.1)),
        "^add_decayed_weights/(count|weight_decay)$",
    ),
    "sgd, sgd + momentum": Change(jopt.sgd(0.01), jopt.sgd(0.01, 0.9), "^trace/"),
    "adam, inject(adam)": Change(
        ADAM, jopt.inject_hyperparams(jopt.adam)(0.01), "/(b1|b2|eps|eps_root)$"
    ),
    "noise + adam, noise + clip + adam": Change(
        jopt.chain(NOISE, ADAM), jopt.chain(NOISE, jopt.clip(1e9), ADAM)
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_recipe_goes_on_with_what_both_have(change: Change) -> None:
    old = trained(change.old)
    flat = {name: np.asarray(x) for name, x in jopt.state_dict(old).items()}
    expected, _ = change.old.update(GRADS[3], old, PARAMS)
    rules = []
    if change.added != "(?!)":
        with pytest.raises(ValueError, match="missing: ") as error:
            jopt.load_state_dict(change.new, PARAMS, flat)
        assert "unexpected" not in str(error.value).split("With strict")[0]
        rules = [Reset(change.added)]
    state = jopt.load_state_dict(change.new, PARAMS, flat, migrate=rules)
    restored, fresh = map(jopt.state_dict, (state, change.new.init(PARAMS)))
    new = {name for name in restored if re.search(change.added, name)}
    assert new == restored.keys() - flat.keys()
    for name, x in restored.items():
        np.testing.assert_array_equal(x, (fresh if name in new else flat)[name], name)
    found, _ = change.new.update(GRADS[3], state, PARAMS)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-9)


def suggested(tx: Any, flat: Any) -> list[Rename]:
    """The rule that the error of a misfit offers."""
    with pytest.raises(ValueError) as error:
        jopt.load_state_dict(tx, PARAMS, flat)
    found = re.search(r"migrate=\[(jopt.Rename\(.*\))\]", str(error.value))
    assert found, error.value
    return [eval(found[1])]


@pytest.mark.parametrize(
    "old, new, undo",
    [
        # A field, a wrapper around, a name of one's own, a member of another number.
        (ADAM, ADAM, ("^scale_by_adam/mu/", "scale_by_adam/first_moment/")),
        (ADAM, jopt.masked(ADAM, True), None),
        (jopt.monitor(ADAM), ADAM, None),
        (jopt.chain(jopt.scale_by_adam()), jopt.chain(a=jopt.scale_by_adam()), None),
        (jopt.chain(jopt.ema(0.9)), jopt.chain(fast=jopt.ema(0.9)), None),
    ],
)
def test_what_was_renamed_restores_by_the_rule_that_the_error_offers(
    old: Any, new: Any, undo: Any
) -> None:
    state = trained(old)
    values = list(jopt.state_dict(state).values())
    flat = jopt.state_dict(state)
    if undo:
        flat = {re.sub(*undo, name): x for name, x in flat.items()}
    rules = suggested(new, flat)
    restored = jopt.load_state_dict(new, PARAMS, flat, migrate=rules)
    found = jopt.state_dict(restored)
    jopt.load_state_dict(new, PARAMS, found, migrate=rules)  # it may stay
    assert set(map(id, found.values())) == set(map(id, values))
    kept = {name.split("/", 1)[-1].removeprefix("scale_by_adam/") for name in found}
    assert len(kept) >= len(PARAMS)
    chex.assert_trees_all_equal(
        new.update(GRADS[3], restored, PARAMS)[0],
        old.update(GRADS[3], state, PARAMS)[0],
    )


def test_the_rule_is_offered_too_if_the_wrapper_has_entries_of_its_own() -> None:
    plain, wrapped = ADAM, jopt.accumulate(ADAM, steps=2)
    flat, other = (jopt.state_dict(tx.init(PARAMS)) for tx in (plain, wrapped))
    into, out = suggested(wrapped, flat), suggested(plain, other)
    with pytest.raises(ValueError, match="missing: 'mini_step'"):
        jopt.load_state_dict(wrapped, PARAMS, flat, migrate=into)
    added = [x for x in other if not x.startswith("inner_opt_state/")]
    rules = [*into, *(Reset(f"^{name}$") for name in added)]
    state = jopt.load_state_dict(wrapped, PARAMS, flat, migrate=rules)
    chex.assert_trees_all_equal(jopt.state_dict(state.inner_opt_state), flat)
    rules = [*out, *(Drop(f"^{name}$") for name in added)]
    back = jopt.load_state_dict(plain, PARAMS, jopt.state_dict(state), migrate=rules)
    chex.assert_trees_all_equal(jopt.state_dict(back), flat)


# Version 0.1.0 saved an optimizer with one rule without the name of the rule.

FTRL = jopt.ftrl(0.1, l1=0.01)
CLIPPED = jopt.chain(jopt.clip_by_global_norm(1e9), FTRL)


def of_0_1_0(tx: Any) -> Any:
    """The recipe whose state has the paths of version 0.1.0."""
    return tx.children["ftrl"]


@pytest.mark.parametrize("form", [None, "npz"])
@pytest.mark.parametrize(
    "old, new, entries",
    [
        (of_0_1_0(FTRL), FTRL, lambda state: state),
        (of_0_1_0(FTRL), CLIPPED, lambda state: state),
        (CLIPPED, FTRL, lambda state: state),
        (FTRL, CLIPPED, lambda state: state),
        (
            jopt.accumulate(of_0_1_0(FTRL), 1),
            jopt.accumulate(FTRL, 1),
            lambda state: state.inner_opt_state,
        ),
        (
            jopt.chain(jopt.masked(of_0_1_0(FTRL), True)),
            jopt.chain(CLIPPED.members[0][1], jopt.masked(FTRL, True)),
            lambda state: state["masked"].inner_state,
        ),
        (
            jopt.partition({"a": of_0_1_0(FTRL), "b": ADAM}, jopt.rules(("", "a"))),
            jopt.partition({"a": CLIPPED, "b": ADAM}, jopt.rules(("", "a"))),
            lambda state: state["a"],
        ),
    ],
)
def test_a_rule_that_was_saved_without_its_name_is_found(
    old: Any, new: Any, entries: Any, form: Any, tmp_path: Any
) -> None:
    state = trained(old)
    if form:
        path = tmp_path / f"run.{form}"
        jopt.checkpoint.save(path, params=PARAMS, opt_state=state, tx=old)
        restored = jopt.checkpoint.restore(path, params=PARAMS, tx=new).opt_state
    else:
        restored = jopt.load_state_dict(new, PARAMS, jopt.state_dict(state))
    assert list(entries(restored)) == ["ftrl"]
    chex.assert_trees_all_equal(jax.tree.leaves(restored), jax.tree.leaves(state))
    chex.assert_trees_all_close(
        new.update(GRADS[3], restored, PARAMS)[0],
        old.update(GRADS[3], state, PARAMS)[0],
        rtol=1e-6,
    )


def test_the_numbers_of_a_rule_saved_without_its_name_are_compared() -> None:
    old = of_0_1_0(FTRL)
    state = old.init(PARAMS)
    flat, schema = jopt.state_dict(state), jopt.schema(old, state)
    with pytest.warns(UserWarning, match="ftrl/l1: 0.01 in the checkpoint, 0.5 in the"):
        jopt.load_state_dict(jopt.ftrl(0.1, l1=0.5), PARAMS, flat, schema=schema)


def test_a_slot_of_a_rule_saved_without_its_name_can_be_reset() -> None:
    state = trained(of_0_1_0(FTRL))
    flat = jopt.state_dict(state)
    rules = [Reset("^ftrl/linear/")]
    restored = jopt.load_state_dict(FTRL, PARAMS, flat, migrate=rules)["ftrl"]
    chex.assert_trees_all_equal(restored.accumulator, state.accumulator)
    assert not any(x.any() for x in jax.tree.leaves(restored.linear))


@pytest.mark.parametrize(
    "new",
    [
        jopt.chain(FTRL, FTRL),  # either could be meant
        jopt.chain(FTRL, jopt.ema(0.9)),  # not everything is there
        jopt.ftrl(0.1, l1=jopt.tunable(0.01)),
    ],
)
def test_a_rule_saved_without_its_name_is_not_guessed(new: Any) -> None:
    flat = jopt.state_dict(trained(of_0_1_0(FTRL)))
    with pytest.raises(ValueError, match="unexpected: 'accumulator/kernel'"):
        jopt.load_state_dict(new, PARAMS, flat)


def test_a_layer_is_renamed_in_every_slot() -> None:
    state = trained(ADAM)
    params = {{"kernel": "weight"}.get(n, n): p for n, p in PARAMS.items()}
    flat = jopt.state_dict(state)
    rules = suggested_for(params, flat)
    restored = jopt.load_state_dict(ADAM, params, flat, migrate=rules)
    for slot in ("mu", "nu"):
        new, old = (getattr(s["scale_by_adam"], slot) for s in (restored, state))
        assert new["weight"] is old["kernel"]
        assert new["bias"] is old["bias"]


def suggested_for(params: Any, flat: Any) -> list[Rename]:
    with pytest.raises(ValueError, match="unexpected: 'scale_by_adam/nu/kernel'"):
        jopt.load_state_dict(ADAM, params, flat)
    return [Rename("^scale_by_adam/(mu|nu)/kernel$", r"scale_by_adam/\1/weight")]


def test_a_leaf_that_is_unfrozen_starts_from_init_and_is_reported() -> None:
    frozen, thawed = (
        jopt.masked(jopt.scale_by_adam(), mask) for mask in ("kernel|scalar", True)
    )
    flat = jopt.state_dict(trained(frozen))
    assert "inner_state/mu/bias" not in flat
    with pytest.raises(ValueError, match="missing: 'inner_state/nu/bias'"):
        jopt.load_state_dict(thawed, PARAMS, flat)
    late = pytest.warns(UserWarning, match="is 3: 'inner_state/mu/bias', 'inner_st")
    with (
        pytest.warns(UserWarning, match="starts from init: 'inner_state/mu/bias'"),
        late,
    ):
        state = jopt.load_state_dict(thawed, PARAMS, flat, strict=False)
    chex.assert_trees_all_equal_structs(state, thawed.init(PARAMS))
    assert not state.inner_state.mu["bias"].any()
    assert state.inner_state.mu["kernel"] is flat["inner_state/mu/kernel"]
    with pytest.warns(UserWarning, match="ignored: 'inner_state/mu/bias'"):
        back = jopt.load_state_dict(
            frozen, PARAMS, jopt.state_dict(state), strict=False
        )
    chex.assert_trees_all_equal(jopt.state_dict(back), flat)


def test_new_counts_are_pointed_out() -> None:
    change = CHANGES["constant decay, schedule"]
    flat = jopt.state_dict(trained(change.old))
    with pytest.warns(UserWarning, match=r"New counts are 0; jopt.set_counts"):
        jopt.load_state_dict(change.new, PARAMS, flat, strict=False)


def test_a_copy_of_the_parameters_starts_from_them_and_needs_them() -> None:
    tx = jopt.chain(ADAM, jopt.params_ema(0.9))
    flat = jopt.state_dict(trained(ADAM))
    rules = [Reset("^params_ema/")]
    state = jopt.load_state_dict(tx, PARAMS, flat, migrate=rules)
    fresh = tx.init(PARAMS)["params_ema"]
    chex.assert_trees_all_equal(state["params_ema"], fresh)
    leaves = jax.tree.leaves((PARAMS, state))
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)
    shapes = jax.eval_shape(lambda: PARAMS)
    with pytest.raises(ValueError, match="which needs parameters with values"):
        jopt.load_state_dict(tx, shapes, flat, migrate=rules)


def test_another_storage_dtype_is_asked_for_and_rounds_to_nearest() -> None:
    tx = jopt.scale_by_adam(nu_dtype="bfloat16")
    flat = jopt.state_dict(trained(jopt.scale_by_adam()))
    host = {name: np.asarray(x) for name, x in flat.items()}
    with pytest.raises(ValueError, match="'nu/kernel' is float32, not bfloat16"):
        jopt.load_state_dict(tx, PARAMS, flat)
    for given in (flat, host):
        state = jopt.load_state_dict(
            tx, PARAMS, given, migrate=[Cast("^nu/", jnp.bfloat16)]
        )
        chex.assert_trees_all_equal_dtypes(state, tx.init(PARAMS))
        np.testing.assert_array_equal(
            state.nu["kernel"], host["nu/kernel"].astype(jnp.bfloat16)
        )
        np.testing.assert_array_equal(state.mu["kernel"], host["mu/kernel"])


@pytest.mark.parametrize("format", ["float8_e4m3", "int8", "int4"])
def test_a_slot_is_encoded_and_decoded_when_a_cast_asks_for_it(format: str) -> None:
    params = {"kernel": jnp.ones((64, 100)), "bias": jnp.ones(3)}
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    plain = jopt.adam(1e-3)
    few = jopt.adam(1e-3, mu_dtype=format, nu_dtype=format)
    _, before = jopt.step(plain, grads, plain.init(params), params)
    flat = jopt.state_dict(before)
    with pytest.raises(ValueError, match=r"jopt\.Cast.*encodes or decodes slots"):
        jopt.load_state_dict(few, params, flat)
    asked = [Cast("^scale_by_adam/", format)]
    encoded = jopt.load_state_dict(few, params, flat, migrate=asked)
    assert jax.tree.structure(encoded) == jax.tree.structure(few.init(params))
    again = jopt.state_dict(encoded)
    back = [Cast("^scale_by_adam/", "float32")]
    after = jopt.load_state_dict(plain, params, again, migrate=back)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    near = {"float8_e4m3": 0.07, "int8": 0.03, "int4": 0.6}[format]
    for name, x in jopt.state_dict(after).items():
        most = np.abs(flat[name]).max() * 0.02
        np.testing.assert_allclose(x, flat[name], rtol=2 * near, atol=near * most)
    # Codes are no numbers of their own, whatever their dtype is.
    wide = [Cast("", "float32")]
    same = jopt.load_state_dict(few, params, again, migrate=wide)
    chex.assert_trees_all_equal(same, encoded)


FLAT = {"count": np.int32(3), "mu/w": np.full(2, 1e39, np.float64), "nu/w": np.ones(2)}


@pytest.mark.parametrize(
    "rules, kind, text",
    [
        (
            [Cast("^mu", "float16")],
            ValueError,
            "'mu/w' has numbers that float16 cannot",
        ),
        ([Cast("", "float32")], ValueError, "'mu/w' has numbers that float32 cannot"),
        ([Rename("^mu/", "nu/")], ValueError, "'mu/w' and 'nu/w' both become 'nu/w'"),
        (
            [Reset("^mv/")],
            ValueError,
            r"Reset\(pattern='\^mv/'\) matches nothing in the",
        ),
        ([Drop("^mu/")], ValueError, "missing: 'mu/w'"),
    ],
)
def test_a_rule_that_would_lose_something_is_an_error(
    rules: Any, kind: Any, text: str
) -> None:
    tx = jopt.scale_by_adam()
    with pytest.raises(kind, match=text):
        jopt.load_state_dict(tx, {"w": jnp.ones(2)}, FLAT, migrate=rules)


@pytest.mark.parametrize(
    "make, kind, text",
    [
        (lambda: Drop("("), ValueError, "is not a regular expression"),
        (
            lambda: Reset(None),
            TypeError,
            "Reset: the pattern must be a string, got None",
        ),  # type: ignore[arg-type]
        (lambda: Rename("a", 1), TypeError, "new must be a string, got new=1"),  # type: ignore[arg-type]
        (lambda: Cast("a", "flaot32"), TypeError, "flaot32"),
    ],
)
def test_a_rule_is_checked_where_it_is_made(
    make: Callable[[], Any], kind: Any, text: str
) -> None:
    with pytest.raises(kind, match=text):
        make()


def test_a_checkpoint_of_doubles_is_restored_without_x64() -> None:
    state = trained(ADAM)
    flat = {
        name: np.asarray(x, np.float64 if x.dtype == jnp.float32 else x.dtype)
        for name, x in jopt.state_dict(state).items()
    }
    with pytest.raises(ValueError, match="'scale_by_adam/mu/bias' is float64, not fl"):
        jopt.load_state_dict(ADAM, PARAMS, flat)
    restored = jopt.load_state_dict(ADAM, PARAMS, flat, migrate=[Cast("", "float32")])
    chex.assert_trees_all_equal(restored, state)


def test_rules_are_values() -> None:
    rules = [Rename("a", "b"), Drop("a"), Reset("a"), Cast("a", "bfloat16")]
    assert pickle.loads(pickle.dumps(rules)) == rules
    assert repr(rules[0]) == "Rename(old='a', new='b')"


def test_a_member_that_is_put_before_its_like_is_noticed() -> None:
    old, new = jopt.chain(jopt.ema(0.9)), jopt.chain(jopt.ema(0.5), jopt.ema(0.9))
    state = trained(old)
    flat, schema = jopt.state_dict(state), jopt.schema(old, state)
    with pytest.raises(ValueError, match="missing: 'ema_2/count'"):
        jopt.load_state_dict(new, PARAMS, flat, schema=schema)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        jopt.load_state_dict(new, PARAMS, flat, schema=schema, strict=False)
    texts = " ".join(str(w.message) for w in found)
    assert "ema/decay: 0.9 in the checkpoint, 0.5 in the recipe" in texts
    rules = [Rename("^ema/", "ema_2/"), Reset("^ema/")]
    restored = jopt.load_state_dict(new, PARAMS, flat, migrate=rules)
    chex.assert_trees_all_equal(restored["ema_2"], state["ema"])
    chex.assert_trees_all_equal(restored["ema"], new.init(PARAMS)["ema"])
