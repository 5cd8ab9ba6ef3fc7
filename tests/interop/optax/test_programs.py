"""Programs of optax's users run on the door as they run on optax."""

import subprocess
import sys

import jax
import numpy as np
import optax
import optax.contrib
import pytest

from jopt.interop import optax as door
from tests.interop.optax.programs import PROGRAMS


# In float64 too, optax computes the ramps of schedules and accumulates gradients in
# float32.
SINGLE = {"counts_in_states", "factories_of_ones_own", "sequence_model"}


@pytest.mark.filterwarnings("ignore:.*global_norm is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*tree_l2_norm is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_the_losses_that_it_has_with_optax(name: str) -> None:
    for wide in (False, True):
        tolerance = (1e-8 if name in SINGLE else 1e-10) if wide else 2e-6
        with jax.enable_x64(wide):
            theirs, ours = PROGRAMS[name](optax), PROGRAMS[name](door)
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        assert np.isfinite(theirs).all() and len(set(theirs.tolist())) > 3
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance)


SWAP = """
import sys
import jopt.interop.optax as optax
sys.modules["optax"] = optax
import chex, flax.linen as nn, flax.nnx as nnx, jax, jax.numpy as jnp
from flax.training.train_state import TrainState

model = nn.Dense(2)
x = jnp.ones((1, 3))
params = model.init(jax.random.key(0), x)
state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adamw(1e-3))
grads = jax.grad(lambda p: model.apply(p, x).sum())(params)
state = state.apply_gradients(grads=grads)
assert state.opt_state[0].count == 1 and state.opt_state[1] == optax.EmptyState()

layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(layer, optax.adam(1e-3), wrt=nnx.Param)
optimizer.update(layer, nnx.grad(lambda m: m(x).sum())(layer))
assert optimizer.opt_state[0].count[...] == 1

from optax import adam
from optax.contrib import prodigy
assert "optax._src" not in sys.modules
"""


def test_the_door_takes_the_place_of_optax_in_a_whole_process() -> None:
    subprocess.run([sys.executable, "-c", SWAP], check=True)


@pytest.mark.filterwarnings("ignore")  # numpyro's own
def test_numpyro_takes_the_door_as_an_optimizer_of_optax() -> None:
    pytest.importorskip("numpyro")
    from numpyro import distributions as dist
    from numpyro import infer, sample
    from numpyro.infer.autoguide import AutoNormal

    def model(x):
        mean = sample("mean", dist.Normal(0.0, 5.0))
        sample("x", dist.Normal(mean, 1.0), obs=x)

    x = jax.numpy.array([1.5, 2.5, 2.0])
    losses = []
    for package in (optax, door):
        tx = package.chain(package.clip(10.0), package.adam(0.05))
        svi = infer.SVI(model, AutoNormal(model), tx, infer.Trace_ELBO())
        found = svi.run(jax.random.key(0), 20, x, progress_bar=False)
        losses.append(found.losses)
    np.testing.assert_allclose(losses[1], losses[0], 1e-4)


def test_a_check_for_the_class_of_optax_accepts_the_door() -> None:
    tx = door.chain(door.clip(1.0), door.adam(0.1))
    for class_ in (
        door.GradientTransformation,
        door.GradientTransformationExtraArgs,
        optax.GradientTransformation,
        optax.GradientTransformationExtraArgs,
    ):
        assert isinstance(tx, class_)
    both = optax.chain(tx, optax.scale(0.5))
    params = {"w": np.ones(2, np.float32)}
    updates, _ = both.update(params, both.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05, 1e-6)
