"""Functions that take a state or parameters give the same numbers in every container.

The rows of the table are public functions, the columns containers: dicts, those of Flax
and Equinox, NamedTuples, dataclasses, and what `nnx.Optimizer` keeps.
"""

import dataclasses
import functools
import inspect
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import equinox
import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jopt
import jopt.interop.flax
import jopt.interop.keras
import jopt.interop.optax
import jopt.interop.torch
from tests.public import public


class LayerTuple(NamedTuple):
    bias: Any
    kernel: Any


class NetTuple(NamedTuple):
    dense: Any
    out: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class LayerData:
    bias: Any
    kernel: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class NetData:
    dense: Any
    out: Any


class LayerModule(equinox.Module):
    bias: Any
    kernel: Any


class NetModule(equinox.Module):
    dense: Any
    out: Any


def in_dicts(bias: Any, kernel: Any, out: Any) -> Any:
    return {"dense": {"bias": bias, "kernel": kernel}, "out": out}


def in_nnx(bias: Any, kernel: Any, out: Any) -> Any:
    return nnx.State(jax.tree.map(nnx.Param, in_dicts(bias, kernel, out)))


CONTAINERS: dict[str, Callable[..., Any]] = {
    "dict": in_dicts,
    "FrozenDict": lambda *xs: flax.core.freeze(in_dicts(*xs)),
    "NamedTuple": lambda b, k, out: NetTuple(LayerTuple(b, k), out),
    "dataclass": lambda b, k, out: NetData(LayerData(b, k), out),
    "Equinox module": lambda b, k, out: NetModule(LayerModule(b, k), out),
    "nnx State": in_nnx,
    "nnx Optimizer's state": in_nnx,
    "nnx State of other Variables": in_nnx,
}

VALUES = (jnp.ones(3), jnp.linspace(-1, 1, 6).reshape(2, 3), jnp.array(5.0))
GRADS = tuple(0.1 * x + 0.5 for x in VALUES)


class Case(NamedTuple):
    """The arguments of a call, in one container."""

    make: Callable[..., Any]
    tx: Any
    params: Any
    grads: Any
    state: Any  # after one step


@functools.cache
def arguments_in(container: str, tx: Any) -> Case:
    """Parameters, gradients, and the state after a step, in this container."""
    make = CONTAINERS[container]
    params, grads = make(*VALUES), make(*GRADS)
    if container == "nnx Optimizer's state":
        model = nnx.Dict(
            dense=nnx.Dict(bias=nnx.Param(VALUES[0]), kernel=nnx.Param(VALUES[1])),
            out=nnx.Param(VALUES[2]),
        )
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        optimizer.update(model, grads)
        return Case(make, tx, nnx.state(model, nnx.Param), grads, optimizer.opt_state)
    if container == "nnx State of other Variables":
        # Metadata is a part of the structure, and belongs to the parameters alone.
        params = jax.tree.map(
            lambda x: nnx.Param(x, out_sharding=None, about="p"), in_dicts(*VALUES)
        )
        params, grads = nnx.State(params), nnx.as_pure(grads)
    updates, state = tx.update(grads, tx.init(params), params)
    params = jopt.apply_updates(params, updates)
    return Case(make, tx, params, grads, state)


class Call(NamedTuple):
    """A row of the table."""

    run: Callable[[Case], Any]
    # What has the structure of the result; None if that is not like an argument.
    like: Callable[[Case], Any] | None = None
    tx: Any = jopt.chain(jopt.adam(1e-2, b1=jopt.tunable(0.8)), jopt.params_ema(0.9))


def params_of(c: Case) -> Any:
    return c.params


def state_of(c: Case) -> Any:
    return c.state


def fresh_state_of(c: Case) -> Any:
    return c.tx.init(c.params)


def both_of(c: Case) -> Any:
    return c.params, c.state


ADAM = jopt.adam(1e-2)
ACCUMULATED = jopt.accumulate(jopt.adam(1e-2), 2)
SCALED = jopt.dynamic_loss_scale(jopt.sgd(0.1))
TABLES = jopt.catch_up(jopt.sgd(0.1, momentum=0.9), "kernel")
ORDER = ["out", "dense/kernel", "dense/bias"]


def loss(params: Any) -> Any:
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


def value_and_grad(params: Any, *_: Any) -> Any:
    return jax.value_and_grad(loss)(params)


def saved(c: Case) -> str:
    path = tempfile.mkdtemp() + "/state.npz"
    arguments = {"params": c.params, "opt_state": c.state, "tx": c.tx}
    jopt.checkpoint.save(path, **arguments)
    return path


def restored(c: Case) -> Any:
    out = jopt.checkpoint.restore(saved(c), params=c.params, tx=c.tx)
    return out.params, out.opt_state


