"""Our ``nnx.Optimizer``: numbers, learning rate, averages and checkpoints."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import jopt
from jopt.interop.flax import Optimizer


class Model(nnx.Module):
    """Layers with statistics, random keys, and a number that is not trained."""

    def __init__(self, seed: int = 0):
        rngs = nnx.Rngs(seed)
        self.dense = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(3, 1, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        self.calls[...] += 1
        return self.out(self.dropout(jnp.tanh(self.norm(self.dense(x)))))


X = jnp.linspace(-1, 1, 16).reshape(8, 2)
DENSE = nnx.All(nnx.Param, nnx.PathContains("dense"))

OPTIMIZERS = [
    jopt.chain(
        jopt.adamw(1e-2, weight_decay=0.1, mask="kernel$"), jopt.params_ema(0.5)
    ),
    jopt.schedule_free_adamw(1e-2),
    jopt.lookahead(jopt.sgd(0.1, momentum=0.9), sync_period=2),
    jopt.chain(
        jopt.partition(
            {"sm3": jopt.sm3(0.1), "muon": jopt.muon(0.1)},
            jopt.rules(("kernel", "muon"), ("", "sm3")),
        ),
        jopt.params_mean(),
    ),
]


def train_step(model: Model, optimizer: Any, x: jax.Array) -> jax.Array:
    def loss(model):
        return jnp.mean((model(x) - 1) ** 2)

    wrt = nnx.DiffState(0, optimizer.wrt)
    value, grads = nnx.value_and_grad(loss, argnums=wrt)(model)
    optimizer.update(model, grads)
    return value


class CountedStep:
    """A jitted step that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

        @nnx.jit
        def step(model, optimizer, x):
            self.traces += 1
            return train_step(model, optimizer, x)

        self.step = step

    def __call__(self, model: Any, optimizer: Any, times: int = 1) -> None:
        for k in range(times):
            self.step(model, optimizer, X + k)


def params_of(model: Any, wrt: Any = nnx.Param) -> Any:
    return nnx.state(model, wrt)


def arrays(tree: Any) -> list[Any]:
    """All arrays of a model or a state; keys as integers."""
    return [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(nnx.state(tree))
    ]


