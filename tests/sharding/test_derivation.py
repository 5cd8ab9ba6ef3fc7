"""Shardings of a state, derived from those of the parameters, for every optimizer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.sharding import state_shardings
from tests.catalogue import ONCE, Case
from tests.sharding.sizes import bytes_per_device, measured


SHAPES = {
    "bias": (32,),
    "embedding": (128, 64),
    "kernel": (64, 96),
    "number": (),
    "square": (64, 64),
    "stack": (8, 64, 32),
}
SPECS = {
    "bias": P("data"),
    "embedding": P("data", "model"),
    "kernel": P("model", "data"),
    "number": P(),
    "square": P(None, ("data", "model")),
    "stack": P(None, "data", "model"),
}


def mesh(axis_type: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)


def shapes(names: Any = SHAPES) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(SHAPES[n], jnp.float32) for n in names}


def fitting(tx: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Parameters that the optimizer takes: some take matrices only."""
    for names in (SHAPES, [n for n in SHAPES if n != "stack"], ["kernel", "square"]):
        try:
            jax.eval_shape(tx.init, shapes(names))
        except ValueError:
            continue
        return shapes(names)
    raise AssertionError("it takes no parameters")


def shardings_of(params: Any, on: jax.sharding.Mesh) -> dict[str, NamedSharding]:
    return {name: NamedSharding(on, SPECS[name]) for name in params}


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_every_slot_that_is_like_a_parameter_is_sharded_like_it(case: Case) -> None:
    tx, on = case.tx, mesh()
    params = fitting(tx)
    types = jax.eval_shape(tx.init, params)
    found = state_shardings(tx, params, shardings_of(params, on))
    assert jax.tree.structure(found) == jax.tree.structure(types)
    zero = state_shardings(tx, params, on, zero_axis="data")
    for (path, x), s, z in zip(
        jax.tree_util.tree_leaves_with_path(types),
        *map(jax.tree.leaves, (found, zero)),
        strict=True,
    ):
        for sharding in (s, z):
            sharding.shard_shape(x.shape)  # raises if it is uneven
        owner = [key.key for key in path if getattr(key, "key", None) in SHAPES]
        if owner and x.shape == SHAPES[owner[0]] and "statistics" not in str(path):
            assert s.spec == SPECS[owner[0]] or "q_" in str(path), path
        if x.ndim == 0:
            assert s.spec == z.spec == P(), path
        if x.size < 4096:
            assert z.spec == P(), path


# What is not leafwise, and some that is.
BY_HAND = {"adam_mini", "adamw", "came", "dion2", "galore", "kl_shampoo", "lbfgs"}
BY_HAND |= {"muon", "params_lawa", "psgd_kron", "shampoo", "sm3", "soap", "splus"}


@pytest.mark.parametrize(
    "case", [x for x in ONCE if x.name in BY_HAND], ids=lambda case: case.name
)
def test_with_explicit_axes_an_update_keeps_the_types(case: Case) -> None:
    tx, on = case.tx, mesh(AxisType.Explicit)
    params = fitting(tx)
    where = shardings_of(params, on)
    extra = {"value": 0.0} if case.needs_value else {}
    with jax.set_mesh(on):
        typed = {n: x.update(sharding=where[n]) for n, x in params.items()}
        state = jax.eval_shape(tx.init, typed)

        def update(g, state, params):
            return tx.update(g, state, params, **extra)

        updates, after = jax.eval_shape(update, typed, state, typed)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path((state, typed)),
        jax.tree.leaves((after, updates)),
        strict=True,
    ):
        assert str(jax.typeof(x)) == str(jax.typeof(y)), path


class Expected(NamedTuple):
    """What a path in the state of an optimizer should have."""

    tx: Any
    path: str
    spec: P
    zero: P  # with zero_axis and replicated parameters


