"""What people do wrong, and what they are told: THE table of errors.

A row is a wrong call, the error, and what its message has to say: which argument or
leaf, what was given, and what to do. To add a mistake, add a row.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import jopt
from jopt.core import tree_checks
from jopt.core.kernels import _kernel, _prologue


PARAMS = {"dense": {"bias": jnp.ones(1), "kernel": jnp.ones((3, 1))}}
GRADS = jax.tree.map(lambda p: 0.1 * p, PARAMS)

ADAM, ADAMW, SGD = jopt.adam(0.1), jopt.adamw(0.1), jopt.sgd(0.1)
SCALE_BY_ADAM = jopt.scale_by_adam()
ENSEMBLE = jopt.chain(a=jopt.sgd(0.1), b=jopt.sgd(0.2))


def tree(kernel: Any = GRADS["dense"]["kernel"], **more: Any) -> Any:
    """The gradients with another kernel, or with more leaves."""
    return {"dense": {"bias": jnp.ones(1), "kernel": kernel, **more}}


class WholeModel(eqx.Module):
    """What people call ``init`` with, though one leaf of it is a function."""

    weight: jax.Array
    activation: Callable[..., Any]


class Model(eqx.Module):
    weight: jax.Array
    activation: str = eqx.field(static=True)


class Sums(NamedTuple):
    total: Any


SUMS = {"state": Sums, "total": jopt.zeros()}


@jopt.schedule
def misused_ramp(rate: float) -> Any:
    return lambda count: rate * (1 + jnp.asarray(count, jnp.float32))


SCHEDULED = jopt.sgd(misused_ramp(0.1))


def scale_by_value() -> Any:
    """A transformation that no factory made, with a required extra argument."""
    return jopt.leafwise(lambda g, *, value: value * g, lambda value: {"value": value})


def update(
    tx: Any,
    grads: Any = GRADS,
    state: Any = ...,
    params: Any = PARAMS,
    init: Any = PARAMS,
    **extra: Any,
) -> Any:
    """An update in which all is right but what is given."""
    state = tx.init(init) if state is ... else state
    return tx.update(grads, state, params, **extra)


def changed(tx: Any, **values: Any) -> Any:
    return jopt.set_hyperparams(tx, tx.init(PARAMS), **values)


def updated_rule(rule: Any, *arguments: Any, **slots: Any) -> Any:
    """An update of an algorithm that a user wrote."""
    return update(jopt.leafwise(rule, *arguments, **slots))


def replaced(tx: Any, **fields: Any) -> Any:
    return tx.init(PARAMS)._replace(**fields)


def not_a_factory() -> Any:
    return 3


def foreign_factory() -> Any:
    return optax.sgd(0.1)


def constant_by_mistake() -> Any:
    return 0.1


def registered_elsewhere() -> Any:
    """A factory with the name of one of jopt's."""

    def adam() -> Any:
        return jopt.identity()

    adam.__module__ = "elsewhere"
    return jopt.transformation(adam)


NUMBER = "must be a number, a schedule or jopt.tunable(number)"
INEXACT = "only floating point and complex arrays can be optimized"
SHAPES = "updates have shape (1, 3), but params has shape (3, 1)"
SIX = jnp.ones((2, 2, 2, 2, 2, 2))

