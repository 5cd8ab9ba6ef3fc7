"""States of Keras, torch and optax go on here, and ours there."""

import functools
import importlib.util
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.interop import keras, torch
from jopt.interop.keras import Permuted
from jopt.interop.optax import from_optax_state, to_optax_state
from jopt.interop.shared import state_view
from jopt.wrappers.accumulation import AccumulateState
from tests.parity import states
from tests.parity.problem import GRADS, PARAMS, flat
from tests.public import public


ORDER = ["kernel", "bias"]
LAYER = {"kernel": jnp.ones((20, 10)), "bias": jnp.ones(10)}


@functools.cache
def golden():
    """What was recorded of the real libraries."""
    with np.load(states.GOLDEN) as file:
        return dict(file)


def recorded(row):
    """The parameters after six steps and after twelve, and what was held after six."""
    prefix = f"{row.library}|{row.oracle}"
    half, end = (golden()[f"{prefix}= {x}"] for x in ("half", "end"))
    return tree_of(row, half), end, states.held(golden(), prefix)


def tree_of(row, vector):
    """The parameters of a vector, as `flat` makes it."""
    found, start = {}, 0
    for name in row.leaves:
        part = vector[start : start + PARAMS[name].size].reshape(PARAMS[name].shape)
        found[name], start = jnp.asarray(part), start + part.size
    return found


def stepped(tx, state, params, first, last):
    """The parameters and the state after these steps of the problem."""
    for i in range(first, last):
        grads = {n: jnp.asarray(GRADS[n][i], jnp.float32) for n in params}
        params, state = jopt.step(tx, grads, state, params)
    return params, state


def order_of(row):
    """The parameters in the library's order, with the axes it has."""
    kernel = Permuted("kernel", (1, 0)) if row.transposed else "kernel"
    return [kernel if name == "kernel" else name for name in row.leaves]


def nested(kept, row):
    """A state dict of torch, of what the file has of it."""
    state = {}
    for key, x in kept.items():
        if key != "lr":
            i, name = key.split("/")
            state.setdefault(int(i), {})[name] = x
    group = {"lr": float(kept["lr"]), "params": list(range(len(row.leaves)))}
    return {"state": state, "param_groups": [group]}


def loaded(row, tx, params, kept):
    """Our state, of what the library held after six steps."""
    order = order_of(row)
    if row.library == "keras":
        return keras.set_weights(tx, tx.init(params), kept, params, order=order)
    uncounted = row.oracle.startswith(("SGD", "Muon"))
    count = states.HALF if uncounted else None
    theirs = nested(kept, row)
    return torch.load_state_dict(tx, params, theirs, order=order, count=count)


def dumped(row, tx, state, params, kept, step):
    """What the library would hold; ``kept`` is for the groups of torch."""
    order = order_of(row)
    if row.library == "keras":
        found = keras.get_weights(tx, state, params, order=order)
        return {str(i): w for i, w in enumerate(found)}
    count = step if row.oracle.startswith("Rprop") else None
    like = nested(kept, row)
    theirs = torch.state_dict(tx, state, params, like, order=order, count=count)
    found = {f"{i}/{k}": x for i, e in theirs["state"].items() for k, x in e.items()}
    return found | {"lr": np.array(theirs["param_groups"][0]["lr"])}


def assert_alike(actual, expected, rtol):
    """Two collections of arrays are the same in names, shapes, dtypes and numbers."""
    assert actual.keys() == expected.keys()
    for name, x in expected.items():
        assert (actual[name].shape, actual[name].dtype) == (x.shape, x.dtype), name
        np.testing.assert_allclose(actual[name], x, rtol, err_msg=name)