@pytest.mark.parametrize(
    ("tx", "wrt"), [(OPTIMIZERS[0], DENSE), *((tx, nnx.Param) for tx in OPTIMIZERS)]
)
def test_the_numbers_are_those_of_nnx_and_of_the_loop(tx: Any, wrt: Any) -> None:
    ours, flaxs, plain = Model(), Model(), Model()
    step, flax_step = CountedStep(), CountedStep()
    optimizer = Optimizer(ours, tx, wrt=wrt)
    step(ours, optimizer, 3)
    flax_step(flaxs, nnx.Optimizer(flaxs, tx, wrt=wrt), 3)
    assert step.traces == 1
    assert isinstance(optimizer, nnx.Optimizer)
    chex.assert_trees_all_equal(params_of(ours), params_of(flaxs))

    graphdef, params, rest = nnx.split(plain, wrt, ...)
    state = tx.init(params)

    def loss(params, rest, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.mean((model(x) - 1) ** 2), nnx.split(model, wrt, ...)[2]

    for k in range(3):
        grads, rest = jax.jit(jax.grad(loss, has_aux=True))(params, rest, X + k)
        params, state = jopt.step(tx, grads, state, params)
    chex.assert_trees_all_close(params_of(ours, wrt), params, rtol=1e-4, atol=1e-6)
    averaged = jopt.eval_params(tx, state, params)
    found = params_of(optimizer.eval_model(ours), wrt)
    chex.assert_trees_all_close(found, averaged, rtol=1e-4, atol=1e-6)


# The learning rate.


def test_the_learning_rate_is_read_and_set_without_a_new_trace() -> None:
    model, step = Model(), CountedStep()
    optimizer = Optimizer(model, jopt.sgd(0.1), wrt=nnx.Param)
    assert math.isclose(optimizer.learning_rate, 0.1, rel_tol=1e-6)
    step(model, optimizer)
    optimizer.learning_rate = 0.0
    before = arrays(params_of(model))
    step(model, optimizer)
    chex.assert_trees_all_equal(arrays(params_of(model)), before)
    optimizer.set_hyperparams(learning_rate=jnp.float32(0.5))
    step(model, optimizer)
    assert float(optimizer.learning_rate) == 0.5
    assert optimizer.hyperparams.keys() == {"learning_rate"}
    assert step.traces == 1


def test_the_learning_rate_is_read_and_set_inside_a_compiled_step() -> None:
    model = Model()
    optimizer = Optimizer(model, jopt.sgd(0.5), wrt=nnx.Param)

    @nnx.jit
    def halve(optimizer):
        optimizer.learning_rate = optimizer.learning_rate / 2
        return optimizer.learning_rate

    assert [float(halve(optimizer)) for _ in range(2)] == [0.25, 0.125]
    assert float(optimizer.learning_rate) == 0.125


def test_a_scheduled_learning_rate_is_read_and_not_set() -> None:
    model, step = Model(), CountedStep()
    schedule = jopt.linear_schedule(0.1, 1.1, 10)
    optimizer = Optimizer(model, jopt.adam(schedule), wrt=nnx.Param)
    step(model, optimizer, 2)
    assert math.isclose(optimizer.learning_rate, 0.2, rel_tol=1e-6)
    with pytest.raises(ValueError, match="schedule"):
        optimizer.learning_rate = 0.3


def test_an_optimizer_without_a_learning_rate_says_what_it_has() -> None:
    tx = jopt.scale_by_adam(b1=jopt.tunable(0.9))
    optimizer = Optimizer(Model(), tx, wrt=nnx.Param)
    with pytest.raises(AttributeError, match=r"hyperparameters are \['b1'\]"):
        _ = optimizer.learning_rate
    with pytest.raises(KeyError, match="no hyperparameter 'learning_rate'"):
        optimizer.learning_rate = 0.1


# The model to evaluate.


def test_the_evaluated_model_is_a_copy_with_everything_else_of_the_model() -> None:
    model, step = Model(), CountedStep()
    optimizer = Optimizer(model, OPTIMIZERS[0], wrt=nnx.Param)
    step(model, optimizer, 2)
    before = arrays(model)
    copy = optimizer.eval_model(model)
    assert isinstance(copy, Model)
    chex.assert_trees_all_equal(
        nnx.state(copy, nnx.BatchStat), nnx.state(model, nnx.BatchStat)
    )
    copy.train()
    copy(X)
    copy.dense.kernel[...] *= 0
    chex.assert_trees_all_equal(arrays(model), before)


def test_the_evaluated_model_works_inside_a_compiled_function() -> None:
    model = Model()
    optimizer = Optimizer(model, OPTIMIZERS[1], wrt=nnx.Param)
    CountedStep()(model, optimizer, 2)

    @nnx.jit
    def predict(model, optimizer, x):
        averaged = optimizer.eval_model(model)
        averaged.eval()
        return averaged(x)

    averaged = optimizer.eval_model(model)
    averaged.eval()
    chex.assert_trees_all_close(
        predict(model, optimizer, X), averaged(X), rtol=1e-5, atol=1e-6
    )


def test_without_an_average_the_evaluated_model_is_the_default_or_an_error() -> None:
    model = Model()
    optimizer = Optimizer(model, jopt.sgd(0.1), wrt=nnx.Param)
    assert optimizer.eval_model(model, default=model) is model
    with pytest.raises(ValueError, match="keeps no parameters besides those"):
        optimizer.eval_model(model)
    averaging = Optimizer(model, OPTIMIZERS[0], wrt=nnx.Param)
    assert averaging.eval_model(model, default=model) is not model


# Checkpoints.


@pytest.mark.parametrize(
    ("name", "wrt"),
    [
        ("run", nnx.Param),
        ("run.npz", nnx.Param),
        ("run.npz", DENSE),
        ("run.safetensors", nnx.Param),
        ("run.msgpack", nnx.Param),
    ],
)
def test_a_restored_run_continues_with_the_same_bits(
    name: str, wrt: Any, tmp_path: Any
) -> None:
    model, step = Model(), CountedStep()
    optimizer = Optimizer(model, OPTIMIZERS[0], wrt=wrt)
    step(model, optimizer, 2)
    path = optimizer.save(tmp_path / name, model, metadata={"epoch": 1})
    step(model, optimizer, 2)

    resumed = Model(seed=1)
    again = Optimizer(resumed, OPTIMIZERS[0], wrt=wrt)
    restored = again.restore(path, resumed)
    assert (restored.step, restored.metadata) == (2, {"epoch": 1})
    assert int(again.step[...]) == int(resumed.calls[...]) == 2
    step(resumed, again, 2)
    assert step.traces == 1
    chex.assert_trees_all_equal(arrays(resumed), arrays(model))
    chex.assert_trees_all_equal(arrays(again), arrays(optimizer))


@pytest.mark.parametrize("tx", OPTIMIZERS[1:], ids=repr)
def test_every_average_is_restored(tx: Any, tmp_path: Any) -> None:
    model, step = Model(), CountedStep()
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    step(model, optimizer, 3)
    path = optimizer.save(tmp_path / "run.npz", model)
    resumed = Model(seed=1)
    again = Optimizer(resumed, tx, wrt=nnx.Param)
    again.restore(path, resumed)
    chex.assert_trees_all_equal(
        arrays(again.eval_model(resumed)), arrays(optimizer.eval_model(model))
    )


def test_a_changed_recipe_restores_by_name(tmp_path: Any) -> None:
    model, step = Model(), CountedStep()
    optimizer = Optimizer(model, jopt.adam(1e-2), wrt=nnx.Param)
    step(model, optimizer, 2)
    path = optimizer.save(tmp_path / "run.npz", model)

    tx = jopt.chain(jopt.clip(1.0), jopt.adam(2e-2), jopt.params_ema(0.9))
    again = Optimizer(model, tx, wrt=nnx.Param)
    with pytest.raises(ValueError, match="missing: 'params_ema/count'"):
        again.restore(path, model)
    assert int(again.step[...]) == 0
    with pytest.warns(UserWarning, match="learning_rate"):
        again.restore(path, model, migrate=[jopt.Reset("^params_ema")])
    assert math.isclose(again.learning_rate, 1e-2, rel_tol=1e-6)
    with pytest.warns(UserWarning, match="learning_rate"):
        again.restore(
            path, model, migrate=[jopt.Reset("^params_ema")], hyperparams="recipe"
        )
    assert math.isclose(again.learning_rate, 2e-2, rel_tol=1e-6)
    chex.assert_trees_all_equal(
        again.opt_state["scale_by_adam"].mu, optimizer.opt_state["scale_by_adam"].mu
    )
    average = again.eval_model(model)
    chex.assert_trees_all_equal(params_of(average), params_of(model))


def test_a_checkpoint_of_another_model_lists_what_differs(tmp_path: Any) -> None:
    model = Model()
    path = Optimizer(model, jopt.sgd(0.1), wrt=nnx.Param).save(tmp_path / "m", model)
    other = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="params/kernel is not in the checkpoint"):
        Optimizer(other, jopt.sgd(0.1), wrt=nnx.Param).restore(path, other)