# name, the wrong call, the error, what the message says
NUMBERS = [
    ("b1 above 1", lambda: jopt.adam(0.1, b1=1.5),
     ValueError, "b1 must be in [0, 1), got b1=1.5"),
    ("b1 of 1", lambda: jopt.adam(0.1, b1=1.0),
     ValueError, "b1 must be in [0, 1), got b1=1.0"),
    ("tunable b1 above 1", lambda: jopt.adam(0.1, b1=jopt.tunable(1.5)),
     ValueError, "b1 must be in [0, 1), got b1=1.5"),
    ("b1 array above 1", lambda: jopt.adam(0.1, b1=jnp.float32(1.5)),
     ValueError, "b1 must be in [0, 1), got b1=1.5"),
    ("negative rate", lambda: jopt.adam(-0.1),
     ValueError, "learning_rate must be >= 0 and finite, got learning_rate=-0.1"),
    ("NaN rate", lambda: jopt.adam(math.nan),
     ValueError, "learning_rate must be >= 0 and finite, got learning_rate=nan"),
    ("infinite rate", lambda: jopt.adam(math.inf),
     ValueError, "learning_rate must be >= 0 and finite, got learning_rate=inf"),
    ("text as rate", lambda: jopt.adam("0.1"),
     TypeError, f"learning_rate {NUMBER}, got learning_rate='0.1'"),
    ("no rate", lambda: jopt.adam(None),
     TypeError, f"learning_rate {NUMBER}, got learning_rate=None"),
    ("True as rate", lambda: jopt.adam(True),
     TypeError, f"learning_rate {NUMBER}, got learning_rate=True"),
    ("an array of a bool as rate", lambda: jopt.adam(jnp.array(True)),
     TypeError, f"learning_rate {NUMBER}", "Array(True"),
    ("a complex rate", lambda: jopt.adam(jnp.array(1j)),
     TypeError, f"learning_rate {NUMBER}", "complex64"),
    ("two rates", lambda: jopt.adam(jnp.ones(2)),
     TypeError, f"learning_rate {NUMBER}", "Array([1., 1.]"),
    ("two traced rates",
     lambda: jax.jit(lambda r: jopt.adam(r).init(PARAMS))(jnp.ones(2)),
     TypeError, f"learning_rate {NUMBER}", "float32[2]"),
    ("an optimizer as rate", lambda: jopt.adam(SGD),
     TypeError, f"learning_rate {NUMBER}", "sgd(learning_rate=0.1)"),
    ("a schedule not called", lambda: jopt.adam(misused_ramp),
     TypeError,
     "learning_rate must be a number or a schedule, got the factory misused_ramp",
     "learning_rate=misused_ramp(…)"),
    ("a schedule without a step", lambda: jopt.adam(lambda: 0.1),
     TypeError, "learning_rate must be a number or a function of the step",
     "which takes ()"),
    ("a schedule of text", lambda: jopt.adam(lambda step: "0.1").init(PARAMS),
     TypeError,
     "what the schedule of learning_rate returns must be one number, got '0.1'"),
    ("a schedule of vectors", lambda: jopt.adam(lambda step: jnp.ones(2)).init(PARAMS),
     TypeError, "what the schedule of learning_rate returns must be one number",
     "[1., 1.]"),
    ("a step that is true", lambda: misused_ramp(0.1)(True),
     TypeError, "a schedule takes the number of a step", "True"),
    ("negative eps", lambda: jopt.adam(0.1, eps=-1e-8),
     ValueError, "eps must be >= 0 and finite, got eps=-1e-08"),
    ("both eps zero", lambda: jopt.adam(0.1, eps=0),
     ValueError, "eps=0.0 and eps_root=0.0", "divided by zero"),
    ("eps mode misspelt", lambda: jopt.adam(0.1, eps_mode="befor"),
     ValueError, "eps_mode must be one of 'after', 'before', got eps_mode='befor'"),
    ("an integer dtype", lambda: jopt.adam(0.1, mu_dtype="int32"),
     TypeError, "mu_dtype must be a floating point dtype such as 'bfloat16', or one of",
     "mu_dtype='int32'"),
    ("nonsense as dtype", lambda: jopt.adam(0.1, mu_dtype="nonsense"),
     TypeError, "mu_dtype must be a floating point dtype", "got mu_dtype='nonsense'"),
    ("nesterov alone", lambda: jopt.sgd(0.1, nesterov=True),
     ValueError, "nesterov=True needs a momentum, got momentum=None"),
    ("nesterov yes", lambda: jopt.sgd(0.1, 0.9, nesterov="yes"),
     TypeError, "nesterov must be True or False, got nesterov='yes'"),
    ("negative norm", lambda: jopt.clip_by_global_norm(-1),
     ValueError, "max_norm must be > 0, got max_norm=-1.0"),
    ("zero norm", lambda: jopt.clip_by_global_norm(0),
     ValueError, "max_norm must be > 0, got max_norm=0.0"),
    ("no norm", lambda: jopt.clip_by_global_norm(None),
     TypeError, f"max_norm {NUMBER}, got max_norm=None"),
    ("text as axis", lambda: jopt.adaptive_grad_clip(0.1, axis="rows"),
     TypeError, "axis must be a whole number or a tuple, got axis='rows'"),
    ("no key", lambda: jopt.add_noise(0.1, 0.5),
     TypeError, "add_noise: missing a required argument: 'key'",
     "add_noise(eta, gamma, key)"),
    ("text as key", lambda: jopt.add_noise(0.1, 0.5, key="a"),
     TypeError, "key must be a whole number or an array, got key='a'"),
    ("a fraction as seed", lambda: jopt.add_noise(0.1, 0.5, key=1.5),
     TypeError, "key must be a whole number or an array, got key=1.5"),
    ("misspelt argument", lambda: jopt.adamw(0.1, weight_deca=0.1),
     TypeError,
     "adamw has no argument 'weight_deca'. Did you mean 'weight_decay'? The call",
     "is adamw(learning_rate, b1=0.9"),
    ("torch's name of the rate", lambda: jopt.adam(lr=0.1),
     TypeError, "adam has no argument 'lr'. Did you mean 'learning_rate'?"),
    ("rate forgotten", lambda: jopt.adam(),
     TypeError, "adam: missing a required argument: 'learning_rate'. The call is",
     "adam(learning_rate, "),
    ("too many positional", lambda: jopt.sgd(0.1, 0.9, True, None, False),
     TypeError, "sgd: too many positional arguments. The call is sgd(learning_rate,",
     "momentum=None, nesterov=False, accumulator_dtype=None, *, "),
    ("text in tunable", lambda: jopt.tunable("x"),
     TypeError, "value must be one number, got value='x'"),
    ("a list in tunable", lambda: jopt.tunable([1, 2]),
     TypeError, "value must be one number, got value=[1, 2]"),
    ("text in a schedule", lambda: misused_ramp("x"),
     TypeError, "rate must be a number, got rate='x'"),
    ("a number as schedule", lambda: jopt.scale_by_schedule(0.1),
     TypeError, "step_size_fn must be a schedule, got 0.1", "jopt.scale"),
]  # fmt: skip