@functools.cache
def continued(row):
    """What a state gives back at once, our end, and what it gives after three steps."""
    tx = eval(row.jopt, public(jopt))
    params, _, kept = recorded(row)
    state = loaded(row, tx, params, kept)
    again = dumped(row, tx, state, params, kept, states.HALF)
    params, state = stepped(tx, state, params, states.HALF, states.MIDDLE)
    middle = dumped(row, tx, state, params, kept, states.MIDDLE)
    end, _ = stepped(tx, state, params, states.MIDDLE, states.STEPS)
    return again, flat(end), params, middle


@pytest.mark.parametrize("row", states.ROWS, ids=lambda x: f"{x.library}-{x.jopt}")
def test_six_steps_there_and_six_here_are_twelve_there(row):
    _, expected, kept = recorded(row)
    again, end, _, _ = continued(row)
    np.testing.assert_allclose(end, expected, 2e-6, 2e-6)
    # What came in goes out; Keras's Adafactor has its second moment twice.
    assert_alike(again, kept, 1e-3 if "Adafactor" in row.oracle else 1e-6)


@pytest.mark.parametrize("library", states.LIBRARIES)
def test_three_more_steps_there_after_three_here_are_twelve_there(library, tmp_path):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    given, rows = {}, states.rows_of(library)
    for number, row in enumerate(rows):
        _, _, params, middle = continued(row)
        given |= {f"{number}: {name}": x for name, x in middle.items()}
        given |= {f"{number}= {name}": np.asarray(x) for name, x in params.items()}
    np.savez(tmp_path / "given.npz", **given)
    states.oracle("resume", library, tmp_path / "given.npz", tmp_path / "end.npz")
    with np.load(tmp_path / "end.npz") as found:
        for number, row in enumerate(rows):
            end = found[str(number)]
            np.testing.assert_allclose(end, recorded(row)[1], 2e-6, 2e-6, err_msg=row)


OPTAX = [
    ("adam(0.01)", "adam(0.01)"),
    ("adamw(cosine_decay_schedule(0.05, 20), mask={'kernel': True, 'bias': False})",
     "chain(clip(1e9), adamw(cosine_decay_schedule(0.05, 20), mask='kernel'))"),
    ("sgd(0.05, 0.9, nesterov=True)", "sgd(0.05, 0.9, nesterov=True)"),
    ("chain(clip_by_global_norm(1.0), trace(0.5), trace(0.9), scale(-0.05))",
     "chain(clip_by_global_norm(1.0), trace(0.5), trace(0.9), sgd(0.05))"),
    ("inject_hyperparams(adam)(0.01, b1=0.8)",
     "adam(0.5, b1=tunable(0.5))"),
    ("MultiSteps(adam(0.01), 11)", "MultiSteps(adam(0.01), 11)"),
    ("MultiSteps(sgd(0.01, 0.9), 4, use_grad_mean=False)",
     "accumulate(sgd(0.01, 0.9), 4, use_grad_mean=False)"),
    ("rmsprop(0.01, momentum=0.9, centered=True)",
     "rmsprop(0.01, momentum=0.9, centered=True)"),
    ("rmsprop(0.01, bias_correction=True)", "rmsprop(0.01, bias_correction=True)"),
    ("adamax(0.01)", "adamax(0.01)"),
    ("adadelta(1.0)", "adadelta(1.0)"),
    ("adagrad(0.05)", "adagrad(0.05)"),
    ("lion(0.01)", "lion(0.01)"),
    ("amsgrad(0.01)", "amsgrad(0.01)"),
    ("partition({'a': adam(0.01), 'b': sgd(0.05, 0.9)}, {'kernel': 'a', 'bias': 'b'})",
     "partition({'b': sgd(0.05, 0.9), 'a': adam(0.01)}, {'kernel': 'a', 'bias': 'b'})"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), OPTAX, ids=[pair[0] for pair in OPTAX])
