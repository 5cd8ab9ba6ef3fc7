"""Parameters of a checkpoint that are not those of today."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import Cast, Drop, Rename, Reset
from jopt.checkpoint import Checkpointer, Restored, restore, save


TX = jopt.adam(1e-3)
OLD = {
    "conv": {"kernel": jnp.arange(6.0).reshape(2, 3)},
    "norm": {"scale": jnp.arange(3.0)},
    "head": {"kernel": jnp.arange(12.0).reshape(3, 4)},
}
RESTORE = {
    "folder": lambda path, **more: restore(path / "run", **more),
    "npz": lambda path, **more: restore(path / "run.npz", **more),
    "safetensors": lambda path, **more: restore(path / "run.safetensors", **more),
    "msgpack": lambda path, **more: restore(path / "run.msgpack", **more),
    "Checkpointer": lambda path, **more: Checkpointer(path).restore(**more),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint in every form; its slots are 1 more than its parameters."""
    path = tmp_path_factory.mktemp("checkpoints")
    state = TX.init(OLD)
    adam = state["scale_by_adam"]
    more = jax.tree.map(lambda p: p + 1, OLD)
    state["scale_by_adam"] = adam._replace(mu=more, nu=more)
    given = {"params": OLD, "opt_state": state, "tx": TX}
    for form in ("run", "run.npz", "run.safetensors", "run.msgpack"):
        save(path / form, **given, metadata={"params/head": 1})
    Checkpointer(path).save(1, **given, metadata={"params/head": 1})
    return path


@pytest.fixture(params=RESTORE)
def restored(place: Path, request: pytest.FixtureRequest) -> Callable[..., Restored]:
    def run(params: Any, *rules: Any, tx: Any = TX, **more: Any) -> Restored:
        from_form = RESTORE[request.param]
        return from_form(place, params=params, tx=tx, migrate=rules, **more)

    return run


def assert_is(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def mu(found: Restored) -> Any:
    return found.opt_state["scale_by_adam"].mu


def changed(**parts: Any) -> dict[str, Any]:
    new = {name: parts.get(name, part) for name, part in OLD.items()}
    return {name: part for name, part in (new | parts).items() if part is not None}


NEW_HEAD = {"kernel": jnp.full((3, 7), 5.0)}


def test_a_new_head_starts_as_given_and_the_rest_is_restored(restored: Any) -> None:
    with pytest.raises(ValueError) as error:
        restored(changed(head=NEW_HEAD))
    assert str(error.value).splitlines()[1:] == [
        "  params/head/kernel is float32[3, 7], was saved as float32[3, 4]",
        "Did you mean migrate=[jopt.Reset(pattern='/head/kernel$')]?",
        "With jopt.Reset a parameter keeps the value it has in params.",
    ]
    for pattern in ("/head/kernel$", "/head/"):
        found = restored(changed(head=NEW_HEAD), Reset(pattern))
        assert_is(found.params["head"]["kernel"], NEW_HEAD["kernel"])
        assert_is(mu(found)["head"]["kernel"], jnp.zeros((3, 7)))
        assert_is(found.params["conv"]["kernel"], OLD["conv"]["kernel"])
        assert_is(mu(found)["conv"]["kernel"], OLD["conv"]["kernel"] + 1)
        assert found.metadata == {"params/head": 1}
    jax.tree.map(lambda x: x.delete(), found.params)  # its buffers are its own
    assert not NEW_HEAD["kernel"].is_deleted()


def test_a_moved_layer_is_found_with_its_slots(restored: Any) -> None:
    new = changed(conv=None, stem=OLD["conv"])
    with pytest.raises(ValueError) as error:
        restored(jax.tree.map(jnp.zeros_like, new))
    lines = str(error.value).splitlines()
    assert lines[1:4] == [
        "  params/conv/kernel is only in the checkpoint",
        "  params/stem/kernel is not in the checkpoint",
        "Did you mean migrate=[jopt.Rename(old='/conv/', new='/stem/')]?",
    ]
    for rule in (Rename("/conv/", "/stem/"), Rename("/conv(?=/|$)", "/stem")):
        found = restored(jax.tree.map(jnp.zeros_like, new), rule)
        assert_is(found.params["stem"]["kernel"], OLD["conv"]["kernel"])
        assert_is(mu(found)["stem"]["kernel"], OLD["conv"]["kernel"] + 1)


def test_a_layer_that_is_gone_is_dropped(restored: Any) -> None:
    new = changed(norm=None)
    with pytest.raises(ValueError, match="params/norm/scale is only in the checkpoint"):
        restored(new)
    # What a rule for several layers starts again need not be there any more.
    for rule in (Drop("/norm/"), Reset("/(norm|head)/")):
        found = restored(new, rule)
        assert found.params.keys() == mu(found).keys() == {"conv", "head"}
        assert_is(found.params["conv"]["kernel"], OLD["conv"]["kernel"])


def test_a_layer_that_is_new_needs_a_rule_or_strict_false(restored: Any) -> None:
    adapter = {"kernel": jnp.full(2, 3.0)}
    new = changed(norm=None, adapter=adapter)
    with pytest.raises(ValueError, match="missing parameters keep the values"):
        restored(new)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = restored(new, strict=False)
    about_params = [str(w.message) for w in caught if "kept as given" in str(w.message)]
    (text,) = about_params
    assert text.splitlines()[1:] == [
        "  not in the checkpoint, kept as given: 'params/adapter/kernel'",
        "  only in the checkpoint, ignored: 'params/norm/scale'",
    ]
    assert {w.filename for w in caught if "kept as given" in str(w.message)} == {
        __file__
    }
    by_rules = restored(new, Drop("/norm/"), Reset("/adapter/"))
    for x in (found, by_rules):
        assert_is(x.params["adapter"]["kernel"], adapter["kernel"])
        assert_is(x.params["conv"]["kernel"], OLD["conv"]["kernel"])
        assert_is(mu(x)["adapter"]["kernel"], jnp.zeros(2))
    with pytest.raises(ValueError, match="params/head/kernel is float32"):
        restored(changed(head=NEW_HEAD), strict=False)
    shapes = jax.eval_shape(lambda: new)
    with pytest.raises(ValueError, match="params argument must have its values"):
        restored(shapes, Drop("/norm/"), Reset("/adapter/"))


def test_another_dtype_is_cast_to(restored: Any) -> None:
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), OLD)
    text = r"jopt.Cast('^params/conv/kernel$', 'bfloat16'), "
    with pytest.raises(ValueError, match=re.escape(text)):
        restored(half)
    tx = jopt.adam(1e-3, mu_dtype="float32", nu_dtype="float32")
    found = restored(half, Cast("^params/", "bfloat16"), tx=tx)
    jax.tree.map(assert_is, found.params, half)
    jax.tree.map(lambda x, p: assert_is(x, p + 1), mu(found), OLD)


