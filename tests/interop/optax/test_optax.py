"""jopt and optax in one another, and the conversion both ways."""

import copy
import pickle
from typing import Any

import chex
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jopt
from jopt.interop.optax import as_optax, from_optax


PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(-1, 1, 6).reshape(2, 3)}
GRADS = [jax.tree.map(lambda p, k=k: 0.1 * p + k, PARAMS) for k in (1.0, -2.0, 0.5)]

# optax itself does not run under strict promotion; jopt's members do in both.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def ramp() -> jopt.Schedule:
    """0.1, 0.2, 0.3, …"""
    return jopt.linear_schedule(0.1, 1.1, 10)


OPTIMIZERS = [
    jopt.adamw(1e-2, weight_decay=0.1, mask="kernel$"),
    jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(ramp(), momentum=0.9)),
    jopt.adam(jopt.tunable(1e-2), b1=jopt.tunable(0.8)),
]


def updates_of(tx: Any, params: Any = PARAMS, grads: Any = GRADS, **extra: Any) -> Any:
    """The updates and the state after a jitted step with each of the gradients."""
    state, found, update = tx.init(params), [], jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params, **extra)
        found.append(updates)
    return found, state


def assert_close(found: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-8):
    chex.assert_trees_all_close(found, expected, rtol=rtol, atol=atol)


def scale_by_value():
    """Multiplies by the extra argument ``value``, which it requires."""
    return jopt.leafwise(lambda g, *, value: value * g, lambda value: {"value": value})


# jopt inside optax.


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "named_chain": lambda tx: optax.named_chain(("first", tx)),
    "masked": lambda tx: optax.masked(tx, {"bias": True, "kernel": True}),
    "partition": lambda tx: optax.partition({"a": tx}, {"bias": "a", "kernel": "a"}),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "as_optax": as_optax,
    "from_optax": lambda tx: from_optax(optax.chain(tx)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_inside_an_optax_wrapper_jopt_gives_the_same_numbers(tx, wrap):
    alone, _ = updates_of(tx)
    assert_close(updates_of(wrap(tx))[0], alone)


def only(name: str, tree: Any) -> Any:
    return {name: tree[name]}


def test_optax_masked_and_partition_give_jopt_its_part_of_the_tree():
    first, second = jopt.adam(0.1), jopt.chain(jopt.clip(0.5), jopt.sgd(0.1))
    masked, _ = updates_of(optax.masked(first, {"bias": False, "kernel": True}))
    parts = {"first": first, "second": second}
    labels = {"bias": "second", "kernel": "first"}
    parted, _ = updates_of(optax.partition(parts, labels))

    def alone(tx, name):
        return updates_of(tx, only(name, PARAMS), [only(name, g) for g in GRADS])[0]

    for k, (kernel, bias) in enumerate(
        zip(alone(first, "kernel"), alone(second, "bias"), strict=True)
    ):
        assert_close(parted[k], bias | kernel)
        assert_close(masked[k], only("bias", GRADS[k]) | kernel)


def test_multi_steps_emits_what_jopt_gives_for_the_mean_gradient():
    tx = OPTIMIZERS[1]
    doubled = [jax.tree.map(lambda x, w=w: w * x, g) for g in GRADS for w in (0.5, 1.5)]
    found, _ = updates_of(optax.MultiSteps(tx, every_k_schedule=2), grads=doubled)
    assert_close(found[1::2], updates_of(tx)[0])
    chex.assert_trees_all_equal(found[0], jax.tree.map(jnp.zeros_like, PARAMS))


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_lookahead_takes_jopt_as_its_fast_optimizer(tx):
    lookahead = optax.lookahead(tx, sync_period=len(GRADS) + 1, slow_step_size=0.5)
    found, _ = updates_of(lookahead, optax.LookaheadParams.init_synced(PARAMS))
    fast = [updates.fast for updates in found]
    assert_close(fast, updates_of(tx)[0])


def test_optax_skips_a_step_whose_gradient_is_not_finite():
    tx = jopt.adam(0.1)
    nans = jax.tree.map(lambda g: g * jnp.nan, GRADS[0])
    found, _ = updates_of(optax.apply_if_finite(tx, 3), grads=[nans, *GRADS])
    assert_close(found[1:], updates_of(tx)[0])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: jopt.chain(jopt.clip(1.0), tx),
    ],
)
def test_optax_tree_finds_and_sets_what_a_jopt_state_holds(wrap):
    _, state = updates_of(wrap(jopt.adam(ramp())), grads=GRADS[:2])
    found = optax.tree.get(state, "learning_rate")
    assert float(found) == pytest.approx(0.2)
    assert optax.tree.get(state, "mu").keys() == PARAMS.keys()
    state = optax.tree.set(state, learning_rate=jnp.float32(0.5))
    assert jopt.hyperparams(state) == {"learning_rate": 0.5}