ADAFACTOR = jopt.adafactor(1e-3, min_dim_size_to_factor=32)
TABLE = [
    Expected(jopt.adam(1e-3), "scale_by_adam/mu/kernel", P("model", "data"), P("data")),
    Expected(jopt.adam(1e-3), "scale_by_adam/mu/bias", P("data"), P()),
    Expected(jopt.adam(1e-3), "scale_by_adam/count", P(), P()),
    Expected(ADAFACTOR, "scale_by_factored_rms/v_row/kernel", P("model"), P()),
    Expected(ADAFACTOR, "scale_by_factored_rms/v_col/kernel", P(None, "data"), P()),
    Expected(
        jopt.lbfgs(memory_size=4),
        "scale_by_lbfgs/diff_params_memory/kernel",
        P(None, "model", "data"),
        P(None, "data"),
    ),
    Expected(
        jopt.params_lawa(8), "window/kernel", P(None, "model", "data"), P(None, "data")
    ),
    Expected(
        jopt.scale_by_galore(rank=32),
        "base_optimizer_state/mu/square",
        P(None, ("data", "model")),
        P(),
    ),
    Expected(jopt.scale_by_galore(rank=48), "projector/kernel", P("model"), P()),
    Expected(
        jopt.scale_by_galore(rank=64), "projector/embedding", P("model"), P("data")
    ),
    Expected(
        jopt.soap(1e-3, axes="io"),
        "soap/scale_by_soap/statistics/0/kernel",
        P(None, "model"),
        P(),
    ),
    Expected(
        jopt.soap(1e-3, axes="io"),
        "soap/scale_by_soap/statistics/1/kernel",
        P(None, "data"),
        P(),
    ),
    Expected(
        jopt.soap(1e-3, axes="io", mesh_axis="data"),
        "soap/scale_by_soap/statistics/0/kernel",
        P(None, "data"),
        P(None, "data"),
    ),
    Expected(jopt.psgd_kron(1e-3), "scale_by_kron/q_out/kernel", P("data"), P()),
    Expected(jopt.muon(1e-3), "muon/scale_by_muon/mu/kernel", P("model", "data"), P()),
    Expected(
        jopt.muon(1e-3, mesh_axis="data"),
        "muon/scale_by_muon/mu/kernel",
        P("model", "data"),
        P("data"),
    ),
    Expected(
        jopt.muon(1e-3, axes=jopt.rules(("stack", "bio"), ("", "auto"))),
        "muon/scale_by_muon/mu/stack",
        P(None, "data", "model"),
        P("data"),
    ),
    Expected(
        jopt.chain(jopt.trace(0.9), jopt.scale_by_polar()),
        "trace/trace/kernel",
        P("model", "data"),
        P(),
    ),
    Expected(jopt.sm3(1e-3), "scale_by_sm3/mu/1/kernel", P(None, "data"), P()),
    Expected(
        jopt.accumulate(jopt.adam(1e-3), 2),
        "inner_opt_state/scale_by_adam/nu/square",
        P(None, ("data", "model")),
        P("data"),
    ),
    Expected(
        jopt.partition(
            {"a": jopt.adam(1e-3), "b": jopt.sgd(1e-3, 0.9)},
            lambda path, x: "b" if x.ndim == 1 else "a",
        ),
        "a/scale_by_adam/mu/embedding",
        P("data", "model"),
        P("data"),
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.tx.name}-{row.path}")
def test_a_slot_gets_the_axes_of_the_dimensions_that_it_keeps(row: Expected) -> None:
    on = mesh()
    with jax.set_mesh(on):
        params = shapes() if "stack" in row.path else fitting(row.tx)
    for found, expected in (
        (state_shardings(row.tx, params, shardings_of(params, on)), row.spec),
        (state_shardings(row.tx, params, on, zero_axis="data"), row.zero),
    ):
        assert dict(jopt.tree.leaves_with_names(found))[row.path].spec == expected


RECIPES = [
    jopt.adamw(1e-3, weight_decay=0.1),
    ADAFACTOR,
    jopt.muon(1e-3),
    jopt.soap(1e-3, axes=jopt.rules(("stack", "bio"), ("", "io"))),
    jopt.galore(1e-3, rank=32),
    jopt.schedule_free_adamw(1e-3),
    jopt.accumulate(jopt.adam(1e-3), 2),
    jopt.chain(jopt.skip_nonfinite(jopt.sgd(0.1, 0.9)), jopt.params_ema(0.9)),
]


@pytest.mark.parametrize("zero_axis", [None, "data"])
@pytest.mark.parametrize("tx", RECIPES, ids=lambda tx: tx.name)
def test_a_device_holds_the_bytes_that_the_shardings_say(
    tx: Any, zero_axis: str | None
) -> None:
    on = mesh()
    params = {n: jnp.zeros(x.shape) for n, x in fitting(tx).items()}
    where = shardings_of(params, on) if zero_axis is None else on
    found = state_shardings(tx, params, where, zero_axis=zero_axis)
    state = jax.jit(tx.init, out_shardings=found)(params)
    assert measured(state) == bytes_per_device(state, found)
    whole = sum(x.nbytes for x in jax.tree.leaves(state))
    print(tx.name, zero_axis, measured(state) / whole)


def test_parameters_may_carry_their_shardings_or_lie_in_the_mesh_that_is_set() -> None:
    tx, on = jopt.adam(1e-3), mesh()
    params = shapes(["kernel", "bias"])
    where = shardings_of(params, on)
    expected = state_shardings(tx, params, where)
    arrays = {n: jax.device_put(jnp.ones(x.shape), where[n]) for n, x in params.items()}
    typed = {n: x.update(sharding=where[n]) for n, x in params.items()}
    assert state_shardings(tx, arrays) == expected
    assert state_shardings(tx, typed, on) == expected
    with jax.set_mesh(on):
        specs = {name: SPECS[name] for name in params}
        assert state_shardings(tx, params, specs) == expected
        assert state_shardings(tx, params)["scale_by_adam"].mu["bias"].spec == P()
        prefix = state_shardings(tx, params, P("data"))["scale_by_adam"].mu
    assert {x.spec for x in prefix.values()} == {P("data")}


def test_a_mesh_of_types_names_the_devices_of_the_mesh_that_is_set() -> None:
    on = mesh(AxisType.Explicit)
    with jax.set_mesh(on):
        params = jax.eval_shape(
            lambda: jnp.zeros((8, 4), out_sharding=NamedSharding(on, P("data")))
        )
        found = state_shardings(jopt.adam(1e-3), params)["scale_by_adam"].mu
    assert found == NamedSharding(on, P("data"))


def test_zero_adds_its_axis_to_the_first_dimension_that_it_divides() -> None:
    tx, on = jopt.adam(1e-3), mesh()
    sizes = {
        "a": (6, 1024),
        "b": (63, 64),
        "c": (1000, 8),
        "d": (8, 511),
        "e": (7, 999),
    }
    params = {n: jax.ShapeDtypeStruct(x, jnp.float32) for n, x in sizes.items()}
    where = {"a": P(), "b": P(), "c": P("model"), "d": P(), "e": P()}
    with jax.set_mesh(on):
        found = state_shardings(tx, params, where, zero_axis="data")
    mu = {name: x.spec for name, x in found["scale_by_adam"].mu.items()}
    assert mu == {
        "a": P(None, "data"),  # 4 does not divide 6
        "b": P(),  # 4,032 elements
        "c": P(("model", "data")),
        "d": P(),  # 4,088 elements
        "e": P(),  # it divides neither
    }


class _CodesState(NamedTuple):
    codes: Any
    scales: Any


def test_blocks_that_share_a_scale_are_not_split() -> None:
    """Codes and scales that ``init`` makes anew are found by their parameter."""

    def init(params):
        def scales(p):
            return jnp.zeros((*p.shape[:-1], math.ceil(p.shape[-1] / 256)))

        return _CodesState(
            jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.int8), params),
            jax.tree.map(scales, params),
        )

    tx = jopt.GradientTransformation(init, lambda updates, state: (updates, state))
    sizes = {"few": (3, 2048), "many": (3, 1024 + 512), "rows": (8192, 512)}
    params = {n: jax.ShapeDtypeStruct(x, jnp.float32) for n, x in sizes.items()}
    zero = state_shardings(tx, params, mesh(), zero_axis="data")
    assert {n: x.spec for n, x in zero.codes.items()} == {
        "few": P(None, "data"),  # two blocks on each device
        "many": P(),  # six blocks for four devices
        "rows": P("data"),
    }
    assert zero.scales["rows"].spec == P("data")
    with jax.set_mesh(mesh()):
        specs = state_shardings(tx, params, P(None, "data")).scales
    assert {n: x.spec for n, x in specs.items()} == {
        "few": P(None, "data"),  # eight scales for four devices
        "many": P(),
        "rows": P(),
    }


