"""Keras's optimizers and schedules by its own names; golden configs of the real one."""

import contextlib
import contextvars
import copy
import functools
import importlib.util
import inspect
import json
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import keras
from jopt.interop.keras import legacy
from jopt.interop.keras.decay import decayed_first
from jopt.interop.keras.names import LEGACY, OPTIMIZERS, SCHEDULES
from tests.catalogue import rows_of
from tests.parity import keras_configs, schedules, states
from tests.parity.keras_configs import STEPPED, TEXTS
from tests.parity.numbers import assert_same, recorded, trajectory
from tests.parity.problem import GRADS, PARAMS, flat
from tests.public import public


@functools.cache
def golden():
    """What the real Keras said and computed."""
    return json.loads(keras_configs.GOLDEN.read_text())


def excluded(tx, names):
    """The optimizer whose weight decay leaves out these leaves."""
    arguments = tx.spec.arguments | {"exclude_from_weight_decay": names}
    return tx.spec.factory(**arguments)


def made(text):
    """What the text, which is one for Keras, makes here."""
    return eval(text, public(keras) | {"excluded": excluded})


def members(tx):
    """The parts of a chain; a chain of the same parts is the same computation."""
    return [member for _, member in getattr(tx, "members", [(None, tx)])]


def test_the_golden_values_are_what_the_installed_keras_says():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    known = {n: golden()[n] for n in ("signatures", "configs", "low")}
    found = keras_configs.asked("ask")
    assert {n: found[n] for n in known} == known


@pytest.mark.parametrize("text", dict.fromkeys(TEXTS))
def test_configs_of_keras_go_through_get_and_back(text):
    config = golden()["configs"][text]
    given = copy.deepcopy(config)
    value = keras.deserialize(given)
    assert given == config  # Keras lower-cases the class_name of the caller's dict
    assert json.loads(json.dumps(keras.serialize(value))) == config
    # So does what is made by the same call here; Keras numbers no names then, as all
    # that were made before are forgotten.
    own = made(text)
    assert keras.serialize(own) == config
    assert own == value or "learning_rate" in json.dumps(config)
    assert own.get_config() == config["config"]


@pytest.mark.parametrize("text", dict.fromkeys(TEXTS))
def test_the_config_of_an_instance_makes_it_again(text):
    # With all that is inside it: schedules, the inner optimizer, the map.
    config = golden()["configs"][text]["config"]
    given = copy.deepcopy(config)
    factory = made(text).spec.factory
    value = factory.from_config(given)
    assert given == config and value.get_config() == config
    assert factory.from_config(value.get_config()) == value
    assert value == keras.deserialize(golden()["configs"][text])


def test_a_config_may_have_custom_objects_inside():
    def Rate(value):
        return jopt.constant_schedule(value)

    objects = {"Rate": Rate}
    rate = {"class_name": "Rate", "config": {"value": 0.5}}
    tx = keras.SGD.from_config({"learning_rate": rate}, objects)
    assert tx == keras.SGD(jopt.constant_schedule(0.5))
    scaled = keras.LossScaleOptimizer(tx)
    grouped = keras.MultiOptimizer(keras.OptimizerMap(keras.Adam(0.5), {"head": tx}))
    for outer in (scaled, grouped):
        again = outer.spec.factory.from_config(outer.get_config(), objects)
        assert again == outer and again.get_config() == outer.get_config()
        with keras.custom_object_scope(objects):
            assert outer.spec.factory.from_config(outer.get_config()) == outer
    inner = grouped.spec.arguments["optimizer_map"]
    assert keras.OptimizerMap.from_config(inner.get_config(), objects) == inner
    old = keras.legacy.LossScaleOptimizer(keras.legacy.Adam(0.5, decay=0.5))
    assert keras.legacy.LossScaleOptimizer.from_config(old.get_config()) == old
    code = {"class_name": "__lambda__", "config": {"value": "YQ=="}}
    with pytest.raises(ValueError, match="is not run"):
        keras.SGD.from_config({"learning_rate": code})


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULES])
def test_arguments_and_defaults_are_those_of_keras(name):
    if name in ("LinearCosineDecay", "NoisyLinearCosineDecay"):
        return  # of Keras 2
    factory = (OPTIMIZERS | SCHEDULES)[name]
    ours = keras_configs.signature(factory)
    assert ours.pop("exclude_from_weight_decay", None) is None  # a method there
    if name == "Muon":
        assert ours.pop("exclude_layers") == ()
        ours["exclude_layers"] = None
    theirs = golden()["signatures"][name]
    assert ours == theirs
    options = set(keras.Adam.__signature__.parameters) & set(theirs)
    positional = [n for n in theirs if n not in options - set(list(theirs)[:2])]
    ordered = [n for n in ours if n in positional]
    assert name == "Muon" or ordered == positional


def test_a_factory_is_the_recipe_of_the_parity_rows_or_has_their_numbers():
    others = []
    for row in rows_of("keras"):
        tx = made(row.oracle)
        if members(tx) != members(eval(row.jopt, public(jopt))):
            others.append((row, tx))
    # The learning rate may change in the state, so momentum has it inside in any case.
    # Adafactor's recipe, of rates below 1 / sqrt(t), is for constant ones.
    assert {row.name for row, _ in others} == {
        "sgd-momentum",
        "sgd-momentum-weight-decay",
        "gradient-accumulation-clip-decay",
        "adafactor-weight-decay",
        "muon",
        "muon-options",
        "muon-excluded",
    }
    for row, tx in others:
        expected = recorded(row, "float32")
        assert_same(trajectory(tx, "float32", row.leaves), expected, row, "float32")


@pytest.mark.parametrize("row", schedules.KERAS, ids=lambda row: row.oracle)
def test_a_schedule_is_that_of_the_parity_rows(row):
    value, recipe = made(row.oracle), eval(row.jopt, public(jopt))
    if value != recipe:
        assert row.oracle.startswith(("CosineDecay(0.01", "PiecewiseConstantDecay"))
        steps = jnp.arange(row.steps)
        np.testing.assert_allclose(value(steps), recipe(steps), 5e-7, 1e-9)