def test_optax_goes_on_here_and_there_again(theirs, ours):
    other = eval(theirs, dict(vars(optax)))
    with jax.numpy_dtype_promotion("standard"):  # which optax needs
        update = jax.jit(other.update)

        def there(state, params, first, last):
            for i in range(first, last):
                grads = {n: jnp.asarray(GRADS[n][i], jnp.float32) for n in params}
                updates, state = update(grads, state, params)
                params = optax.apply_updates(params, updates)
            return params, state

        params = {n: jnp.asarray(p, jnp.float32) for n, p in PARAMS.items()}
        like = other.init(params)
        params, state = there(like, params, 0, 6)
        expected, _ = there(state, params, 6, 12)
        tx = eval(ours, public(jopt))
        uncounted = "MultiSteps" not in theirs and not any(
            "count" in jax.tree_util.keystr(path)
            for path, _ in jax.tree_util.tree_leaves_with_path(like)
        )
        here = from_optax_state(tx, params, state, count=6 if uncounted else None)
        params, here = stepped(tx, here, params, 6, 9)
        end, _ = stepped(tx, here, params, 9, 12)
        np.testing.assert_allclose(flat(end), flat(expected), 2e-6, 2e-6)
        state = to_optax_state(tx, here, params, like)
        end, _ = there(state, params, 9, 12)
    np.testing.assert_allclose(flat(end), flat(expected), 2e-6, 2e-6)


