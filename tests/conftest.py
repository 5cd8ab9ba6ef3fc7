"""Every test runs under JAX's strictest settings, on eight CPU devices."""

import os
from collections.abc import Iterator

import jax
import jaxlib
import pytest


jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# XLA:CPU has two ways to make code of a fused loop. The newer one takes twice the time
# to compile, which is most of what the tests do; another XLA may not know the flags.
if jaxlib.__version__.startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_use_fusion_emitters=false"
        + " --xla_cpu_parallel_codegen_split_count=1"
    )

# Tests of numbers only: to compile them without XLA's costly passes takes a fifth less
# time. What XLA makes of a step is tested elsewhere.
NUMBERS = ("test_composition", "test_laws", "test_parity", "test_schedules")
NUMBERS += ("test_race", "test_your_own")


@pytest.fixture(autouse=True, scope="module")
def without_most_optimizations(request: pytest.FixtureRequest) -> Iterator[None]:
    name = request.module.__name__.rpartition(".")[2]
    jax.config.update("jax_disable_most_optimizations", name in NUMBERS)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