def test_a_foreign_state_that_is_made_from_shapes_is_found_by_its_paths() -> None:
    theirs: Any = optax.adafactor(1e-3, min_dim_size_to_factor=32)
    tx = jopt.chain(jopt.clip(1.0), theirs)
    params = shapes(["bias", "kernel"])
    found = state_shardings(tx, params, shardings_of(params, mesh()))
    named = dict(jopt.tree.leaves_with_names(found))
    v = {n.rpartition("/")[2]: x.spec for n, x in named.items() if "/v/" in n}
    assert v["bias"] == P("data")


def test_random_keys_are_replicated() -> None:
    tx = jopt.add_noise(0.1, 0.5, jax.random.key(0))
    found = state_shardings(tx, shapes(["kernel"]), mesh(), zero_axis="data")
    assert {x.spec for x in jax.tree.leaves(found)} == {P()}


def test_only_large_arrays_go_to_the_hosts_memory() -> None:
    found = state_shardings(
        jopt.adam(1e-3),
        shapes(["bias", "kernel"]),
        mesh(),
        memory_kind="pinned_host",
    )["scale_by_adam"]
    assert found.mu["kernel"].memory_kind == "pinned_host"
    assert found.mu["bias"].memory_kind != "pinned_host"
    assert found.count.memory_kind != "pinned_host"


