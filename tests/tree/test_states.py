"""Values in optimizer states by name, and the arrays that are like parameters."""

from __future__ import annotations

import math
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec

import jopt
from jopt import tree
from tests.catalogue import CASES


# Parameters with the names of fields, and shapes that no other array has.
PARAMS: dict[str, Any] = {
    "count": jnp.ones((3, 5)),
    "mu": {"learning_rate": jnp.ones((7,)), "trace": [jnp.ones((6, 11))]},
    "nu": None,
}
NAMES = ["count", "mu", "nu", "trace", "learning_rate"]


class Params(NamedTuple):
    mu: Any
    w: Any


def names_of(found: list[tuple[Any, Any]]) -> list[str]:
    return [tree.path_name(path) for path, _ in found]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_parameter_is_not_taken_for_a_field(case: Any) -> None:
    state = jax.eval_shape(case.make().init, PARAMS)
    for name in NAMES:
        for path, value in tree.get_all_with_path(state, name):
            field = path[-1]
            assert isinstance(field, tree.NamedTupleKey) and field.name == name
            is_slot = isinstance(value, dict | tuple)
            assert is_slot or (name in ("count", "learning_rate")), path
    # And every field of every state is found.
    for name, value in fields(state):
        assert any(x is value for _, x in tree.get_all_with_path(state, name))


def fields(state: Any) -> list[tuple[str, Any]]:
    if isinstance(state, dict):
        return [x for inner in state.values() for x in fields(inner)]
    if not hasattr(state, "_fields"):
        return []
    assert type(state).__name__.endswith("State") or not state._fields
    own = list(state._asdict().items())
    return own + [x for _, v in own if is_inner(v) for x in fields(v)]


def is_inner(value: Any) -> bool:
    return jax.tree.structure(value) != jax.tree.structure(PARAMS)


ADAM = jopt.adam(1e-3).init(PARAMS)
MASKED = jopt.masked(jopt.adam(1e-3), "mu").init(PARAMS)
TWICE = jopt.chain(a=jopt.ema(0.9), b=jopt.ema(0.99)).init(PARAMS)


def test_a_value_is_got_by_name() -> None:
    assert tree.get(ADAM, "mu") is ADAM["scale_by_adam"].mu
    assert tree.get(ADAM, "learning_rate") == 1e-3
    assert tree.get(ADAM, "scale_by_adam") is ADAM["scale_by_adam"]
    assert tree.get(ADAM, "ScaleByAdamState") is ADAM["scale_by_adam"]
    assert tree.get(ADAM["scale_by_adam"], "ScaleByAdamState") is ADAM["scale_by_adam"]
    assert tree.get(ADAM, "scale_by_adam/nu") is ADAM["scale_by_adam"].nu
    assert tree.get(ADAM, "momentum") is None
    assert tree.get(ADAM, "momentum", 3) == 3
    assert tree.get(MASKED, "mu") is tree.get(tree.get(MASKED, "inner_state"), "mu")


def test_a_field_comes_before_the_member_it_is_in() -> None:
    # The state of trace is called trace, and so is its field.
    state = jopt.sgd(0.1, momentum=0.9).init(PARAMS)
    assert tree.get(state, "trace") is state["trace"].trace
    assert tree.get(state, "TraceState") is state["trace"]
    moved = tree.set(state, trace=PARAMS)
    assert tree.allclose(moved["trace"].trace, PARAMS)


def test_the_count_is_that_of_the_algorithm() -> None:
    both = names_of(tree.get_all_with_path(ADAM, "count"))
    assert both == ["scale_by_adam/count", "scale_by_learning_rate/count"]
    assert tree.get(ADAM, "count") is ADAM["scale_by_adam"].count
    sgd = jopt.sgd(1e-3).init(PARAMS)
    assert tree.get(sgd, "count") is sgd["scale_by_learning_rate"].count


def test_an_ambiguous_name_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(KeyError, match=r"ambiguous.*'a/count', 'b/count'.*filtering"):
        tree.get(TWICE, "count")
    assert tree.get(TWICE, "b/count") is TWICE["b"].count
    second = tree.get(TWICE, "count", filtering=lambda path, _: path[0].key == "b")
    assert second is TWICE["b"].count


