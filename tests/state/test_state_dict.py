"""States as flat dicts: every entry comes back, and what does not fit is said."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jopt
from jopt.testing.problem import small
from tests.catalogue import CASES, Case
from tests.tools import golden_states as checkpoints


ONCE = list({case.name: case for case in reversed(CASES) if not case.part}.values())


def filled(state: Any) -> dict[str, np.ndarray]:
    """Other numbers in every entry, so that no two could be exchanged unseen."""
    rng = np.random.default_rng(0)
    flat = {}
    for name, x in jopt.state_dict(state).items():
        host = np.asarray(x)
        if host.dtype == bool:
            flat[name] = ~host
        elif "learning_rate" in name or name.split("/")[-1] in jopt.hyperparams(state):
            flat[name] = host
        else:
            flat[name] = (100 * rng.normal(size=host.shape)).astype(host.dtype)
    return flat


def assert_same_bits(flat: Any, other: Any) -> None:
    assert flat.keys() == other.keys()
    for name, x in flat.items():
        y = other[name]
        assert (x.dtype, x.shape) == (y.dtype, y.shape), name
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), name


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_the_state_of_every_transformation_is_restored_bit_for_bit(case: Case) -> None:
    params, _ = small(jnp.bfloat16)
    tx = case.make()
    state = tx.init(params)
    flat = filled(state)
    schema = json.loads(json.dumps(jopt.schema(tx, state)))
    restored = jopt.load_state_dict(tx, params, flat, schema=schema)
    chex.assert_trees_all_equal_structs(restored, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    assert_same_bits(jopt.state_dict(restored), flat)


GOLDEN = sorted(checkpoints.HERE.glob("*/*.npz"))
# Version 0.1.0 saved the rules of these without their names. What to insert, and where.
UNNAMED = {
    **{f"0.1.0-{x}": ("", f"{x}/") for x in checkpoints.whole_optimizers()},
    "0.1.0-ftrl_chain": ("", ""),
    "0.1.0-ftrl_skip_nonfinite": ("inner_state/", "inner_state/ftrl/"),
}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_checkpoints_of_all_versions_are_restored_and_go_on(path: Any) -> None:
    parts, schema = checkpoints.read(path)
    tx = jopt.from_config(schema["recipe"])
    params = jax.tree.map(jnp.asarray, parts["params"])
    state = jopt.load_state_dict(tx, params, parts["state"], schema=schema)
    old, new = UNNAMED.get(f"{path.parent.name}-{path.stem}", ("", ""))
    saved = {
        new + n.removeprefix(old) if n.startswith(old) else n: x
        for n, x in parts["state"].items()
    }
    assert_same_bits(jopt.state_dict(state), saved)
    grads = [
        {n: parts["grads"][f"{i}/{n}"] for n in params}
        for i in range(checkpoints.AFTER)
    ]
    after, _ = checkpoints.continued(tx, params, state, grads)
    chex.assert_trees_all_close(after, parts["after"], rtol=1e-5, atol=1e-7)


def test_this_version_has_its_golden_checkpoints() -> None:
    names = {p.stem for p in GOLDEN if p.parent.name == jopt.__version__}
    assert names == set(checkpoints.recipes())


# Containers and names.


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Model:
    dense: Any


class Module(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))


LAYER = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
CONTAINERS = {
    "dict": {"dense": LAYER},
    "NamedTuple in a dataclass": Model(Layer(**LAYER)),
    "FrozenDict": flax.core.freeze({"dense": LAYER}),
    "nnx": nnx.state(Module(), nnx.Param),
}


def test_a_checkpoint_is_restored_for_parameters_in_any_container() -> None:
    tx = jopt.adamw(1e-3)
    flat = filled(tx.init({"dense": LAYER}))
    assert "scale_by_adam/mu/dense/kernel" in flat
    for name, params in CONTAINERS.items():
        state = jopt.load_state_dict(tx, params, flat)
        chex.assert_trees_all_equal_structs(state, tx.init(params))
        assert_same_bits(jopt.state_dict(state), flat)
        assert type(state["scale_by_adam"].mu) is type(params), name


def test_parameters_with_the_names_of_fields_are_not_confused_with_them() -> None:
    params = {n: jnp.ones(3) for n in ("count", "mu", "nu", "learning_rate", "step")}
    tx = jopt.adam(1e-2)
    flat = filled(tx.init(params))
    assert flat["scale_by_adam/count"].shape == ()
    assert flat["scale_by_adam/mu/count"].shape == (3,)
    state = jopt.load_state_dict(tx, params, flat)
    assert_same_bits(jopt.state_dict(state), flat)
    moved = jopt.state_dict(jopt.set_counts(state, 7))
    changed = {n for n, x in moved.items() if not np.array_equal(x, flat[n])}
    assert changed == {"scale_by_adam/count", "scale_by_learning_rate/count"}


def test_states_of_optax_and_random_keys_have_paths_too() -> None:
    params = {"w": jnp.ones((2, 2))}
    tx = optax.chain(optax.add_noise(0.1, 0.55, key=jax.random.key(3)), optax.adam(0.1))
    state = tx.init(params)
    flat = {name: np.asarray(x) for name, x in jopt.state_dict(state).items()}
    assert flat["0/rng_key"].dtype == np.uint32
    chex.assert_trees_all_equal(jopt.load_state_dict(tx, params, flat), state)


# What does not fit.


def test_all_that_does_not_fit_is_in_one_error() -> None:
    tx, params = jopt.adam(1e-3), {"a": jnp.ones((3, 2)), "b": jnp.ones(2)}
    flat = filled(tx.init(params))
    flat["scale_by_adam/mu/a"] = flat["scale_by_adam/mu/a"].T
    flat["scale_by_adam/mu/b"] = flat["scale_by_adam/mu/b"].astype(np.float16)
    flat["scale_by_adam/mu/c"] = flat.pop("scale_by_adam/nu/b")
    flat["scale_by_adam/count"] = np.float32(3)
    with pytest.raises(ValueError) as error:
        jopt.load_state_dict(tx, params, flat)
    for text in (
        "missing: 'scale_by_adam/nu/b'",
        "unexpected: 'scale_by_adam/mu/c'",
        "'scale_by_adam/mu/a' has shape (2, 3), not (3, 2): transposed?",
        "'scale_by_adam/mu/b' is float16, not float32",
        "'scale_by_adam/count' is float32, not int32",
    ):
        assert text in str(error.value)
    with pytest.raises(ValueError, match="transposed"):
        jopt.load_state_dict(tx, params, flat, strict=False)


def test_a_count_of_another_width_is_taken_if_it_fits() -> None:
    tx, params = jopt.adam(1e-3), jnp.ones(2)
    flat: dict[str, Any] = filled(tx.init(params))
    flat |= {"scale_by_adam/count": np.int64(12), "scale_by_learning_rate/count": 13}
    flat["scale_by_learning_rate/learning_rate"] = 1e-3
    state = jopt.load_state_dict(tx, params, flat)
    chex.assert_trees_all_equal_dtypes(state, tx.init(params))
    assert [int(state[name].count) for name in state] == [12, 13]
    for wrong in (np.int64(2**40), True, 1.5, np.uint32(2**32 - 1)):
        with pytest.raises(ValueError, match=r"'scale_by_adam/count' is .*, not int32"):
            jopt.load_state_dict(tx, params, flat | {"scale_by_adam/count": wrong})
    with pytest.raises(ValueError, match="learning_rate' is bool, not float32"):
        name = "scale_by_learning_rate/learning_rate"
        jopt.load_state_dict(tx, params, flat | {name: True})


def make_flat() -> dict[str, Any]:
    return jopt.state_dict(jopt.adam(1e-3).init(jnp.ones(2)))


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda: jopt.state_dict(jopt.adam(1e-3)), TypeError, "got the transformation"),
        (
            lambda: jopt.state_dict({"a": "b"}),
            TypeError,
            "leaf 'a' is not an array: 'b'",
        ),
        (
            lambda: jopt.state_dict({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}),
            ValueError,
            "two leaves have the path 'a/b'",
        ),
        (lambda: load([1.0]), TypeError, "flat must be a dict of arrays by path"),
        (lambda: load({"a": {"b": 1}}), TypeError, "flat\\['a'\\] .*call jopt.state_d"),
        (lambda: load(make_flat(), hyperparams="new"), ValueError, "hyperparams"),
        (
            lambda: load(make_flat(), schema={}),
            TypeError,
            "schema must be a result of jopt.s",
        ),
        (
            lambda: load(make_flat(), schema={"version": 9, "jopt": "8", "entries": 0}),
            ValueError,
            "version 9, written by jopt 8; this jopt reads versions up to 1",
        ),
        (lambda: load(make_flat(), migrate=["^nu"]), TypeError, "jopt.Rename, jopt.Dr"),
    ],
)
def test_wrong_calls_are_told(call: Callable[[], Any], kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        call()


def load(flat: Any, **options: Any) -> Any:
    return jopt.load_state_dict(jopt.adam(1e-3), jnp.ones(2), flat, **options)


def test_arrays_that_are_not_those_of_the_schema_are_an_error() -> None:
    tx, params = jopt.adam(1e-3), jnp.ones(2)
    state = tx.init(params)
    flat, schema = jopt.state_dict(state), jopt.schema(tx, state)
    del flat["scale_by_adam/nu"]
    flat["scale_by_adam/mu"] = np.ones(2, np.float64)
    with pytest.raises(ValueError) as error:
        jopt.load_state_dict(tx, params, flat, schema=schema, strict=False)
    assert "'scale_by_adam/nu' is missing in flat" in str(error.value)
    assert "((2,), 'float64')" in str(error.value)


def test_a_recipe_that_cannot_be_written_is_said_in_the_schema() -> None:
    tx = jopt.sgd(lambda count: jnp.exp2(-count.astype(float)))
    schema = jopt.schema(tx, jax.eval_shape(tx.init, jnp.ones(2)))
    assert schema["recipe"] is None
    assert "'learning_rate' cannot be written" in schema["recipe_error"]
    assert json.loads(json.dumps(schema)) == schema


# Hyperparameters.


def warned(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, and the one warning that it gives."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    assert all(w.filename == __file__ for w in found)
    return result, "\n".join(str(w.message) for w in found)


def test_other_hyperparameters_are_reported_and_either_can_be_taken() -> None:
    old, new = (jopt.adam(jopt.tunable(x), b1=jopt.tunable(0.9)) for x in (0.1, 0.05))
    state = jopt.set_hyperparams(old, old.init(jnp.ones(2)), b1=0.8)
    flat, schema = jopt.state_dict(state), jopt.schema(old, state)
    for whose, rate, b1 in (("checkpoint", 0.1, 0.8), ("recipe", 0.05, 0.9)):
        options = {"hyperparams": whose, "schema": schema}
        restored, text = warned(functools.partial(load_with, new, flat, **options))
        found = jopt.hyperparams(restored)
        assert (found["learning_rate"], found["b1"]) == tuple(np.float32([rate, b1]))
        assert "learning_rate: 0.1 in the checkpoint, 0.05 in the recipe" in text
        assert "b1: 0.8 in the checkpoint, 0.9 in the recipe" in text
        assert text.count(f"in the recipe; the {whose}'s is used") == 2
        assert text.count("in the recipe") == 2  # each is listed once


def load_with(tx: Any, flat: Any, **options: Any) -> Any:
    return jopt.load_state_dict(tx, jnp.ones(2), flat, **options)


def test_with_the_schema_compiled_in_and_scheduled_numbers_are_compared_too() -> None:
    params = jnp.ones(2)
    old = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adam(0.1))
    new = jopt.chain(
        jopt.clip_by_global_norm(2.0),
        jopt.adam(jopt.linear_schedule(0.1, 0, 9), b2=0.9),
    )
    flat, schema = jopt.state_dict(old.init(params)), jopt.schema(old, old.init(params))
    _, text = warned(lambda: load_with(new, flat, schema=schema))
    assert "clip_by_global_norm/max_norm: 1.0 in the checkpoint, 2.0" in text
    assert "scale_by_adam/b2: 0.999 in the checkpoint, 0.9 in the recipe" in text
    assert "learning_rate: 0.1 in the checkpoint, {'name': 'linear_schedule'" in text
    assert text.count("in the recipe") == 3
    assert warned(lambda: load_with(old, flat, schema=schema))[1] == ""
    assert warned(lambda: load_with(new, flat))[1] == ""  # nothing is known of them
