"""Outside jit, states and gradients in the host's memory work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt


def every_second(step, *args, **kwargs):
    return step % 2 == 1


ADAM = jopt.adam(0.1)
WRAPPERS = {
    "accumulate": jopt.accumulate(ADAM, 2),
    "skip_nonfinite": jopt.skip_nonfinite(ADAM),
    "apply_if_finite": jopt.apply_if_finite(ADAM, 2),
    "skip_spikes": jopt.skip_spikes(ADAM),
    "dynamic_loss_scale": jopt.dynamic_loss_scale(ADAM),
    "conditionally_transform": jopt.conditionally_transform(ADAM, every_second),
    "conditionally_mask": jopt.conditionally_mask(ADAM, every_second),
    "lookahead": jopt.lookahead(ADAM, 2),
    "params_ema": jopt.chain(jopt.accumulate(ADAM, 2), jopt.params_ema(0.9)),
    "params_lawa": jopt.chain(ADAM, jopt.params_lawa(2)),
}


def train(tx, sharding=None):
    """Some steps outside jit with all arrays in one memory."""
    params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.ones(2)}
    state = tx.init(params)
    if sharding is not None:
        params, state = jax.device_put((params, state), sharding)
    for _ in range(5):
        grads = jax.tree.map(lambda p: 0.5 * p, params)
        updates, state = tx.update(grads, state, params)
        params = jopt.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("kind", ["pinned_host", "unpinned_host"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_numbers_are_those_of_the_devices_memory(name, kind):
    device = jax.devices()[0]
    if kind not in {memory.kind for memory in device.addressable_memories()}:
        pytest.skip(f"there is no {kind}")
    sharding = jax.sharding.SingleDeviceSharding(device, memory_kind=kind)
    params = train(WRAPPERS[name], sharding)
    for x, y in zip(
        *map(jax.tree.leaves, (params, train(WRAPPERS[name]))), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def halves(step):
    return 0.5 if step < 2 else 0.25


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: jopt.conditionally_transform(tx, every_second),
        lambda tx: jopt.conditionally_mask(tx, every_second),
        lambda tx: jopt.lookahead(tx, 2, reset_state=True),
    ],
)
def test_outside_jit_a_condition_is_decided_and_its_branches_are_not_traced(wrap):
    compiled = jopt.sgd(lambda step: jnp.where(step < 2, 0.5, 0.25))
    for x, y in zip(
        *map(jax.tree.leaves, (train(wrap(jopt.sgd(halves))), train(wrap(compiled)))),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, 1e-6)