def test_a_filter_sees_the_names_of_the_tuples_and_the_value() -> None:
    def of_adam(path: Any, value: Any) -> bool:
        assert value.shape == ()
        return path[-1].tuple_name == "ScaleByAdamState"

    found = tree.get_all_with_path(ADAM, "count", of_adam)
    assert names_of(found) == ["scale_by_adam/count"]


def test_slots_and_plain_trees_are_searched_if_asked() -> None:
    found = tree.get_all_with_path(ADAM, "mu", everywhere=True)
    paths = ["scale_by_adam/mu", "scale_by_adam/mu/mu", "scale_by_adam/nu/mu"]
    assert names_of(found) == paths
    plain = {"a": {"mu": 1.0}}
    assert tree.get(plain, "mu") is None
    assert tree.get(plain, "mu", everywhere=True) == 1.0
    assert tree.get(plain, "a") == {"mu": 1.0}


def test_parameters_in_a_namedtuple_are_no_state() -> None:
    params = Params(mu=jnp.ones(2), w=jnp.ones(3))
    state = jopt.adam(1e-3).init(params)
    assert tree.get(state, "mu") is state["scale_by_adam"].mu
    assert tree.get(state, "w") is None
    state = jopt.masked(jopt.trace(0.9), True).init(params)
    assert tree.get(state, "mu") is None
    assert isinstance(tree.get(state, "trace"), Params)


def test_a_users_state_needs_no_special_name_in_a_chain() -> None:
    class Memory(NamedTuple):
        best: Any

    def init(params: Any) -> Memory:
        return Memory(params)

    tx = jopt.chain(jopt.GradientTransformation(init, lambda g, s: (g, s)))
    state = tx.init(PARAMS)
    assert tree.get(state, "best") is PARAMS
    assert tree.get(state, "count") is None


def test_a_state_is_found_in_a_train_state() -> None:
    train = TrainState.create(
        apply_fn=len, params={"mu": jnp.ones(2)}, tx=jopt.adam(1e-3)
    )
    assert tree.get(train, "mu") is train.opt_state["scale_by_adam"].mu
    assert tree.get(tree.set(train, count=7), "count") == 7
    assert tree.set(train, count=7).params is train.params


OPTAX: list[Any] = [
    optax.adam(1e-3),
    optax.adam(optax.linear_schedule(1.0, 0.0, 10)),
    optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)),
    optax.inject_hyperparams(optax.adam)(learning_rate=1e-3, b1=0.8),
    optax.inject_hyperparams(optax.sgd)(learning_rate=lambda t: 1 / (t + 1)),
    optax.MultiSteps(optax.adam(1e-3), 3),
    optax.masked(optax.trace(0.9), {"w": True, "b": False}),
    optax.partition({"x": optax.adam(1.0), "y": optax.ema(0.9)}, {"w": "x", "b": "y"}),
    optax.adafactor(1e-3, min_dim_size_to_factor=2),
]
SMALL = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}


@pytest.mark.parametrize("tx", OPTAX)
@pytest.mark.parametrize(
    "name", [*NAMES, "b1", "inner_state", "ScaleByAdamState", "hyperparams", "x", "no"]
)
def test_the_states_of_optax_are_searched_as_optax_does(tx: Any, name: str) -> None:
    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(SMALL)
    theirs = optax.tree.get_all_with_path(state, name)
    ours = tree.get_all_with_path(state, name)
    assert len(ours) == len(theirs)
    for (path, x), (their_path, y) in zip(ours, theirs, strict=True):
        assert x is y
        assert [getattr(k, "tuple_name", k) for k in path] == [
            getattr(k, "tuple_name", k) for k in their_path
        ]