def test_only_what_is_of_the_kind_of_the_dtype_is_cast(tmp_path: Path) -> None:
    old = {"w": jnp.ones(2), "steps": jnp.arange(3), "z": jnp.ones(2, jnp.complex64)}
    path = save(tmp_path / "run.npz", params=old, opt_state={})
    new = old | {"w": jnp.ones(2, jnp.bfloat16)}
    found = restore(path, params=new, migrate=[Cast("^params/", "bfloat16")])
    jax.tree.map(assert_is, found.params, new)


def test_weights_that_fit_are_changed_only_by_a_pattern_for_parameters(
    restored: Any,
) -> None:
    """What was written for the slots before parameters had rules does not lose them."""
    zeros = jax.tree.map(jnp.zeros_like, OLD)
    found = restored(zeros, Reset("/head/"))
    jax.tree.map(assert_is, found.params, OLD)
    assert_is(mu(found)["head"]["kernel"], zeros["head"]["kernel"])
    found = restored(zeros, Reset("^params/head/"))
    assert_is(found.params["head"]["kernel"], zeros["head"]["kernel"])
    assert_is(found.params["conv"]["kernel"], OLD["conv"]["kernel"])
    jax.tree.map(lambda x, p: assert_is(x, p + 1), mu(found), OLD)
    half = jopt.adam(1e-3, mu_dtype="bfloat16", nu_dtype="bfloat16")
    found = restored(zeros, Cast("/(conv|norm|head)/", "bfloat16"), tx=half)
    jax.tree.map(assert_is, found.params, OLD)
    with pytest.raises(ValueError, match=r"is float32\[2, 3\], was saved as bfl"):
        restored(zeros, Cast("^params/conv/", "bfloat16"))


def test_a_rule_for_a_wrapper_does_not_concern_parameters(restored: Any) -> None:
    tx = jopt.skip_nonfinite(TX)
    zeros = jax.tree.map(jnp.zeros_like, OLD)
    rules = [Rename("^(?!inner_state/)", "inner_state/"), Reset("^[^/]*$")]
    found = restored(zeros, *rules, tx=tx)
    jax.tree.map(assert_is, found.params, OLD)
    inner = found.opt_state.inner_state["scale_by_adam"].mu
    jax.tree.map(lambda x, p: assert_is(x, p + 1), inner, OLD)