@pytest.mark.parametrize("text", STEPPED)
def test_options_together_have_the_numbers_of_keras(text):
    expected = np.array(golden()["steps"][text], np.float32)
    tx = made(text)
    keeps = "use_ema" in text

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        params = jopt.apply_updates(params, updates)
        both = (params, jopt.eval_params(tx, state, params)) if keeps else (params,)
        return (params, state), both

    params, grads = (
        {n: jnp.asarray(x[n], jnp.float32) for n in PARAMS} for x in (PARAMS, GRADS)
    )
    grads = {n: x[: keras_configs.STEPS] for n, x in grads.items()}
    run = jax.jit(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])
    actual = np.concatenate([flat(x) for x in run(params, grads)], axis=-1)
    np.testing.assert_allclose(actual, expected, 3e-6, 3e-6)
    again = pickle.loads(pickle.dumps(tx))
    assert again == tx and hash(again) == hash(tx) and again.spec == tx.spec


# Paths of variables in Keras, whose name is the last step.
NAMED = ("norm_dense/kernel", "dense/bias", "bias_net/Kernel", "gamma")


def decaying(names):
    """The variables that decay here, but for these names; the gradients are zero."""
    tx = keras.SGD(1.0, weight_decay=0.5, exclude_from_weight_decay=names)
    params = {path: jnp.ones(1) for path in NAMED}
    zeros = {path: jnp.zeros(1) for path in NAMED}
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert jopt.from_config(jopt.to_config(tx)) == tx == pickle.loads(pickle.dumps(tx))
    return {path for path in NAMED if float(updates[path][0]) == -0.5}


EXCLUDED = {
    ("norm",): set(NAMED),
    ("^bias",): {*NAMED} - {"dense/bias"},
    ("(?i)^KERNEL$",): {"dense/bias", "gamma"},
    ("kernel", "gamma"): {"dense/bias", "bias_net/Kernel"},
    ("/",): set(NAMED),
    ("",): set(),
    (".",): set(),
}


@pytest.mark.parametrize("names", EXCLUDED)
def test_weight_decay_excludes_by_the_name_of_a_variable_not_by_its_path(names):
    assert decaying(list(names)) == EXCLUDED[names]


def test_flags_are_those_of_one_expression():
    # Keras joins them in any order, and Python takes flags at the start only.
    assert decaying(["bias", "(?i)^kernel"]) == {"gamma"}
    assert decaying(["BIAS", "(?i)^kernel"]) == {"dense/bias", "gamma"}


@pytest.mark.parametrize("names", EXCLUDED)
def test_the_installed_keras_excludes_the_same_variables(names, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    real = pytest.importorskip("keras")
    optimizer = real.optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=list(names))
    variables = []
    for path in NAMED:
        *scopes, name = path.split("/")
        with real.name_scope(scopes[0]) if scopes else contextlib.nullcontext():
            variables.append(real.Variable([1.0], name=name))
    assert [x.path for x in variables] == list(NAMED)
    optimizer.apply([real.ops.zeros(1) for _ in variables], variables)
    left = zip(NAMED, variables, strict=True)
    assert {path for path, x in left if float(x[0]) == 0.5} == EXCLUDED[names]