def test_optax_states_that_do_not_fit_say_what_does_not():
    params = {"w": jnp.ones(2)}
    state = optax.chain(optax.trace(0.9), optax.ema(0.9)).init(params)
    with pytest.raises(ValueError, match=r"too many of .*nu/w.*nothing like .*trace/w"):
        from_optax_state(jopt.adam(0.1), params, state, count=1)
    with pytest.raises(ValueError, match=r"does not count its steps: give count="):
        from_optax_state(jopt.sgd(0.1, 0.9), params, optax.sgd(0.1, 0.9).init(params))
    with pytest.raises(ValueError, match=r"counts \[0\], got count=3"):
        from_optax_state(jopt.adam(0.1), params, optax.adam(1.0).init(params), count=3)
    injected = optax.inject_hyperparams(optax.adam)(0.1, b1=0.5).init(params)
    with pytest.warns(UserWarning, match=r"hyperparameters \{'b1': 0\.5\}, but"):
        from_optax_state(jopt.adam(0.1), params, injected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_optax_state(jopt.adam(0.1, b1=0.5), params, injected)
    wide = optax.adam(0.1).init({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"mu/w has the shape \(2,\), but .* \(3,\)"):
        from_optax_state(jopt.adam(0.1), params, wide)


def test_the_example_of_keras_2_works_as_it_is_printed():
    opt = jopt.rmsprop(1e-3, eps=1e-7)
    weights = keras.get_weights(
        opt, opt.init(LAYER), LAYER, order=ORDER, layout="legacy"
    )
    assert len(weights) == 3
    assert [w.shape for w in weights] == [(), (20, 10), (10,)]
    assert weights[0].dtype == np.int64
    new = [np.array(10), np.ones([20, 10]), np.zeros([10])]
    state = keras.set_weights(opt, opt.init(LAYER), new, LAYER, order=ORDER)
    assert {int(x) for n, x in state_dict(state).items() if "count" in n} == {10}
    nu = state["scale_by_rms"].nu
    assert np.all(nu["kernel"] == 1) and np.all(nu["bias"] == 0)
    assert state["scale_by_learning_rate"].learning_rate == np.float32(1e-3)


def state_dict(state):
    return dict(jopt.tree.leaves_with_names(state))


M, V = [np.array([1.0, 2.0]), np.array([3.0, 4.0])], [np.ones(2), np.zeros(2)]
ADAM = {
    "legacy": [np.int64(6), *M, *V],
    "keras2.11": [np.int64(6), M[0], V[0], M[1], V[1]],
    "keras3": [np.int32(6), np.float32(0.5), M[0], V[0], M[1], V[1]],
}


def test_each_layout_of_keras_is_read_and_written():
    params = [jnp.ones(2), jnp.ones(2)]  # a list has an order of its own
    tx = jopt.adam(0.5)
    for layout, weights in ADAM.items():
        state = keras.set_weights(tx, tx.init(params), weights, params, layout=layout)
        np.testing.assert_array_equal(state["scale_by_adam"].mu, M)
        np.testing.assert_array_equal(state["scale_by_adam"].nu, V)
        again = keras.get_weights(tx, state, params, layout=layout)
        for x, y in zip(again, weights, strict=True):
            np.testing.assert_array_equal(x, y)
    # Keras 3 says that it is itself by one number more; of the others both would do.
    state = keras.set_weights(tx, tx.init(params), ADAM["keras3"], params)
    assert np.all(state["scale_by_adam"].mu[1] == M[1])
    with pytest.raises(ValueError, match=r"fit the layouts .*: give layout="):
        keras.set_weights(tx, tx.init(params), ADAM["legacy"], params)
    # Keras 2.11 has a momentum that is not used.
    tx, zeros = jopt.sgd(0.1), [np.zeros(2)] * 2
    weights = keras.get_weights(tx, tx.init(params), params, layout="legacy")
    assert len(weights) == 1
    weights = keras.get_weights(tx, tx.init(params), params, layout="keras2.11")
    np.testing.assert_array_equal(weights[1:], zeros)
    keras.set_weights(tx, tx.init(params), weights, params)


def test_adafactor_of_keras_2_11_has_no_numbers_for_what_is_not_factored():
    tx = jopt.adafactor(0.1, min_dim_size_to_factor=1, factored_axes="last")
    params, fresh = LAYER, tx.init(LAYER)
    row, column, full = np.arange(20.0), np.arange(10.0), np.ones((20, 10))
    weights = [np.array(6), row, column, full, np.arange(10.0)]
    state = keras.set_weights(tx, fresh, weights, params, order=ORDER)
    kept = jopt.tree.get(state, "ScaleByFactoredRmsState")
    np.testing.assert_array_equal(kept.v_row["kernel"][:, 0], row)
    np.testing.assert_array_equal(kept.v_col["kernel"][0], column)
    np.testing.assert_array_equal(kept.v["bias"], weights[-1])
    options = {"order": ORDER, "layout": "keras2.11"}
    assert len(keras.get_weights(tx, state, params, **options)) == 5
    options["layout"] = "keras3"
    assert len(keras.get_weights(tx, state, params, **options)) == 8


def test_the_product_that_keras_2_11_did_not_save_is_computed():
    (row,) = (r for r in states.rows_of("keras") if r.oracle.startswith("Nadam"))
    params, _, kept = recorded(row)
    tx = eval(row.jopt, public(jopt))
    weights = [kept["0"], *(kept[str(i)] for i in range(2, 6))]
    for given in (weights, [kept["0"], kept["6"], *weights[1:]]):  # 2.11 and legacy
        layout = "keras2.11" if given is weights else "legacy"
        if layout == "legacy":  # slot after slot
            given = [*given[:2], *(given[i] for i in (2, 4, 3, 5))]
        options = {"order": ORDER, "layout": layout}
        state = keras.set_weights(tx, tx.init(params), given, params, **options)
        expected = loaded(row, tx, params, kept)
        product = state["scale_by_nadam"].mu_product
        np.testing.assert_allclose(product, kept["6"], 1e-6)
        assert np.array_equal(
            state["scale_by_nadam"].nu["kernel"],
            expected["scale_by_nadam"].nu["kernel"],
        )


def test_a_loss_scale_of_keras_comes_before_its_optimizer():
    tx = jopt.dynamic_loss_scale(jopt.sgd(0.5, 0.9, lr_in_momentum=True))
    params = [jnp.ones(2)]
    # From Keras: its own count and rate are not used.
    weights = [np.int32(0), np.float32(0), np.int32(1), np.float32(2)]
    weights += [np.int32(3), np.float32(0.1), np.array([-0.1, 0.2], np.float32)]
    state = keras.set_weights(tx, tx.init(params), weights, params)
    assert (int(state.growth_count), float(state.loss_scale)) == (1, 2.0)
    assert int(state.inner_state["scale_by_learning_rate"].count) == 3
    again = keras.get_weights(tx, state, params, layout="keras3")
    for x, y in zip(again, weights, strict=True):
        np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match=r"'legacy' has no place for .*growth_count"):
        keras.get_weights(tx, state, params, layout="legacy")


def test_weights_of_keras_that_do_not_fit_show_both_numbers_and_shapes():
    tx = jopt.rmsprop(1e-3)
    state = tx.init(LAYER)

    def load(*arrays, tx=tx, state=state, **options):
        options = {"order": ORDER} | options
        return keras.set_weights(tx, state, arrays, LAYER, **options)

    with pytest.raises(ValueError, match=r"there are 2 weights .*'legacy' has 3: "):
        load(np.array(10), np.ones((20, 10)))
    with pytest.raises(ValueError, match=r"3 weights .*\(10,\), \(20, 10\)\]"):
        load(np.array(10), np.ones(10), np.ones((20, 10)))
    with pytest.raises(ValueError, match=r"order is needed: .*'bias', 'kernel'"):
        load(np.array(10), np.ones((20, 10)), np.ones(10), order=None)
    with pytest.raises(ValueError, match=r"missing \['bias'\], unknown \['b'\]"):
        load(order=["kernel", "b"])
    with pytest.raises(TypeError, match=r"order must be a list of paths, got order='k"):
        load(order="kernel")
    with pytest.raises(ValueError, match=r"layout must be one of"):
        load(layout="keras4")
    with pytest.raises(ValueError, match=r"this state is not one of"):
        load(state=jopt.adam(1e-3).init(LAYER))
    with pytest.raises(ValueError, match=r"Permuted\('kernel', \(0, 2\)\) must"):
        load(order=[Permuted("kernel", (0, 2)), "bias"])
    with pytest.raises(
        ValueError, match=r"\['0', 'kernel'\] are missing or superfluous"
    ):
        keras.set_weights(tx, state, {"kernel": 1}, LAYER, order=ORDER)
    with pytest.raises(TypeError, match=r"weights must be a list of arrays, got None"):
        keras.set_weights(tx, state, None, LAYER, order=ORDER)
    with pytest.raises(ValueError, match=r"iteration must be >= 0, got iteration=-1"):
        load(np.array(-1), np.ones((20, 10)), np.ones(10))
    yogi, averaged = jopt.yogi(1e-3), jopt.chain(tx, jopt.params_mean())
    with pytest.raises(ValueError, match=r"Keras's SGD keeps nothing like .*mu"):
        load(tx=yogi, state=yogi.init(LAYER))
    with pytest.raises(ValueError, match=r"RMSprop keeps nothing like .*params_mean"):
        load(tx=averaged, state=averaged.init(LAYER))
    # With the rate inside of a momentum here and not there, it must be one number.
    scheduled = jopt.sgd(jopt.exponential_decay(0.1, 5, 0.5), 0.9)
    with pytest.raises(ValueError, match=r"not a constant.*lr_in_momentum=True"):
        load(
            *(np.array(10), np.ones((20, 10)), np.ones(10)),
            tx=scheduled,
            state=scheduled.init(LAYER),
        )
    scheduled = jopt.sgd(jopt.exponential_decay(0.1, 5, 0.5))
    with pytest.warns(UserWarning, match=r"learning_rate=0\.25, but .* at step 10"):
        new = load(
            *(np.array(10), np.array(0.25)),
            tx=scheduled,
            state=scheduled.init(LAYER),
        )
    assert int(new["scale_by_learning_rate"].count) == 10


def test_a_file_of_keras_is_loaded():
    pytest.importorskip("h5py")
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    order = ["dense/kernel", "dense/bias"]
    tx = jopt.amsgrad(0.5, eps=1e-7, maximum="raw", eps_mode="before")
    with np.load(states.MODELS / "variables.npz") as file:
        variables = dict(file)
    for name in ("model.keras", "model.h5", "model.weights.h5"):
        path = states.MODELS / name
        state = keras.load(path, tx, params, order=order)
        again = keras.get_weights(tx, state, params, order=order, layout="keras3")
        for i, x in enumerate(again):
            np.testing.assert_array_equal(x, variables[str(i)], err_msg=name)
        assert int(state["scale_by_amsgrad"].count) == 6
        if name != "model.weights.h5":  # which does not say whose it is
            other = jopt.adamax(0.5)
            with pytest.raises(
                ValueError, match=r"is Adam, but .* the state of Adamax"
            ):
                keras.load(path, other, params, order=order)


def test_a_file_of_an_old_keras_is_loaded(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "old.h5"
    arrays = {"Adam/iter:0": np.int64(6)}
    for slot, values in (("m", M), ("v", V)):
        for layer, value in zip(("a", "b"), values, strict=True):
            arrays[f"Adam/{layer}/bias/{slot}:0"] = value.astype("float32")
    with h5py.File(path, "w") as file:
        file.attrs["training_config"] = b'{"optimizer_config": {"class_name": "Adam"}}'
        group = file.create_group("optimizer_weights")
        names = [name.encode() for name in arrays]
        # Keras puts a long list of names in pieces.
        group.attrs["weight_names0"], group.attrs["weight_names1"] = (
            names[:3],
            names[3:],
        )
        for name, x in arrays.items():
            group[name] = x
    params = {"b": jnp.ones(2), "a": jnp.ones(2)}
    state = keras.load(path, jopt.adam(0.5), params, order=["a", "b"], layout="legacy")
    np.testing.assert_array_equal(state["scale_by_adam"].mu["b"], M[1])
    np.testing.assert_array_equal(state["scale_by_adam"].nu["a"], V[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match=r"old.h5' is not a model file .* damaged: .*trunc"
    ):
        keras.load(path, jopt.adam(0.5), params, order=["a", "b"])
    with h5py.File(path, "w"):
        pass
    with pytest.raises(ValueError, match="has no optimizer weights: save the"):
        keras.load(path, jopt.adam(0.5), params, order=["a", "b"])


def entry(step=6.0, shape=(2, 3), **more):
    """What torch keeps for one parameter."""
    moments = {"exp_avg": np.ones(shape), "exp_avg_sq": np.ones(shape)}
    return {"step": np.float32(step)} | moments | more


def test_state_dicts_of_torch_that_do_not_fit_say_what_does_not():
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3))}

    def load(first, second, tx=None, lrs=(0.1,), **options):
        groups = [{"lr": lr, "params": []} for lr in lrs]
        groups[0]["params"], groups[-1]["params"] = [0], [1]
        if len(groups) == 1:
            groups[0]["params"] = [0, 1]
        theirs = {"state": {0: first, 1: second}, "param_groups": groups}
        options = {"order": ["a", "b"]} | options
        return torch.load_state_dict(tx or jopt.adam(0.5), params, theirs, **options)

    with pytest.raises(ValueError, match=r"step differs .*'a': 6\.0, 'b': 7\.0"):
        load(entry(), entry(7.0))
    with pytest.raises(ValueError, match=r"\(3, 2\) .* \(2, 3\) .*If .*Permuted\('b'"):
        load(entry(), entry(shape=(3, 2)))
    with pytest.raises(ValueError, match=r"for 'a', .*has \[.*'max_exp_avg_sq'"):
        load(entry(max_exp_avg_sq=np.ones((2, 3))), entry())
    with pytest.raises(ValueError, match=r"for 'b', but the state_dict has \[\]"):
        load(entry(), {})
    with pytest.raises(ValueError, match=r"is at step 6, got count=7"):
        load(entry(), entry(), count=7)
    momentum = {"momentum_buffer": np.ones((2, 3))}
    with pytest.raises(ValueError, match=r"torch's SGD does not keep .*: give count="):
        load(momentum, momentum, tx=jopt.sgd(0.1, 0.9))
    with pytest.raises(ValueError, match=r"no names of parameters.*give a list"):
        load(entry(), entry(), order={"x": "a", "y": "b"})
    with pytest.warns(UserWarning, match=r"rates \[0\.1, 0\.2\], .* kept: .*0\.5"):
        load(entry(), entry(), lrs=(0.1, 0.2))
    theirs = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    with pytest.raises(ValueError, match=r"1 parameters, but params has 2: \['a', 'b"):
        torch.load_state_dict(jopt.sgd(0.1), params, theirs, order=["a", "b"], count=1)
    with pytest.raises(ValueError, match=r"with 'state' and 'param_groups', got \{'st"):
        torch.load_state_dict(jopt.sgd(0.1), params, {"state": {}}, order=["a", "b"])
    rprop = jopt.rprop(0.1)
    with pytest.raises(ValueError, match=r"rprop.* does not keep .*: give count="):
        like = {"param_groups": [{"lr": 0.1, "params": [0, 1]}]}
        torch.state_dict(rprop, rprop.init(params), params, like, order=["a", "b"])