# name, transformation, what is wrong, the error, what the message says; also under jit
TREES = [
    ("another shape", ADAM, {"grads": tree(jnp.ones((1, 3)))},
     ValueError, f"leaf 'dense/kernel': {SHAPES}", "Nothing is broadcast"),
    ("another shape for sgd", SGD, {"grads": tree(jnp.ones((1, 3)))},
     ValueError, f"leaf 'dense/kernel': {SHAPES}"),
    ("a leaf is missing", ADAM, {"grads": {"dense": {"kernel": jnp.ones((3, 1))}}},
     ValueError,
     "updates and params have different structures; only in params: 'dense/bias'",
     "update(updates, state, params)"),
    ("a leaf too much", ADAM, {"grads": tree(more=jnp.ones(1))},
     ValueError, "only in the updates: 'dense/more'"),
    ("a leaf for a subtree", ADAM, {"grads": {"dense": jnp.ones(1)}},
     ValueError,
     "only in the updates: 'dense'; only in params: 'dense/bias', 'dense/kernel'"),
    ("a list for a tuple", SGD,
     {"grads": {"a": [jnp.ones(1)]}, "params": {"a": (jnp.ones(1),)}, "init": ()},
     ValueError, "the same leaves in a list and in a tuple"),
    ("integers as gradient", ADAM, {"grads": tree(jnp.ones((3, 1), int))},
     TypeError, "updates leaf 'dense/kernel' has dtype int32", INEXACT, "put None"),
    ("bools as gradient", ADAM, {"grads": tree(jnp.ones((3, 1), bool))},
     TypeError, "updates leaf 'dense/kernel' has dtype bool"),
    ("integer parameters", ADAM, {"params": tree(jnp.ones((3, 1), int))},
     TypeError, "params leaf has dtype int32", INEXACT,
     "This is about leaf 'dense/kernel' of shape (3, 1)"),
    ("integers in the state", SCALE_BY_ADAM,
     {"state": replaced(SCALE_BY_ADAM, mu=tree(jnp.ones((3, 1), int)))},
     TypeError, "the state's leaf has dtype int32", "leaf 'dense/kernel'"),
    ("complex gradients", ADAM, {"grads": tree(jnp.ones((3, 1), complex))},
     TypeError, "updates have dtype complex64, but params float32: take gradients with",
     "respect to these params", "leaf 'dense/kernel'"),
    ("None for a subtree", ADAM, {"grads": {"dense": None}},
     ValueError,
     "only in the updates: 'dense'; only in params: 'dense/bias', 'dense/kernel'"),
    ("None for all gradients", SGD, {"grads": None},
     ValueError, "only in the updates: the tree itself; only in params: 'dense/bias',",
     "'dense/kernel'"),
    ("None in the parameters", SGD, {"params": tree(None)},
     ValueError, "leaf 'dense/kernel' has an update, but it is None in params"),
    ("None at init only", ADAM, {"init": tree(None)},
     ValueError, "the state has no slot for leaf 'dense/kernel'", "Call init again"),
    ("the state of another optimizer", ADAM, {"state": jopt.lion(0.1).init(PARAMS)},
     ValueError,
     "it lacks ['scale_by_adam'] and no member knows its ['scale_by_lion']. Call init"),
    ("the state of another rule", SCALE_BY_ADAM,
     {"state": jopt.trace(0.9).init(PARAMS)},
     TypeError,
     "scale_by_adam expects the state that its init made, a ScaleByAdamState with",
     "the fields ('count', 'mu', 'nu'), but got TraceState("),
    ("the state of other parameters", ADAM, {"init": tree(jnp.ones((3, 2)))},
     ValueError,
     "leaf 'dense/kernel': updates have shape (3, 1), but the state's mu has",
     "shape (3, 2)", "init"),
    ("the state of other leaves", ADAM,
     {"init": {"dense": {"kernel": jnp.ones((3, 1))}}},
     ValueError,
     "updates and the state's mu have different structures; only in the updates:",
     "'dense/bias'"),
    ("state and gradients swapped", ADAM, {"grads": ADAM.init(PARAMS), "state": GRADS},
     ValueError, "this state, with the entries ['dense'], does not belong",
     "['scale_by_adam', 'scale_by_learning_rate']",
     "The order is update(updates, state, params)"),
    ("swapped for a rule", SCALE_BY_ADAM,
     {"grads": SCALE_BY_ADAM.init(PARAMS), "state": GRADS},
     TypeError, "scale_by_adam expects the state that its init made",
     "The order is update(updates, state, params)"),
    ("state and params swapped", ADAMW, {"state": PARAMS, "params": ADAMW.init(PARAMS)},
     ValueError, "it lacks ['scale_by_adam', 'scale_by_learning_rate']",
     "The order is update(updates, state, params)"),
    ("a state of dicts", ADAM,
     {"state": {n: s._asdict() for n, s in ADAM.init(PARAMS).items()}},
     TypeError,
     "scale_by_adam expects the state that its init made, a ScaleByAdamState",
     "but got {'count'", "restored into tx.init(params)"),
    ("a state of lists", ADAM,
     {"state": {n: list(s) for n, s in ADAM.init(PARAMS).items()}},
     TypeError,
     "scale_by_adam expects the state that its init made, a ScaleByAdamState",
     "restored into tx.init(params)"),
    ("a list for the dict of a chain", ADAM,
     {"state": list(ADAM.init(PARAMS).values())},
     TypeError, "the state of this chain is a dict with the entries ['scale_by_adam',",
     "'scale_by_learning_rate'], but got [ScaleByAdamState"),
    ("no init", ADAMW, {"state": None},
     TypeError, "the state of this chain is a dict with the entries ['scale_by_adam',",
     "'scale_by_learning_rate'], but got None", "state = tx.init(params)"),
    ("no init for a rule", SCALE_BY_ADAM, {"state": None},
     TypeError, "scale_by_adam expects the state that its init made", "but got None"),
    ("a state with one too many", SGD,
     {"state": jopt.sgd(0.1, momentum=0.9).init(PARAMS)},
     ValueError, "this chain: no member knows its ['trace']"),
    ("an empty state", ADAM, {"state": {}},
     ValueError, "entries [], does not belong to this chain: it lacks ['scale"),
    ("a count for many", SCALE_BY_ADAM,
     {"state": replaced(SCALE_BY_ADAM, count=jnp.zeros(2, jnp.int32))},
     TypeError,
     "scale_by_adam: the state's count must be one whole number, got int32[2]"),
    ("a count that is lost", SCALE_BY_ADAM,
     {"state": replaced(SCALE_BY_ADAM, count=None)},
     TypeError, "scale_by_adam: the state's count must be one whole number, got None"),
    ("a count of floats", SCALE_BY_ADAM,
     {"state": replaced(SCALE_BY_ADAM, count=jnp.zeros(()))},
     TypeError,
     "scale_by_adam: the state's count must be one whole number, got float32[]"),
    ("params forgotten for adamw", ADAMW, {"params": None},
     TypeError, "add_decayed_weights needs the parameters: call update(updates, state,",
     "params)"),
    ("params forgotten for ftrl", jopt.ftrl(0.1), {"params": None},
     TypeError, "ftrl needs the parameters: call update(updates, state, params)"),
    ("params forgotten in a chain", jopt.chain(jopt.scale_by_trust_ratio(), SGD),
     {"params": None},
     TypeError, "scale_by_trust_ratio needs the parameters"),
    ("params misspelt", ADAM, {"params": None, "parms": PARAMS},
     TypeError,
     "adam: no transformation here takes the argument 'parms'. Did you mean 'params'?"),
    ("value misspelt", scale_by_value(), {"valeu": 1.0},
     TypeError, "scale_by_value: no transformation here takes the argument 'valeu'.",
     "'value'?"),
    ("value misspelt in a chain", jopt.chain(scale_by_value(), SGD), {"valeu": 1.0},
     TypeError, "no transformation here takes the argument 'valeu'. Did you mean"),
    ("value forgotten", scale_by_value(), {},
     TypeError,
     "scale_by_value needs the argument 'value': call update(updates, state,",
     "params, value=…)"),
    ("value forgotten in a chain", jopt.chain(scale_by_value(), SGD), {},
     TypeError, "scale_by_value needs the argument 'value'"),
    ("value None", scale_by_value(), {"value": None},
     TypeError, "scale_by_value needs the argument 'value'"),
    ("many values", scale_by_value(), {"value": jnp.ones(3)},
     TypeError,
     "value must be one number, got"),
    ("complex numbers in clip", jopt.clip(1.0),
     {"grads": tree(jnp.ones((3, 1), complex))},
     TypeError,
     "updates leaf 'dense/kernel' has dtype complex64, but clip is defined for",
     "real numbers only", "real and imaginary part"),
    ("complex numbers in ftrl", jopt.chain(jopt.ftrl(0.1)),
     {"grads": tree(jnp.ones((3, 1), complex))},
     TypeError,
     "updates leaf 'dense/kernel' has dtype complex64, but ftrl is defined for",
     "real numbers only"),
    ("six axes", jopt.adaptive_grad_clip(0.1),
     {"grads": {"conv": SIX}, "params": {"conv": SIX}, "init": ()},
     ValueError,
     "adaptive_grad_clip does not know the units of a leaf of shape (2, 2, 2, 2,",
     "2, 2): pass axis", "leaf 'conv'"),
    ("mask that fits nothing", jopt.adamw(0.1, mask="kernle"), {"init": ()},
     ValueError,
     "mask 'kernle' matches no leaf; the paths are 'dense/bias', 'dense/kernel'"),
    ("mask that is no expression", jopt.adamw(0.1, mask="("), {"init": ()},
     ValueError, "mask '(' is not a regular expression: missing )"),
    ("mask without an entry", jopt.adamw(0.1, mask={"dense": {"kernel": True}}),
     {"init": ()},
     ValueError,
     "the mask says nothing about leaf 'dense/bias'; it has ['dense/kernel']",
     "Give an entry"),
    ("mask with an entry too much",
     jopt.adamw(0.1, mask={"dense": True, "conv": False}), {"init": ()},
     ValueError, "the mask has entries that match no leaf: ['conv']"),
    ("mask of integers", jopt.freeze({"dense": {"bias": 0, "kernel": 1}}),
     {"init": ()},
     TypeError, "a mask consists of True and False, got 0 for leaf 'dense/bias'"),
    ("mask that is a number", jopt.freeze(1), {"init": ()},
     TypeError, "a mask consists of True and False, got 1 for the whole tree"),
    ("mask of names", jopt.adamw(0.1, mask=["kernel"]), {"init": ()},
     TypeError, "got 'kernel' for leaf '0'. To choose leaves by name, pass a regular",
     "expression"),
    ("mask function of text", jopt.adamw(0.1, mask=lambda path, leaf: "yes"),
     {"init": ()},
     TypeError, "a mask consists of True, False and finite numbers, got 'yes' for leaf",
     "'dense/bias'"),
    ("mask function of three", jopt.adamw(0.1, mask=lambda a, b, c: True), {"init": ()},
     TypeError,
     "a mask is a function of (path, leaf) or of (params), got one that takes (a,",
     "b, c)"),
]  # fmt: skip

