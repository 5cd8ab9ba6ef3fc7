"""Masks: one way to name leaves, the same in every container."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jopt
from jopt import checkpoint, tree
from jopt.core import masks
from jopt.tree import paths


BIAS, KERNEL = jnp.array([1.0, -2.0]), jnp.array([[3.0, 4.0]])


class Layer(NamedTuple):
    bias: Any
    kernel: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class DataLayer:
    bias: Any
    kernel: Any


@flax.struct.dataclass
class FlaxLayer:
    bias: Any
    kernel: Any


class EquinoxLayer(eqx.Module):
    bias: Any
    kernel: Any
    name: str = eqx.field(static=True, default="dense")


class EquinoxModel(eqx.Module):
    dense: EquinoxLayer
    out: Any


class CallableModel(EquinoxModel):
    """As models are: a tree that is also a function."""

    def __call__(self, x: Any) -> Any:
        return x


def in_dicts(bias: Any, kernel: Any, out: Any) -> Any:
    return {"dense": {"bias": bias, "kernel": kernel}, "out": out}


def in_nnx(bias: Any, kernel: Any, out: Any) -> Any:
    return nnx.State(jax.tree.map(nnx.Param, in_dicts(bias, kernel, out)))


# A tree with the leaves dense/bias, dense/kernel and out, in every container.
CONTAINERS: dict[str, Callable[..., Any]] = {
    "dict": in_dicts,
    "FrozenDict": lambda *xs: flax.core.freeze(in_dicts(*xs)),
    "nnx State": in_nnx,
    "NamedTuple": lambda b, k, out: {"dense": Layer(b, k), "out": out},
    "dataclass": lambda b, k, out: {"dense": DataLayer(b, k), "out": out},
    "flax dataclass": lambda b, k, out: {"dense": FlaxLayer(b, k), "out": out},
    "Equinox": lambda b, k, out: EquinoxModel(EquinoxLayer(b, k), out),
    "callable": lambda b, k, out: CallableModel(EquinoxLayer(b, k), out),
}
OUT = jnp.array(5.0)

# Masks of dense/kernel alone; some depend on the container.
FORMS: dict[str, Callable[[Any], Any]] = {
    "expression": lambda make: "kernel$",
    "expression on the path": lambda make: r"^dense/[^b]",
    "function of path and leaf": lambda make: lambda path, leaf: path == "dense/kernel",
    "function of the leaf": lambda make: lambda path, leaf: jnp.ndim(leaf) == 2,
    "function with defaults": lambda make: lambda path, leaf, n=2: jnp.ndim(leaf) == n,
    "function of params": lambda make: lambda p: jax.tree.map(lambda x: x.ndim == 2, p),
    "function to a dict": lambda make: lambda p: in_dicts(False, True, False),
    "tree": lambda make: make(False, True, False),
    "tree of NumPy": lambda make: make(
        np.bool_(False), np.bool_(True), np.bool_(False)
    ),
    "dict": lambda make: in_dicts(False, True, False),
    "prefix": lambda make: {"dense": {"bias": False, "kernel": True}, "out": False},
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_a_leaf_has_the_same_name_in_every_container(make: Any) -> None:
    named = tree.leaves_with_names(make(BIAS, KERNEL, OUT))
    assert [name for name, _ in named] == ["dense/bias", "dense/kernel", "out"]
    chex.assert_trees_all_equal([leaf for _, leaf in named], [BIAS, KERNEL, OUT])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_a_mask_chooses_the_same_leaves_in_every_container(
    make: Any, form: Any
) -> None:
    params = make(BIAS, KERNEL, OUT)
    tx = jopt.chain(jopt.add_decayed_weights(0.5, mask=form(make)), jopt.sgd(1.0))
    grads = jax.tree.map(jnp.ones_like, params)
    step = jax.jit(lambda g, s, p: tx.update(g, s, p))
    for update in (tx.update, step):
        updates, _ = update(grads, tx.init(params), params)
        wanted = make(-jnp.ones(2), -1 - 0.5 * KERNEL, -jnp.array(1.0))
        chex.assert_trees_all_close(updates, wanted)


EVERY = [
    (None, [True, True, True]),
    (True, [True, True, True]),
    (False, [False, False, False]),
    ("", [True, True, True]),
    ("dense", [True, True, False]),
    ("bias|out", [True, False, True]),
    ({"dense": True, "out": False}, [True, True, False]),
    (lambda params: True, [True, True, True]),
    (lambda params: {"dense": False, "out": True}, [False, False, True]),
    (lambda path, leaf: False, [False, False, False]),
]


@pytest.mark.parametrize(("mask", "chosen"), EVERY)
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_select_gives_a_bool_for_each_leaf(make: Any, mask: Any, chosen: Any) -> None:
    assert masks.select(mask, make(BIAS, KERNEL, OUT)) == chosen


@pytest.mark.parametrize(
    "mask",
    [
        "kernel|bias",
        lambda path, leaf: leaf.ndim == 2 and "dense" in path,
        lambda params: jax.tree.map(lambda p: p is params["dense"]["kernel"], params),
        {"dense": True, "out": False},
        {"dense": {"kernel": True}, "out": False},
        {"dense": {"kernel": True, "bias": True}, "out": False},
    ],
)
def test_a_missing_leaf_is_not_chosen_and_need_not_be_named(mask: Any) -> None:
    params = in_dicts(None, KERNEL, OUT)
    assert masks.select(mask, params) == [False, True, False]
    # Nor need a leaf whose gradient is missing, in this step only.
    tx = jopt.add_decayed_weights(1.0, mask=mask)
    params = in_dicts(BIAS, KERNEL, OUT)
    zeros = jax.tree.map(jnp.zeros_like, params)
    zeros["dense"]["bias"] = None
    updates, _ = tx.update(zeros, tx.init(in_dicts(None, KERNEL, OUT)), params)
    assert updates["dense"]["bias"] is None
    np.testing.assert_array_equal(updates["dense"]["kernel"], KERNEL)
    assert not jnp.any(updates["out"])


@pytest.mark.parametrize("layer", [True, {"bias": True, "kernel": False}])
def test_a_missing_layer_may_be_named_as_a_whole_or_by_its_leaves(layer: Any) -> None:
    params = {"dense": None, "out": OUT}
    assert masks.select({"dense": layer, "out": True}, params) == [False, True]


def test_a_mask_is_shown_the_parameters_and_not_their_gradients() -> None:
    params = in_dicts(*(x.astype(jnp.bfloat16) for x in (BIAS, KERNEL, OUT)))
    grads = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    tx = jopt.add_decayed_weights(1.0, mask=lambda _, leaf: leaf.dtype == jnp.bfloat16)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert all(jnp.any(u) for u in jax.tree.leaves(updates))


def test_a_mask_is_no_matter_in_an_empty_tree() -> None:
    for mask in ("kernel", {"dense": True}, None, lambda path, leaf: True):
        assert masks.select(mask, {}) == []


def test_a_single_array_is_chosen_by_the_whole_mask() -> None:
    for mask, chosen in [(True, [True]), ("", [True]), (lambda p: False, [False])]:
        assert masks.select(mask, KERNEL) == chosen


class SeenState(NamedTuple):
    seen: Any


def test_what_a_mask_leaves_out_passes_unchanged_and_has_no_slot() -> None:
    def rule(g: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        return 2 * g, seen + g

    tx = jopt.leafwise(rule, state=SeenState, mask="kernel", seen=jopt.zeros())
    params = in_dicts(BIAS, KERNEL, OUT)
    state = tx.init(params)
    assert state.seen["dense"]["bias"] is None and state.seen["out"] is None
    updates, state = jax.jit(tx.update)(params, state)
    chex.assert_trees_all_equal(updates, in_dicts(BIAS, 2 * KERNEL, OUT))
    chex.assert_trees_all_equal(state.seen, in_dicts(None, KERNEL, None))


def test_a_mask_function_sees_paths_and_shapes_when_it_is_traced() -> None:
    seen = []

    def mask(path: str, leaf: Any) -> bool:
        seen.append((path, leaf.shape, leaf.dtype))
        return leaf.ndim > 1

    tx = jopt.add_decayed_weights(0.5, mask)
    params = in_dicts(BIAS, KERNEL, OUT)
    jax.eval_shape(lambda p: tx.update(p, tx.init(p), p), params)
    assert ("dense/kernel", (1, 2), jnp.float32) in seen


def test_masks_of_one_chain_are_independent() -> None:
    params = in_dicts(BIAS, KERNEL, OUT)
    tx = jopt.chain(
        jopt.add_decayed_weights(1.0, "kernel"),
        jopt.add_decayed_weights(10.0, "bias"),
        jopt.add_decayed_weights(100.0, lambda path, leaf: leaf.ndim == 0),
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    chex.assert_trees_all_equal(updates, in_dicts(10 * BIAS, KERNEL, 100 * OUT))


# Two leaves with one path: a key has a slash in it.


ONE_PATH = {"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)}
OF_ONE_PATH: list[tuple[Any, list[bool]]] = [
    ({"a": {"b": True}, "a/b": False}, [True, False]),
    ({"a": {"b": False}, "a/b": True}, [False, True]),
    ({"a": False, "a/b": True}, [False, True]),
    (flax.core.freeze({"a": {"b": True}, "a/b": False}), [True, False]),
    (lambda params: {"a": {"b": True}, "a/b": False}, [True, False]),
    ("a/b", [True, True]),  # an expression is about the path
]


@pytest.mark.parametrize(("mask", "chosen"), OF_ONE_PATH)
def test_a_mask_tree_tells_leaves_with_one_path_apart(mask: Any, chosen: Any) -> None:
    assert masks.select(mask, ONE_PATH) == chosen
    tx = jopt.masked(jopt.set_to_zero(), mask)
    ones = jax.tree.map(jnp.ones_like, ONE_PATH)
    updates, _ = tx.update(ones, tx.init(ONE_PATH), ONE_PATH)
    assert [not u.any() for u in jax.tree.leaves(updates)] == chosen


def test_labels_and_multiples_tell_leaves_with_one_path_apart() -> None:
    labels = {"a": {"b": "x"}, "a/b": "y"}
    assert masks.labels(labels, ONE_PATH) == ["x", "y"]
    assert masks.multiples({"a": {"b": 0.5}, "a/b": 2}, ONE_PATH) == [0.5, 2.0]
    rules = jopt.rules(({"a": {"b": False}, "a/b": True}, 1), ("", 2))
    assert rules(ONE_PATH) == {"a": {"b": 2}, "a/b": 1}


def test_an_entry_with_slashes_names_a_leaf_by_its_path() -> None:
    nested, flat = {"a": {"b": 0.0}}, {"a/b": 0.0}
    for mask in (nested, flat):
        mask = jax.tree.map(lambda _: True, mask)
        assert masks.select(mask, nested) == masks.select(mask, flat) == [True]
    assert masks.select({"a": True}, flat) == [True]
    # The entry with the longest path is for the leaf, the other for its siblings.
    both = {"layer/a": True, "layer/a/b": False}
    assert masks.select(both, {"layer": {"a": {"b": 0.0, "c": 0.0}}}) == [False, True]


@pytest.mark.parametrize(
    ("mask", "params", "message"),
    [
        ({"a/b": True}, ONE_PATH, "says nothing about leaf 'a/b'"),
        ({"a": True}, ONE_PATH, "says nothing about leaf 'a/b'"),
        ({"a/b": True, "a": {"b": True}}, {"a/b": 0.0}, r"match no leaf: \['a/b'\]"),
        (
            {"a/b": {"c": True}, "a": {"b/c": True}},
            {"a": {"b": {"c": 0.0}}},
            "2 entries with the path 'a/b/c'; rename one of them",
        ),
    ],
)
def test_a_mask_tree_that_is_ambiguous_is_an_error(
    mask: Any, params: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        masks.select(mask, params)


def _lookups(params: Any) -> Any:
    grad = jopt.sparse_value_and_grad(
        lambda p: jnp.sum(p["a"]["b"]), lambda: {"a/b": jnp.array([0])}
    )
    return grad(params)


# Everything that finds leaves by their path.
BY_PATH: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda p: jopt.state_dict(jopt.adam(0.1).init(p)),
    "load_state_dict": lambda p: jopt.load_state_dict(jopt.adam(0.1), p, {}),
    "sparse_value_and_grad": _lookups,
    "torch": lambda p: jopt.interop.torch.state_dict(
        jopt.adam(0.1),
        jopt.adam(0.1).init(p),
        p,
        {"state": {}, "param_groups": [{"params": [0, 1]}]},
        order=["a/b", "a/b"],
    ),
    "keras": lambda p: jopt.interop.keras.get_weights(
        jopt.adam(0.1), jopt.adam(0.1).init(p), p, order=["a/b", "a/b"]
    ),
    "optax": lambda p: jopt.interop.optax.from_optax_state(
        jopt.adam(0.1), p, optax.adam(0.1).init(p)
    ),
}


@pytest.mark.parametrize("call", BY_PATH.values(), ids=BY_PATH)
def test_what_finds_leaves_by_path_refuses_two_with_one_path(call: Any) -> None:
    with pytest.raises(ValueError, match=r"two leaves have the path '.*a/b'; rename"):
        call(ONE_PATH)


def test_a_checkpoint_is_not_restored_into_two_leaves_with_one_path(
    tmp_path: Any,
) -> None:
    params = {"a": {"b": jnp.zeros(1)}}
    checkpoint.save(tmp_path / "c.npz", params=params, opt_state={})
    with pytest.raises(ValueError, match="two leaves have the path 'params/a/b'"):
        checkpoint.restore(tmp_path / "c.npz", params=ONE_PATH)


def test_hyperparams_and_metrics_refuse_two_numbers_with_one_path() -> None:
    inner = jopt.chain(b=jopt.monitor(jopt.sgd(0.1), keep=True))
    tx = jopt.partition(
        {"a": inner, "a/b": jopt.monitor(jopt.sgd(0.2), keep=True)},
        {"x": "a", "y": "a/b"},
    )
    state = tx.init({"x": jnp.ones(1), "y": jnp.ones(1)})
    for call in (
        jopt.hyperparams,
        jopt.metrics,
        lambda state: jopt.set_hyperparams(tx, state, learning_rate=1.0),
    ):
        with pytest.raises(ValueError, match=r"two leaves have the path 'a/b/.*rename"):
            call(state)


def test_the_paths_of_a_structure_are_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    original = paths.path_name
    monkeypatch.setattr(
        paths, "path_name", lambda path: made.append(path) or original(path)
    )
    masked = jopt.adamw(1e-3, weight_decay=0.1, mask="2_1")
    tx = jopt.partition({"1": jopt.sgd(0.1), "2": masked}, lambda path, _: path[0])
    params = {f"{i % 2 + 1}_{i}_here": jnp.zeros(1) for i in range(30)}
    for _ in range(2):
        tx.update(params, tx.init(params), params)
    # A leaf of another group is None there, under the same path.
    assert len(made) == 30
