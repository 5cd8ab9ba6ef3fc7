"""Optimizers by name, and as JSON."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.public import public


@jopt.config_function
def only_kernels(path: str, leaf: Any) -> bool:
    return "kernel" in path


@jopt.config_function
def fading(step: Any) -> Any:
    return 1 / (1 + jnp.asarray(step, jnp.float32))


@jopt.schedule
def registry_ramp(rate: float) -> Any:
    return lambda count: rate * (1 + jnp.asarray(count, jnp.float32))


@jopt.transformation
def registry_blend(
    inner: Any, weights: tuple[float, ...] = (), label: Any = None
) -> Any:
    """Takes what a config has to hold: values in a value, tuples, dicts."""
    return jopt.chain(inner, jopt.scale(1.0))


# A value, and its config as JSON.
CONFIGS: list[tuple[Any, Any]] = [
    (jopt.sgd(0.1), {"name": "sgd", "config": {"learning_rate": 0.1}}),
    (jopt.scale_by_adam(), {"name": "scale_by_adam", "config": {}}),
    (jopt.adam(1, nesterov=True, mu_dtype=jnp.bfloat16),
     {"name": "adam",
      "config": {"learning_rate": 1.0, "mu_dtype": "bfloat16", "nesterov": True}}),
    (registry_ramp(0.5), {"name": "registry_ramp", "config": {"rate": 0.5}}),
    (jopt.sgd(registry_ramp(0.5), jopt.tunable(0.9)),
     {"name": "sgd", "config": {
         "learning_rate": {"name": "registry_ramp", "config": {"rate": 0.5}},
         "momentum": {"$tunable": 0.9}}}),
    (jopt.sgd(fading),
     {"name": "sgd", "config": {"learning_rate": {"$function": "fading"}}}),
    (jopt.adamw(0.1, mask="kernel$"),
     {"name": "adamw", "config": {"learning_rate": 0.1, "mask": "kernel$"}}),
    (jopt.adamw(0.1, mask=only_kernels),
     {"name": "adamw", "config": {
         "learning_rate": 0.1, "mask": {"$function": "only_kernels"}}}),
    (jopt.adamw(0.1, mask={"a": [True, False], "b": (True,)}),
     {"name": "adamw", "config": {"learning_rate": 0.1, "mask": {
         "$dict": [["a", [True, False]], ["b", {"$tuple": [True]}]]}}}),
    (jopt.chain(jopt.ema(0.9), jopt.chain(jopt.clip(1)), opt=jopt.sgd(0.1)),
     {"name": "chain", "config": {
         "members": {"$tuple": [
             {"name": "ema", "config": {"decay": 0.9}},
             {"name": "chain", "config": {"members": {"$tuple": [
                 {"name": "clip", "config": {"max_delta": 1.0}}]}}}]},
         "named": {"$dict": [
             ["opt", {"name": "sgd", "config": {"learning_rate": 0.1}}]]}}}),
    (jopt.chain(), {"name": "chain", "config": {}}),
    (registry_blend(jopt.sgd(1), (0.5, 1.0), {1: "a", "name": None}),
     {"name": "registry_blend", "config": {
         "inner": {"name": "sgd", "config": {"learning_rate": 1.0}},
         "weights": {"$tuple": [0.5, 1.0]},
         "label": {"$dict": [[1, "a"], ["name", None]]}}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "config"), CONFIGS, ids=[repr(v) for v, _ in CONFIGS]
)
def test_a_config_is_plain_json_and_comes_back_equal(value: Any, config: Any) -> None:
    assert jopt.to_config(value) == config
    read = json.loads(json.dumps(config))
    before = copy.deepcopy(read)
    assert jopt.from_config(read) == value
    assert read == before


def test_a_value_that_comes_back_from_its_config_does_the_same() -> None:
    tx = jopt.adamw(registry_ramp(0.1), b1=jopt.tunable(0.5), mask=only_kernels)
    again = jopt.from_config(json.loads(json.dumps(jopt.to_config(tx))))
    params = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    first, second = (t.update(params, t.init(params), params) for t in (tx, again))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), first, second))


def test_a_config_may_be_written_by_hand() -> None:
    written = {
        "name": "chain",
        "config": {"members": [{"name": "scale_by_adam"}], "named": {}},
    }
    written["config"].pop("named")
    assert jopt.from_config(written) == jopt.chain(jopt.scale_by_adam())


@pytest.mark.parametrize(
    "rate", [jnp.float32(0.5), lambda step: 0.1, registry_ramp(0.1).function]
)
def test_what_a_config_cannot_hold_is_an_error_that_names_it(rate: Any) -> None:
    tx = jopt.chain(jopt.clip(1.0), opt=jopt.sgd(rate))
    with pytest.raises(TypeError, match=r"argument \"named\['opt'\]\.learning_rate\""):
        jopt.to_config(tx)


def not_registered(path: str, leaf: Any) -> bool:
    return True


def masked_by(name: Any) -> dict[str, Any]:
    mask = {"$function": name}
    return {"name": "adamw", "config": {"learning_rate": 0.1, "mask": mask}}


@pytest.mark.parametrize(
    "name",
    [
        "shutil:rmtree",
        "os:system",
        "jopt.core.apply:apply_updates",
        "apply_updates",
        f"{__name__}:not_registered",
        "not_registered",
        f"shutil:{only_kernels.__name__}",
        ":rmtree",
        "",
        ["shutil", "rmtree"],
    ],
)
def test_a_config_names_no_function_but_those_registered_for_configs(name: Any) -> None:
    with pytest.raises(ValueError, match="not registered for configs") as refused:
        jopt.from_config(masked_by(name))
    assert "@jopt.config_function" in str(refused.value)
    if isinstance(name, str) and name.isidentifier():
        with pytest.raises(ValueError, match="custom_objects="):
            jopt.from_config(f"adamw(0.1, mask={name})")


def test_custom_objects_give_a_config_the_functions_it_names() -> None:
    tx = jopt.adamw(0.1, mask=not_registered)
    name = f"{__name__}:not_registered"
    assert jopt.to_config(tx) == masked_by(name)
    found = jopt.from_config(masked_by(name), custom_objects={name: not_registered})
    assert found == tx
    text = "chain(adamw(0.1, mask=other))"
    found = jopt.from_config(text, custom_objects={"other": not_registered})
    assert found == jopt.chain(tx)
    keras = {"class_name": "Mine", "config": {}}
    found = jopt.from_config(keras, custom_objects={"Mine": lambda: jopt.sgd(0.1)})
    assert isinstance(found, jopt.GradientTransformation)


def test_a_function_that_was_written_before_it_was_registered_is_found() -> None:
    found = jopt.from_config(masked_by(f"{__name__}:only_kernels"))
    assert found == jopt.adamw(0.1, mask=only_kernels)


@pytest.mark.parametrize("function", [lambda path, leaf: True, 3, dict, len])
def test_only_a_function_with_a_name_is_registered_for_configs(function: Any) -> None:
    with pytest.raises(TypeError, match="that def has given a name"):
        jopt.config_function(function)


def test_two_modules_do_not_register_one_name_for_configs() -> None:
    def only_kernels(path, leaf):
        return True

    only_kernels.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="a function 'only_kernels' already: choose"):
        jopt.config_function(only_kernels)
    only_kernels.__name__ = "is_bias_or_norm"
    with pytest.raises(ValueError, match=r"jopt.* has a function 'is_bias_or_norm'"):
        jopt.config_function(only_kernels)


def test_get_calls_the_factory_of_that_name() -> None:
    assert jopt.get("adamw", learning_rate=0.1, mask="b") == jopt.adamw(0.1, mask="b")
    assert jopt.get("sgd", 0.1, 0.9) == jopt.sgd(0.1, momentum=0.9)
    assert jopt.get("registry_ramp", 0.5) == registry_ramp(0.5)
    assert jopt.get("scale_by_adam", b1=np.float64(0.5)) == jopt.scale_by_adam(0.5)


def test_names_are_sorted_and_filtered_by_a_pattern() -> None:
    everything = jopt.names()
    assert everything == sorted(everything)
    assert {"adamw", "chain", "registry_ramp", "registry_blend"} <= set(everything)
    assert jopt.names("registry_*") == ["registry_blend", "registry_ramp"]
    assert jopt.names("adam?") == ["adamw"]
    assert jopt.names("nothing*") == []


def test_every_public_factory_is_known_by_its_name() -> None:
    decorated = {n for n, x in public(jopt).items() if hasattr(x, "hyperparameters")}
    assert decorated and decorated <= set(jopt.names())
    for name in decorated:
        assert getattr(jopt, name).__name__ == name


def test_a_factory_defined_again_in_its_module_replaces_the_first() -> None:
    """As a notebook cell that is run twice does."""

    def define(factor: float) -> Any:
        def registry_again() -> Any:
            return jopt.scale(factor)

        return jopt.transformation(registry_again)

    define(2.0)
    second = define(3.0)
    assert jopt.get("registry_again") == second()
    updates, _ = jopt.get("registry_again").update(jnp.ones(1), ())
    assert updates == 3.0


def test_names_of_one_kind_share_nothing_with_those_of_another() -> None:
    kinds = ("optimizer", "schedule", "transform", "wrapper")
    by_kind = {kind: set(jopt.names(kind=kind)) for kind in kinds}
    assert {"adamw", "muon", "polyak_sgd", "ftrl"} <= by_kind["optimizer"]
    assert {"cosine_decay_schedule", "registry_ramp"} <= by_kind["schedule"]
    assert {"scale_by_adam", "clip", "proximal_decay"} <= by_kind["transform"]
    assert {"chain", "masked", "partition", "mechanize"} <= by_kind["wrapper"]
    listed = [name for names in by_kind.values() for name in names]
    assert len(listed) == len(set(listed))
    # The rest are factories of masks; that of the door to Keras may not be loaded.
    rest = set(jopt.names()) - set(listed) - {"unless_named"}
    assert rest == {"glob", "layer_decay", "ndim_at_least", "optional", "rules"}
    assert jopt.names("adam*", kind="schedule") == []
    with pytest.raises(ValueError, match="kind must be one of None, 'optimizer'"):
        jopt.names(kind="optimiser")  # type: ignore[arg-type]


def test_a_factory_may_not_take_the_name_of_one_that_is_not_loaded_yet() -> None:
    program = """
