"""The door's functions of trees, against optax's."""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.interop.optax import tree, tree_utils
from jopt.interop.optax.tree_utils import NamedTupleKey


# optax itself does not run under strict promotion.
pytestmark = pytest.mark.usefixtures("as_jax_is_delivered")


@pytest.fixture
def as_jax_is_delivered():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


A = {"x": jnp.linspace(-1.0, 2.0, 6).reshape(2, 3), "y": (jnp.float32(3.0), None)}
B = {"x": jnp.linspace(0.5, -2.0, 3), "y": (jnp.array([1.0, 2.0]), None)}
COMPLEX = {"x": jnp.array([1 + 2j, -3.0])}
NUMPY = {"x": np.array([1.0, 1e-9]), "y": 2.0}
KEY = jax.random.key(0)
HALF = {"x": jnp.ones(3, jnp.bfloat16), "y": jnp.ones(2)}

CALLS: dict[str, list[tuple[Any, ...]]] = {
    "add": [(A, A), (A, B), (A, B, A), (NUMPY, NUMPY)],
    "sub": [(A, B), (NUMPY, NUMPY)],
    "mul": [(A, B), (COMPLEX, COMPLEX)],
    "div": [(A, B), (NUMPY, NUMPY)],
    "scale": [(0.5, A), (jnp.arange(3.0), B["x"]), (0.1, NUMPY)],
    "add_scale": [(A, 0.5, B), (A["x"], jnp.ones(3), B["x"])],
    "where": [(True, A, B), (jnp.array([True, False, True]), A["x"], B["x"])],
    "clip": [(A, -0.5, 1.0), (A, None, 1.0)],
    "sum": [(A,), (A, True)],
    "vdot": [(A, A), (COMPLEX, COMPLEX)],
    "norm": [(A,), (A, 1), (A, jnp.inf), (A, 2, True), (COMPLEX,)],
    "max": [(A,)],
    "min": [(A,)],
    "size": [(A,)],
    "allclose": [(A, A), (A["x"], A["x"] + 1e-3)],
    "conj": [(COMPLEX,)],
    "real": [(COMPLEX,)],
    "cast": [(A, jnp.bfloat16), (A, None)],
    "cast_like": [(A["x"], HALF["x"])],
    "dtype": [(A,), (HALF, "promote"), (HALF, "lowest"), (HALF, "highest")],
    "zeros_like": [(A,), (A, jnp.int32)],
    "ones_like": [(A,)],
    "full_like": [(A, 7.0)],
    "batch_shape": [(A, (2,))],
    "split_key_like": [(KEY, A)],
    "random_like": [(KEY, A), (KEY, HALF), (KEY, A, jax.random.uniform, jnp.float16)],
    "unwrap_random_key_data": [(KEY,)],
    "update_moment": [
        (A, A, 0.9, 2),
        ({"a": None}, {"a": jnp.ones(2)}, 0.9, 1),
        (COMPLEX, {"x": jnp.ones(2)}, 0.9, 1),
    ],
    "update_moment_per_elem_norm": [
        (A, A, 0.9, 2),
        (A, A, 0.9, 3),
        (COMPLEX, {"x": jnp.ones(2)}, 0.9, 2),
    ],
    "update_infinity_moment": [(A, A, 0.9, 0.1), (None, jnp.ones(2), 0.9, 0.1)],
    "bias_correction": [(A, 0.9, jnp.int32(3))],
}
STATES = {"get", "get_all_with_path", "map_params", "set"}


def test_every_function_of_optax_is_compared() -> None:
    names = {name for name in dir(optax.tree) if not name.startswith("_")}
    assert names == CALLS.keys() | STATES == set(tree.__all__)
    old = {n for n in dir(optax.tree_utils) if n.startswith("tree_")}
    assert old | {"NamedTupleKey"} == set(tree_utils.__all__)
    for name in names:
        assert getattr(tree_utils, f"tree_{name}") is getattr(tree, name)


def assert_same(found: Any, expected: Any) -> None:
    found, expected = (
        jax.tree.map(tree.unwrap_random_key_data, x) for x in (found, expected)
    )
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        if hasattr(y, "dtype") or isinstance(y, int | float):
            assert np.shape(x) == np.shape(y)
            assert isinstance(x, np.ndarray) == isinstance(y, np.ndarray)
            assert jnp.result_type(x) == jnp.result_type(y)
            exact = isinstance(y, np.ndarray)
            x, y = (np.asarray(z).astype(complex) for z in (x, y))
            np.testing.assert_allclose(x, y, rtol=0 if exact else 1e-6, atol=1e-7)
        else:
            assert x == y


@pytest.mark.parametrize("name", CALLS)
def test_the_results_are_optaxs(name: str) -> None:
    for args in CALLS[name]:
        assert_same(getattr(tree, name)(*args), getattr(optax.tree, name)(*args))


def test_the_arguments_have_optaxs_names() -> None:
    for name in tree.__all__:
        ours, theirs = (
            list(inspect.signature(getattr(m, name)).parameters)
            for m in (tree, optax.tree)
        )
        assert ours[: len(theirs)] == theirs or name in ("map_params", "set"), name