def test_a_map_of_optimizers_is_filled_and_read_like_a_dict():
    sgd, adam = keras.SGD(0.5), keras.Adam(0.25)
    groups = keras.OptimizerMap(sgd)
    assert len(groups) == 0 and list(groups) == []
    groups["encoder/.*"] = adam
    groups["encoder/head"] = sgd
    assert groups == keras.OptimizerMap(sgd, {"encoder/.*": adam, "encoder/head": sgd})
    paths = ("encoder/kernel", "encoder/head", "decoder/kernel", "encoder")
    assert [groups[x] for x in paths] == [adam, sgd, sgd, sgd]
    assert list(groups) == ["encoder/.*", "encoder/head"]
    assert "encoder/.*" in groups and "encoder/kernel" not in groups
    assert [x.spec.class_name for x in groups.values()] == ["Adam", "SGD"]
    made = keras.MultiOptimizer(groups)
    config = groups.get_config()
    assert list(config["optimizer_map"]) == ["encoder/.*", "encoder/head"]
    assert keras.deserialize(keras.serialize(groups)) == groups
    assert keras.MultiOptimizer.from_config(made.get_config()) == made
    assert pickle.loads(pickle.dumps(groups)) == groups
    del groups["encoder/head"]
    assert list(groups) == ["encoder/.*"] and groups["encoder/head"] == adam
    # What was made of the map before does not change with it.
    assert list(made.get_config()["optimizer_map"]["config"]["optimizer_map"]) == [
        "encoder/.*",
        "encoder/head",
    ]
    groups[".*/kernel"] = sgd
    with pytest.raises(ValueError, match=r"'encoder/kernel' matches \['encoder/"):
        groups["encoder/kernel"]
    assert groups["a/kernel"] == sgd
    for key, tx, message in (
        ("encoder/.*", sgd, r"has an optimizer already, .* del groups\['encoder/"),
        (3, sgd, "a key must be a path or an expression for paths, got 3"),
        ("a", 3, "optimizer of 'a' must be a transformation, got 3"),
        ("a", keras.LossScaleOptimizer(sgd), "cannot be a LossScaleOptimizer"),
        ("a", made, "cannot be a MultiOptimizer"),
        ("(", sgd, "is not a regular expression"),
    ):
        with pytest.raises(ValueError, match=message):
            groups[key] = tx
    assert list(groups) == ["encoder/.*", ".*/kernel"]
    with pytest.raises(KeyError):
        del groups["a"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_installed_keras_chooses_the_same_optimizers(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    real = pytest.importorskip("keras").optimizers
    paths = ("a/b", "a/b/c", "b", "a", "b/kernel")
    chosen = []
    for module in (real, keras):
        groups = module.OptimizerMap(module.SGD(0.5))
        for i, key in enumerate(("a/.*", "a/b", "b")):
            groups[key] = module.SGD(float(i))
        configs = [groups[path].get_config() for path in paths]
        chosen.append([config["learning_rate"] for config in configs])
        for key, value in (("b", module.SGD()), (3, module.SGD()), ("c", 3)):
            with pytest.raises(ValueError, match=r"must be|already"):
                groups[key] = value
    assert chosen[0] == chosen[1] == [1.0, 0.0, 2.0, 0.5, 0.5]


def test_legacy_configs_are_told_apart():
    old = {
        "class_name": "RMSprop",
        "config": {
            "name": "RMSprop",
            "learning_rate": 0.001,
            "decay": 0.5,
            "rho": 0.9,
            "momentum": 0.0,
            "epsilon": 1e-07,
            "centered": False,
            "clipnorm": 1.0,
        },
    }
    tx = keras.get(old)
    assert tx.spec.factory is legacy.RMSprop
    assert keras.serialize(tx) == old
    assert keras.serialize(pickle.loads(pickle.dumps(tx))) == old
    flagged = {"class_name": "RMSprop", "config": {"is_legacy_optimizer": True}}
    assert keras.get(flagged) == legacy.RMSprop()
    later = {
        "class_name": "Adam",
        "config": {
            "name": "Adam",
            "weight_decay": None,
            "clipnorm": None,
            "global_clipnorm": None,
            "clipvalue": None,
            "use_ema": False,
            "ema_momentum": 0.99,
            "ema_overwrite_frequency": None,
            "jit_compile": True,
            "is_legacy_optimizer": False,
            "learning_rate": 0.0010000000474974513,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-07,
            "amsgrad": False,
        },
    }
    tx = keras.get(later)
    assert tx == keras.Adam(0.0010000000474974513)
    written = keras.serialize(tx)
    assert written["config"].items() >= later["config"].items()
    assert written.keys() == later.keys()
    averaged = {"class_name": "Adam", "config": later["config"] | {"use_ema": True}}
    with pytest.warns(UserWarning, match="average of use_ema starts at the parameters"):
        keras.get(averaged)
    # A schedule without module, as before Keras 3.
    rate = {
        "class_name": "ExponentialDecay",
        "config": {
            "initial_learning_rate": 0.1,
            "decay_steps": 10,
            "decay_rate": 0.9,
            "staircase": False,
        },
    }
    nested = {"class_name": "SGD", "config": {"learning_rate": rate}}
    expected = keras.SGD(keras.ExponentialDecay(0.1, 10, 0.9))
    assert keras.get(nested) == expected
    fixed = {"inner_optimizer": nested, "dynamic": False, "initial_scale": 8.0}
    tx = keras.get({"class_name": "LossScaleOptimizer", "config": fixed})
    assert members(tx) == members(jopt.chain(jopt.scale(1 / 8), expected))
    tx = keras.get(
        {"class_name": "LossScaleOptimizerV1", "config": fixed | {"dynamic": True}}
    )
    assert tx == jopt.dynamic_loss_scale(expected, "keras2", init_scale=8.0)
    assert keras.get(keras.serialize(tx)) == tx
    for name in ("LossScaleOptimizer", "lossScaleOptimizerV3"):
        scaled = {"class_name": name, "config": {"inner_optimizer": nested}}
        assert keras.get(scaled) == keras.LossScaleOptimizer(expected)
    assert keras.get("ExperimentalAdam") == keras.get("aDaM") == keras.Adam()


def test_the_other_old_optimizers_are_those_of_keras_3():
    for name in ("SGD", "Adam", "Adadelta", "Adamax", "Ftrl"):
        assert LEGACY[name](0.02) == OPTIMIZERS[name](0.02)
    assert legacy.Adam(amsgrad=True) == keras.Adam(amsgrad=True)
    composed = legacy.SGD(keras.ExponentialDecay(0.1, 10, 0.5), decay=0.5)
    rate = composed.recipe.arguments["learning_rate"]
    np.testing.assert_allclose(rate(10), 0.1 * 0.5 / (1 + 0.5 * 10), 1e-6)


def test_a_model_file_tells_its_optimizer_and_its_state():
    path = states.MODELS / "model.keras"
    config = json.loads(zipfile.ZipFile(path).read("config.json"))
    tx = keras.get(config["compile_config"]["optimizer"])
    assert tx == keras.Adam(0.009999999776482582, amsgrad=True)
    # And what another optimizer held after six steps goes on as Keras does.
    text = "Adafactor(0.05, epsilon_1=1e-8)"
    with np.load(states.GOLDEN) as file:
        found = dict(file)
    kept = states.held(found, f"keras|{text}")
    params, start = {}, 0
    for n, p in PARAMS.items():
        part = found[f"keras|{text}= half"][start : start + p.size]
        params[n], start = jnp.asarray(part.reshape(p.shape)), start + p.size
    tx = made(text)
    state = keras.set_weights(
        tx, tx.init(params), kept, params, order=["kernel", "bias"], layout="keras3"
    )
    for i in range(states.HALF, states.STEPS):
        grads = {n: jnp.asarray(GRADS[n][i], jnp.float32) for n in params}
        params, state = jopt.step(tx, grads, state, params)
    np.testing.assert_allclose(flat(params), found[f"keras|{text}= end"], 2e-6, 2e-6)


def test_weights_go_through_a_decay_that_comes_first():
    params = {n: jnp.asarray(p, jnp.float32) for n, p in PARAMS.items()}
    tx = keras.Ftrl(0.05, weight_decay=0.1)
    order = ["kernel", "bias"]
    weights = keras.get_weights(
        tx, tx.init(params), params, order=order, layout="keras3"
    )
    assert len(weights) == 2 + 4
    weights[1:3] = [np.float32(0.2), np.full((3, 4), 7.0)]
    state = keras.set_weights(tx, tx.init(params), weights, params, order=order)
    assert (state.inner_state["ftrl"].accumulator["kernel"] == 7).all()
    assert {float(x) for x in jopt.hyperparams(state).values()} == {np.float32(0.2)}


def test_decayed_first_is_a_transformation_like_any_other():
    decay = jopt.chain(jopt.add_decayed_weights(0.5), jopt.scale_by_learning_rate(0.1))
    tx = decayed_first(jopt.ftrl(0.05), decay)
    assert tx == decayed_first(jopt.ftrl(0.05), decay)
    assert jopt.from_config(jopt.to_config(tx)) == tx
    params = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(2), "c": None}
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    state = tx.init(params)
    shapes = jax.eval_shape(tx.update, grads, state, params)
    assert shapes == (jax.eval_shape(lambda: grads), jax.eval_shape(lambda: state))
    step = jax.jit(jopt.step, static_argnums=0, donate_argnums=(2, 3))
    step(tx, grads, state, params)
    with pytest.raises(TypeError, match="needs the parameters"):
        tx.update(grads, tx.init(grads))
    with pytest.raises(TypeError, match="DecayedFirstState"):
        tx.update(grads, grads, tx.init(grads))
    averaged = decayed_first(jopt.schedule_free_adamw(0.1), decay)
    start = {"b": jnp.ones(2)}
    found = jopt.eval_params(averaged, averaged.init(start), start)
    np.testing.assert_allclose(found["b"], 1.0)


def test_variables_without_a_gradient_stay_and_so_does_what_is_kept_for_them():
    names = ["dense/kernel", "dense/bias", "head/bias"]
    variables = [jnp.full((2, 2), 3.0), jnp.array([1.0, 2.0]), jnp.array([5.0])]
    grads = [jnp.full((2, 2), 0.3), jnp.array([0.1, -0.2]), None]
    tx = keras.AdamW(0.1, weight_decay=0.5, global_clipnorm=0.2, use_ema=True)
    state = tx.init(dict(zip(names, variables, strict=True)))
    full = [*grads[:2], jnp.array([0.5])]
    variables, state = keras.apply_gradients(
        tx, zip(full, variables, strict=True), state, names=names
    )
    with pytest.warns(UserWarning, match=r"Gradients do not exist.*\['head/bias'\]"):
        new, after = keras.apply_gradients(
            tx, zip(grads, variables, strict=True), state, names=names
        )
    np.testing.assert_array_equal(new[2], variables[2])
    old_mu, new_mu = (x["scale_by_adam"].mu["head/bias"] for x in (state, after))
    np.testing.assert_array_equal(old_mu, new_mu)
    assert float(old_mu[0]) != 0 and int(after["scale_by_adam"].count) == 2

    # The others do what they do where there are no more of them.
    def without(tree):
        return {n: x for n, x in tree.items() if n != "head/bias"}

    fewer = jax.tree.map(
        lambda x: without(x) if isinstance(x, dict) else x,
        state,
        is_leaf=lambda x: isinstance(x, dict) and "head/bias" in x,
    )
    own = without(dict(zip(names, variables, strict=True)))
    updates, fewer = tx.update(dict(zip(names, grads[:2], strict=False)), fewer, own)
    expected = jopt.apply_updates(own, updates)
    for name, x in zip(names[:2], new, strict=False):
        np.testing.assert_allclose(x, expected[name], 1e-6)
    np.testing.assert_allclose(
        after["params_ema"].ema["dense/bias"], fewer["params_ema"].ema["dense/bias"]
    )


# Which of Keras's own fail in low precision. Its scalars are in the dtype of the
# parameters: there 0.999 is 1 in bfloat16, and epsilon is 0 in float16 or close to it.
STILL, NAN, WRONG = "stands still", "NaN", "wrong"
FAILURES = {
    ("bfloat16", "one"): {
        **{"Adam": STILL, "AdamW": STILL, "Lamb": STILL},
        **{"Nadam": NAN, "ScheduleFreeAdamW": NAN},
    },
    ("bfloat16", "zero"): {"Lamb": NAN, "Nadam": NAN, "ScheduleFreeAdamW": NAN},
    ("float16", "one"): {"Adadelta": WRONG},
    ("float16", "zero"): {
        **{"Adafactor": NAN, "Adamax": NAN, "Muon": NAN, "ScheduleFreeAdamW": NAN},
    },
}


def test_parameters_of_low_precision_train_and_some_of_keras_do_not():
    failures = {key: {} for key in FAILURES}
    for text in keras_configs.LOW:
        tx = made(text)
        params = {
            dtype: {n: jnp.ones((2, 2), dtype) for n in ("one", "zero")}
            for dtype in ("float32", *keras_configs.DTYPES)
        }
        grads = {
            d: {n: jnp.full_like(x, n == "one") for n, x in p.items()}
            for d, p in params.items()
        }

        def step(carry, _, tx=tx, grads=grads):
            params, state = jopt.step(tx, grads, carry[1], carry[0])
            return (params, state), params

        run = functools.partial(jax.lax.scan, step, length=10)
        found = jax.jit(lambda p, run=run, tx=tx: run((p, tx.init(p)))[1])(params)
        found = jax.tree.map(lambda x: np.asarray(x[:, 0, 0], np.float32), found)
        for dtype in keras_configs.DTYPES:
            # A step rounds the update, which is below 0.5, and the parameter, which is
            # at most 1: by a quarter and a half of a unit in the last place of 0.5.
            unit = float(jnp.finfo(dtype).eps) / 2
            theirs = golden()["low"][dtype][text]
            for i, name in enumerate(("one", "zero")):
                wide, narrow = found["float32"][name], found[dtype][name]
                bound = unit * np.arange(1, 11)
                assert (np.abs(narrow - wide) <= bound).all(), (text, dtype, name)
                assert name == "zero" or narrow[-1] < 1, text
                first, last = (float(x) for x in theirs[i::2])
                # Twice as much for Keras, which rounds after the decay, too.
                off = np.abs([first - wide[0], last - wide[-1]]) > 2 * bound[[0, -1]]
                kind = NAN if np.isnan(last) else STILL if last == 1 else WRONG
                if np.isnan(last) or off.any():
                    failures[dtype, name][text.partition("(")[0]] = kind
    assert failures == FAILURES


@keras.register_keras_serializable("tests")
def Halved(learning_rate: float = 0.1, decays: list = []):  # noqa: B006
    """An optimizer of one's own."""
    return jopt.chain(jopt.scale(0.5), jopt.sgd(learning_rate))


def test_custom_objects_are_found_by_name():
    tx = Halved(0.5)
    config = keras.serialize(tx)
    assert config == {
        "module": None,
        "class_name": "Halved",
        "config": {"learning_rate": 0.5, "decays": []},
        "registered_name": "tests>Halved",
    }
    assert keras.get(config) == tx == pickle.loads(pickle.dumps(tx))
    other = {"module": "mine", "class_name": "Zed", "config": {"rate": 0.5}}
    other["registered_name"] = "mine>Zed"

    def zed(rate: float):
        return jopt.sgd(rate)

    for key in ("Zed", "mine>Zed"):
        found = keras.get(other, custom_objects={key: zed})
        assert found == jopt.sgd(0.5) and keras.serialize(found) == other
    assert keras.get("Zed", custom_objects={"Zed": lambda: jopt.sgd(1.0)})


def test_custom_objects_are_in_scope_inside_of_it():
    def zed():
        return jopt.sgd(0.5)

    zeds = {"Zed": zed}
    with keras.custom_object_scope(zeds):
        assert keras.get("Zed") == jopt.sgd(0.5)
        with keras.custom_object_scope({"Zed": lambda: jopt.sgd(1.0), "adam": zed}):
            assert keras.get("Zed") == jopt.sgd(1.0)
            assert keras.get("adam") == jopt.sgd(0.5)
            assert keras.get("Adam") == keras.Adam()  # the names are exact
            given = {"Zed": lambda: jopt.sgd(2.0)}
            assert keras.get("Zed", custom_objects=given) == jopt.sgd(2.0)
        with pytest.raises(RuntimeError), keras.custom_object_scope({"Zed": jopt.adam}):
            raise RuntimeError
        assert keras.get("Zed") == jopt.sgd(0.5) and keras.get("adam") == keras.Adam()
        # A thread has scopes of its own, and so has a context.
        with ThreadPoolExecutor(1) as pool:
            with pytest.raises(ValueError, match="Keras has no 'Zed'"):
                pool.submit(keras.get, "Zed").result()
            inside = contextvars.copy_context()
            assert pool.submit(inside.run, keras.get, "Zed").result() == jopt.sgd(0.5)
        nested = {"class_name": "SGD", "config": {"learning_rate": {
            "class_name": "Rate", "config": {"value": 0.5}}}}  # fmt: skip
        with keras.custom_object_scope({"Rate": jopt.constant_schedule}):
            assert keras.get(nested) == jopt.sgd(jopt.constant_schedule(0.5))
    with pytest.raises(ValueError, match="Keras has no 'Zed'"):
        keras.get("Zed")
    assert zeds == {"Zed": zed}


NOISY = {
    "class_name": "NoisyLinearCosineDecay",
    "config": {
        "initial_learning_rate": 0.1,
        "decay_steps": 40,
        "initial_variance": 0.5,
        "variance_decay": 0.6,
        "num_periods": 1.5,
        "alpha": 0.1,
        "beta": 0.01,
        "name": "noisy",
    },
}


def test_the_noisy_schedule_of_keras_2_is_its_formula():
    seeded = {**NOISY, "config": {**NOISY["config"], "seed": 3}}
    for config in (NOISY, seeded, {"class_name": "LinearCosineDecay", "config": {
        n: x for n, x in NOISY["config"].items() if "varia" not in n}}):  # fmt: skip
        rate = keras.deserialize(config)
        assert keras.serialize(rate) == config and rate.get_config() == config["config"]
        assert keras.get({"class_name": "Adam", "config": {"learning_rate": config}})
        assert pickle.loads(pickle.dumps(rate)).spec == rate.spec
    t = np.arange(60)
    x = np.minimum(t, 40) / 40
    wave = 0.5 * (1 + np.cos(2 * np.pi * 1.5 * x))
    still = 0.1 * ((0.1 + 1 - x) * wave + 0.01)
    numbers = NOISY["config"]
    quiet = keras.NoisyLinearCosineDecay(**numbers | {"initial_variance": 0.0})
    np.testing.assert_allclose(quiet(t), still, 2e-6, 2e-7)
    calm = {n: x for n, x in numbers.items() if "varia" not in n}
    np.testing.assert_allclose(keras.LinearCosineDecay(**calm)(t), still, 2e-6, 2e-7)
    # The noise alone, over many seeds: of mean 0, and of the right variance.
    draws = [
        keras.NoisyLinearCosineDecay(**numbers, seed=seed)(t) for seed in range(400)
    ]
    variance = 0.5 / (1 + np.minimum(t, 40)) ** 0.6
    far = wave > 0.05
    noise = ((np.array(draws) - still) / (0.1 * np.where(far, wave, 1)))[:, far]
    noise /= np.sqrt(variance[far])
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)
    np.testing.assert_allclose(noise.var(0), 1, atol=5 * np.sqrt(2 / 400))
    # Without a seed it is 0; another is other noise, the same is the same.
    default, zero = keras.deserialize(NOISY)(t), draws[0]
    np.testing.assert_array_equal(default, zero)
    assert (draws[1] != zero)[far].all()
    same = jopt.noisy_linear_cosine_decay(0.1, 40, 0.5, 0.6, 1.5, 0.1, 0.01, key=7)
    np.testing.assert_array_equal(draws[7], same(t))