def restored_by_checkpointer(c: Case) -> Any:
    with jopt.checkpoint.Checkpointer(tempfile.mkdtemp()) as checkpointer:
        checkpointer.save(1, params=c.params, opt_state=c.state, tx=c.tx)
        out = checkpointer.restore(params=c.params, tx=c.tx)
    return out.params, out.opt_state


def halved(c: Case) -> Any:
    state = jopt.accumulate_grads(c.tx, c.grads, c.state, c.params)
    return jopt.emit(c.tx, state, c.params)


def caught_up(c: Case) -> Any:
    rows = jopt.RowSparse(jnp.array([1]), jnp.ones((1, 3)), 2)
    grads = c.make(GRADS[0], rows, GRADS[2])
    params, state = jopt.step(c.tx, grads, c.state, c.params)
    return jopt.caught_up(c.tx, state, params)


def optax_state(c: Case) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        params = nnx.as_pure(c.params)
        tx = optax.adam(1e-2)
        return tx.update(nnx.as_pure(c.grads), tx.init(params), params)[1]


def kept_by_optax(c: Case) -> Any:
    return jopt.interop.optax.from_optax_state(c.tx, c.params, optax_state(c))


def torch_state(c: Case) -> Any:
    like = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}
    return jopt.interop.torch.state_dict(c.tx, c.state, c.params, like, order=ORDER)


def loaded_from_torch(c: Case) -> Any:
    theirs = torch_state(c)
    return jopt.interop.torch.load_state_dict(c.tx, c.params, theirs, order=ORDER)


def keras_weights(c: Case) -> Any:
    return jopt.interop.keras.get_weights(
        c.tx, c.state, c.params, order=ORDER, layout="keras3"
    )


def loaded_from_keras(c: Case) -> Any:
    weights = keras_weights(c)
    return jopt.interop.keras.set_weights(
        c.tx, c.state, weights, c.params, order=ORDER, layout="keras3"
    )


def applied_by_train_state(c: Case) -> Any:
    state = jopt.interop.flax.TrainState.create(apply_fn=None, params=c.params, tx=c.tx)
    state = state.replace(opt_state=c.state).apply_gradients(grads=c.grads)
    state = state.set_hyperparams(learning_rate=0.5)
    return state.params, state.opt_state


def shapes_in_schema(c: Case) -> Any:
    entries = jopt.schema(c.tx, c.state)["entries"]
    return {name: np.zeros(x["shape"], x["dtype"]) for name, x in entries.items()}


def described(c: Case) -> Any:
    leaves = jopt.describe(c.tx, c.params).leaves
    return {x.path: np.array([x.param_bytes, x.state_bytes]) for x in leaves}


def range_tested(c: Case) -> Any:
    def loss(params: Any, batch: Any) -> Any:
        return sum(jnp.sum((x - batch.sum()) ** 2) for x in jax.tree.leaves(params))

    found = jopt.lr_range_test(c.tx, loss, c.params, jnp.zeros((1, 1)), steps=20)
    return {"losses": found.losses}


def sums_of_rest(c: Case) -> Any:
    return jopt.tree.map_params(
        c.tx, lambda x, p: x + p, c.state, c.params, params=c.params
    )


def unlike_params(c: Case) -> Any:
    return jopt.tree.map_params(
        c.tx, lambda x: 0 * x, c.state, transform_non_params=lambda x: x + 1
    )