def test_a_number_of_another_dtype_leaves_the_dtype_of_a_tree_alone() -> None:
    # optax returns float32, which a loop over bfloat16 parameters cannot carry.
    half = jnp.ones(2, jnp.bfloat16)
    assert tree.scale(jnp.float32(0.1), half).dtype == jnp.bfloat16
    assert optax.tree.scale(jnp.float32(0.1), half).dtype == jnp.float32


def test_a_moment_takes_the_wider_dtype_of_the_two_as_in_optax() -> None:
    half, single = jnp.ones(2, jnp.bfloat16), jnp.ones(2)
    for moments in (half, single):
        for updates in (half, single):
            found, expected = (
                m.update_moment(updates, moments, 0.9, 1) for m in (tree, optax.tree)
            )
            assert found.dtype == expected.dtype


def test_trees_that_do_not_match_are_an_error_that_names_the_leaf() -> None:
    with pytest.raises(ValueError, match="only in tree_y: 'b'"):
        tree.add({"a": 1.0}, {"a": jnp.ones(2), "b": jnp.ones(2)})


class State(NamedTuple):
    count: Any
    a: Any


SEARCHED = {
    "an array": jnp.ones(2),
    "a key in itself": {"a": {"a": 1.0}, "b": {"a": 2.0}},
    "an inner key first": {"a": {"count": 1}, "count": 2, "z": [{"count": 3}]},
    "states": (State(1, {"count": 2}), {"a": State(3, None)}, [State(4, ())]),
    "optax's": optax.inject_hyperparams(optax.adam)(lambda t: 1 - jnp.float32(t)).init(
        A
    ),
    "a chain": optax.chain(
        optax.trace(0.9), optax.adam(optax.linear_schedule(1, 0, 9))
    ).init(A["x"]),
}


def pairs(found: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), str(value)) for path, value in found]


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("key", ["a", "count", "State", "learning_rate", "missing"])
def test_values_are_found_where_optax_finds_them(name: str, key: str) -> None:
    state = SEARCHED[name]
    found = tree.get_all_with_path(state, key)
    assert pairs(found) == pairs(optax.tree.get_all_with_path(state, key))

    def outer(path, value):
        return len(path) <= 2 and not isinstance(value, dict)

    for filtering in (None, outer):
        chosen = optax.tree.get_all_with_path(state, key, filtering)
        assert pairs(tree.get_all_with_path(state, key, filtering)) == pairs(chosen)
        if len(chosen) > 1:
            with pytest.raises(KeyError, match="ambiguous"):
                tree.get(state, key, filtering=filtering)
        else:
            expected = optax.tree.get(state, key, 5, filtering)
            assert str(tree.get(state, key, 5, filtering)) == str(expected)
        if not chosen:
            with pytest.raises(KeyError, match=f"there is no '{key}' to set"):
                tree.set(state, filtering, **{key: 7})
        else:
            expected = optax.tree.set(state, filtering, **{key: 7})
            assert str(tree.set(state, filtering, **{key: 7})) == str(expected)


def test_a_filter_sees_the_names_of_states() -> None:
    state = optax.chain(optax.add_noise(1.0, 0.9, 0), optax.scale_by_adam()).init(A)

    def of_adam(path, value):
        return path[-1] == NamedTupleKey("ScaleByAdamState", "count")

    assert tree.get(state, "count", filtering=of_adam) == 0
    changed = tree.set(state, of_adam, count=7)
    assert (changed[0].count, changed[1].count) == (0, 7)


INITS = [
    optax.adam(1e-3),
    optax.adafactor(1e-3),
    optax.inject_hyperparams(optax.adamw)(1e-3),
    optax.chain(optax.trace(0.9), optax.masked(optax.adam(1e-3), lambda p: True)),
    optax.adagrad(0.1).init,
]


@pytest.mark.parametrize("initable", INITS)
def test_parameters_in_a_state_are_mapped_as_optax_does(initable: Any) -> None:
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state = getattr(initable, "init", initable)(params)
    names = {"w": "W", "b": "B"}
    for kwargs in ({}, {"transform_non_params": lambda x: "other"}):
        run = functools.partial(tree.map_params, initable, lambda x, name: name, state)
        expected = optax.tree_map_params(
            initable, lambda x, name: name, state, names, **kwargs
        )
        assert str(run(names, **kwargs)) == str(expected)


def test_parameters_in_a_state_of_jopt_are_mapped_too() -> None:
    params = {"w": jnp.ones((2, 3)), "b": None}
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3))
    mapped = tree.map_params(tx, lambda x: x + 1, tx.init(params))
    np.testing.assert_array_equal(mapped["scale_by_adam"].mu["w"], np.ones((2, 3)))
    assert mapped["scale_by_adam"].count == 0


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("tree_scalar_mul", (2.0, A)),
        ("tree_add_scalar_mul", (A, 2.0, A)),
        ("tree_l1_norm", (A,)),
        ("tree_l2_norm", (A,)),
        ("tree_linf_norm", (A,)),
    ],
)
def test_deprecated_names_work_and_warn(name: str, args: Any) -> None:
    with pytest.warns(DeprecationWarning, match=f"{name} is deprecated in optax: use"):
        function = getattr(tree_utils, name)
    with pytest.warns(DeprecationWarning):
        expected = getattr(optax.tree_utils, name)
    assert_same(function(*args), expected(*args))
    with pytest.raises(AttributeError, match=r"no attribute 'tree_ad'.* 'tree_add'"):
        tree_utils.tree_ad  # noqa: B018