def old_scale(kind, **numbers):
    """A config of a LossScaleOptimizer as TensorFlow 2.3 wrote it."""
    inner = {"class_name": "SGD", "config": {"learning_rate": 0.5, "momentum": 0.0}}
    scale = {"class_name": kind, "config": numbers}
    config = {"optimizer": inner, "loss_scale": scale}
    return {"class_name": "LossScaleOptimizer", "config": config}


def test_the_loss_scales_of_tensorflow_2_3_are_read():
    dynamic = {"initial_loss_scale": 8.0, "increment_period": 3, "multiplier": 2.0}
    config = old_scale("DynamicLossScale", **dynamic)
    given = copy.deepcopy(config)
    tx = keras.get(config)
    assert config == given
    assert tx == jopt.dynamic_loss_scale(
        jopt.sgd(0.5), "keras2", init_scale=8.0, growth_interval=3
    )
    # It is written as by those that came after.
    written = keras.serialize(tx)
    assert written["config"].items() >= {"dynamic": True, "initial_scale": 8.0}.items()
    assert keras.get(written) == tx == keras.deserialize(config)
    fixed = keras.get(old_scale("FixedLossScale", loss_scale_value=4.0))
    params = {"w": jnp.ones(1)}
    updates, _ = fixed.update({"w": jnp.full(1, 4.0)}, fixed.init(params), params)
    np.testing.assert_array_equal(updates["w"], [-0.5])
    default = keras.get(old_scale("DynamicLossScale"))
    assert default == keras.legacy.LossScaleOptimizer(keras.SGD(0.5))