def test_optax_maps_over_the_parameters_in_a_jopt_state():
    tx = jopt.adam(0.1)
    _, state = updates_of(tx)
    mapped = optax.tree.map_params(tx, lambda x: 2 * x, state)
    adam, before = mapped["scale_by_adam"], state["scale_by_adam"]
    chex.assert_trees_all_equal(adam.mu, jax.tree.map(lambda x: 2 * x, before.mu))
    assert adam.count == before.count


# optax inside jopt.


def test_a_stateless_optax_member_leaves_no_trace_in_the_state():
    plain = jopt.sgd(0.1, momentum=0.9)
    tx = jopt.chain(optax.clip_by_global_norm(0.5), plain, optax.scale(2.0))
    found, state = updates_of(tx)
    assert jax.tree.structure(state) == jax.tree.structure(plain.init(PARAMS))
    ours = jopt.chain(jopt.clip_by_global_norm(0.5), plain, jopt.scale(2.0))
    assert_close(found, updates_of(ours)[0])


def test_an_optax_member_keeps_its_state_under_its_name():
    tx = jopt.chain(optax.scale_by_adam(), optax.trace(0.9), jopt.sgd(0.1))
    found, state = updates_of(tx)
    assert set(state) == {"scale_by_adam", "trace", "scale_by_learning_rate"}
    assert state["scale_by_adam"].count == len(GRADS)
    theirs = optax.chain(optax.scale_by_adam(), optax.trace(0.9), optax.sgd(0.1))
    assert_close(found, updates_of(theirs)[0])


def test_extra_arguments_reach_an_optax_member():
    plateau = optax.contrib.reduce_on_plateau(patience=1, factor=0.1)
    tx = jopt.chain(jopt.sgd(0.5), plateau)
    found, state = updates_of(tx, value=1.0)
    scales = [1.0, 0.1, 0.01]
    expected = [
        jax.tree.map(lambda x, s=s: -0.5 * s * x, g)
        for s, g in zip(scales, GRADS, strict=True)
    ]
    assert_close(found, expected)
    with pytest.raises(TypeError, match="reduce_on_plateau needs the argument 'value'"):
        tx.update(GRADS[0], state, PARAMS)
    with pytest.raises(TypeError, match=r"'valeu'\. Did you mean 'value'"):
        tx.update(GRADS[0], state, PARAMS, valeu=1.0)


def test_a_line_search_of_optax_gets_the_functions_it_needs():
    def loss(params):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    too_large = jopt.sgd(3.0)
    tx = jopt.chain(too_large, optax.scale_by_backtracking_linesearch(10))

    @jax.jit
    def step(state, params):
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = tx.update(grad, state, params, **extra)
        return jopt.apply_updates(params, updates), state

    params, _ = step(tx.init(PARAMS), PARAMS)
    assert loss(params) < loss(PARAMS)


# as_optax.


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=repr)
def test_as_optax_is_of_the_class_that_is_checked_for(tx):
    converted = as_optax(tx)
    assert isinstance(converted, optax.GradientTransformationExtraArgs)
    init, update = converted
    assert (init, update) == (converted.init, converted.update)
    assert repr(converted) == f"as_optax({tx!r})"
    assert from_optax(converted) is tx


def test_as_optax_of_equal_optimizers_is_equal_and_hashes_alike():
    def make(b1):
        return as_optax(jopt.chain(jopt.clip(1.0), jopt.adam(ramp(), b1=b1)))

    assert make(0.8) == make(0.8)
    assert (make(0.8) != make(0.8)) is False
    assert hash(make(0.8)) == hash(make(0.8))
    assert make(0.8) != make(0.7)
    assert make(0.8) != jopt.chain(jopt.clip(1.0), jopt.adam(ramp(), b1=0.8))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_as_optax_can_be_copied_and_pickled(again):
    converted = as_optax(OPTIMIZERS[1])
    other = again(converted)
    other = pickle.loads(other) if isinstance(other, bytes) else other
    assert other == converted
    chex.assert_trees_all_equal(updates_of(other)[0], updates_of(converted)[0])


def test_as_optax_is_static_data_in_a_tree_and_as_an_argument_of_jit():
    converted = as_optax(jopt.sgd(0.5))
    leaves, structure = jax.tree.flatten(converted)
    assert (leaves, structure.unflatten(leaves)) == ([], converted)
    found, _ = jax.jit(lambda tx, g: tx.update(g, tx.init(g)))(converted, GRADS[0])
    assert_close(found, jax.tree.map(lambda x: -0.5 * x, GRADS[0]))


def test_an_optimizer_converted_again_is_not_traced_again():
    traces = []

    @jax.jit
    def train_step(state, grads):
        traces.append(state)
        return state.apply_gradients(grads=grads)

    @nnx.jit
    def nnx_step(model, optimizer):
        traces.append(optimizer)
        optimizer.update(model, nnx.state(model, nnx.Param))

    for _ in range(3):
        tx = as_optax(jopt.adam(ramp(), b1=0.8))
        state = flax.training.train_state.TrainState.create(
            apply_fn=None, params=PARAMS, tx=tx
        )
        train_step(state.replace(step=jnp.zeros((), jnp.int32)), GRADS[0])
        model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        nnx_step(model, nnx.Optimizer(model, tx, wrt=nnx.Param))
    assert len(traces) == 2


