"""Sum the gradients of several replicas, as TensorFlow's apply_gradients does.

    python examples/keras/aggregate_gradients.py

    grads = tf.distribute.get_replica_context().all_reduce("sum", grads)
    optimizer.apply_gradients(zip(grads, vars), experimental_aggregate_gradients=False)

becomes `jax.lax.psum`. Leaving the sum to `apply_gradients` becomes `jopt.aggregate` in
a chain. Each of four replicas has a quarter of the batch. The script prints how much
the final weights differ from training on one device with the whole batch:

    replicas: 4, steps: 10, loss 4.1890 -> 0.0021
    all_reduce by hand:    weights equal to 5.1e-08
    aggregate, in a chain: weights equal to 5.1e-08
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jopt
from jopt.interop.keras import SGD


REPLICAS, STEPS = 4, 10
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", REPLICAS)
mesh = jax.make_mesh((REPLICAS,), ("replica",), axis_types=(AxisType.Auto,))

random = np.random.default_rng(0)
x = random.normal(size=(64, 3)).astype(np.float32)
y = x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.1
start = {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros((1,))}


def loss_fn(params, x, y):
    """Divide the local sum by the global batch size, so that replicas sum to a mean."""
    return jnp.sum((x @ params["kernel"] + params["bias"] - y) ** 2) / 64


optimizer = SGD(learning_rate=0.1, momentum=0.5)
aggregated = jopt.chain(jopt.aggregate("replica", op="sum"), optimizer)


def local_gradients(params, x, y):
    """Return the gradients of one replica; without pcast, JAX would sum them itself."""
    params = jax.lax.pcast(params, "replica", to="varying")
    return jax.grad(loss_fn)(params, x, y)


def by_hand(params, state, x, y):
    grads = jax.lax.psum(local_gradients(params, x, y), "replica")
    updates, state = optimizer.update(grads, state, params)
    return jopt.apply_updates(params, updates), state


def in_chain(params, state, x, y):
    updates, state = aggregated.update(local_gradients(params, x, y), state, params)
    return jopt.apply_updates(params, updates), state


def alone(params, state, x, y):
    updates, state = optimizer.update(jax.grad(loss_fn)(params, x, y), state, params)
    return jopt.apply_updates(params, updates), state


def replicated(step):
    specs = {"in_specs": (P(), P(), P("replica"), P("replica")), "out_specs": P()}
    return jax.shard_map(step, mesh=mesh, **specs)


def run(step, tx):
    step = jax.jit(step)
    params, state = start, tx.init(start)
    for _ in range(STEPS):
        params, state = step(params, state, x, y)
    return params


one = run(alone, optimizer)


def distance(params):
    difference = jax.tree.map(jnp.subtract, jax.device_get(params), one)
    return jopt.tree.norm(difference) / jopt.tree.norm(one)


first, last = loss_fn(start, x, y), loss_fn(one, x, y)
print(f"replicas: {REPLICAS}, steps: {STEPS}, loss {first:.4f} -> {last:.4f}")
print(
    "all_reduce by hand:    weights equal to "
    f"{distance(run(replicated(by_hand), optimizer)):.1e}"
)
print(
    "aggregate, in a chain: weights equal to "
    f"{distance(run(replicated(in_chain), aggregated)):.1e}"
)