# name, the wrong call, the error, what the message says
CALLS = [
    ("integers in init", lambda: ADAM.init(tree(jnp.ones(3, int))),
     TypeError, "params leaf 'dense/kernel' has dtype int32", INEXACT),
    ("bools in init", lambda: SGD.init(tree(jnp.ones(3, bool))),
     TypeError, "params leaf 'dense/kernel' has dtype bool", INEXACT),
    ("a Python integer in init", lambda: ADAM.init(tree(3)),
     TypeError, "params leaf 'dense/kernel' is 3, not an array"),
    ("text in init", lambda: ADAM.init(tree("weights")),
     TypeError, "params leaf 'dense/kernel' is 'weights', not an array"),
    ("text in gradients", lambda: update(ADAM, tree("weights")),
     TypeError, "updates leaf 'dense/kernel' is 'weights', not an array"),
    ("an Equinox model with a number", lambda: ADAM.init(WholeModel(jnp.ones(2), 3)),
     TypeError, "params leaf 'activation' is", "not an array",
     "eqx.filter(model, eqx.is_inexact_array)"),
    ("complex parameters in clip",
     lambda: jopt.clip(1.0).init(tree(jnp.ones(3, complex))),
     TypeError,
     "params leaf 'dense/kernel' has dtype complex64, but clip is defined for",
     "real numbers only"),
    ("complex parameters in ftrl",
     lambda: jopt.ftrl(0.1).init(tree(jnp.ones(3, complex))),
     TypeError,
     "params leaf 'dense/kernel' has dtype complex64, but ftrl is defined for",
     "real numbers only"),
    ("a mask already at init",
     lambda: ADAMW.init(PARAMS) and jopt.adamw(0.1, mask="kernle").init(PARAMS),
     ValueError, "mask 'kernle' matches no leaf"),
    ("state forgotten", lambda: ADAM.update(GRADS),
     TypeError, "adam.update() missing 1 required positional argument: 'state'"),
    # Chains and steps.
    ("adam not called", lambda: jopt.chain(jopt.adam),
     TypeError, "chain: member 1 is <function adam", "call it, adam(…)"),
    ("optax's adam not called", lambda: jopt.chain(SGD, optax.adam),
     TypeError, "chain: member 2 is <function adam", "call it, adam(…)"),
    ("a number in a chain", lambda: jopt.chain(3),
     TypeError, "chain: member 1 is 3, not a transformation"),
    ("a number by name", lambda: jopt.chain(opt=3),
     TypeError, "chain: member 'opt' is 3, not a transformation"),
    ("a class in a chain", lambda: jopt.chain(optax.GradientTransformation),
     TypeError, "chain: member 1 is <class", "not a transformation"),
    ("a list in a chain", lambda: jopt.chain([SGD]),
     TypeError, "chain: member 1 is [sgd(learning_rate=0.1)]", "chain(*members)"),
    ("two in a tuple", lambda: jopt.chain((SGD, ADAM)),
     TypeError, "chain: member 1 is (sgd(learning_rate=0.1), adam(", "chain(*members)"),
    ("a schedule in a chain", lambda: jopt.chain(misused_ramp(0.1)),
     TypeError, "chain: member 1 is misused_ramp(rate=0.1), not a transformation"),
    ("a name taken", lambda: jopt.chain(jopt.ema(0.9), ema=jopt.ema(0.5)),
     ValueError, "chain: two members are named 'ema'; choose a keyword"),
    ("a number taken",
     lambda: jopt.chain(jopt.ema(0.9), jopt.ema(0.8), ema_2=jopt.ema(0.5)),
     ValueError, "chain: two members are named 'ema_2'"),
    ("step with adam not called", lambda: jopt.step(jopt.adam, GRADS, {}, PARAMS),
     TypeError,
     "step takes a transformation, such as jopt.adam(1e-3), first, got <function",
     "adam"),
    ("step in another order", lambda: jopt.step(ADAM, PARAMS, GRADS, ADAM.init(PARAMS)),
     ValueError, "it lacks ['scale_by_adam', 'scale_by_learning_rate']",
     "The order is"),
    # apply_updates.
    ("updates lack a leaf",
     lambda: jopt.apply_updates(PARAMS, {"dense": {"kernel": jnp.ones((3, 1))}}),
     ValueError,
     "updates and params have different structures; only in params: 'dense/bias'"),
    ("updates of another shape",
     lambda: jopt.apply_updates(PARAMS, tree(jnp.ones((1, 3)))),
     ValueError, f"leaf 'dense/kernel': {SHAPES}"),
    ("no updates", lambda: jopt.apply_updates(PARAMS, None),
     ValueError, "only in the updates: the tree itself"),
    ("what update returns", lambda: jopt.apply_updates(PARAMS, update(ADAM)),
     ValueError, "only in the updates: '0/dense/bias', '0/dense/kernel',",
     "'1/scale_by_adam/count'", "and 5 more"),
    ("updates of integers",
     lambda: jopt.apply_updates(tree(jnp.ones(3, int)), tree(jnp.ones(3))),
     TypeError, "params leaf has dtype int32", "leaf 'dense/kernel'"),
    ("complex updates",
     lambda: jopt.apply_updates(tree(jnp.ones(3)), tree(jnp.ones(3, complex))),
     TypeError, "updates have dtype complex64, but params float32",
     "leaf 'dense/kernel'"),
    ("a text parameter", lambda: jopt.apply_updates(tree("weights"), tree(jnp.ones(3))),
     TypeError, "params leaf 'dense/kernel' is 'weights', not an array"),
    ("a parameter that is None",
     lambda: jopt.apply_updates(tree(None), tree(jnp.ones(3))),
     ValueError, "leaf 'dense/kernel' has an update, but it is None in params"),
    ("a whole model",
     lambda: jopt.apply_updates(*[WholeModel(jnp.ones(2), jax.nn.relu)] * 2),
     TypeError, "updates leaf 'activation' is", "eqx.filter"),
    ("models with other static fields",
     lambda: jopt.apply_updates(Model(jnp.ones(2), activation="relu"),
                                Model(jnp.ones(2), activation="gelu")),
     ValueError, "the same leaves in two Model with different static fields"),
    # Hyperparameters.
    ("set what is misspelt",
     lambda: changed(ADAM, learning_rat=0.1),
     KeyError,
     "no hyperparameter 'learning_rat'. Did you mean 'learning_rate'? It has ",
     "['learning_rate']"),
    ("set a constant", lambda: changed(ADAM, b1=0.1),
     KeyError, "the state has no hyperparameter 'b1'", "jopt.tunable(number)"),
    ("set what is scheduled",
     lambda: changed(SCHEDULED, learning_rate=0.1),
     ValueError, "'learning_rate' is scheduled by misused_ramp(rate=0.1)",
     "jopt.tunable, or set a factor of it: chain(…, scale(tunable(1.0)))"),
    ("set one of two",
     lambda: changed(ENSEMBLE, learning_rate=0.1),
     KeyError, "'learning_rate' is ambiguous, because these differ: ",
     "a/scale_by_learning_rate/learning_rate = 0.1, ",
     "b/scale_by_learning_rate/learning_rate = 0.2. Use one of these names, or ",
     "**{'*/learning_rate': …} for all of them"),
    ("set one of two inside jit",
     lambda: jax.jit(lambda s: jopt.set_hyperparams(ENSEMBLE, s, learning_rate=0.1))(
         ENSEMBLE.init(PARAMS)),
     KeyError, "may differ, which is not known inside jit. Use one of these names"),
    ("read one of two",
     lambda: jopt.hyperparams(ENSEMBLE.init(PARAMS))["learning_rate"],
     KeyError, "'learning_rate' is ambiguous, because these differ: ",
     "a/scale_by_learning_rate/learning_rate = 0.1, "),
    ("read what is not there", lambda: jopt.hyperparams(ADAM.init(PARAMS))["lr"],
     KeyError, "the state has no number 'lr'. Did you mean 'learning_rate'? It has ",
     "['learning_rate']"),
    ("set text",
     lambda: changed(ADAM, learning_rate="x"),
     TypeError, "learning_rate must be a number, got learning_rate='x'"),
    ("set a schedule",
     lambda: changed(ADAM, learning_rate=misused_ramp(1.0)),
     TypeError,
     "learning_rate must be a number, got learning_rate=misused_ramp(rate=1.0)"),
    ("set a negative rate",
     lambda: changed(ADAM, learning_rate=-1.0),
     ValueError, "learning_rate must be >= 0 and finite, got learning_rate=-1.0"),
    ("set a decay above 1",
     lambda: changed(jopt.adam(0.1, b1=jopt.tunable(0.9)), b1=1.5),
     ValueError, "b1 must be in [0, 1), got b1=1.5"),
    ("set two numbers",
     lambda: changed(ADAM, learning_rate=jnp.ones(2)),
     TypeError, "learning_rate must be a number like the state's float32[]",
     "[1., 1.]"),
    ("set a complex number",
     lambda: changed(ADAM, learning_rate=jnp.array(1j)),
     TypeError, "learning_rate must be a number like the state's float32[]",
     "complex64"),
    ("set in another order",
     lambda: jopt.set_hyperparams(ADAM.init(PARAMS), ADAM, learning_rate=0.1),
     TypeError,
     "expected a state, as returned by init or update, got the transformation adam("),
    ("read from an optimizer", lambda: jopt.hyperparams(ADAM),
     TypeError,
     "expected a state, as returned by init or update, got the transformation adam("),
    ("inject into a foreign factory", lambda: jopt.inject_hyperparams(optax.adam)(0.1),
     TypeError, "needs a factory of jopt's transformations, but adam returned",
     "use optax.inject_hyperparams"),
    ("inject with a misspelt argument",
     lambda: jopt.inject_hyperparams(jopt.adam)(lr=0.1),
     TypeError, "adam has no argument 'lr'. Did you mean 'learning_rate'?"),
    ("static arguments that are none",
     lambda: jopt.inject_hyperparams(jopt.adam, static_args="b3"),
     ValueError, "static_args ['b3'] are not hyperparameters of adam, which has ['b1'"),
    # Names, configs and pickles.
    ("a name that is misspelt", lambda: jopt.get("adamm"),
     ValueError, "there is no factory 'adamm'. Did you mean 'adam'?", "jopt.names()"),
    ("a name that is none", lambda: jopt.get(["adam"]),
     ValueError, "there is no factory ['adam']"),
    ("a config that is none", lambda: jopt.from_config(3),
     ValueError, 'a config is {"name": …, "config": {…}}, or in short', ", got 3"),
    ("a config without a name", lambda: jopt.from_config({}),
     ValueError, 'a config is {"name": …, "config": {…}}, or in short', ", got {}"),
    ("a config of numbers", lambda: jopt.from_config({"name": "adam", "config": 3}),
     ValueError, "a config is", "got {'name': 'adam', 'config': 3}"),
    ("a flat config", lambda: jopt.from_config({"name": "sgd", "learning_rate": 0.1}),
     ValueError, "a config is", "got {'name': 'sgd', 'learning_rate': 0.1}"),
    ("an unknown name in a config", lambda: jopt.from_config({"name": "agd"}),
     ValueError, "there is no factory 'agd'"),
    ("an unknown argument in a config",
     lambda: jopt.from_config({"name": "sgd", "config": {"momentun": 0.9}}),
     TypeError, "sgd has no argument 'momentun'. Did you mean 'momentum'?"),
    ("a function that is not loaded",
     lambda: jopt.from_config({"name": "adam", "config":
                               {"learning_rate": {"$function": "my.module:f"}}}),
     ValueError, "the function 'my.module:f', which is not registered for configs",
     "@jopt.config_function", "custom_objects={'my.module:f': f}"),
    ("config of a lambda",
     lambda: jopt.to_config(jopt.chain(jopt.clip(1.0), jopt.adam(lambda step: 0.1))),
     TypeError, "argument 'members[1].learning_rate' cannot be written to a config",
     "a decorated factory"),
    ("config of a mask function",
     lambda: jopt.to_config(jopt.adamw(0.1, mask=lambda path, leaf: True)),
     TypeError, "argument 'mask' cannot be written to a config", "regular expression"),
    ("config of a foreign member", lambda: jopt.to_config(jopt.chain(optax.sgd(0.1))),
     TypeError,
     "argument 'members[0]' cannot be written to a config: GradientTransformation"),
    ("config of what is not decorated", lambda: jopt.to_config(scale_by_value()),
     TypeError, "has no config", "@jopt.transformation"),
    ("config of a factory", lambda: jopt.to_config(jopt.adam),
     TypeError, "<function adam", "has no config"),
    ("pickle of what is not decorated", lambda: pickle.dumps(scale_by_value()),
     TypeError, "cannot be pickled", "@jopt.transformation"),
    ("one name in two modules", registered_elsewhere,
     ValueError,
     "jopt.algorithms.adam has a factory 'adam' already: choose another name than",
     "elsewhere."),
    # Algorithms of one's own.
    ("a factory of nothing", lambda: jopt.transformation(not_a_factory)(),
     TypeError, "not_a_factory must return a jopt transformation, got 3"),
    ("a factory of a foreign pair", lambda: jopt.transformation(foreign_factory)(),
     TypeError, "foreign_factory must return a jopt transformation, got",
     "GradientTransformationExtraArgs(", "jopt.chain(pair)"),
    ("a schedule factory of a number", lambda: jopt.schedule(constant_by_mistake)(),
     TypeError, "constant_by_mistake must return a function of the step, got 0.1"),
    ("a rule that forgets a slot",
     lambda: updated_rule(lambda g, total: g, **SUMS),
     TypeError, "must return the update and total, got 1 arrays", "leaf 'dense/bias'"),
    ("a rule with one too many", lambda: updated_rule(lambda g: (g, g)),
     TypeError, "must return the update, got 2 arrays"),
    ("a rule of another shape", lambda: updated_rule(lambda g: jnp.sum(g)),
     TypeError, "must return the update as float32[1], got float32[]"),
    ("a slot of another shape",
     lambda: updated_rule(lambda g, total: (g, jnp.sum(g)), **SUMS),
     TypeError, "must return total as float32[1], got float32[]"),
    ("a rule that returns nothing", lambda: updated_rule(lambda g: None),
     TypeError, "must return the update as float32[1], got None"),
    ("a rule of a list", lambda: updated_rule(lambda g: [g]),
     TypeError, "must return the update as float32[1], got [JitTracer(float32[1])]"),
    ("a rule with more slots",
     lambda: jopt.leafwise(lambda g, total, mean: (g, total), **SUMS),
     TypeError,
     "the rule is called with the update and the slots ['total'], but takes (g,",
     "total, mean)"),
    ("a rule that asks in vain", lambda: updated_rule(lambda g, *, rate: rate * g),
     TypeError,
     "scalars must return a dict of numbers with the names ['rate'], got {}"),
    ("scalars that are none", lambda: updated_rule(lambda g: g, lambda params: 1.0),
     TypeError, "scalars must return a dict of numbers", "got 1.0"),
    ("a scalar that is a vector",
     lambda: updated_rule(lambda g, *, s: s * g, lambda updates: {"s": jnp.ones(3)}),
     TypeError, "the scalar 's' must be one number, got float32[3]"),
    ("a state without the slot",
     lambda: jopt.leafwise(lambda g, mean: (g, mean), state=Sums, mean=jopt.zeros()),
     TypeError, "the fields of the state must be ['mean']", "has ['total']"),
    ("no state for the slot",
     lambda: jopt.leafwise(lambda g, mean: (g, mean), mean=jopt.zeros()),
     TypeError, "the fields of the state must be ['mean'], one for each slot",
     "has []"),
    ("a slot that is a number",
     lambda: jopt.leafwise(lambda g, total: (g, total), state=Sums, total=0.0),
     TypeError,
     "total=0.0 is neither an option of leafwise nor a slot made by zeros(), full() "
     "or copied()"),
]  # fmt: skip


