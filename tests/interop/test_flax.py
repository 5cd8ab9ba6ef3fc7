"""jopt in Flax: its TrainState and nnx.Optimizer as they are, and our TrainState."""

import math
import subprocess
import sys
from typing import Any, NamedTuple

import chex
import flax.struct
import flax.training.train_state
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint
import pytest
from flax import nnx, serialization
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT

import jopt
from jopt.interop.flax import TrainState


FlaxTrainState = flax.training.train_state.TrainState

KERNEL = jnp.linspace(-1, 1, 6).reshape(2, 3)
PARAMS = {"dense": {"bias": jnp.ones(3), "kernel": KERNEL}}
GRADS = [jax.tree.map(lambda p, k=k: 0.1 * p + k, PARAMS) for k in (1.0, -2.0, 0.5)]


def ramp() -> jopt.Schedule:
    """0.1, 0.2, 0.3, …"""
    return jopt.linear_schedule(0.1, 1.1, 10)


OPTIMIZERS = [
    jopt.adamw(1e-2, weight_decay=0.1, mask="kernel$"),
    jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(ramp(), momentum=0.9)),
    jopt.adam(jopt.tunable(1e-2), b1=jopt.tunable(0.8)),
]


def alone(tx: Any, params: Any = PARAMS, grads: Any = GRADS) -> Any:
    """The parameters after a step with each of the gradients, in a plain loop."""
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = jopt.apply_updates(params, updates)
    return params


def minus(params: Any, learning_rate: float, grads: Any) -> Any:
    """A step of plain gradient descent."""
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, grads)


def fresh(tree: Any) -> Any:
    """A copy that may be donated."""
    return jax.tree.map(jnp.copy, tree)


class CountedStep:
    """A jitted ``apply_gradients`` that counts how often it is traced."""

    def __init__(self, **jit: Any):
        self.traces = 0
        self.jitted = jax.jit(self.step, **jit)

    def step(self, state: Any, grads: Any) -> Any:
        self.traces += 1
        return state.apply_gradients(grads=grads)

    def __call__(self, state: Any, grads: Any) -> Any:
        return self.jitted(state, grads)


def scale_by_value():
    """Multiplies by the extra argument ``value``, which it requires."""
    return jopt.leafwise(lambda g, *, value: value * g, lambda value: {"value": value})


def test_importing_jopt_does_not_import_flax_or_optax():
    code = "import sys, jopt; sys.exit(bool({'flax', 'optax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Flax's own TrainState.


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_flax_train_state_takes_jopt_as_it_is(tx):
    state = FlaxTrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    for g in GRADS:
        state = state.apply_gradients(grads=g)
    assert state.step == len(GRADS)
    chex.assert_trees_all_close(state.params, alone(tx), rtol=1e-6)


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_flax_train_state_can_be_donated_to_a_jitted_step(tx):
    state = FlaxTrainState.create(apply_fn=None, params=fresh(PARAMS), tx=tx)
    step = CountedStep(donate_argnums=0)
    first = state
    for g in GRADS:
        state = step(state, g)
    assert all(x.is_deleted() for x in jax.tree.leaves(first.params))
    chex.assert_trees_all_close(state.params, alone(tx), rtol=1e-6)


def test_an_equal_optimizer_made_again_does_not_trace_flax_step_again():
    step = CountedStep()
    for _ in range(3):
        tx = jopt.chain(jopt.clip(1.0), jopt.adam(ramp(), b1=0.8))
        state = FlaxTrainState.create(apply_fn=None, params=PARAMS, tx=tx)
        state = step(state.replace(step=jnp.zeros((), jnp.int32)), GRADS[0])
    assert step.traces == 1
    other = jopt.chain(jopt.clip(1.0), jopt.adam(ramp(), b1=0.7))
    step(state.replace(tx=other), GRADS[0])
    assert step.traces == 2


# nnx.Optimizer.