CALLS: dict[str, Call] = {
    "init": Call(lambda c: c.tx.init(c.params)),
    "update": Call(
        lambda c: c.tx.update(c.grads, c.state, c.params),
        lambda c: (c.grads, c.state),
    ),
    "update of schedule_free": Call(
        lambda c: c.tx.update(c.grads, c.state, c.params),
        lambda c: (c.grads, c.state),
        jopt.schedule_free_adamw(1e-2),
    ),
    "update of lookahead": Call(
        lambda c: c.tx.update(c.grads, c.state, c.params),
        lambda c: (c.grads, c.state),
        jopt.lookahead(jopt.adam(1e-2), sync_period=2),
    ),
    "update of partition": Call(
        lambda c: c.tx.update(c.grads, c.state, c.params),
        lambda c: (c.grads, c.state),
        jopt.partition(
            {"sm3": jopt.sm3(0.1), "muon": jopt.muon(0.1)},
            jopt.rules(("kernel", "muon"), ("", "sm3")),
        ),
    ),
    "apply_updates": Call(lambda c: jopt.apply_updates(c.params, c.grads), params_of),
    "apply_updates of a state": Call(
        lambda c: jopt.apply_updates(c.params, c.state["scale_by_adam"].mu), params_of
    ),
    "step": Call(lambda c: jopt.step(c.tx, c.grads, c.state, c.params), both_of),
    "eval_params": Call(lambda c: jopt.eval_params(c.tx, c.state, c.params), params_of),
    "eval_params of schedule_free": Call(
        lambda c: jopt.eval_params(c.tx, c.state, c.params),
        params_of,
        jopt.schedule_free_sgd(0.1),
    ),
    "eval_params of lookahead": Call(
        lambda c: jopt.eval_params(c.tx, c.state, c.params),
        params_of,
        jopt.lookahead(jopt.adam(1e-2)),
    ),
    "eval_params with a default": Call(
        lambda c: jopt.eval_params(c.tx, c.state, c.params, default=c.params),
        params_of,
        ADAM,
    ),
    "hyperparams": Call(lambda c: jopt.hyperparams(c.state)),
    "set_hyperparams": Call(
        lambda c: jopt.set_hyperparams(c.tx, c.state, learning_rate=0.5, b1=0.7),
        state_of,
    ),
    "metrics": Call(lambda c: jopt.metrics(c.state), None, SCALED),
    "reset": Call(
        lambda c: jopt.reset(c.tx, c.state, c.params, "^params_ema|nu/dense"), state_of
    ),
    "set_counts": Call(lambda c: jopt.set_counts(c.state, 7), state_of),
    "set_counts of catch_up": Call(
        lambda c: jopt.set_counts(c.state, 7), state_of, TABLES
    ),
    "state_dict": Call(lambda c: jopt.state_dict(c.state)),
    "state_dict of a slot per axis": Call(
        lambda c: jopt.state_dict(c.state), None, jopt.sm3(0.1)
    ),
    "schema": Call(shapes_in_schema),
    "describe": Call(described),
    "memory": Call(lambda c: jopt.memory(c.tx, c.params).to_dict()),
    "wide_params": Call(
        lambda c: jopt.wide_params(c.state, c.params),
        params_of,
        jopt.bf16_params(jopt.adam(0.1), "ecc8"),
    ),
    "lr_range_test": Call(range_tested),
    "load_state_dict": Call(
        lambda c: jopt.load_state_dict(c.tx, c.params, jopt.state_dict(c.state)),
        fresh_state_of,
    ),
    "load_state_dict with gaps": Call(
        lambda c: jopt.load_state_dict(
            c.tx, c.params, {}, migrate=[jopt.Reset("")], strict=False
        ),
        fresh_state_of,
    ),
    "load_state_dict of a slot per axis": Call(
        lambda c: jopt.load_state_dict(c.tx, c.params, jopt.state_dict(c.state)),
        fresh_state_of,
        jopt.sm3(0.1),
    ),
    "checkpoint.save": Call(restored, lambda c: (c.params, fresh_state_of(c))),
    "checkpoint.restore": Call(restored, lambda c: (c.params, fresh_state_of(c))),
    "checkpoint.Checkpointer.save": Call(restored_by_checkpointer),
    "checkpoint.Checkpointer.restore": Call(restored_by_checkpointer),
    "accumulate_grads": Call(
        lambda c: jopt.accumulate_grads(c.tx, c.grads, c.state, c.params),
        state_of,
        ACCUMULATED,
    ),
    "emit": Call(halved, both_of, ACCUMULATED),
    "has_updated": Call(lambda c: jopt.has_updated(c.state), None, ACCUMULATED),
    "iterations": Call(lambda c: jopt.iterations(c.state)),
    "incremental_update": Call(
        lambda c: jopt.incremental_update(c.grads, c.params, 0.5), params_of
    ),
    "periodic_update": Call(
        lambda c: jopt.periodic_update(c.grads, c.params, 4, 2), params_of
    ),
    "scale_loss": Call(lambda c: jopt.scale_loss(c.state, 0.5), None, SCALED),
    "caught_up": Call(caught_up, both_of, TABLES),
    "skip_not_finite": Call(
        lambda c: jopt.skip_not_finite(c.grads, jnp.int32(0), c.params)
    ),
    "skip_large_updates": Call(
        lambda c: jopt.skip_large_updates(c.grads, jnp.int32(0), c.params, 1.0)
    ),
    "tree.get": Call(lambda c: jopt.tree.get(c.state, "scale_by_adam/count")),
    "tree.get of a slot": Call(lambda c: jopt.tree.get(c.state, "mu")),
    "tree.get_all_with_path": Call(
        lambda c: [x for _, x in jopt.tree.get_all_with_path(c.state, "count")]
    ),
    "tree.set": Call(lambda c: jopt.tree.set(c.state, count=3, mu=c.params), state_of),
    "tree.map_params": Call(sums_of_rest, state_of),
    "tree.map_params without params": Call(unlike_params, state_of),
    "tree.sub of an average": Call(
        lambda c: jopt.tree.sub(c.params, c.state["params_ema"].ema), params_of
    ),
    "tree.update_moment": Call(
        lambda c: jopt.tree.update_moment(c.grads, c.state["scale_by_adam"].mu, 0.9, 1)
    ),
    "gauss_newton_bartlett": Call(
        lambda c: jopt.gauss_newton_bartlett(
            jax.random.key(0), lambda p, key: loss(p), c.params
        )
    ),
    "hutchinson_estimator_diag_hessian": Call(
        lambda c: jopt.hutchinson_estimator_diag_hessian(
            jax.random.key(0), loss, c.params
        ),
        params_of,
    ),
    "hvp": Call(lambda c: jopt.hvp(loss, c.params, c.grads), params_of),
    "hessian_diag": Call(lambda c: jopt.hessian_diag(loss, c.params), params_of),
    "fisher_diag": Call(
        lambda c: jopt.fisher_diag(lambda p, x: x * loss(p), c.params, jnp.ones(())),
        params_of,
    ),
    "sam": Call(lambda c: jopt.sam(value_and_grad)(c.params)[1], params_of),
    "asam": Call(lambda c: jopt.asam(value_and_grad)(c.params)[1], params_of),
    "micro_batch": Call(
        lambda c: jopt.micro_batch(value_and_grad, 2)(c.params, jnp.ones((4, 2)))[1],
        params_of,
    ),
    "projections.projection_l2_ball": Call(
        lambda c: jopt.projections.projection_l2_ball(c.params), params_of
    ),
    "projections.projection_box": Call(
        lambda c: jopt.projections.projection_box(
            c.params, c.state["params_ema"].ema, 3.0
        ),
        params_of,
    ),
    "interop.optax.from_optax_state": Call(kept_by_optax, fresh_state_of, ADAM),
    "interop.optax.to_optax_state": Call(
        lambda c: jopt.interop.optax.to_optax_state(
            c.tx, c.state, c.params, optax_state(c)
        ),
        None,
        ADAM,
    ),
    "interop.torch.state_dict": Call(torch_state, None, ADAM),
    "interop.torch.load_state_dict": Call(loaded_from_torch, fresh_state_of, ADAM),
    "interop.keras.get_weights": Call(keras_weights, None, ADAM),
    "interop.keras.set_weights": Call(loaded_from_keras, state_of, ADAM),
    "interop.flax.TrainState": Call(applied_by_train_state, both_of),
}