def ids(rows: list[Any]) -> list[str]:
    return [row[0] for row in rows]


def expect(error: type[Exception], parts: list[str], call: Callable[[], Any]) -> None:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value.args[0])
    text = "\n".join([message, *getattr(caught.value, "__notes__", [])])
    for part in parts:
        assert part in text
    assert len(message) < 450  # for people: no page of text
    assert "Annotated" not in message


@pytest.mark.parametrize("row", NUMBERS, ids=ids(NUMBERS))
def test_a_wrong_argument_is_an_error_that_says_how_to_fix_it(row: Any) -> None:
    _, call, error, *parts = row
    expect(error, parts, call)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("row", TREES, ids=ids(TREES))
def test_a_wrong_tree_is_an_error_that_names_the_leaf(row: Any, compiled: bool) -> None:
    _, tx, wrong, error, *parts = row
    wrong = {"state": ..., "init": PARAMS} | wrong
    if wrong["init"] == ():
        wrong["init"] = wrong.get("params", PARAMS)

    def call() -> Any:
        state = tx.init(wrong["init"]) if wrong["state"] is ... else wrong["state"]
        given = {n: x for n, x in wrong.items() if n not in ("init", "state")}
        given = {"grads": GRADS, "params": PARAMS} | given
        wrapped = jax.jit(update, static_argnums=0) if compiled else update
        return wrapped(tx, state=state, **given)

    expect(error, parts, call)


