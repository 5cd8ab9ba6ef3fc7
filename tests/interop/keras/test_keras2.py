"""The optimizers of Keras 2: numbers, weights and configs that tf_keras gave."""

import copy
import functools
import importlib.util
import json
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import keras
from tests.parity import keras2
from tests.parity.keras2 import HALF, TEXTS
from tests.parity.problem import GRADS, PARAMS, flat
from tests.public import public


ORDER = ["kernel", "bias"]


@functools.cache
def golden():
    """What tf_keras computed and kept."""
    with np.load(keras2.GOLDEN) as file:
        return dict(file)


@functools.cache
def configs():
    """What it wrote."""
    return json.loads(keras2.CONFIGS.read_text())


def made(text):
    """What a text, which is one for Keras 2, makes here."""
    return eval(text, public(keras))


def held(text):
    """What the optimizer kept after six steps, in Keras's order."""
    number = len([n for n in golden() if n.startswith(f"{text}: ")])
    return [golden()[f"{text}: {i}"] for i in range(number)]


def half(tx):
    """A function of parameters, a state and a half of the steps: what they make."""

    def step(carry, grads):
        params, state = jopt.step(tx, grads, carry[1], carry[0])
        return (params, state), params

    @jax.jit
    def run(params, state, grads):
        (_, state), params = jax.lax.scan(step, (params, state), grads)
        return params, state

    return run


def grads(first, dtype):
    """The gradients of half of the steps."""
    return {n: jnp.asarray(g[first : first + HALF], dtype) for n, g in GRADS.items()}


def tree_of(vector):
    """The parameters of a vector, as `flat` makes it."""
    kernel, bias = np.split(vector, [PARAMS["kernel"].size])
    return {"kernel": jnp.asarray(kernel.reshape(3, 4)), "bias": jnp.asarray(bias)}


@pytest.mark.parametrize("text", TEXTS)
def test_every_step_and_what_is_kept_are_those_of_keras_2(text):
    layout = "legacy" if text.startswith("legacy.") else "keras2.11"
    with jax.enable_x64(True):
        tx = made(text)
        params = {n: jnp.asarray(p) for n, p in PARAMS.items()}
        start, run = tx.init(params), half(tx)
        first, own = run(params, start, grads(0, float))
        last = run({n: p[-1] for n, p in first.items()}, own, grads(HALF, float))[0]
        # Keras has its numbers, such as the learning rate, in float32.
        actual = np.concatenate([flat(first), flat(last)])
        np.testing.assert_allclose(actual, golden()[text], 1e-6, 1e-6)
        params = tree_of(golden()[text][HALF - 1])
        state = keras.set_weights(
            tx, start, held(text), params, order=ORDER, layout=layout
        )
        rest = flat(run(params, state, grads(HALF, float))[0])
        np.testing.assert_allclose(rest, golden()[text][HALF:], 1e-6, 1e-6)
        fresh = flat(run(params, start, grads(HALF, float))[0])
        kept = len(held(text)) > 1
        assert (np.abs(fresh - rest).max() > 1e-5) == (kept or "decay" in text)
        back = keras.get_weights(tx, state, params, order=ORDER, layout=layout)
    assert len(back) == len(held(text))
    for ours, theirs in zip(back, held(text), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, 1e-6)


@pytest.mark.parametrize("text", TEXTS)
def test_configs_of_keras_2_are_read_and_written(text):
    config = configs()[text]
    given = copy.deepcopy(config)
    tx = keras.get(given)
    assert given == config
    assert tx.spec.factory is made(text).spec.factory
    assert json.loads(json.dumps(keras.serialize(tx))) == config
    assert keras.serialize(pickle.loads(pickle.dumps(tx))) == config
    if text.startswith("legacy.") and "Nadam" not in text:
        assert tx == made(text)


def test_the_loss_scale_of_keras_2_goes_as_there():
    tx = keras.legacy.LossScaleOptimizer(keras.legacy.SGD(0.5), True, 4.0, 2)
    params = jnp.ones(1)
    state, scales = tx.init(params), []
    for finite in keras2.FINITE:
        scales.append(float(jopt.scale_loss(state, 1.0)))
        grads = jnp.full(1, scales[-1] if finite else jnp.inf)
        params, state = jopt.step(tx, grads, state, params)
    np.testing.assert_array_equal(scales, golden()["scales"])


@pytest.mark.parametrize("text", keras2.WRAPPED)
def test_loss_scales_of_keras_2_are_read_and_written(text):
    config = configs()[text]
    tx = keras.get(config)
    given = {n: x for n, x in config["config"].items() if x is not None}
    assert json.loads(json.dumps(keras.serialize(tx))) == config | {"config": given}
    fixed = jopt.chain(jopt.scale(1 / 8), keras.Adam(0.5))
    scaled = keras.legacy.LossScaleOptimizer(keras.legacy.SGD(0.5), True, 4.0, 2)
    assert tx == (fixed if "dynamic=False" in text else scaled)


@pytest.mark.parametrize("name", keras2.SAVED)
def test_files_of_keras_2_go_on_as_there(name, tmp_path):
    h5py = pytest.importorskip("h5py")
    with zipfile.ZipFile(keras2.MODELS) as archive:
        path = archive.extract(name, tmp_path)
    if name.endswith(".h5"):
        with h5py.File(path) as file:
            config = json.loads(file.attrs["training_config"])["optimizer_config"]
    else:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            config = config["compile_config"]["optimizer"]
    tx, expected = keras.get(config), golden()[keras2.SAVED[name]]
    params = {n: x.astype("float32") for n, x in tree_of(expected[HALF - 1]).items()}
    state = keras.load(path, tx, params, order=ORDER)
    rest = flat(half(tx)(params, state, grads(HALF, "float32"))[0])
    np.testing.assert_allclose(rest, expected[HALF:], 3e-6, 3e-6)


def test_linear_cosine_decay_is_that_of_tensorflow():
    for numbers, expected in zip(keras2.WAVES, golden()["waves"], strict=True):
        rate = keras.LinearCosineDecay(0.1, 30, **numbers)(jnp.arange(40))
        np.testing.assert_allclose(rate, expected, 1e-5, 1e-8)


def test_the_golden_values_are_what_the_installed_keras_2_says():
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("tf_keras is not installed")
    found = keras2.oracle()
    known = {n: x for n, x in configs().items() if n != "versions"}
    assert json.loads(str(found.pop("configs"))) == known
    for name, x in golden().items():
        np.testing.assert_allclose(found[name], x, 1e-9, 1e-12, err_msg=name)
