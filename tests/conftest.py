"""Every test runs under JAX's strictest settings, on eight CPU devices."""

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import jaxlib
import pytest
from jax._src.interpreters import mlir


# Programs that JAX has compiled live as long as the tests. To look for garbage among
# them as often as Python does takes up to a sixth of the time.
gc.set_threshold(100_000, 50, 50)

TESTS = Path(__file__).parent

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

# JAX makes a context for each program that it hands to XLA, which takes as long as to
# compile a small one. Here all share one. The function is JAX's own: another JAX may
# have none.
if hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)

# Tests that look at what XLA makes of a step: its memory, its loops, its calls; or at
# random numbers, to the last bit. All others are compiled without XLA's costly passes,
# in up to two fifths less time.
OF_PROGRAMS = {
    "accumulation",
    "apply",
    "calls",
    "compilation",
    "cpu_kernels",
    "emission",
    "factored_rms",
    "groups",
    "guards",
    "large_norms",
    "limits",
    "lookahead",
    "mechanic",
    "metrics",
    "micro_batch",
    "models",
    "narrow",
    "psgd",
    "roofline",
    "schedule_free",
    "shampoo",
    "states_of_optax",
}


@pytest.fixture(autouse=True, scope="module")
def without_most_optimizations(request: pytest.FixtureRequest) -> Iterator[None]:
    name = request.module.__name__.rpartition(".test_")[2]
    jax.config.update("jax_disable_most_optimizations", name not in OF_PROGRAMS)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# The files that take longest, in the order in which workers start with them. A worker
# that took one of them last would be at it when the others have nothing left to do.
LONGEST = [
    "laws/test_laws.py",
    "docs/test_examples.py",
    "parity/test_parity.py",
    "laws/test_composition.py",
    "checkpoint/test_resume.py",
    "docs/test_keras_examples.py",
    "docs/test_import.py",
    "schedules/test_schedules.py",
    "laws/test_learning_rate.py",
    "laws/test_ratios.py",
    "core/test_arranged_numbers.py",
    "gradients/test_row_sparse.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item):
        name = item.path.relative_to(TESTS).as_posix()
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)