class Model(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        self.dense.kernel[...] = PARAMS["dense"]["kernel"]
        self.dense.bias[...] = PARAMS["dense"]["bias"]


def nnx_grads(model: Model, grads: Any) -> Any:
    """The gradients as ``nnx.grad`` returns them."""
    structure = jax.tree.structure(nnx.state(model, nnx.Param))
    return structure.unflatten(jax.tree.leaves(grads))


def nnx_params(model: Model) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


class CountedNnxStep:
    """A nnx-jitted ``Optimizer.update`` that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

        @nnx.jit
        def step(model, optimizer, grads, extra):
            self.traces += 1
            optimizer.update(model, grads, **extra)
            return jopt.hyperparams(optimizer.opt_state)

        self.jitted = step

    def __call__(self, model, optimizer, grads, **extra):
        return self.jitted(model, optimizer, nnx_grads(model, grads), extra)


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_nnx_optimizer_takes_jopt_as_it_is(tx):
    model = Model()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    step = CountedNnxStep()
    for g in GRADS:
        step(model, optimizer, g)
    assert step.traces == 1
    assert int(optimizer.step[...]) == len(GRADS)
    chex.assert_trees_all_close(nnx_params(model), alone(tx), rtol=1e-6)


def test_nnx_optimizer_passes_extra_arguments_on():
    model = Model()
    tx = jopt.chain(scale_by_value(), jopt.sgd(0.1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    CountedNnxStep()(model, optimizer, GRADS[0], value=jnp.float32(10))
    expected = alone(jopt.sgd(1.0), grads=GRADS[:1])
    chex.assert_trees_all_close(nnx_params(model), expected, rtol=1e-6)


def test_a_regular_expression_masks_the_same_leaves_in_nnx_init_and_update():
    class Sum(NamedTuple):
        total: Any

    model = Model()
    tx = jopt.leafwise(
        lambda g, total: (total + g, total + g),
        state=Sum,
        mask="dense/kernel$",
        total=jopt.zeros(),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    assert [x.shape for x in jax.tree.leaves(optimizer.opt_state)] == [KERNEL.shape]
    update = nnx.jit(lambda model, optimizer, g: optimizer.update(model, g))
    for _ in range(2):
        updates = update(model, optimizer, nnx_grads(model, GRADS[0]))
    bias, kernel = GRADS[0]["dense"].values()
    chex.assert_trees_all_close(updates["dense"]["bias"], bias)
    chex.assert_trees_all_close(updates["dense"]["kernel"], 2 * kernel)


def test_the_hyperparameters_of_an_nnx_optimizer_can_be_read_and_set():
    model, step = Model(), CountedNnxStep()
    tx = jopt.chain(jopt.clip(10.0), jopt.sgd(0.1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    inside = step(model, optimizer, GRADS[0])
    assert float(inside["learning_rate"]) == pytest.approx(0.1)
    outside = jopt.hyperparams(optimizer.opt_state)
    assert float(outside["learning_rate"]) == pytest.approx(0.1)

    changed = jopt.set_hyperparams(tx, optimizer.opt_state, learning_rate=0.5)
    nnx.update(optimizer.opt_state, nnx.state(changed))
    before = nnx_params(model)
    assert float(step(model, optimizer, GRADS[1])["learning_rate"]) == 0.5
    expected = minus(before, 0.5, GRADS[1])
    chex.assert_trees_all_close(nnx_params(model), expected, rtol=1e-6)
    assert step.traces == 1


def test_the_scheduled_learning_rate_of_an_nnx_optimizer_can_be_read():
    model = Model()
    optimizer = nnx.Optimizer(model, jopt.adam(ramp()), wrt=nnx.Param)
    for k, g in enumerate(GRADS):
        optimizer.update(model, nnx_grads(model, g))
        used = jopt.hyperparams(optimizer.opt_state)["learning_rate"]
        assert float(used) == pytest.approx(0.1 * (k + 1))


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_a_checkpoint_goes_into_the_state_of_an_nnx_optimizer(tx, tmp_path):
    model, step = Model(), CountedNnxStep()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    step(model, optimizer, GRADS[0])
    params = nnx.state(model, nnx.Param)
    path = tmp_path / "step_1.npz"
    jopt.checkpoint.save(path, params=params, opt_state=optimizer.opt_state, tx=tx)
    step(model, optimizer, GRADS[1])

    resumed = Model()
    again = nnx.Optimizer(resumed, tx, wrt=nnx.Param)
    params = nnx.state(resumed, nnx.Param)
    restored = jopt.checkpoint.restore(path, params=params, tx=tx)
    nnx.update(resumed, restored.params)
    nnx.update(again.opt_state, nnx.state(restored.opt_state))
    step(resumed, again, GRADS[1])
    assert step.traces == 1
    chex.assert_trees_all_equal(nnx_params(resumed), nnx_params(model))
    chex.assert_trees_all_equal(
        jax.tree.leaves(again.opt_state), jax.tree.leaves(optimizer.opt_state)
    )


def test_an_equal_optimizer_made_again_does_not_trace_an_nnx_step_again():
    step = CountedNnxStep()
    for b1, traces in [(0.8, 1), (0.8, 1), (0.8, 1), (0.7, 2)]:
        model = Model()
        optimizer = nnx.Optimizer(model, jopt.adam(ramp(), b1=b1), wrt=nnx.Param)
        step(model, optimizer, GRADS[0])
        assert step.traces == traces


# Our TrainState.


def create(tx: Any, params: Any = PARAMS, cls: Any = TrainState, **fields: Any) -> Any:
    return cls.create(apply_fn=None, params=params, tx=tx, **fields)


class NormedState(TrainState):
    batch_stats: Any
    value: Any = None


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_train_state_gives_the_numbers_of_the_optimizer_alone(tx):
    state = create(tx)
    assert isinstance(state, FlaxTrainState)
    for g in GRADS:
        state = state.apply_gradients(grads=g)
    # One rounding less: the sum is compiled together with the update.
    chex.assert_trees_all_close(state.params, alone(tx), rtol=1e-6)
    assert (state.step, state.step.dtype) == (len(GRADS), jnp.int32)


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_a_jitted_train_step_is_compiled_exactly_once_and_takes_donations(tx):
    state, step = create(tx, fresh(PARAMS)), CountedStep(donate_argnums=0)
    for g in GRADS:
        state = step(state, g)
    assert step.traces == 1
    chex.assert_trees_all_close(state.params, alone(tx), rtol=1e-6)


def test_an_equal_optimizer_made_again_finds_the_compiled_train_step():
    step = CountedStep()
    for learning_rate in (0.1, 0.1, 0.1):
        step(create(jopt.adam(learning_rate)), GRADS[0])
    assert step.traces == 1


def test_extra_arguments_that_the_optimizer_declares_go_to_its_update():
    state = create(jopt.chain(scale_by_value(), jopt.sgd(0.1)))
    state = state.apply_gradients(grads=GRADS[0], value=10.0)
    chex.assert_trees_all_close(
        state.params, alone(jopt.sgd(1.0), grads=GRADS[:1]), rtol=1e-6
    )


def test_other_arguments_replace_fields_of_a_subclass():
    state = create(jopt.sgd(0.1), cls=NormedState, batch_stats={"mean": 0.0})
    new = state.apply_gradients(grads=GRADS[0], batch_stats={"mean": 1.0})
    assert (state.batch_stats, new.batch_stats) == ({"mean": 0.0}, {"mean": 1.0})


def test_an_argument_that_is_declared_and_a_field_is_used_as_both():
    state = create(scale_by_value(), cls=NormedState, batch_stats=None)
    state = state.apply_gradients(grads=GRADS[0], value=-0.1)
    assert state.value == -0.1
    chex.assert_trees_all_close(state.params, alone(jopt.sgd(0.1), grads=GRADS[:1]))


@pytest.mark.parametrize(
    ("misspelt", "meant"), [("valu", "value"), ("batch_stat", "batch_stats")]
)
def test_a_misspelt_argument_is_an_error_that_names_it(misspelt, meant):
    state = create(scale_by_value(), cls=NormedState, batch_stats=None)
    message = f"got an unknown argument '{misspelt}'. Did you mean '{meant}'"
    with pytest.raises(TypeError, match=message):
        state.apply_gradients(grads=GRADS[0], value=1.0, **{misspelt: 1.0})


def test_replacing_the_params_while_they_are_updated_is_an_error():
    with pytest.raises(TypeError, match=r"multiple values .* 'params'"):
        create(jopt.sgd(0.1)).apply_gradients(grads=GRADS[0], params=PARAMS)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit])
def test_the_learning_rate_can_be_read_inside_and_outside_of_jit(jit):
    state = create(jopt.adam(ramp(), b1=jopt.tunable(0.8)))
    for k, g in enumerate(GRADS):
        state = jit(lambda state, g: state.apply_gradients(grads=g))(state, g)
        used = pytest.approx(0.1 * (k + 1))
        assert float(jit(lambda state: state.learning_rate)(state)) == used
        found = jit(lambda state: state.hyperparams)(state)
        floats = {name: float(x) for name, x in found.items()}
        assert floats == {"learning_rate": used, "b1": pytest.approx(0.8)}


def test_hyperparameters_are_set_without_compiling_again():
    state, step = create(jopt.sgd(0.1)), CountedStep()
    for learning_rate in (0.1, 0.2, 0.3):
        state = state.set_hyperparams(learning_rate=learning_rate)
        before, state = state.params, step(state, GRADS[0])
        expected = minus(before, learning_rate, GRADS[0])
        chex.assert_trees_all_close(state.params, expected, rtol=1e-6)
    assert step.traces == 1


def test_setting_a_scheduled_learning_rate_is_an_error():
    with pytest.raises(
        ValueError, match=r"'learning_rate' is scheduled by linear_schedule"
    ):
        create(jopt.sgd(ramp())).set_hyperparams(learning_rate=0.1)


def test_a_state_without_a_learning_rate_says_what_it_has():
    state = create(jopt.trace(jopt.tunable(0.9)))
    assert not hasattr(state, "learning_rate")
    with pytest.raises(AttributeError, match=r"its hyperparameters are \['decay'\]"):
        _ = state.learning_rate


@flax.struct.dataclass
class Dataclass:
    w: Any


class Pair(NamedTuple):
    w: Any
    nothing: Any = None


@pytest.mark.parametrize(
    "params",
    [jnp.ones(3), Dataclass(jnp.ones(3)), Pair(jnp.ones(3)), (jnp.ones(3),)],
    ids=["array", "dataclass", "namedtuple", "tuple"],
)
@pytest.mark.parametrize("tx", [jopt.sgd(0.5), optax.sgd(0.5)], ids=["jopt", "optax"])
def test_params_may_be_any_pytree(tx, params):
    state = create(tx, params).apply_gradients(grads=params)
    chex.assert_trees_all_equal(state.params, jax.tree.map(lambda p: 0.5 * p, params))


def test_params_may_be_an_equinox_module():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, 1, 4, depth=1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = TrainState.create(apply_fn=static, params=params, tx=jopt.sgd(0.5))

    def loss(params):
        return eqx.combine(params, state.apply_fn)(jnp.ones(2)).sum()

    grads = jax.grad(loss)(params)
    new = jax.jit(lambda state, g: state.apply_gradients(grads=g))(state, grads)
    expected = minus(params, 0.5, grads)
    chex.assert_trees_all_close(new.params, expected, rtol=1e-6)
    assert loss(new.params) < loss(params)


def test_the_gradients_of_fp8_statistics_overwrite_them_as_in_flax():
    def split(params, statistics):
        return {"params": params, OVERWRITE_WITH_GRADIENT: {"scale": statistics}}

    params, grads = split(PARAMS, jnp.ones(2)), split(GRADS[0], jnp.full(2, 7.0))
    ours = create(jopt.adam(0.1), params).apply_gradients(grads=grads)
    flaxs = create(jopt.adam(0.1), params, FlaxTrainState).apply_gradients(grads=grads)
    chex.assert_trees_all_equal(ours.params[OVERWRITE_WITH_GRADIENT]["scale"], 7.0)
    chex.assert_trees_all_equal(ours.params, flaxs.params)
    chex.assert_trees_all_equal(ours.opt_state, flaxs.opt_state)


def test_an_optax_optimizer_gives_the_numbers_that_it_gives_in_flax():
    with jax.numpy_dtype_promotion("standard"):
        tx, step = optax.adam(0.1), CountedStep()
        ours, flaxs = create(tx), create(tx, cls=FlaxTrainState)
        for g in GRADS:
            ours, flaxs = step(ours, g), flaxs.apply_gradients(grads=g)
    chex.assert_trees_all_close(ours.params, flaxs.params, rtol=1e-6)
    assert step.traces == 1


def test_an_optax_optimizer_gets_extra_arguments_and_the_state_its_fields():
    plateau = optax.contrib.reduce_on_plateau(patience=1, factor=0.1)
    with jax.numpy_dtype_promotion("standard"):
        tx = optax.chain(optax.sgd(0.5), plateau)
        state = create(tx, cls=NormedState, batch_stats=0)
        for k in range(3):
            before = state.params
            state = state.apply_gradients(grads=GRADS[0], value=1.0, batch_stats=k)
    expected = minus(before, 0.5 * 0.01, GRADS[0])
    chex.assert_trees_all_close(state.params, expected, rtol=1e-5)
    assert state.batch_stats == 2


# Checkpoints.


def trained(tx: Any) -> TrainState:
    return create(tx).apply_gradients(grads=GRADS[0])


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_a_state_comes_back_from_flax_msgpack_and_continues_alike(tx):
    state, step = trained(tx), CountedStep()
    expected = step(state, GRADS[1])
    restored = serialization.from_bytes(create(tx), serialization.to_bytes(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal(restored.hyperparams, state.hyperparams)
    chex.assert_trees_all_equal(step(restored, GRADS[1]), expected)
    assert step.traces == 1


def test_the_state_dict_of_flax_has_the_names_of_members_and_fields():
    found = serialization.to_state_dict(trained(OPTIMIZERS[2]).opt_state)
    assert {name: set(fields) for name, fields in found.items()} == {
        "scale_by_adam": {"count", "mu", "nu", "b1"},
        "scale_by_learning_rate": {"count", "learning_rate"},
    }
    assert found["scale_by_adam"]["mu"].keys() == PARAMS.keys()


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_a_state_comes_back_from_orbax_and_continues_alike(tx, tmp_path):
    state = trained(tx)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        target = jax.eval_shape(lambda: create(tx))
        restored = checkpointer.restore(tmp_path / "state", target)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal(
        restored.apply_gradients(grads=GRADS[1]), state.apply_gradients(grads=GRADS[1])
    )


def test_a_changed_learning_rate_survives_a_checkpoint():
    state = create(jopt.adam(0.1)).set_hyperparams(learning_rate=0.03)
    data = serialization.to_bytes(state)
    restored = serialization.from_bytes(create(jopt.adam(0.1)), data)
    assert math.isclose(restored.learning_rate, 0.03, rel_tol=1e-6)
    again = restored.set_hyperparams(learning_rate=0.02)
    assert math.isclose(again.learning_rate, 0.02, rel_tol=1e-6)