import jopt
def lion(): return jopt.scale(1.0)
try: jopt.transformation(lion)
except ValueError as error: print(error)
print(jopt.from_config({"name": "lion", "config": {"learning_rate": 0.1}}))
"""
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert "jopt has a factory 'lion' already" in output
    assert output.endswith("lion(learning_rate=0.1)\n")


@pytest.mark.parametrize("door", ["keras", "torch.lr_scheduler"])
def test_configs_of_a_door_are_read_before_it_is_imported(door: str) -> None:
    factory = "PolynomialDecay(0.1, 9)" if door == "keras" else "StepLR(0.1, 3)"
    program = f"""
import json, sys, jopt
config = json.loads(sys.argv[1])
assert "jopt.interop.{door}" not in sys.modules
print(json.dumps(jopt.to_config(jopt.from_config(config))))
"""
    page = importlib.import_module(f"jopt.interop.{door}")
    config = json.dumps(jopt.to_config(eval(factory, public(page))))
    output = subprocess.check_output([sys.executable, "-c", program, config], text=True)
    assert json.loads(output) == json.loads(config)


@pytest.mark.parametrize(
    "word, meant",
    [("beta_1", "b1"), ("beta_2", "b2"), ("epsilon", "eps"), ("lr", "learning_rate")],
)
def test_names_of_other_libraries_are_understood(word: str, meant: str) -> None:
    with pytest.raises(
        TypeError, match=f"no argument '{word}'. Did you mean '{meant}'"
    ):
        jopt.adam(**{word: 0.5})


@pytest.mark.parametrize(
    "tx",
    [
        jopt.masked(jopt.scale(2.0), jopt.is_bias_or_norm),
        jopt.sophia(0.1, hessian_diagonal_fn=jopt.gauss_newton_bartlett, key=0),
        jopt.accumulate(jopt.sgd(0.1), 2, should_skip_update_fn=jopt.skip_not_finite),
    ],
    ids=repr,
)
def test_functions_of_the_library_stand_in_configs_by_their_names(tx: Any) -> None:
    assert jopt.from_config(json.loads(json.dumps(jopt.to_config(tx)))) == tx
    assert jopt.from_config(repr(tx)) == tx