FLAGS = {"jit_compile": True, "is_legacy_optimizer": False}
RATE = {"class_name": "ExponentialDecay", "config": {
    "initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9}}  # fmt: skip
READ = {
    "of Keras 1": {"class_name": "Adam", "config": {"lr": 0.1, "decay": 0.5}},
    "of Keras 2.11": {"class_name": "SGD", "config": {"learning_rate": RATE, **FLAGS}},
    "flagged": {"class_name": "adam", "config": {"is_legacy_optimizer": True}},
    "an alias": {"class_name": "ExperimentalSGD", "config": {"learning_rate": NOISY}},
    "a fixed scale": old_scale("FixedLossScale", loss_scale_value=4.0),
    "a scale of Keras 2.4": {
        "class_name": "lossScaleOptimizerV1",
        "config": {
            "inner_optimizer": {"class_name": "SGD", "config": {"learning_rate": RATE}},
            "dynamic": True,
        },
    },
    # Its unused arguments were in the configs of the first versions.
    "a scale of Keras 3": {
        "module": "keras.optimizers",
        "class_name": "LossScaleOptimizer",
        "config": {
            "inner_optimizer": {"class_name": "SGD", "config": {"learning_rate": 1.0}},
            "weight_decay": None,
            "use_ema": False,
            "ema_momentum": 0.99,
            "gradient_accumulation_steps": None,
        },
    },
    "one of one's own": {"class_name": "Zed", "config": {"rates": [RATE, 1.0]}},
}


@pytest.mark.parametrize("given", READ.values(), ids=READ)
def test_no_config_is_changed_by_reading_it(given):
    before = copy.deepcopy(given)
    objects = {"Zed": lambda rates: jopt.chain(*map(jopt.sgd, rates))}
    first = keras.get(given, objects)
    assert given == before and list(objects) == ["Zed"]
    assert keras.get(given, objects) == first
    keras.serialize(first)["config"].clear()  # nor by what is written of it
    first.get_config().clear()
    assert keras.get(given, objects) == first and given == before
    assert keras.get(keras.serialize(first), objects) == first


@pytest.mark.parametrize("name", keras_configs.OPTIMIZERS)
def test_names_in_any_case_have_the_config_of_keras(name):
    expected = golden()["configs"][f"{name}()"]
    for cased in (name, name.lower(), name.upper(), name.swapcase()):
        given = {"class_name": cased, "config": {}}
        for identifier in (cased, given, {"class_name": cased}):
            tx = keras.get(identifier)
            assert keras.serialize(tx) == expected, identifier
            assert tx.get_config() == expected["config"]
        assert given == {"class_name": cased, "config": {}}


def test_the_examples_of_the_documentation_of_keras_work():
    assert keras.get({"class_name": "rmsprop", "config": {"learning_rate": 1e-4}}) == (
        jopt.rmsprop(1e-4, eps=1e-7)
    )
    for rate in (1e-3, 1e-4, 1e-5):
        assert keras.RMSprop(learning_rate=rate) == jopt.rmsprop(rate, eps=1e-7)
    tx = keras.SGD(learning_rate=0.01, momentum=0.9, nesterov=True)
    assert keras.SGD.from_config(tx.get_config()) == keras.SGD(
        tx.get_config()["learning_rate"], 0.9, True
    )
    assert keras.get(tx) is tx and keras.get(None) is None
    foreign = jopt.adam(0.1)
    assert keras.get(foreign) is foreign
    scaled = keras.LossScaleOptimizer(keras.SGD(0.1), dynamic_growth_steps=5)
    assert scaled == jopt.dynamic_loss_scale(
        jopt.sgd(0.1), "keras", init_scale=2.0**15, growth_interval=5
    )
    own = keras.SGD(0.1, loss_scale_factor=4.0)
    assert keras.LossScaleOptimizer(own, dynamic_growth_steps=5) == scaled
    tunable = keras.Adam(jopt.tunable(0.5))
    assert tunable.get_config() == keras.Adam(0.5).get_config()
    # In a chain it is spliced as what it is.
    params = {"w": jnp.ones(2)}
    tx = jopt.chain(jopt.centralize(), keras.Adam(0.1, clipnorm=1.0))
    assert list(tx.init(params)) == ["scale_by_adam", "scale_by_learning_rate"]
    accumulated = keras.Adam(gradient_accumulation_steps=2)
    assert jopt.has_updated(accumulated.init(params)) is not None
    assert inspect.signature(keras.Adam).parameters["beta_1"].default == 0.9


BAD = [
    ("get('adaam')", ValueError, r"no 'adaam'\. Did you mean 'Adam'\?.*Adadelta, Ad"),
    ("get('keras')", ValueError, r"no 'keras'\. The optimizers are"),
    ("get('CosineDecay')", ValueError, "CosineDecay: missing a required argument"),
    ("get('ExponentialDecai')", ValueError, "Did you mean 'ExponentialDecay'"),
    ("get(3)", TypeError, "a name such as 'adam', a dict"),
    ("get(Adam)", TypeError, r"call it, Adam\("),
    ("get({'config': {}})", ValueError, "class_name"),
    ("get({'class_name': 3})", ValueError, "class_name must be a string"),
    ("get({'class_name': 'Adam', 'config': 3})", ValueError, "config a dict"),
    ("deserialize('adam')", ValueError, "a config must be"),
    (
        "get({'class_name': 'Adam', 'config': {'beta1': 0.5}})",
        ValueError,
        "config of Adam: Adam has no argument 'beta1'. Did you mean 'beta_1'",
    ),
    (
        "get({'class_name': 'Adam', 'config': {'lr': 0.1, 'weight_decay': 0.1}})",
        ValueError,
        "Keras 2.11 introduced it",
    ),
    (
        "get({'class_name': 'Adam', 'config': {'learning_rate': {'class_name': "
        "'__lambda__', 'config': {'value': 'YQ=='}}}})",
        ValueError,
        "is not run",
    ),
    (
        "get({'class_name': 'SGD', 'config': {'learning_rate': {'class_name': "
        "'Exponential', 'config': {}}}})",
        ValueError,
        "Did you mean 'ExponentialDecay'",
    ),
    (
        "get({'class_name': 'Mine', 'config': {}, 'registered_name': 'a>Mine'})",
        ValueError,
        "give custom_objects={'Mine'",
    ),
    ("get('Z', custom_objects={'Z': lambda: 3})", ValueError, "Z must return a jopt"),
    ("get('LossScaleOptimizer')", ValueError, "inner_optimizer"),
    ("get('MultiOptimizer')", ValueError, "optimizer_map"),
    ("serialize(jopt.adam(0.1))", TypeError, "was not made by jopt.interop.keras"),
    ("serialize(Adam(lambda t: 0.1))", TypeError, "learning_rate has no form"),
    ("Adam(lr=0.1)", TypeError, "Keras 3 calls it learning_rate"),
    ("Adam(decay=0.1)", TypeError, r"InverseTimeDecay\(learning_rate, 1, decay\)"),
    ("Adam(0.1, 0.9, 0.9, 1e-7, True, 0.1)", TypeError, "give the options by name"),
    ("Adam('0.1')", TypeError, "learning_rate must be a number, a schedule"),
    ("Adam(-0.1)", ValueError, "learning_rate must be >= 0"),
    ("Adam(beta_1=1.0)", ValueError, r"beta_1 must be in \[0, 1\), got beta_1=1.0"),
    ("Adam(epsilon=0)", ValueError, "epsilon must be > 0"),
    ("Adam(amsgrad='yes')", TypeError, "amsgrad must be True or False"),
    ("Adam(name=3)", TypeError, "name must be a string"),
    (
        "Adam(clipnorm=1.0, clipvalue=2.0)",
        ValueError,
        "Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. "
        "Received: clipnorm=1.0, clipvalue=2.0, global_clipnorm=None. Chain the",
    ),
    ("Adam(clipnorm=-1.0)", ValueError, "clipnorm must be >= 0"),
    ("Adam(weight_decay=-1.0)", ValueError, "weight_decay must be >= 0"),
    (
        "AdamW(weight_decay=None)",
        ValueError,
        "Argument `weight_decay` must be a float. Received: weight_decay=None. Leave",
    ),
    ("Adam(beta_1=None)", ValueError, "Received: beta_1=None. Leave it out"),
    ("Lion(beta_1=0.0)", ValueError, r"in the \[0, 1\] range.*Received: beta_1=0.0. "),
    ("Lion(beta_1=1.5)", ValueError, r"in the \[0, 1\] range.*Received: beta_1=1.5. "),
    *(
        (f"Ftrl({name}=-0.5)", ValueError, f"^`{name}` needs .*Received: {name}=-0.5.$")
        for name in (
            *("initial_accumulator_value", "l1_regularization_strength"),
            *(f"l2_{x}regularization_strength" for x in ("", "shrinkage_")),
        )
    ),
    (
        "Ftrl(learning_rate_power=0.5)",
        ValueError,
        "^`learning_rate_power` needs to be negative or zero. Received: "
        "learning_rate_power=0.5.$",
    ),
    ("Ftrl(learning_rate_power=-jnp.inf)", ValueError, "power must be a finite"),
    ("Adam(1)", ValueError, "`learning_rate` should be float.* Write 1.0"),
    ("Muon(learning_rate=2)", ValueError, "learning_rate=2. Write 2.0"),
    (
        "Adam(use_ema=True, ema_overwrite_frequency=2.0)",
        ValueError,
        "Received: ema_overwrite_frequency=2.0",
    ),
    ("Adam(use_ema=True, ema_momentum=2.0)", ValueError, "ema_momentum must be in"),
    (
        "Adam(gradient_accumulation_steps=1)",
        ValueError,
        "accumulation_steps must be >=",
    ),
    ("Adam(gradient_accumulation_steps=2.5)", TypeError, "must be a whole number"),
    ("Adam(loss_scale_factor=0.0)", ValueError, "loss_scale_factor must be > 0"),
    ("Adam(exclude_from_weight_decay='bias')", TypeError, "must be a list of regular"),
    ("Adam(exclude_from_weight_decay=['('])", ValueError, "not a regular expression"),
    ("SGD(momentum=1.5)", ValueError, r"between \[0, 1\]. Received: momentum=1.5"),
    ("SGD(momentum=jnp.nan)", ValueError, r"between \[0, 1\]. Received: momentum=nan"),
    ("SGD(momentum=1)", ValueError, r"between \[0, 1\].* momentum=1. Write 1.0"),
    ("Adafactor(beta_2_decay=0.8)", ValueError, "-0.8 is usual"),
    ("Muon(exclude_layers=['('])", ValueError, "not a regular expression"),
    ("ExponentialDecay(0.1, 0, 0.9)", ValueError, "decay_steps must be > 0"),
    ("CosineDecayRestarts(0.1, -1)", ValueError, "first_decay_steps must be > 0"),
    ("PiecewiseConstantDecay([5], [0.1])", ValueError, "1 values and 1 boundaries"),
    ("LossScaleOptimizer(SGD(), dynamic=False)", ValueError, "loss_scale_factor"),
    ("legacy.LossScaleOptimizer(SGD(), False)", ValueError, "needs initial_scale"),
    ("LossScaleOptimizer(3)", TypeError, "inner_optimizer"),
    (
        "get(old_scale('DynamicLossScale', multiplier=3.0))",
        ValueError,
        r"multiplier=3\.0 cannot be read: Keras's loss scale doubles",
    ),
    ("get(old_scale('FixedLossScale', multiplier=2))", ValueError, "no .'multiplier'"),
    ("get(old_scale('FixedLossScale'))", ValueError, "needs initial_scale"),
    ("get(old_scale('MyLossScale'))", ValueError, "of a FixedLossScale or a Dynamic"),
    (
        "get({'class_name': 'LossScaleOptimizer', 'config': {'loss_scale': 3}})",
        ValueError,
        "got loss_scale=3",
    ),
    ("LossScaleOptimizer(SGD(), clipnorm=1.0)", TypeError, "to the inner_optimizer"),
    ("get('Zed', custom_objects=[3])", TypeError, "must be a dict of functions by nam"),
    ("custom_object_scope({'Zed': 3}).__enter__()", TypeError, "got 'Zed': 3"),
    ("custom_object_scope('Zed').__enter__()", TypeError, "custom_objects='Zed'"),
    ("NoisyLinearCosineDecay(0.1, 0)", ValueError, "decay_steps must be > 0"),
    ("NoisyLinearCosineDecay(0.1, 5, -1.0)", ValueError, "initial_variance must be >="),
    ("NoisyLinearCosineDecay(0.1, 5, seed=0.5)", TypeError, "seed must be a whole"),
    ("NoisyLinearCosineDecay(0.1, 5, key=1)", TypeError, "has no argument 'key'"),
    ("LossScaleOptimizer(SGD(), initial_scale=0)", ValueError, "initial_scale"),
    ("OptimizerMap(SGD(), {'a': 3})", TypeError, "optimizer of 'a' must be"),
    ("OptimizerMap(LossScaleOptimizer(SGD()))", ValueError, "cannot be a LossScale"),
    ("MultiOptimizer({'a': SGD()})", TypeError, "must be an OptimizerMap"),
    (
        "MultiOptimizer(OptimizerMap(SGD(), {'a.*': SGD(), '.*b': SGD()}))"
        ".init({'ab': jnp.ones(1)})",
        ValueError,
        r"'ab' matches \['a\.\*', '\.\*b'\]",
    ),
    ("legacy.Adam(0.1, lr=0.1)", TypeError, "both learning_rate and its"),
    ("legacy.Adam(decay=-1.0)", ValueError, "decay must be >= 0"),
    ("legacy.SGD(jopt.tunable(0.1), decay=0.1)", TypeError, "makes a schedule"),
    ("legacy.Nadam(CosineDecay(0.1, 9))", ValueError, "took no schedule"),
    ("apply_gradients(SGD(), [], {})", ValueError, "No gradients provided"),
    ("apply_gradients(SGD(), [(None, 1.0)], {})", ValueError, "No gradients provided"),
    ("apply_gradients(SGD(), [(1.0,)], {})", TypeError, "must be pairs"),
    ("apply_gradients(SGD(), 3, {})", TypeError, "must be pairs"),
    ("apply_gradients(SGD(), [(1.0, None)], {})", TypeError, "has no variable"),
    (
        "apply_gradients(SGD(), [(1.0, 1.0)], {}, names=['a', 'b'])",
        ValueError,
        "one name for each of the 1 variables",
    ),
]


REFUSED = [
    "get(3)",
    "get('nothing')",
    "Adam('0.1')",
    "Adam([0.1])",
    "Adam(1)",
    "SGD(0, momentum=0.5)",
    "SGD(momentum=0)",
    "SGD(momentum=1)",
    "SGD(use_ema=True, ema_overwrite_frequency=2.0)",
    "Adam(beta1=0.5)",
    "AdamW(weight_decay=None)",
    "Lion(beta_1=0.0)",
    "Lion(beta_1=1.5)",
    "SGD(momentum=-0.1)",
    "SGD(momentum=1.5)",
    "SGD(momentum='0.9')",
    "SGD(clipnorm=1.0, clipvalue=0.0)",
    "SGD(gradient_accumulation_steps=1)",
    "SGD(use_ema=True, ema_momentum=1.5)",
    "SGD(use_ema=True, ema_overwrite_frequency=-1)",
    "SGD(use_ema=True, ema_overwrite_frequency=2.5)",
    "Ftrl(initial_accumulator_value=-1.0)",
    "Ftrl(learning_rate_power=0.5)",
    "Ftrl(l1_regularization_strength=-1.0)",
    "Ftrl(l2_regularization_strength=-1.0)",
    "Ftrl(l2_shrinkage_regularization_strength=-1.0)",
    "LossScaleOptimizer(SGD(), clipnorm=1.0)",
    "LossScaleOptimizer(SGD(), dynamic=False)",
    "LossScaleOptimizer(SGD(), foo=1)",
    "ExponentialDecay(0.1, 0, 0.9)",
    "PolynomialDecay(0.1, 0)",
    "InverseTimeDecay(0.1, 0, 0.5)",
    "CosineDecay(0.1, 0)",
    "CosineDecayRestarts(0.1, 0)",
    "PiecewiseConstantDecay([5], [0.1])",
]


@pytest.mark.parametrize("text", REFUSED)
def test_where_keras_raises_a_value_error_so_does_this(text):
    with pytest.raises(
        ValueError,
        match=r"must be|has no|always dynamic|needs to|Only one|should be|more v",
    ):
        eval(text, public(keras))


@pytest.mark.parametrize("text", REFUSED)
def test_the_installed_keras_raises_a_value_error(text, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    real = pytest.importorskip("keras").optimizers
    with pytest.raises(ValueError, match=r"\w"):
        eval(text, vars(real) | vars(real.schedules))


def test_a_wrong_argument_is_a_type_error_too():
    for text in (
        "get(3)",
        "Adam('0.1')",
        "Adam(beta1=0.5)",
        "AdamW(weight_decay=None)",
    ):
        with pytest.raises(TypeError, match=r"must be|has no"):
            eval(text, public(keras))


def rate_of_nothing():
    """A learning rate that does not depend on the step."""
    return 0.5


def test_a_learning_rate_may_be_a_function_of_nothing():
    tx = keras.SGD(rate_of_nothing, momentum=0.9, gradient_accumulation_steps=2)
    assert tx == keras.SGD(
        learning_rate=rate_of_nothing, momentum=0.9, gradient_accumulation_steps=2
    )
    assert tx == pickle.loads(pickle.dumps(tx))
    params, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    for _ in range(4):
        params, state = jopt.step(tx, jnp.ones(1), state, params)
    np.testing.assert_allclose(params, -0.5 - 0.95, 1e-6)
    assert float(jopt.hyperparams(state)["learning_rate"]) == 0.5
    with pytest.raises(TypeError, match="learning_rate has no form in Keras's configs"):
        tx.get_config()
    with pytest.raises(TypeError, match="learning_rate must be a number or a function"):
        keras.SGD(lambda a, b: 0.1)
    with pytest.raises(TypeError, match="must be a number or a schedule, got the fac"):
        keras.SGD(jopt.adam)


def test_an_optimizer_scales_the_loss_by_its_own_factor():
    loss = jnp.float32(3.0)
    assert keras.SGD().scale_loss(loss) is loss
    for tx in (
        keras.SGD(loss_scale_factor=4.0),
        keras.MultiOptimizer(keras.OptimizerMap(keras.SGD()), loss_scale_factor=4.0),
        keras.legacy.LossScaleOptimizer(keras.SGD(), False, 4.0),
    ):
        assert float(tx.scale_loss(loss)) == 12.0
    params = {"w": jnp.ones(1)}
    for factory in (keras.LossScaleOptimizer, keras.legacy.LossScaleOptimizer):
        dynamic = factory(keras.SGD(loss_scale_factor=4.0), initial_scale=8.0)
        state = dynamic.init(params)
        assert float(dynamic.scale_loss(loss, state)) == 24.0
        with pytest.raises(
            TypeError, match=r"is in its state: call scale_loss\(loss, s"
        ):
            dynamic.scale_loss(loss)


@pytest.mark.parametrize(("text", "error", "message"), BAD, ids=[b[0] for b in BAD])
def test_wrong_input_says_what_is_wrong(text, error, message):
    with pytest.raises(error, match=message):
        eval(text, public(keras) | {"jopt": jopt, "jnp": jnp, "old_scale": old_scale})