def test_torch_parameters_can_be_given_by_their_names():
    params = {"fc": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    kernel, bias = np.arange(6.0).reshape(3, 2), np.arange(3.0)
    state = {0: entry() | {"exp_avg": kernel, "exp_avg_sq": kernel}}
    state[1] = entry() | {"exp_avg": bias, "exp_avg_sq": bias}
    names = ["fc.weight", "fc.bias"]
    group = {"lr": 0.25, "params": [0, 1], "param_names": names}
    theirs = {"state": state, "param_groups": [group]}
    order = {"fc.bias": "fc/bias", "fc.weight": Permuted("fc/kernel", (1, 0))}
    tx = jopt.adam(0.5)
    found = torch.load_state_dict(tx, params, theirs, order=order)
    np.testing.assert_array_equal(found["scale_by_adam"].mu["fc"]["kernel"], kernel.T)
    assert jopt.hyperparams(found)["learning_rate"] == 0.25
    again = torch.state_dict(tx, found, params, theirs, order=order)
    assert_alike(
        {k: np.asarray(x, float) for k, x in again["state"][0].items()},
        {k: np.asarray(x, float) for k, x in state[0].items()},
        0,
    )
    with pytest.raises(ValueError, match=r"only one .* \['fc.gain', 'fc.weight'\]"):
        order = {"fc.bias": "fc/bias", "fc.gain": "fc/kernel"}
        torch.load_state_dict(tx, params, theirs, order=order)


def test_a_real_optimizer_of_torch_is_read_and_loads_what_is_written():
    library = pytest.importorskip("torch")
    params = {"kernel": jnp.ones((3, 2), jnp.bfloat16), "bias": jnp.ones(2)}
    layer = library.nn.Linear(3, 2)
    layer.weight.data = layer.weight.data.bfloat16()

    def made():
        return library.optim.Adam(layer.named_parameters(), lr=0.1)

    optimizer = made()
    for p in layer.parameters():
        p.grad = library.arange(float(p.numel())).reshape(p.shape).to(p.dtype)
    optimizer.step()
    theirs = optimizer.state_dict()
    order = {"weight": Permuted("kernel", (1, 0)), "bias": "bias"}
    tx = jopt.adam(0.5)
    state = torch.load_state_dict(tx, params, theirs, order=order)
    expected = theirs["state"][0]["exp_avg"].float().numpy().T
    np.testing.assert_array_equal(state["scale_by_adam"].mu["kernel"], expected)
    like = {"order": order, "tensor": library.tensor}
    again = torch.state_dict(tx, state, params, made().state_dict(), **like)
    other = made()
    other.load_state_dict(again)
    for i, kept in theirs["state"].items():
        for name, x in kept.items():
            assert library.equal(other.state_dict()["state"][i][name], x), name
    assert other.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_loaded_state_is_sharded_as_it_was():
    mesh = jax.make_mesh((8,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = jax.device_put(jnp.ones(16), sharding)
    tx = jopt.adam(1e-3)
    fresh = tx.init(params)
    weights = keras.get_weights(tx, fresh, params)
    state = keras.set_weights(tx, fresh, weights, params)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
        assert x.sharding == y.sharding
    assert state["scale_by_adam"].mu.sharding == sharding


def test_momentum_is_converted_wherever_its_rate_is():
    params, buffer = {"w": jnp.ones(2)}, np.array([1.0, -2.0])
    entry = {"momentum_buffer": buffer}
    theirs = {"state": {0: entry}, "param_groups": [{"lr": 0.5, "params": [0]}]}
    rate, heavy = jopt.scale_by_learning_rate(0.1), jopt.trace(0.9)
    for tx, factor in (
        (jopt.chain(heavy, rate), 1.0),
        (jopt.chain(rate, heavy), -0.5),
        (jopt.chain(rate, jopt.masked(heavy, "w")), -0.5),
        (jopt.partition({"a": jopt.chain(rate, heavy)}, {"w": "a"}), -0.5),
    ):
        state = torch.load_state_dict(tx, params, theirs, count=6)
        trace = jopt.tree.get(state, "TraceState").trace["w"]
        np.testing.assert_array_equal(trace, factor * buffer)


def test_a_loaded_state_can_be_donated_and_is_the_recipes_in_types():
    params = {"kernel": jnp.ones((20, 10), jnp.bfloat16), "bias": jnp.ones(10)}
    tx = jopt.adam(1e-3, mu_dtype="bfloat16")
    fresh = tx.init(params)
    weights = keras.get_weights(tx, fresh, params, order=ORDER)
    state = keras.set_weights(tx, fresh, weights, params, order=ORDER)
    spec = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype, x.weak_type))
    assert spec(state) == spec(fresh)
    step = jax.jit(tx.update, donate_argnums=1)
    step(params, state, params)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))


