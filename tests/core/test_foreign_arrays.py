"""Arrays of torch, wherever they are, are an error that says what to pass instead."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.testing.problem import small
from tests.catalogue import CASES


ONCE = list({case.name: case for case in reversed(CASES)}.values())


class Tensor:
    """What JAX sees of a ``torch.Tensor``."""

    dtype = type("dtype", (), {"__repr__": lambda self: "torch.float32"})()

    def __init__(self, shape=()):
        self.shape, self.ndim = tuple(shape), len(shape)

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        return "tensor(0.5000)"


Tensor.__module__ = "torch"

CONVERT = "of torch; pass jnp.asarray(x.detach().cpu().numpy())"


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.id)
def test_in_a_tree_the_error_names_the_leaf_for_every_transformation(case):
    tx = case.make()
    params, _ = small()
    state, loss = tx.init(params), jnp.float32(1)
    tensors = jax.tree.map(lambda x: Tensor(np.shape(x)), params)
    calls = {
        "params": lambda: tx.init(tensors),
        "updates": lambda: tx.update(tensors, state, params, value=loss),
        "grads": lambda: jopt.step(tx, tensors, state, params, value=loss),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError) as error:
            call()
        assert str(error.value).startswith(f"{name} leaf '"), name
        assert CONVERT in str(error.value), name


def test_params_and_states_that_an_update_reads_are_named_too():
    tx, params = jopt.adamw(0.1), {"w": jnp.ones(3)}
    state, tensors = tx.init(params), {"w": Tensor((3,))}
    slots = state | {"scale_by_adam": state["scale_by_adam"]._replace(mu=tensors)}
    average = jopt.params_ema(0.9)
    calls = {
        "params leaf 'w'": lambda: tx.update(params, state, tensors),
        "state leaf 'scale_by_adam/mu/w'": lambda: tx.update(params, slots, params),
        "updates leaf 'w'": lambda: jopt.apply_updates(params, tensors),
        "params leaf 'w' ": lambda: jopt.apply_updates(tensors, params),
        " params leaf 'w'": lambda: jopt.eval_params(
            average, average.init(params), tensors
        ),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"^{name.strip()} .*{re.escape(CONVERT)}"):
            call()


NUMBERS = {
    "learning_rate": jopt.adam,
    "b1": lambda x: jopt.adam(0.1, b1=x),
    "weight_decay": lambda x: jopt.add_decayed_weights(x),
    "init_value": lambda x: jopt.linear_schedule(x, 0.0, 3),
    "transition_steps": lambda x: jopt.linear_schedule(1.0, 0.0, x),
    "boundaries[0]": lambda x: jopt.piecewise_constant([x], [1.0, 0.5]),
    "values[1]": lambda x: jopt.piecewise_constant([1], [1.0, x]),
    "schedules[0]": lambda x: jopt.multiply_schedules([x]),
    "steps": lambda x: jopt.accumulate(jopt.sgd(0.1), x),
    "value": jopt.tunable,
    "number": lambda x: jopt.tunable(0.1) * x,
    "learning_rate ": lambda x: jopt.set_hyperparams(
        jopt.sgd(0.1), jopt.sgd(0.1).init(jnp.ones(1)), learning_rate=x
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_tensor_for_a_number_says_to_convert_it(name):
    with pytest.raises(TypeError) as error:
        NUMBERS[name](Tensor())
    assert "tensor(0.5000) (of torch; pass float(x))" in str(error.value)
    assert name == "number" or str(error.value).startswith(f"{name.strip()} must be ")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("huge", [10**400, -(10**400)], ids=["+", "-"])
def test_a_number_that_no_float_holds_is_an_error_with_its_name(name, huge):
    with pytest.raises(ValueError, match=r"must be below 1.8e308") as error:
        NUMBERS[name](huge)
    assert str(error.value).startswith(f"{name.strip()} must be ")


WITH_VALUE = {
    "polyak_sgd": lambda: jopt.polyak_sgd(),
    "momo": lambda: jopt.momo(0.1),
    "momo_adam": lambda: jopt.momo_adam(0.1),
    "reduce_on_plateau": lambda: jopt.reduce_on_plateau(),
    "skip_spikes": lambda: jopt.skip_spikes(jopt.sgd(0.1), of="value"),
    "skip_nonfinite": lambda: jopt.skip_nonfinite(jopt.sgd(0.1)),
}


@pytest.mark.parametrize("name", WITH_VALUE)
@pytest.mark.parametrize(
    "value",
    ["0.5", jnp.ones(3), [0.5], Tensor()],
    ids=["text", "vector", "list", "torch"],
)
def test_a_value_that_is_not_one_number_is_blamed_itself(name, value):
    tx, params = WITH_VALUE[name](), jnp.ones(2)
    state = tx.init(params)
    with pytest.raises(TypeError, match=r"^value must be one number, got "):
        tx.update(params, state, params, value=value)


def test_another_argument_that_is_not_an_array_is_named():
    tx = jopt.leafwise(lambda g, *, hessian: g, lambda hessian: {"hessian": hessian})
    for wrong in ("exact", Tensor((2,)), {"w": Tensor((2,))}):
        with pytest.raises(
            TypeError, match=r"^hessian must be a number, an array or a tree"
        ):
            tx.update(jnp.ones(2), tx.init(jnp.ones(2)), hessian=wrong)


@pytest.mark.parametrize("read", [jopt.hyperparams, jopt.metrics])
def test_hyperparams_and_metrics_of_parameters_are_an_error(read):
    for params in ({"w": jnp.ones(2)}, jnp.ones(2), [jnp.ones(2)]):
        with pytest.raises(TypeError, match="expected a state, as returned by init"):
            read(params)
    for tx in (jopt.clip(1.0), jopt.chain(jopt.clip(1.0)), jopt.scale_by_adam()):
        assert read(tx.init(jnp.ones(2))) == {}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_the_tensors_of_torch_are_recognized():
    import torch

    with pytest.raises(TypeError, match=re.escape(CONVERT)):
        jopt.adam(0.1).init({"w": torch.ones(3)})
    with pytest.raises(TypeError, match=re.escape(CONVERT)):
        jopt.adam(0.1).init({"w": torch.nn.Parameter(torch.ones(3))})
    with pytest.raises(TypeError, match=re.escape("pass float(x)")):
        jopt.adam(torch.tensor(0.5))
