"""A transformation is a pair of functions and a value; a user's own is no less."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.tree import scalar
from jopt.values.arguments import text_of
from tests.public import public


PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
GRADS = jax.tree.map(lambda p: 0.1 * p + 0.2, PARAMS)


def decays_kernels(path: str, leaf: Any) -> bool:
    return path.endswith("kernel")


@jopt.schedule
def base_ramp(rate: float) -> Any:
    return lambda count: rate * (1 + jnp.asarray(count, jnp.float32))


# Factories that a user might write.


@jopt.transformation
def halved_sgd(learning_rate: jopt.ScalarOrSchedule, factor: float = 0.5) -> Any:
    """An alias: a chain of what exists."""
    return jopt.chain(jopt.scale(factor), jopt.sgd(learning_rate))


class ShiftState(NamedTuple):
    shift: Any


@jopt.transformation
def scale_by_shift(decay: jopt.ScalarOrSchedule = 0.5, flip: bool = False) -> Any:
    """A primitive on the leaf engine: ``s <- decay s + g, u <- s``."""

    def rule(g: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
        shift = decay * shift + g
        return (-shift if flip else shift), shift

    return jopt.leafwise(rule, state=ShiftState, shift=jopt.zeros())


class LargestState(NamedTuple):
    largest: Any  # scalar


@jopt.transformation
def scale_by_largest(factor: jopt.ScalarOrSchedule, start: int = 0) -> Any:
    """A primitive by hand: ``l <- max(l, max |g|), u <- factor g / l``."""

    def init(params: Any) -> Any:
        return LargestState(scalar(start))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        entries = [jnp.max(jnp.abs(g)) for g in jax.tree.leaves(updates)]
        largest = jnp.maximum(state.largest, jnp.stack(entries).max())
        scaled = jax.tree.map(lambda g: factor * g / largest, updates)
        return scaled, LargestState(largest)

    return jopt.GradientTransformation(init, update)


def updates_of(tx: Any, steps: int = 3) -> list[Any]:
    """The updates of a jitted run in which gradient t is t times `GRADS`."""
    state, found, update = tx.init(PARAMS), [], jax.jit(tx.update)
    for t in range(1, steps + 1):
        grads = jax.tree.map(lambda g, t=t: t * g, GRADS)
        updates, state = update(grads, state, PARAMS)
        found.append(updates)
    return found


VALUES = [
    jopt.sgd(0.1),
    jopt.adamw(1e-3, weight_decay=0.1, mask={"kernel": True, "bias": False}),
    jopt.adamw(base_ramp(0.1), mask=decays_kernels, mu_dtype="bfloat16"),
    jopt.adam(jopt.tunable(0.1), b1=base_ramp(0.1)),
    jopt.chain(
        jopt.clip(1.0), jopt.chain(jopt.ema(0.9), jopt.ema(0.8)), opt=jopt.lion(1)
    ),
    halved_sgd(0.1),
    scale_by_shift(jopt.tunable(0.5), flip=True),
    scale_by_largest(2),
    base_ramp(0.5),
    jopt.tunable(3),
]

# Calls that are the same, and differ from the calls of all other rows.
SAME = [
    [jopt.sgd(0.5), jopt.sgd(learning_rate=0.5), jopt.sgd(0.5, None, nesterov=False)],
    [jopt.sgd(1), jopt.sgd(1.0), jopt.sgd(np.int64(1)), jopt.sgd(np.array(1.0))],
    [jopt.sgd(0.25), jopt.sgd(np.float16(0.25)), jopt.sgd(np.array(0.25, np.float32))],
    [jopt.sgd(0.5, 0.9, True), jopt.sgd(0.5, nesterov=np.bool_(True), momentum=0.9)],
    [jopt.adam(0.5, mu_dtype="bfloat16"), jopt.adam(0.5, mu_dtype=jnp.bfloat16)],
    [jopt.adamw(0.5, mask="b"), jopt.adamw(0.5, 0.9, 0.999, 1e-8, 0, None, 1e-4, "b")],
    [jopt.adamw(0.5, mask={"a": True, "b": False}),
     jopt.adamw(0.5, mask={"b": False, "a": True})],
    [jopt.adamw(0.5, mask={"a": True, "b": True})],
    [jopt.sgd(jopt.tunable(0.5)), jopt.sgd(jopt.tunable(np.float32(0.5)))],
    [jopt.sgd(base_ramp(1)), jopt.sgd(learning_rate=base_ramp(rate=1.0))],
    [jopt.chain(jopt.sgd(0.5))],
    [jopt.chain(opt=jopt.sgd(0.5))],
    [jopt.chain(a=jopt.clip(1.0), b=jopt.sgd(0.5))],
    [jopt.add_noise(1, 1, jax.random.key(1)), jopt.add_noise(1, 1, jax.random.key(1))],
    [jopt.add_noise(1, 1, jax.random.key(2))],
    [halved_sgd(0.5), halved_sgd(0.5, factor=0.5), halved_sgd(learning_rate=0.5)],
    [scale_by_shift(), scale_by_shift(0.5, False)],
    [base_ramp(1), base_ramp(rate=np.float64(1))],
    [jopt.tunable(1), jopt.tunable(1.0)],
]  # fmt: skip


def test_a_transformation_is_the_tuple_of_init_and_update() -> None:
    tx = jopt.adam(0.1)
    init, update = tx
    assert isinstance(tx, tuple)
    assert (init, update) == (tx.init, tx.update) == tuple(tx)
    updates, state = update(GRADS, init(PARAMS))
    chex.assert_trees_all_equal_structs(updates, PARAMS)
    chex.assert_trees_all_equal_structs(state, init(PARAMS))


@pytest.mark.parametrize("i", range(len(SAME)))
def test_two_values_are_equal_exactly_when_their_calls_mean_the_same(i: int) -> None:
    first = SAME[i][0]
    for other in SAME[i]:
        assert (first == other, first != other) == (True, False)
        assert hash(first) == hash(other)
    for row in SAME[:i] + SAME[i + 1 :]:
        assert all((first == x, first != x) == (False, True) for x in row)


def test_what_no_factory_made_is_equal_to_itself_only() -> None:
    one, other = (jopt.leafwise(lambda g: g) for _ in range(2))
    assert one == one and one != other
    assert one != tuple(one) and jopt.sgd(0.1) != tuple(jopt.sgd(0.1))
    assert len({one, other, jopt.sgd(0.1), jopt.sgd(0.1)}) == 3


SHOWN = {
    jopt.adamw(1e-3, weight_decay=0.1): "adamw(learning_rate=0.001, weight_decay=0.1)",
    jopt.adam(
        0.5, mu_dtype=jnp.bfloat16
    ): "adam(learning_rate=0.5, mu_dtype='bfloat16')",
    jopt.adamw(
        0.5, mask=decays_kernels
    ): "adamw(learning_rate=0.5, mask=decays_kernels)",
    jopt.chain(jopt.ema(0.9), opt=jopt.sgd(1)): (
        "chain(ema(decay=0.9), opt=sgd(learning_rate=1.0))"
    ),
    jopt.sgd(base_ramp(jnp.float32(0.5))): "sgd(learning_rate=base_ramp(rate=0.5))",
    halved_sgd(jopt.tunable(0.5)): "halved_sgd(learning_rate=tunable(value=0.5))",
    scale_by_shift(): "scale_by_shift()",
}


@pytest.mark.parametrize("value", SHOWN, ids=repr)
def test_a_repr_is_the_call_without_its_defaults(value: Any) -> None:
    assert repr(value) == SHOWN[value]
    assert eval(repr(value), public(jopt) | globals()) == value


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize(
    "again", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy]
)
def test_a_value_can_be_pickled_and_copied(value: Any, again: Any) -> None:
    assert again(value) == value
    assert hash(again(value)) == hash(value)
    assert again({"tx": [value]}) == {"tx": [value]}


@pytest.mark.parametrize("tx", VALUES[:-2], ids=repr)
def test_what_comes_back_from_a_pickle_does_the_same(tx: Any) -> None:
    again = pickle.loads(pickle.dumps(tx))
    chex.assert_trees_all_equal(updates_of(again), updates_of(tx))
    # So does its state, though the class of some states is made at run time.
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(state)), state)


@pytest.mark.parametrize(
    "tx",
    [
        *VALUES[:-2],
        jopt.accumulate(jopt.sgd(0.1), 2),
        jopt.catch_up(jopt.sgd(0.1), "table"),
        jopt.interop.keras.Adam(clipnorm=1.0),
        jopt.GradientTransformation(lambda p: (), lambda u, s, p: (u, s)),
    ],
    ids=lambda tx: type(tx).__name__,
)
def test_a_class_called_with_the_elements_of_a_transformation_returns_it(
    tx: Any,
) -> None:
    # Keras does so with every tuple that becomes an attribute of a model.
    assert type(tx)(list(tx)) is tx
    assert jopt.GradientTransformation(tuple(tx)) is tx
    with pytest.raises(TypeError):
        jopt.GradientTransformation([tx.update, tx.init])  # type: ignore


def test_a_transformation_is_static_to_jax() -> None:
    for tx in (jopt.adam(0.1), scale_by_shift(), scale_by_largest(2), jopt.chain()):
        assert jax.tree.leaves({"tx": tx}) == []
    assert jax.tree.structure(jopt.adam(0.1)) == jax.tree.structure(jopt.adam(0.1))


def test_a_rebuilt_equal_optimizer_is_not_traced_again() -> None:
    traces = []

    @jax.jit
    def through_the_tree(tx: Any, state: Any) -> Any:
        traces.append(tx)
        return tx.update(GRADS, state, PARAMS)

    as_argument = jax.jit(through_the_tree.__wrapped__, static_argnums=0)
    for step in (through_the_tree, as_argument):
        traces.clear()
        for rate in (0.1, 0.1, np.float64(0.1), 0.2):
            tx = jopt.chain(jopt.clip(1.0), jopt.adamw(rate, mask=decays_kernels))
            step(tx, tx.init(PARAMS))
        assert len(traces) == 2


# A user's own factories.


def test_an_alias_of_ones_own_is_the_chain_it_returns_under_another_name() -> None:
    parts = jopt.chain(jopt.scale(0.5), jopt.sgd(0.1))
    chex.assert_trees_all_equal(updates_of(halved_sgd(0.1)), updates_of(parts))
    chex.assert_trees_all_equal_structs(
        halved_sgd(0.1).init(PARAMS), jopt.sgd(0.1).init(PARAMS)
    )
    assert halved_sgd(0.1) != parts
    state = halved_sgd(base_ramp(0.25)).init(PARAMS)
    assert jopt.hyperparams(state) == {"learning_rate": 0.25}


# The numbers that ``decay`` has at steps 1, 2, 3.
RULES = [
    (0.5, [0.5] * 3),
    (jopt.tunable(0.25), [0.25] * 3),
    (base_ramp(0.1), [0.1, 0.2, 0.3]),
]


@pytest.mark.parametrize(("decay", "values"), RULES)
def test_a_primitive_of_ones_own_takes_constants_tunables_and_schedules(
    decay: Any, values: list[float]
) -> None:
    shift, g = 0.0, np.asarray(GRADS["kernel"], np.float64)
    for t, (updates, value) in enumerate(
        zip(updates_of(scale_by_shift(decay)), values, strict=True), start=1
    ):
        shift = value * shift + t * g
        np.testing.assert_allclose(updates["kernel"], shift, rtol=1e-6)


@pytest.mark.parametrize(("factor", "values"), RULES)
def test_a_primitive_by_hand_takes_constants_tunables_and_schedules(
    factor: Any, values: list[float]
) -> None:
    g = np.asarray(GRADS["kernel"], np.float64)
    largest = np.abs(np.concatenate([np.ravel(x) for x in GRADS.values()])).max()
    for updates, value in zip(
        updates_of(scale_by_largest(factor)), values, strict=True
    ):
        # Each gradient is the largest so far, so that t cancels.
        np.testing.assert_allclose(updates["kernel"], value * g / largest, rtol=1e-6)


def test_a_number_that_is_not_constant_joins_the_state_of_ones_own_primitive() -> None:
    fields = {
        scale_by_shift(0.5): ("shift",),
        scale_by_shift(jopt.tunable(0.5)): ("shift", "count", "decay"),
        scale_by_shift(base_ramp(0.5)): ("shift", "count", "decay"),
        scale_by_largest(2.0): ("largest",),
        scale_by_largest(jopt.tunable(2.0)): ("largest", "count", "factor"),
        scale_by_largest(base_ramp(2.0)): ("largest", "count", "factor"),
    }
    for tx, expected in fields.items():
        assert tx.init(PARAMS)._fields == expected
        state = tx.init(PARAMS)
        chex.assert_trees_all_equal_shapes_and_dtypes(
            jax.eval_shape(tx.update, GRADS, state)[1],
            jax.eval_shape(lambda s: s, state),
        )


def test_the_arguments_of_ones_own_factory_are_checked_by_their_annotations() -> None:
    for call, message in [
        (lambda: halved_sgd("x"), "learning_rate must be a number, a schedule"),
        (
            lambda: halved_sgd(0.1, factor="x"),
            "factor must be a number, got factor='x'",
        ),
        (lambda: halved_sgd(0.1, factor=base_ramp(1.0)), "factor must be a number"),
        (lambda: scale_by_shift(flip=1), "flip must be True or False, got flip=1"),
        (lambda: scale_by_largest(1, start=0.5), "start must be a whole number"),
        (lambda: scale_by_largest(1, strat=1), "Did you mean 'start'?"),
    ]:
        with pytest.raises(TypeError) as caught:
            call()
        assert message in str(caught.value)
    assert scale_by_largest(1, start=2.0) == scale_by_largest(1, start=2)


# The arguments of update.


def test_params_are_taken_by_position_and_by_keyword() -> None:
    tx = jopt.adamw(0.1)
    state = tx.init(PARAMS)
    by_position = tx.update(GRADS, state, PARAMS)
    chex.assert_trees_all_equal(tx.update(GRADS, state, params=PARAMS), by_position)
    swapped = tx.update(params=PARAMS, state=state, updates=GRADS)
    chex.assert_trees_all_equal(swapped, by_position)


def test_arguments_that_nobody_declares_are_ignored() -> None:
    tx = jopt.chain(jopt.clip(1.0), jopt.adamw(0.1))
    state = tx.init(PARAMS)
    extra = {"value": 1.0, "loss": None, "key": jax.random.key(0), "names": ["a", "b"]}
    chex.assert_trees_all_equal(
        tx.update(GRADS, state, PARAMS, **extra), tx.update(GRADS, state, PARAMS)
    )


def pair(update: Any) -> jopt.GradientTransformation:
    return jopt.GradientTransformation(lambda params: (), update)


NEEDS = [
    (lambda u, s: (u, s), "", "", False),
    (lambda u, s, params=None: (u, s), "params", "", False),
    (lambda u, s, p: (u, s), "params", "params", False),
    (lambda u, s, p=None, *, value: (u, s), "params value", "value", False),
    (lambda u, s, p=None, value=None: (u, s), "params value", "", False),
    (lambda u, s, *, value: (u, s), "value", "value", False),
    (lambda u, s, p=None, **extra: (u, s), "params", "", True),
    (lambda u, s, **extra: (u, s), "", "", True),
]


@pytest.mark.parametrize(("update", "accepts", "requires", "anything"), NEEDS)
def test_the_signature_of_update_declares_what_it_needs(
    update: Any, accepts: str, requires: str, anything: bool
) -> None:
    tx = pair(update)
    wanted = (set(accepts.split()), set(requires.split()), anything)
    assert tx.needs[:3] == wanted
    # And whatever is declared can be passed, the parameters under any name.
    tx.update(GRADS, (), PARAMS, value=1.0)
    tx.update(GRADS, (), params=PARAMS, value=1.0)
    jopt.chain(tx, jopt.identity()).update(GRADS, {}, PARAMS, value=1.0)


def test_an_update_gets_what_it_declares_and_nothing_else() -> None:
    got = []
    update = lambda u, s, p=None, *, value=7.0: (got.append((p, value)), (u, s))[1]  # noqa: E731
    tx = pair(update)
    tx.update(GRADS, (), value=1.0, other=2.0)
    tx.update(GRADS, (), PARAMS, other=2.0)
    assert got[0] == (None, 1.0)
    assert got[1][0] is PARAMS and got[1][1] == 7.0
    everything = []
    tx = pair(lambda u, s, p=None, **extra: (everything.append(extra), (u, s))[1])
    tx.update(GRADS, (), PARAMS, value=1.0, vaule=2.0)
    assert everything == [{"value": 1.0, "vaule": 2.0}]


def test_a_scalar_may_be_computed_from_what_the_caller_passes() -> None:
    """Polyak's step, the value over the squared norm of the gradient."""

    def scalars(value: jax.Array, updates: Any) -> dict[str, jax.Array]:
        return {"rate": value / jopt.tree.norm(updates) ** 2}

    tx = jopt.leafwise(lambda g, *, rate: -rate * g, scalars)
    assert tx.needs.requires == {"value"}
    expected = -0.5 / sum(np.sum(np.float64(g) ** 2) for g in GRADS.values())
    for chained in (tx, jopt.chain(tx, jopt.identity())):
        updates, _ = jax.jit(chained.update)(GRADS, chained.init(PARAMS), value=0.5)
        for name, g in GRADS.items():
            np.testing.assert_allclose(updates[name], expected * g, rtol=1e-6)