def test_no_other_library_is_imported_for_it():
    code = "import sys, jopt.interop.keras, jopt.interop.torch; print(*sys.modules)"
    names = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"keras", "torch", "h5py", "tensorflow", "optax"} & set(names)


@pytest.mark.parametrize(
    "tx, path, leaves",
    [
        (jopt.muon(0.1), "muon", {"kernel"}),
        (jopt.muon(0.1), "adam", {"bias"}),
        (
            jopt.selective_transform(jopt.sgd(0.1), freeze_mask="bias"),
            "train",
            {"kernel"},
        ),
        (jopt.masked(jopt.sgd(0.1), "bias"), "inner_state", {"bias"}),
        (jopt.skip_nonfinite(jopt.sgd(0.1)), "inner_state", {"bias", "kernel"}),
    ],
)
def test_a_transformation_says_which_leaves_its_children_see(tx, path, leaves):
    params = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    assert dict(state_view.reached(tx, params))[path] == leaves


def test_accumulation_is_found_under_any_name():
    @jopt.transformation
    def my_optimizer(learning_rate: float):
        return jopt.accumulate(jopt.sgd(learning_rate), 2)

    tx, params = my_optimizer(0.1), {"w": jnp.ones(2)}
    view = state_view.View(tx, tx.init(params), params, None)
    (member,) = view.holding(AccumulateState)
    assert (member.name, member.path) == ("my_optimizer", "")