@pytest.mark.parametrize("row", CALLS, ids=ids(CALLS))
def test_a_wrong_call_is_an_error_that_says_how_to_fix_it(row: Any) -> None:
    _, call, error, *parts = row
    expect(error, parts, call)


# What the checks cost.


CLIPPED = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(0.1))
MANY = {
    f"layer{i}": {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))} for i in range(3)
}


def jaxpr_of(tx: Any, params: Any) -> Any:
    _kernel.cache_clear()
    _prologue.cache_clear()
    return jax.make_jaxpr(tx.update)(params, tx.init(params), params)


def test_the_kernel_of_adamw_has_the_operations_of_its_formula_and_no_more() -> None:
    kernel = jaxpr_of(ADAMW, jnp.ones(3)).eqns[1].params["jaxpr"]
    # m = b1 m + (1 - b1) g                       2 mul, 1 add
    # v = b2 v + (1 - b2) g g                     3 mul, 1 add
    # c m / (sqrt(d v + eps_root) + eps)          2 mul, 2 add, 1 sqrt, 1 div
    # u = -rate (... + weight_decay p)            2 mul, 1 add, 1 neg
    wanted = 9 * ["mul"] + 5 * ["add"] + ["sqrt", "div", "neg"]
    assert sorted(e.primitive.name for e in kernel.eqns) == sorted(wanted)


def test_the_jaxpr_is_the_same_without_the_checks(monkeypatch: Any) -> None:
    checked = {tx: str(jaxpr_of(tx, MANY)) for tx in (ADAMW, CLIPPED, jopt.ftrl(0.1))}
    for name in ("leaves", "dtypes", "scalars", "state_numbers"):
        monkeypatch.setattr(tree_checks, name, lambda *args: None)
    monkeypatch.setattr(
        tree_checks,
        "aligned",
        lambda u, ls, treedef, x, n, **_: treedef.flatten_up_to(x),
    )
    monkeypatch.setattr(
        tree_checks,
        "rule_results",
        lambda n, out, _: out if type(out) is tuple else (out,),
    )
    for tx, text in checked.items():
        assert str(jaxpr_of(tx, MANY)) == text