def test_as_optax_gets_its_extra_arguments_inside_an_optax_chain():
    tx = optax.chain(as_optax(scale_by_value()), optax.scale(-1.0))
    found, _ = updates_of(tx, value=3.0)
    assert_close(found, [jax.tree.map(lambda x: -3 * x, g) for g in GRADS])


def test_the_hyperparameters_of_a_converted_optimizer_can_be_set():
    tx = as_optax(jopt.adam(0.1))
    state = jopt.set_hyperparams(tx, tx.init(PARAMS), learning_rate=0.5)
    assert jopt.hyperparams(state) == {"learning_rate": 0.5}
    scheduled = as_optax(jopt.adam(ramp()))
    with pytest.raises(ValueError, match="scheduled by linear_schedule"):
        jopt.set_hyperparams(scheduled, state, learning_rate=0.5)


def test_only_a_jopt_transformation_is_converted():
    with pytest.raises(TypeError, match="takes a jopt transformation, got <function"):
        as_optax(jopt.adam)


def test_numpyro_takes_a_converted_optimizer():
    numpyro = pytest.importorskip("numpyro")
    infer = pytest.importorskip("numpyro.infer")
    data = jnp.arange(4.0)

    def model(data):
        mean = numpyro.sample("mean", numpyro.distributions.Normal(0.0, 1.0))
        with numpyro.plate("data", len(data)):
            numpyro.sample("x", numpyro.distributions.Normal(mean, 1.0), obs=data)

    def fitted(tx):
        guide = infer.autoguide.AutoNormal(model)
        svi = infer.SVI(model, guide, tx, infer.Trace_ELBO())
        state = svi.init(jax.random.key(0), data)
        for _ in range(2):
            state, _ = svi.update(state, data)
        return svi.get_params(state)

    with jax.numpy_rank_promotion("allow"):
        ours, theirs = fitted(as_optax(jopt.adam(0.1))), fitted(optax.adam(0.1))
    assert_close(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("convert", [lambda tx: tx, as_optax], ids=["bare", "as_optax"])
def test_optimistix_minimises_with_jopt(convert):
    optimistix = pytest.importorskip("optimistix")
    solver = optimistix.OptaxMinimiser(convert(jopt.adam(0.1)), rtol=1e-4, atol=1e-4)
    solution = optimistix.minimise(
        lambda y, args: jnp.sum((y - args) ** 2), solver, jnp.zeros(3), args=2.0
    )
    assert_close(solution.value, jnp.full(3, 2.0), atol=0.1)


# from_optax.


@pytest.mark.parametrize(
    "tx",
    [
        optax.adamw(0.1),
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        optax.chain(optax.clip_by_global_norm(0.5), optax.lion(0.1)),
    ],
)
def test_from_optax_gives_the_same_bits(tx):
    converted = from_optax(tx)
    assert isinstance(converted, jopt.GradientTransformation)
    chex.assert_trees_all_equal(updates_of(converted), updates_of(tx))


def test_from_optax_names_the_state_in_a_chain():
    tx = jopt.chain(
        from_optax(optax.trace(0.9)), from_optax(optax.trace(0.5), name="slow")
    )
    assert list(tx.init(PARAMS)) == ["trace", "slow"]


def test_from_optax_passes_extra_arguments_on_and_asks_for_them():
    plateau = optax.contrib.reduce_on_plateau(patience=1, factor=0.1)
    chex.assert_trees_all_equal(
        updates_of(from_optax(plateau), value=1.0), updates_of(plateau, value=1.0)
    )
    tx = from_optax(plateau, name="plateau")
    with pytest.raises(TypeError, match="plateau needs the argument 'value'"):
        tx.update(GRADS[0], tx.init(PARAMS), PARAMS)


def test_from_optax_of_the_same_transformation_is_equal():
    tx = optax.adam(0.1)
    assert from_optax(tx) == from_optax(tx)
    assert hash(from_optax(tx)) == hash(from_optax(tx))
    assert from_optax(tx) != from_optax(tx, name="other")
    assert from_optax(tx) != from_optax(optax.adam(0.1))
    chained = [jopt.chain(jopt.clip(1.0), from_optax(tx)) for _ in range(2)]
    assert chained[0] == chained[1]


@pytest.mark.parametrize("jit", [False, True])
def test_optax_can_inject_changing_numbers_into_a_jopt_factory(jit: bool) -> None:
    with jax.numpy_dtype_promotion("standard"):
        make = optax.inject_hyperparams(jopt.sgd)
        tx = make(learning_rate=lambda count: 0.1 * (count + 1), momentum=0.9)
        update = jax.jit(tx.update) if jit else tx.update
        ones = jnp.ones(1)
        state, found = tx.init(ones), []
        for _ in range(3):
            updates, state = update(ones, state, ones)
            found.append(float(updates[0]))
    np.testing.assert_allclose(found, [-0.1, -0.2 * 1.9, -0.3 * 2.71], rtol=1e-6)
