"""Use Keras's four learning rate schedules.

    python examples/keras/schedules.py

A schedule takes the place of the number, `SGD(learning_rate=lr_schedule)`, and the rate
of the last step is in the state. The script prints values of the four schedules, their
calls in jopt, and the result of 10,000 steps of SGD with the first:

    at step                         0     5000    10000    20000
    ExponentialDecay          0.01000  0.00949  0.00900  0.00810
    PiecewiseConstantDecay    0.01000  0.01000  0.01000  0.00500
    PolynomialDecay           0.01000  0.00505  0.00010  0.00010
    InverseTimeDecay          0.01000  0.00800  0.00667  0.00500
      exponential_decay(init_value=0.01, transition_steps=10000, decay_rate=0.9)
      piecewise_constant(boundaries=[10000, 20000], values=[0.01, 0.005, 0.001], …
      polynomial_schedule(init_value=0.01, end_value=0.0001, power=1.0, …
      inverse_time_decay(init_value=0.01, transition_steps=10000, decay_rate=0.5)
    loss 2.0 -> 4e-12, rate of the last step 0.0090001
    wrote out/schedules.png
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jopt
from jopt.interop.keras import (
    SGD,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
    serialize,
)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("out"), help="where to write")
args = parser.parse_args()

schedules = [
    ExponentialDecay(initial_learning_rate=1e-2, decay_steps=10_000, decay_rate=0.9),
    # Keras changes the value one step after a boundary, other libraries at it.
    PiecewiseConstantDecay(boundaries=[10_000, 20_000], values=[1e-2, 5e-3, 1e-3]),
    PolynomialDecay(initial_learning_rate=1e-2, decay_steps=10_000),
    InverseTimeDecay(initial_learning_rate=1e-2, decay_steps=10_000, decay_rate=0.5),
]
names = [serialize(lr_schedule)["class_name"] for lr_schedule in schedules]
print(f"{'at step':<24}" + "".join(f"{t:>9}" for t in (0, 5_000, 10_000, 20_000)))
for name, lr_schedule in zip(names, schedules, strict=True):
    values = lr_schedule(jnp.array([0, 5_000, 10_000, 20_000]))
    print(f"{name:<24}" + "".join(f"{v:>9.5f}" for v in values))
for lr_schedule in schedules:
    print(f"  {lr_schedule}")

# Gradient descent with the first. A schedule gets the number of completed steps, so the
# last of 10,000 steps uses the rate of step 9,999.

optimizer = SGD(learning_rate=schedules[0])
params = jnp.zeros(2)
target = jnp.array([1.0, -1.0])


def loss_fn(params):
    return jnp.sum((params - target) ** 2)


def step(carry, _):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
    return (jopt.apply_updates(params, updates), state), None


first = loss_fn(params)
start = (params, optimizer.init(params))
(params, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=10_000))(start)
rate = jopt.hyperparams(state)["learning_rate"]
print(f"loss {first:.1f} -> {loss_fn(params):.0e}, rate of the last step {rate:.7f}")

args.out.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
steps = np.arange(0, 30_001, 10)
for name, lr_schedule in zip(names, schedules, strict=True):
    axes.plot(steps, lr_schedule(jnp.asarray(steps)), label=name)
axes.set(xlabel="step", ylabel="learning rate")
figure.legend(loc="outside lower center", ncols=2)
figure.savefig(args.out / "schedules.png", dpi=120)
print(f"wrote {args.out / 'schedules.png'}")
