"""One Pallas kernel for slots in blocks, in interpret mode: the numbers of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.core import cpu_kernels, kernels, tpu_kernels


@pytest.fixture
def as_on_tpu(monkeypatch):
    """Run the form for TPUs, and count how often it is traced."""
    traced = []

    def form(*args):
        call = tpu_kernels_form(*args, interpret=True)
        traced.append(call is not None)
        return call

    def per_platform(default, cpu, *arrays, tpu=None, **options):
        if tpu is None:
            return real_per_platform(default, cpu, *arrays, **options)
        return tpu(*arrays)

    tpu_kernels_form, real_per_platform = tpu_kernels.form, cpu_kernels.per_platform
    monkeypatch.setattr(tpu_kernels, "form", form)
    monkeypatch.setattr(cpu_kernels, "per_platform", per_platform)
    kernels._kernel.cache_clear()
    yield traced
    kernels._kernel.cache_clear()


def run(tx, shape, bad=False):
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=shape), "f4")}
    state = tx.init(params)
    for i in range(3):
        g = jnp.asarray(np.random.default_rng(i).normal(size=shape), "f4")
        g = g * jnp.inf if bad and i == 2 else g
        # Not jopt.step, whose trace is kept elsewhere.
        updates, state = tx.update({"w": g}, state, params)
    return updates, state


INT8 = jopt.adamw(0.01, mu_dtype="int8", nu_dtype="int8")
KERNELS = {
    "rows of several blocks": (
        jopt.adamw(0.01, mu_dtype="int8", nu_dtype="int8"),
        (64, 640),
    ),
    "stacked": (jopt.adamw(0.01, mu_dtype="int8", nu_dtype="int8"), (3, 64, 256)),
    "one slot": (jopt.adam(0.01, nu_dtype="int8"), (128, 256)),
    "momentum": (jopt.sgd(0.01, 0.9, accumulator_dtype="int8"), (128, 256)),
    "skipped": (jopt.skip_nonfinite(jopt.adam(0.01, mu_dtype="int8")), (128, 256)),
}


@pytest.mark.parametrize("case", KERNELS)
def test_the_numbers_are_those_of_xla(case, request):
    tx, shape = KERNELS[case]
    right = run(tx, shape, case == "skipped")
    traced = request.getfixturevalue("as_on_tpu")
    found = run(tx, shape, case == "skipped")
    assert traced and all(traced)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if x.dtype in (jnp.int8, jnp.uint8):
            assert (x != y).mean() < 1e-3
        elif jnp.issubdtype(x.dtype, jnp.integer):
            assert x == y
        else:
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "tx, shape",
    [
        (jopt.adam(0.01, nu_dtype="int4"), (128, 256)),  # half bytes
        (jopt.adam(0.01, mu_dtype="bfloat16_sr", nu_dtype="int8"), (128, 256)),
        (jopt.adam(0.01, nu_dtype="int8"), (129, 256)),  # part of a tile
        (jopt.adam(0.01, nu_dtype="int8"), (128, 300)),
        (jopt.lion(0.01, mu_dtype="int8"), (128, 256)),  # its sign is not for Pallas
        (jopt.chain(jopt.clip_by_block_rms(1.0), jopt.adam(0.01, nu_dtype="int8")),
         (128, 256)),  # a norm of the whole leaf
    ],
)  # fmt: skip
def test_what_has_no_such_form_is_left_to_xla(as_on_tpu, tx, shape):
    run(tx, shape)
    assert as_on_tpu and not any(as_on_tpu)
