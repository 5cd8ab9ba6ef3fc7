"""One Pallas kernel for some rows at a time, in interpret mode: the numbers of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.core import cpu_kernels, kernels, tpu_kernels, tpu_shards


@pytest.fixture
def as_on_tpu(monkeypatch):
    """Run the form for one TPU, or for several, and count how often it is traced."""
    traced, several = [], []

    def interpreted(form):
        def run(*args):
            call = form(*args, interpret=True)
            traced.append(call is not None)
            return call

        return run

    def per_platform(default, cpu, *arrays, tpu=None, tpus=None, **options):
        if tpu is None:
            return real_per_platform(default, cpu, *arrays, **options)
        return tpus(*arrays) if several else tpu(*arrays)

    real_per_platform = cpu_kernels.per_platform
    monkeypatch.setattr(tpu_kernels, "form", interpreted(tpu_kernels.form))
    monkeypatch.setattr(tpu_shards, "form", interpreted(tpu_shards.form))
    monkeypatch.setattr(cpu_kernels, "per_platform", per_platform)
    kernels._kernel.cache_clear()
    yield traced, several
    kernels._kernel.cache_clear()


def trained(tx, shape, sharding=None, bad=False, dtype="float32"):
    """The last update and the state after three steps."""

    def placed(x):
        x = jnp.asarray(x, dtype)
        return x if sharding is None else jax.device_put(x, sharding)

    params = {"w": placed(np.random.default_rng(1).normal(size=shape))}
    state = jax.jit(tx.init)(params)
    step = jax.jit(tx.update) if sharding else tx.update
    for i in range(3):
        g = placed(np.random.default_rng(i).normal(size=shape))
        g = g * jnp.inf if bad and i == 2 else g
        # Not jopt.step, whose trace is kept elsewhere.
        updates, state = step({"w": g}, state, params)
        params = jopt.apply_updates(params, updates)
    return params, updates, state


INT8 = jopt.adamw(0.01, mu_dtype="int8", nu_dtype="int8")
BF16 = {kind: jopt.bf16_params(jopt.adamw(0.01), kind) for kind in ("kahan", "ecc16")}
KERNELS = {
    "rows of several blocks": (INT8, (64, 640)),
    "rows left over": (INT8, (200, 256)),
    "stacked": (INT8, (3, 64, 256)),
    "one slot": (jopt.adam(0.01, nu_dtype="int8"), (128, 256)),
    "two formats": (
        jopt.adam(0.01, mu_dtype="bfloat16_sr", nu_dtype="int8"),
        (128, 256),
    ),
    "momentum": (jopt.sgd(0.01, 0.9, accumulator_dtype="int8"), (128, 256)),
    "skipped": (jopt.skip_nonfinite(jopt.adam(0.01, mu_dtype="int8")), (128, 256)),
    **{f"bfloat16, {kind}": (tx, (128, 256)) for kind, tx in BF16.items()},
    "bfloat16, all": (jopt.bf16_params(INT8, "ecc8"), (128, 256)),
    "bfloat16, at random": (jopt.bf16_params(INT8, "stochastic"), (128, 256)),
}


@pytest.mark.parametrize("case", KERNELS)
def test_the_numbers_are_those_of_xla(case, request):
    tx, shape = KERNELS[case]
    options = {
        "bad": case == "skipped",
        "dtype": "bfloat16" if "bfloat16" in case else "float32",
    }
    right = trained(tx, shape, **options)
    traced, _ = request.getfixturevalue("as_on_tpu")
    found = trained(tx, shape, **options)
    assert traced and all(traced)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if x.ndim == 0:
            assert x == y
        elif x.dtype == jnp.float32 and "bfloat16" not in case:
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)
        else:  # a last bit can decide which way a number is rounded
            least = 2 if x.dtype == jnp.int16 else 2e-6  # it has last bits
            x, y = x.astype("f4"), y.astype("f4")
            close = np.isclose(x, y, rtol=2e-5, atol=least)
            assert close.mean() > 0.99


@pytest.mark.parametrize(
    "tx, shape",
    [
        (jopt.adam(0.01, nu_dtype="int4"), (128, 256)),  # half bytes
        (jopt.adam(0.01, nu_dtype="int8"), (3, 43, 256)),  # parts of tiles
        (jopt.adam(0.01, nu_dtype="int8"), (128, 300)),
        (jopt.lion(0.01, mu_dtype="int8"), (128, 256)),  # its sign is not for Pallas
        (jopt.chain(jopt.clip_by_block_rms(1.0), jopt.adam(0.01, nu_dtype="int8")),
         (128, 256)),  # a norm of the whole leaf
    ],
)  # fmt: skip
def test_what_has_no_such_form_is_left_to_xla(as_on_tpu, tx, shape):
    trained(tx, shape)
    traced, _ = as_on_tpu
    assert traced and not any(traced)


SPLITS = {
    "blocks": ((64, 2048), P(None, ("y", "x"))),  # whole ones on each device
    "both": ((128, 512), P("x", "y")),
    "inner rows": ((2, 256, 256), P(None, "x")),
}
# Its products are exact, so sums that a compiler contracts are the same.
TX = jopt.bf16_params(jopt.sgd(2.0**-7, 0.5, accumulator_dtype="int8"), "ecc8")


def split(case, kind=AxisType.Explicit):
    shape, spec = case
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    return trained(TX, shape, NamedSharding(mesh, spec), dtype="bfloat16")


@pytest.mark.parametrize("case", SPLITS)
def test_eight_devices_have_the_bits_of_one(as_on_tpu, case):
    traced, several = as_on_tpu
    right = trained(TX, SPLITS[case][0], dtype="bfloat16")
    kernels._kernel.cache_clear()
    several.append(True)
    found = split(SPLITS[case])
    assert all(traced)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(x).astype("f4"), y.astype("f4"))
    params, updates, state = found
    for x in (updates["w"], state.error["w"]):
        assert x.sharding.is_equivalent_to(params["w"].sharding, x.ndim)
    assert params["w"].sharding.spec[0] == SPLITS[case][1][0]


def test_without_types_the_parts_are_those_of_zero1(as_on_tpu):
    traced, several = as_on_tpu
    right = trained(TX, (256, 512), dtype="bfloat16")
    kernels._kernel.cache_clear()
    several.append(True)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    tx, whole = jopt.sharding.zero1(TX, mesh, "x"), NamedSharding(mesh, P())
    found = trained(tx, (256, 512), whole, dtype="bfloat16")
    assert all(traced)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(x).astype("f4"), y.astype("f4"))
    assert found[2].error["w"].sharding.spec == P("x")


@pytest.mark.parametrize(
    "case, kind",
    [
        (((64, 512), P("y", "x")), AxisType.Explicit),  # half blocks
        (((2, 64, 256), P("y", "x")), AxisType.Explicit),  # half tiles
        (((256, 512), P("x")), AxisType.Auto),  # nobody says which part
    ],
)
def test_parts_that_are_not_whole_or_not_known_are_left_to_xla(as_on_tpu, case, kind):
    traced, several = as_on_tpu
    several.append(True)
    split(case, kind)
    assert traced and not traced[-1]
