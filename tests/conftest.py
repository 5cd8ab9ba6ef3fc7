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

# Tests of numbers only: to compile them without XLA's costly passes takes up to two
# fifths less time. What XLA makes of a step is tested elsewhere.
NUMBERS = {
    "adamuon",
    "arranged_numbers",
    "bare_array",
    "complex_leaves",
    "composition",
    "containers",
    "contrib_matrices",
    "description",
    "dion2",
    "distance",
    "dpsgd",
    "ema_nesterov",
    "functions",
    "galore",
    "hyperball",
    "laws",
    "layers",
    "learning_rate",
    "linear_algebra",
    "loss_scale",
    "muon",
    "muon_squared",
    "nnx_optimizer",
    "norm_control",
    "normuon",
    "parity",
    "perturbations",
    "programs",
    "projections",
    "properties",
    "qk_clip",
    "race",
    "ratios",
    "row_sparse",
    "sam",
    "scheduler_calls",
    "schedules",
    "scion",
    "second_order",
    "sophia",
    "storage",
    "traced",
    "whole_models",
    "your_own",
}


@pytest.fixture(autouse=True, scope="module")
def without_most_optimizations(request: pytest.FixtureRequest) -> Iterator[None]:
    name = request.module.__name__.rpartition(".test_")[2]
    jax.config.update("jax_disable_most_optimizations", name in NUMBERS)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