def test_every_transformation_is_one_that_optax_takes() -> None:
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        tx = optax.chain(optax.scale(2.0), scale_by_shift())
        state = tx.init(PARAMS)
        updates, _ = tx.update(GRADS, state, PARAMS)
    np.testing.assert_allclose(updates["bias"], 2 * GRADS["bias"], rtol=1e-6)


def test_a_long_repr_has_a_line_for_each_member() -> None:
    groups = jopt.rules(("bias$", "b"), ("", "w"))
    rates = {"b": jopt.sgd(0.1), "w": jopt.adamw(jopt.cosine_decay_schedule(1e-3, 10))}
    tx = jopt.chain(jopt.clip(1.0), jopt.partition(rates, groups), ema=jopt.ema(0.9))
    assert repr(tx) == (
        "chain(\n"
        "    clip(max_delta=1.0),\n"
        "    partition(\n"
        "        transforms={\n"
        "            'b': sgd(learning_rate=0.1),\n"
        "            'w': adamw(\n"
        "                learning_rate=cosine_decay_schedule(init_value=0.001, "
        "decay_steps=10),\n"
        "            ),\n"
        "        },\n"
        "        param_labels=rules(('bias$', 'b'), ('', 'w')),\n"
        "    ),\n"
        "    ema=ema(decay=0.9),\n"
        ")"
    )
    assert eval(repr(tx), public(jopt)) == jopt.from_config(repr(tx)) == tx
    assert max(map(len, repr(tx).splitlines())) <= 88
    # What an error quotes stays in its line.
    assert "\n" not in text_of(tx)