def test_the_state_dict_is_that_of_a_dict_and_leads_back() -> None:
    model, step = Model(), CountedStep()
    optimizer = Optimizer(model, jopt.adam(1e-2), wrt=DENSE)
    step(model, optimizer, 2)
    flat = optimizer.state_dict()
    params = {"dense": nnx.to_pure_dict(params_of(model.dense))}
    assert list(flat) == list(jopt.state_dict(jopt.adam(1e-2).init(params)))
    again = Optimizer(model, jopt.adam(1e-2), wrt=DENSE)
    again.load_state_dict(model, flat)
    chex.assert_trees_all_equal(again.state_dict(), flat)
    with pytest.raises(ValueError, match="missing: 'scale_by_adam/count'"):
        again.load_state_dict(model, {})


def test_a_number_in_a_variable_is_saved_as_an_array(tmp_path: Any) -> None:
    model = nnx.Dict(w=nnx.Param(jnp.ones(2)), n=nnx.Variable(3))
    optimizer = Optimizer(model, jopt.sgd(0.1), wrt=nnx.Param)
    path = optimizer.save(tmp_path / "n.npz", model)
    model["n"].set_value(4)
    optimizer.restore(path, model)
    assert int(model["n"].get_value()) == 3


def test_an_optax_optimizer_is_saved_and_restored(tmp_path: Any) -> None:
    with jax.numpy_dtype_promotion("standard"):
        model, step = Model(), CountedStep()
        optimizer = Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
        step(model, optimizer, 2)
        path = optimizer.save(tmp_path / "run.npz", model)
        step(model, optimizer)
        again = Optimizer(model2 := Model(1), optax.adam(1e-2), wrt=nnx.Param)
        again.restore(path, model2)
        step(model2, again)
    chex.assert_trees_all_equal(arrays(params_of(model2)), arrays(params_of(model)))