def test_values_are_set_and_keep_their_types() -> None:
    state = tree.set(ADAM, count=10.0, mu=tree.ones_like(tree.get(ADAM, "mu")))
    same = jax.tree.map(
        lambda x, y: (x.dtype, x.shape) == (y.dtype, y.shape), ADAM, state
    )
    assert all(jax.tree.leaves(same))
    assert [int(x) for _, x in tree.get_all_with_path(state, "count")] == [10, 10]
    assert tree.sum(tree.get(state, "mu")) == tree.size(PARAMS)
    only = tree.set(ADAM, lambda path, _: path[0].key == "scale_by_adam", count=3)
    assert [int(x) for _, x in tree.get_all_with_path(only, "count")] == [3, 0]
    one = tree.set(ADAM, **{"scale_by_learning_rate/count": 4})
    assert [int(x) for _, x in tree.get_all_with_path(one, "count")] == [0, 4]
    assert isinstance(only["scale_by_adam"], type(ADAM["scale_by_adam"]))


def test_a_state_with_new_values_compiles_nothing() -> None:
    tx = jopt.adam(1e-3)
    traces = []

    @jax.jit
    def step(grads: Any, state: Any, params: Any) -> Any:
        traces.append(grads)
        return tx.update(grads, state, params)

    step(PARAMS, ADAM, PARAMS)
    state = jax.jit(lambda state, n: tree.set(state, count=n))(ADAM, jnp.int32(5))
    step(PARAMS, tree.set(state, count=10, learning_rate=3e-4), PARAMS)
    assert len(traces) == 1


def test_whole_states_and_other_things_are_set() -> None:
    other = ADAM["scale_by_adam"]._replace(count=jnp.int32(8))
    state = tree.set(ADAM, ScaleByAdamState=other)
    assert tree.get(state, "scale_by_adam/count") == 8
    spec = jax.tree.map(lambda _: PartitionSpec("x"), PARAMS)
    assert tree.get(tree.set(ADAM, mu=spec), "mu") == spec
    data = jopt.add_noise(0.1, 0.5, key=0).init(SMALL)
    assert list(tree.set(data, key=jax.random.key_data(jax.random.key(7))).key) == [
        0,
        7,
    ]


SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"cuont": 1}, KeyError, r"no 'cuont' to set. Did you mean 'count'\? There are"),
    ({"count": 1.5}, TypeError, "scale_by_adam/count must be a whole number"),
    ({"count": jnp.float32(2)}, TypeError, "is int32, but the new value is float32"),
    ({"learning_rate": 1j}, TypeError, "is float32, but the new value is complex64"),
    ({"count": jnp.ones(2, int)}, ValueError, r"has shape \(\), the new value \(2,\)"),
    ({"mu": None}, ValueError, "another structure; only in the state:"),
    ({"count": {"a": 1}}, ValueError, "another structure"),
    ({"mu": {**PARAMS, "count": jnp.ones(2)}}, ValueError, r"mu has shape \(3, 5\)"),
]