def test_errors_name_the_parameter_and_what_there_is() -> None:
    tx, params, on = jopt.adam(1e-3), shapes(["kernel"]), mesh()
    with pytest.raises(ValueError, match=r"no mesh: pass a mesh .* jax.set_mesh"):
        state_shardings(tx, params)
    with pytest.raises(
        ValueError, match=r"zero_axis='x' is not .* \['data', 'model'\]"
    ):
        state_shardings(tx, params, on, zero_axis="x")
    with jax.set_mesh(on):
        with pytest.raises(ValueError, match=r"'kernel' has shape .* has 3 dimensions"):
            state_shardings(tx, params, P(None, None, "data"))
        with pytest.raises(ValueError, match="'kernel': the axis='x' is not an axis"):
            state_shardings(tx, params, P("x"))
        with pytest.raises(ValueError, match="neither a mesh nor like the parameters"):
            state_shardings(tx, params, {"w": P()})
        with pytest.raises(TypeError, match="got 'data'"):
            state_shardings(tx, params, {"kernel": "data"})
        odd = {"w": jax.ShapeDtypeStruct((6,), jnp.float32)}
        with pytest.raises(ValueError, match="splits 6 into 4, which leaves a rest"):
            state_shardings(tx, odd, P("data"))


def test_nones_models_and_bare_arrays_are_parameters_too() -> None:
    tx, on = jopt.adam(1e-3), mesh()
    bare = state_shardings(tx, jnp.ones((64, 64)), on, zero_axis="data")
    assert bare["scale_by_adam"].mu.spec == P("data")
    model = {"w": np.ones((64, 64), np.float32), "none": None, "act": jax.nn.relu}
    found = state_shardings(tx, model, on, zero_axis="data")["scale_by_adam"].mu
    assert found == {"w": NamedSharding(on, P("data")), "none": None, "act": None}