def by_name(tree: Any) -> dict[str, Any]:
    """The arrays of any tree by path, found without jopt."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(nnx.as_pure(tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in pairs
    }


@functools.cache
def from_dicts(name: str) -> dict[str, Any]:
    return by_name(CALLS[name].run(arguments_in("dict", CALLS[name].tx)))


@pytest.mark.parametrize("container", list(CONTAINERS)[1:])
@pytest.mark.parametrize("name", CALLS)
def test_a_container_gives_the_results_of_a_dict(name: str, container: str) -> None:
    call = CALLS[name]
    expected = from_dicts(name)
    case = arguments_in(container, call.tx)
    result = call.run(case)
    if call.like is not None:
        assert jax.tree.structure(result) == jax.tree.structure(call.like(case))
    assert by_name(result).keys() == expected.keys()
    chex.assert_trees_all_close(by_name(result), expected, rtol=1e-6, atol=1e-7)


# Functions with such an argument that is not a tree of arrays.
OTHERS = {
    "leafwise": "the state is a class",
    "interop.keras.apply_gradients": "it takes pairs of a gradient and an array",
    "interop.keras.load": "it reads a file and calls set_weights",
}
PAGES = (
    jopt,
    jopt.tree,
    jopt.checkpoint,
    jopt.interop.optax,
    jopt.interop.keras,
    jopt.interop.torch,
)


def test_the_table_has_every_function_that_takes_a_state_or_parameters() -> None:
    names = {"state", "params", "opt_state", "optax_state"}
    found = set()
    for page in PAGES:
        prefix = page.__name__.removeprefix("jopt").removeprefix(".")
        for name, member in public(page).items():
            # optax's own names take what optax takes.
            names_of_optax = {*dir(optax), "StatefulSchedule"}
            if page is jopt.interop.optax and name in names_of_optax:
                continue
            functions = {name: member}
            if inspect.isclass(member):
                methods = vars(member).items()
                functions = {f"{name}.{n}": f for n, f in methods if n[0] != "_"}
            # torch's classes take params, too, but only for their groups.
            if isinstance(member, type) and issubclass(member, tuple):
                continue
            if page is jopt.interop.torch and name[0].isupper():
                continue
            for full, function in functions.items():
                if not inspect.isfunction(function):
                    continue
                if names & inspect.signature(function).parameters.keys():
                    found.add(f"{prefix}.{full}" if prefix else full)
    assert found - CALLS.keys() == OTHERS.keys()