def test_rules_follow_each_other_and_may_be_for_parameters_alone(restored: Any) -> None:
    new = changed(conv=None, first=jax.tree.map(jnp.zeros_like, OLD["conv"]))
    rules = [Rename("/conv/", "/stem/"), Rename("/stem/", "/first/")]
    found = restored(new, *rules)
    assert_is(found.params["first"]["kernel"], OLD["conv"]["kernel"])
    alone = [
        Rename("^params/conv/", "params/stem/"),
        Rename("^params/stem", "params/first"),
    ]
    found = restored(new, *alone, tx=None)
    assert_is(found.params["first"]["kernel"], OLD["conv"]["kernel"])
    for_slots = Cast("^scale_by_adam/mu/", "float32")
    restored(new, *rules, for_slots, tx=None)
    with pytest.raises(ValueError, match="both become 'params/x'"):
        restored(OLD, Rename("^params/.*", "params/x"))


def test_a_rule_that_matches_nothing_shows_what_is_similar(restored: Any) -> None:
    for rule in (Rename("^params/cnov/", "params/stem/"), Cast("^params/cnov", "int8")):
        text = re.escape(f"{rule} matches nothing in the checkpoint. The most similar ")
        with pytest.raises(ValueError, match=text + ".*'params/conv/kernel'"):
            restored(OLD, rule)
    text = "matches nothing in the state and the parameters.*'params/head/kernel'"
    with pytest.raises(ValueError, match=text):
        restored(OLD, Reset("^params/haed/kernel"))
    restored(OLD, Rename("^params/body/", "params/conv/"))  # a newer checkpoint
    with pytest.raises(TypeError, match="migrate must be a sequence of the rules"):
        restored(OLD, "params")


def test_a_random_key_may_be_kept_as_given(tmp_path: Path) -> None:
    path = save(tmp_path / "run.npz", params={"w": jnp.ones(2)}, opt_state={})
    new = {"w": jnp.zeros(2), "key": jax.random.key(7, impl="rbg")}
    found = restore(path, params=new, migrate=[Reset("^params/key$")]).params
    assert found["key"] == new["key"]
    assert_is(found["w"], jnp.ones(2))


def test_a_random_key_has_the_kind_of_the_shape_that_is_given(tmp_path: Path) -> None:
    key = jax.random.key(7, impl="rbg")
    path = save(tmp_path / "run.npz", params={"key": key}, opt_state={})
    like = jax.eval_shape(lambda: {"key": jax.random.key(0, impl="rbg")})
    assert restore(path, params=like).params["key"] == key


def test_a_rule_is_offered_only_for_the_parameter_that_does_not_fit(
    tmp_path: Path,
) -> None:
    """``/w$`` would start the slots of the other ``w`` again."""
    old = {"w": jnp.ones(2), "in": {"w": jnp.ones(3)}}
    path = save(tmp_path / "run.npz", params=old, opt_state={})
    with pytest.raises(ValueError, match=re.escape("Reset(pattern='^params/w$')")):
        restore(path, params=old | {"w": jnp.ones(5)})
    with pytest.raises(ValueError, match=re.escape("Reset(pattern='/in/w$')")):
        restore(path, params=old | {"in": {"w": jnp.ones(5)}})


def test_a_rename_is_offered_for_slots_too_unless_another_layer_has_the_name(
    tmp_path: Path,
) -> None:
    """``/conv/`` would rename the layer in the block, which has not moved."""
    layer = {"kernel": jnp.ones(2)}
    for old, rule in (
        ({"conv": layer}, "Rename(old='/conv/', new='/stem/')"),
        (
            {"conv": layer, "block": {"conv": layer}},
            "Rename(old='^params/conv/', new='params/stem/')",
        ),
    ):
        path = save(tmp_path / "run.npz", params=old, opt_state={})
        new = {"stem" if name == "conv" else name: x for name, x in old.items()}
        with pytest.raises(ValueError, match=re.escape(f"[jopt.{rule}]?")):
            restore(path, params=new)


def test_moved_parameters_are_on_the_devices_of_the_new(
    tmp_path: Path,
) -> None:
    mesh = jax.make_mesh((8,), ("a",))
    where = jax.NamedSharding(mesh, jax.P("a"))
    old = {"old": jnp.arange(8.0), "head": jnp.ones(8)}
    for form in ("run", "run.npz"):
        save(tmp_path / form, params=old, opt_state=TX.init(old), tx=TX)
        new = {
            "new": jax.device_put(jnp.zeros(8), where),
            "head": jax.device_put(jnp.zeros(16), where),
        }
        rules = [Rename("/old$", "/new"), Reset("/head$")]
        found = restore(tmp_path / form, params=new, tx=TX, migrate=rules)
        assert_is(found.params["new"], jnp.arange(8.0))
        for x in jax.tree.leaves((found.params, mu(found))):
            assert x.sharding.is_equivalent_to(where, 1)
