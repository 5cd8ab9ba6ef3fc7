"""Files that Keras saved: the optimizer and its state go on as in Keras."""

import functools
import importlib.util
import io
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import keras
from tests.parity import keras_files, states
from tests.parity.problem import GRADS, PARAMS, flat
from tests.parity.process import result_of
from tests.parity.states import HALF, STEPS
from tests.public import public


ORDER = ["dense/kernel", "dense/bias"]


@functools.cache
def golden():
    """The files, and where Keras ended."""
    return keras_files.opened(keras_files.GOLDEN)


def config_of(content):
    """The config of the optimizer in a file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read("config.json"))["compile_config"]["optimizer"]


def opened(text, folder):
    """The optimizer of a file, its state, and the parameters."""
    content = golden()[0][text]
    path = folder / keras_files.name_of(text)
    path.write_bytes(content)
    tx = keras.get(config_of(content))
    params = {"dense": jax.tree.map(jnp.asarray, keras_files.layer(content))}
    return tx, keras.load(path, tx, params, order=ORDER), params


@pytest.mark.parametrize("text", keras_files.TEXTS)
def test_what_a_file_of_keras_holds_goes_on_as_in_keras(text, tmp_path):
    pytest.importorskip("h5py")
    tx, state, params = opened(text, tmp_path)
    assert keras.serialize(tx) == config_of(golden()[0][text])

    def step(carry, grads):
        params, state = carry
        return jopt.step(tx, {"dense": grads}, state, params), None

    grads = {n: jnp.asarray(g[HALF:STEPS], jnp.float32) for n, g in GRADS.items()}
    run = jax.jit(lambda *carry: jax.lax.scan(step, carry, grads)[0][0])
    end = flat(run(params, state)["dense"])
    np.testing.assert_allclose(end, golden()[1][text], 2e-6, 2e-6)
    # The state matters, and so does what Keras did in the first six steps.
    fresh = flat(run(params, tx.init(params))["dense"])
    assert np.abs(fresh - golden()[1][text]).max() > 1e-4


def test_the_files_are_those_of_the_installed_keras(tmp_path):
    for name in ("keras", "h5py"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    path = tmp_path / "optimizers.zip"
    result_of("keras_files", "optimizers", str(path), x64=False)
    files, ends = keras_files.opened(path)
    assert list(ends) == keras_files.TEXTS
    for text, content in files.items():
        np.testing.assert_allclose(ends[text], golden()[1][text], 1e-6, 1e-6)
        assert config_of(content) == config_of(golden()[0][text])


def written(path, version, weights, optimizer="Adam"):
    """A file of a model as Keras writes it, with these weights of an optimizer."""
    h5py = pytest.importorskip("h5py")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for i, x in enumerate(weights):
            file[f"optimizer/vars/{i}"] = x
    if optimizer[0].isupper():
        optimizer = {"class_name": optimizer, "config": {}}
    config = {"compile_config": {"optimizer": optimizer}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())


def test_the_version_in_a_file_tells_the_order_of_its_weights(tmp_path):
    # With a schedule, and parameters of one shape, the weights would fit in two orders.
    tx = keras.Adam(keras.ExponentialDecay(0.5, 10, 0.5))
    params = [jnp.ones(2), jnp.ones(2)]
    m_a, v_a, m_b, v_b = (np.full(2, x, np.float32) for x in (1, 2, 3, 4))
    weights = [np.int32(6), m_a, v_a, m_b, v_b]
    with pytest.raises(ValueError, match="which mean different things"):
        keras.set_weights(tx, tx.init(params), weights, params)
    for version in ("3.15.1", "2.15.0"):
        written(tmp_path / "model.keras", version, weights)
        state = keras.load(tmp_path / "model.keras", tx, params)["scale_by_adam"]
        np.testing.assert_array_equal([*state.mu, *state.nu], [m_a, m_b, v_a, v_b])
    with pytest.raises(ValueError, match=r"Adam, but .* the state of MultiOptimizer"):
        multi = keras.MultiOptimizer(keras.OptimizerMap(keras.SGD()))
        keras.load(tmp_path / "model.keras", multi, params)


def test_a_model_that_was_compiled_by_name_or_has_a_loss_scale_is_loaded(tmp_path):
    # Keras 2 wrote the name as it was given, and did not save the loss scale.
    path, weights = tmp_path / "model.keras", [np.int64(6), np.full(2, 3.0)]
    written(path, "2.15.0", weights, "rmsprop")
    params, rate = [jnp.ones(2)], jopt.constant_schedule(0.1)
    state = keras.load(path, keras.get("rmsprop"), params)
    np.testing.assert_array_equal(state["scale_by_rms"].nu[0], weights[1])
    scaled = keras.legacy.LossScaleOptimizer(keras.RMSprop(rate), initial_scale=4.0)
    with pytest.warns(UserWarning, match="no loss scale, which Keras 2 did not save"):
        state = keras.load(path, scaled, params)
    assert float(jopt.scale_loss(state, 1.0)) == 4.0
    (found,) = (x for x in jax.tree.leaves(state) if x.shape == (2,))
    np.testing.assert_array_equal(found, weights[1])
    with pytest.raises(ValueError, match="has no place for"):
        keras.get_weights(scaled, state, params, layout="keras2.11")


@pytest.mark.parametrize("row", states.rows_of("keras"), ids=lambda row: row.jopt)
def test_weights_of_the_wrong_number_shape_or_order_are_refused(row):
    tx = eval(row.jopt, public(jopt))
    params = {n: jnp.asarray(p, jnp.float32) for n, p in PARAMS.items()}
    state, order = tx.init(params), list(PARAMS)
    given = {"order": order, "layout": "keras3"}
    weights = keras.get_weights(tx, state, params, **given)
    # Keras itself takes a list that is too short, and does a part of it.
    for wrong in (weights[:-1], [*weights, np.zeros(4)], weights[1:], []):
        if len(wrong) == 1 and wrong[0].dtype == np.int32:
            continue  # an SGD with a schedule
        message = (
            f"there are {len(wrong)} weights( of|,) |first .* is that the learning rate"
        )
        with pytest.raises(ValueError, match=message):
            keras.set_weights(tx, state, wrong, params, **given)
    shapes = [w.shape for w in weights]
    if any(shapes):
        i = max(range(len(shapes)), key=lambda i: shapes[i])
        wrong = [*weights[:i], np.ones((4, 3)), *weights[i + 1 :]]
        with pytest.raises(ValueError, match=r"of the shapes \[.*\(4, 3\).*has \d+: "):
            keras.set_weights(tx, state, wrong, params, **given)
    if shapes[1] == ():  # the learning rate, which older ones did not have in the list
        for layout in ("legacy", "keras2.11"):
            with pytest.raises(ValueError, match=layout):
                keras.set_weights(
                    tx, state, weights, params, order=order, layout=layout
                )


def test_weights_of_a_multi_optimizer_that_do_not_fit_say_whose_they_are():
    groups = keras.OptimizerMap(keras.Adam(), {"ker.*": keras.SGD(0.1, 0.9)})
    tx = keras.MultiOptimizer(groups)
    params = {n: jnp.asarray(p, jnp.float32) for n, p in PARAMS.items()}
    state, order = tx.init(params), list(PARAMS)
    with pytest.raises(ValueError, match=r"give layout='keras3', got layout='legacy'"):
        keras.get_weights(tx, state, params, order=order, layout="legacy")
    weights = keras.get_weights(tx, state, params, order=order)
    with pytest.raises(ValueError, match=r"give layout='keras3', got layout='keras2"):
        keras.set_weights(tx, state, weights, params, order=order, layout="keras2.11")
    message = r"are 8 weights.* has 9: its own \['iteration', 'learning_rate'\], then "
    message += r"\{'ker\.\*': .*'momentum of kernel'\], 'default_optimizer': .*of bias'"
    with pytest.raises(ValueError, match=message):
        keras.set_weights(tx, state, weights[1:], params, order=order)
    weights[4] = weights[4].T
    with pytest.raises(ValueError, match=r"the optimizer of 'ker\.\*': .*\(4, 3\)"):
        keras.set_weights(tx, state, weights, params, order=order)
    around = jopt.chain(tx, jopt.params_mean())
    with pytest.raises(ValueError, match=r"MultiOptimizer keeps nothing like .*mean"):
        keras.get_weights(around, around.init(params), params, order=order)


def test_an_optimizer_that_is_for_no_variable_makes_no_steps():
    groups = keras.OptimizerMap(
        keras.SGD(0.1), {"ker.*": keras.SGD(), "no": keras.SGD()}
    )
    tx = keras.MultiOptimizer(groups)
    params = {n: jnp.asarray(p, jnp.float32) for n, p in PARAMS.items()}
    params, state = jopt.step(tx, params, tx.init(params), params)
    options = {"order": list(PARAMS), "layout": "keras3"}
    weights = keras.get_weights(tx, state, params, **options)
    expected = [1, 0.0, 1, 0.01, 0, 0.01, 1, 0.1]
    np.testing.assert_allclose(weights, expected, 1e-6)