@pytest.mark.parametrize(("values", "kind", "message"), SETTINGS)
def test_wrong_values_are_an_error(
    values: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tree.set(ADAM, **values)


# Every array that has a parameter's shape belongs to it: PARAMS has no other such.
TAGS = {"count": "count", "mu": {"learning_rate": "lr", "trace": ["trace"]}, "nu": None}
TAG_OF = dict(
    zip(map(np.shape, jax.tree.leaves(PARAMS)), jax.tree.leaves(TAGS), strict=True)
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_arrays_like_parameters_are_mapped_for_every_optimizer(case: Any) -> None:
    tx = case.make()
    state = jax.eval_shape(tx.init, PARAMS)

    def f(x: Any, tag: str) -> tuple[Any, str]:
        return x.shape, tag

    def expected(x: Any) -> Any:
        if type(x) is tuple:  # several arrays kept for one parameter: a history
            return jax.tree.map(lambda _: "other", x)
        return (x.shape, TAG_OF[x.shape]) if x.shape in TAG_OF else "other"

    wanted = jax.tree.map(expected, state, is_leaf=lambda x: type(x) is tuple)
    options: Any = {"transform_non_params": lambda _: "other"}
    assert tree.map_params(tx, f, state, TAGS, **options) == wanted
    assert tree.map_params(tx, f, state, TAGS, params=PARAMS, **options) == wanted
    assert tree.map_params(tx.init, f, state, TAGS, **options) == wanted


def like(tx: Any, params: Any, **options: Any) -> Any:
    """What is like a parameter, as paths; found out, and known."""
    state = jax.eval_shape(tx.init, params)
    marked = [
        tree.map_params(
            tx, lambda x: True, state, transform_non_params=lambda x: False, **options
        )
        for options in ({}, {"params": params})
    ]
    assert marked[0] == marked[1]
    return [path for path, on in tree.leaves_with_names(marked[0]) if on]


def kept(make: Any) -> Any:
    """A transformation whose state is ``make(leaf)`` for every leaf."""

    class KeptState(NamedTuple):
        count: Any
        slot: Any

    def init(params: Any) -> Any:
        return KeptState(jnp.zeros(()), jax.tree.map(make, params))

    return jopt.GradientTransformation(init, lambda g, s: (g, s))


def rows_and_columns(x: Any) -> Any:
    if x.ndim < 2:
        return {"full": jnp.zeros(x.shape)}
    return {"row": jnp.zeros(x.shape[:-1]), "column": jnp.zeros(x.shape[-1:])}


SHAPES = {"w": jnp.ones((4, 3)), "b": jnp.ones(3), "s": jnp.ones(())}
LIKE: list[tuple[Any, Any, list[str]]] = [
    (jopt.sgd(0.1), SHAPES, []),
    (jopt.trace(0.9), jnp.ones(3), ["trace"]),
    (jopt.trace(0.9), (jnp.ones(3), jnp.ones(2)), ["trace/0", "trace/1"]),
    (jopt.trace(0.9), [(jnp.ones(3), jnp.ones(3))], ["trace/0/0", "trace/0/1"]),
    (jopt.trace(0.9), Params(1.0, jnp.ones(1)), ["trace/mu", "trace/w"]),
    (jopt.trace(0.9), {}, []),
    (jopt.scale_by_adam(), {"z": jnp.ones(2, complex)}, ["mu/z", "nu/z"]),
    (jopt.scale_by_adam(), jnp.ones(()), ["mu", "nu"]),
    (jopt.masked(jopt.trace(0.9), "w"), SHAPES, ["inner_state/trace/w"]),
    (
        jopt.partition({"x": jopt.trace(0.9), "y": jopt.ema(0.9), "z": jopt.sgd(0.1)},
                       {"w": "x", "b": "y", "s": "z"}),
        SHAPES,
        ["x/trace/w", "y/ema/b"],
    ),
    # Statistics of other shapes, alone and beside what has the parameters' shape.
    (kept(rows_and_columns), SHAPES, ["slot/b/full", "slot/s/full"]),
    (kept(lambda x: jnp.zeros((10, *x.shape))), SHAPES, []),
    (kept(lambda x: jnp.zeros(())), SHAPES, []),
    (kept(lambda x: jnp.zeros((1,) * x.ndim)), SHAPES, []),
    (kept(lambda x: {"m": x, "v": jnp.zeros((1,))}), SHAPES,
     ["slot/b/m", "slot/s/m", "slot/w/m"]),
    (kept(lambda x: (x, jnp.zeros((10, *x.shape)), x)), SHAPES,
     ["slot/b/0", "slot/b/2", "slot/s/0", "slot/s/2", "slot/w/0", "slot/w/2"]),
    (kept(lambda x: tuple(jnp.zeros(n) for n in x.shape)), SHAPES, ["slot/b/0"]),
    (
        jopt.chain(a=kept(lambda x: tuple(jnp.zeros(n) for n in x.shape)),
                   b=jopt.trace(0.9)),
        SHAPES,
        ["a/slot/b/0", "b/trace/b", "b/trace/s", "b/trace/w"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "params", "wanted"), LIKE)
def test_what_is_like_a_parameter(tx: Any, params: Any, wanted: list[str]) -> None:
    assert like(tx, params) == wanted


@pytest.mark.parametrize("tx", [*OPTAX[:5], optax.lion(0.1), jopt.adamw(0.1)])
def test_the_call_is_that_of_optax(tx: Any) -> None:
    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(SMALL)
        args: Any = (tx, lambda x, y: x + y, state, SMALL)
        other = {"transform_non_params": lambda x: None}
        assert tree.map_params(*args, **other) is not None
        wanted, found = (m.map_params(*args, **other) for m in (optax.tree, tree))
    assert tree.allclose(wanted, found)


def test_states_are_sharded_by_the_parameters_specs() -> None:
    mesh = jax.make_mesh((8,), ("d",))
    params = {"w": jnp.ones((16, 4)), "b": jnp.ones(3)}
    specs = {"w": PartitionSpec("d"), "b": PartitionSpec()}
    tx = jopt.adamw(1e-3)
    state = tx.init(params)
    shardings = tree.map_params(
        tx,
        lambda _, spec: NamedSharding(mesh, spec),
        state,
        specs,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )
    state = jax.device_put(state, shardings)
    assert tree.get(state, "mu")["w"].addressable_shards[0].data.shape == (2, 4)
    again = tree.map_params(tx, lambda x: x.spec, shardings, params=params)
    assert tree.get(again, "nu") == specs


def test_a_state_is_cast_and_the_counts_are_not() -> None:
    tx = jopt.adam(1e-3)
    state = tree.map_params(tx, lambda x: x.astype(jnp.bfloat16), tx.init(SMALL))
    assert tree.dtype(tree.get(state, "mu")) == jnp.bfloat16
    assert tree.get(state, "count").dtype == jnp.int32


def test_misuse_of_map_params_is_explained() -> None:
    tx = jopt.adam(1e-3)
    state, f = tx.init(SMALL), lambda x, *_: x
    with pytest.raises(ValueError, match=r"rest\[0\] have different.*only in .*: 'w'"):
        tree.map_params(tx, f, state, {"b": 1})
    with pytest.raises(
        ValueError, match="not the state of these parameters; only in the"
    ):
        tree.map_params(tx, f, state, params={"w": jnp.ones(2)})
    specs = jax.tree.map(lambda _: PartitionSpec(), state)
    with pytest.raises(ValueError, match=re.escape("which has no shape: give params=")):
        tree.map_params(tx, f, specs)
    by_name = jopt.masked(tx, lambda params: {"w": params["w"].ndim > 1, "b": False})
    with pytest.raises(KeyError) as error:
        tree.map_params(by_name, f, by_name.init(SMALL))
    assert "without leaves" in error.value.__notes__[-1]


def test_parameters_that_cannot_be_found_out_are_an_error() -> None:
    def init(params: Any) -> Any:
        if any(x.ndim != 2 for x in jax.tree.leaves(params)):
            raise ValueError("matrices only")
        return {"rows": jax.tree.map(lambda x: x[0], params)}

    state = init({"w": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match="matrices only") as error:
        tree.map_params(init, lambda x: x, state)
    assert "give params=" in error.value.__notes__[-1]
    params = {"w": jnp.ones((3, 2))}
    assert tree.map_params(init, lambda x: 1, state, params=params) is not None


def test_a_tree_of_many_parameters_is_mapped_quickly() -> None:
    params = {f"layer{i}": {"w": jnp.ones((4, 3))} for i in range(300)}
    tx = jopt.adam(1e-3)
    state = jax.eval_shape(tx.init, params)
    calls: list[Any] = []
    tree.map_params(tx, lambda x, p: calls.append(p.shape), state, params)
    assert len(calls) == 600 and math.prod(calls[0]) == 12


@jax.tree_util.register_pytree_node_class
class Watched:
    """Parameters that count how often something looks into them."""

    visits = 0

    def __init__(self, w: Any):
        self.w = w

    def tree_flatten(self) -> Any:
        Watched.visits += 1
        return (self.w,), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> Watched:
        return cls(*children)


def test_the_leaves_of_slots_are_not_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    # Variables of nnx may be anywhere; they are looked for only if nnx is imported.
    monkeypatch.delitem(sys.modules, "flax.nnx", raising=False)
    tx = jopt.skip_nonfinite(jopt.chain(jopt.clip(1.0), jopt.adamw(1e-3)))
    state = tx.init(Watched(jnp.zeros(2)))
    Watched.visits = 0
    jopt.metrics(state)
    jopt.iterations(state)
    jopt.set_hyperparams(tx, state, learning_rate=0.1)
    tree.get(state, "count")
    assert Watched.visits == 0
    tree.get(state, "count", everywhere=True)
    assert Watched.visits > 0
