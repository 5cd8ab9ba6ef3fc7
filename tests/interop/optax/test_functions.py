"""The door's functions of vectors, losses and batches, against optax's."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.microbatching import AccumulationType as Theirs

from jopt.interop.optax import (
    microbatching,
    numerics,
    perturbations,
    projections,
    second_order,
)


# optax itself does not run under strict promotion.
pytestmark = pytest.mark.usefixtures("as_jax_is_delivered")


@pytest.fixture
def as_jax_is_delivered():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


KEY = jax.random.key(0)
X = jnp.array([0.5, 2.1, -3.5])
MATRIX = jnp.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]])
TREE = {"a": X, "b": {"c": jnp.arange(4.0).reshape(2, 2)}}
DIRECTION = jax.tree.map(lambda x: jnp.cos(3 * x), TREE)

MODULES = {
    microbatching: optax.microbatching,
    perturbations: optax.perturbations,
    projections: optax.projections,
    second_order: optax.second_order,
}


@pytest.mark.parametrize("ours", MODULES)
def test_a_module_has_all_functions_of_optaxs(ours: Any) -> None:
    theirs = MODULES[ours]
    names = {name for name in dir(theirs) if not name.startswith("_")}
    assert names == set(ours.__all__)
    for name in names:
        if inspect.isfunction(getattr(theirs, name)):
            assert_same_call(getattr(ours, name), getattr(theirs, name))


def assert_same_call(ours: Any, theirs: Any) -> None:
    """The arguments have the same names, order and kinds, and the same defaults."""
    signatures = [inspect.signature(f).parameters for f in (ours, theirs)]
    assert [*signatures[0]] == [*signatures[1]]
    for p, q in zip(*(s.values() for s in signatures), strict=True):
        assert p.kind == q.kind
        plain = isinstance(q.default, int | float | str | type(None))
        assert not plain or p.default == q.default


def test_the_functions_of_the_top_level_have_optaxs_arguments() -> None:
    for name in set(numerics.__all__) - {"abs_sq"}:
        ours, theirs = getattr(numerics, name), getattr(optax, name)
        if name != "multi_normal":
            assert [*inspect.signature(ours).parameters] == [
                *inspect.signature(theirs).parameters
            ]


def assert_close(found: Any, expected: Any, rtol: float = 2e-6) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.shape(x) == np.shape(y) and jnp.result_type(x) == jnp.result_type(y)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-6)


NUMERICS: dict[str, Any] = {
    "safe_norm": (X, 0.1),
    "safe_root_mean_squares": (X, 0.1),
    "safe_increment": (jnp.int32(3),),
    "safe_int32_increment": (jnp.int32(2**31 - 1),),
    "power_iteration": (MATRIX,),
    "matrix_inverse_pth_root": (MATRIX, 4),
    "nnls": (MATRIX, X, 7),
    "scale_gradient": (TREE, 0.5),
}


@pytest.mark.parametrize("name", NUMERICS)
def test_numbers_are_optaxs(name: str) -> None:
    ours, theirs = getattr(numerics, name), getattr(optax, name)
    found, expected = (f(*NUMERICS[name]) for f in (ours, theirs))
    if name in ("power_iteration", "matrix_inverse_pth_root"):
        # They stop at the tolerance, not at the same rounding.
        assert_close(found[0], expected[0], rtol=1e-5)
    else:
        assert_close(found, expected)


def test_the_global_norm_warns_as_in_optax() -> None:
    with pytest.warns(DeprecationWarning, match="use optax.tree.norm"):
        found = numerics.global_norm(TREE)
    assert_close(found, optax.tree.norm(TREE))


def test_a_diagonal_normal_is_optaxs() -> None:
    ours, theirs = (f(X, 0.1 * X) for f in (numerics.multi_normal, optax.multi_normal))
    assert_close(ours.log_prob(X + 1), theirs.log_prob(X + 1))
    assert_close(ours.sample((2,), KEY), theirs.sample((2,), KEY))
    assert_close(ours.params, theirs.params)


def test_a_bound_of_a_box_is_broadcast_as_in_optax() -> None:
    bounds = jnp.array([0.0, 1.0]), jnp.array([[1.0], [2.0]])
    args = jnp.arange(4.0).reshape(2, 2), *bounds
    assert_close(
        projections.projection_box(*args), optax.projections.projection_box(*args)
    )
    args = args[0], bounds[0]
    found = projections.projection_hypercube(*args)
    assert_close(found, optax.projections.projection_hypercube(*args))


@pytest.mark.parametrize(
    ("name", "scale"),
    [(name, 0.7) for name in projections.__all__]
    + [(name, 20.0) for name in projections.__all__ if "_l" in name],
)
def test_projections_are_optaxs(name: str, scale: float) -> None:
    arguments: Any = {
        "projection_non_negative": (),
        "projection_box": (
            jax.tree.map(lambda x: x - 1, TREE),
            jax.tree.map(lambda x: x * 0 + scale, TREE),
        ),
        "projection_hypercube": (jax.tree.map(lambda x: scale, TREE),),
        "projection_vector": (DIRECTION,),
        "projection_hyperplane": (DIRECTION, scale),
        "projection_halfspace": (DIRECTION, -scale),
    }
    if name == "projection_hypercube":
        args = X, scale
    else:
        args = TREE, *arguments.get(name, (scale,))
    ours, theirs = getattr(projections, name), getattr(optax.projections, name)
    found, expected = ours(*args), theirs(*args)
    if name == "projection_l1_sphere":  # a zero gets a sign only in jopt
        found, expected = (jax.tree.map(jnp.abs, x) for x in (found, expected))
        assert_close(found["a"], expected["a"])
    else:
        assert_close(found, expected)


def loss(params: Any, inputs: Any, targets: Any) -> Any:
    return jnp.mean((jnp.tanh(inputs @ params["w"] + params["b"]) - targets) ** 2)


@pytest.mark.parametrize("name", second_order.__all__)
def test_curvature_is_optaxs_and_deprecated(name: str) -> None:
    params = {"w": MATRIX, "b": X}
    args = (loss, *([jnp.cos(jnp.arange(12.0))] if name == "hvp" else []), params)
    with pytest.warns(DeprecationWarning, match=f"{name} is deprecated"):
        found = getattr(second_order, name)(*args, MATRIX, X)
    with pytest.warns(DeprecationWarning):
        expected = getattr(optax.second_order, name)(*args, MATRIX, X)
    assert_close(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("noise", "use_baseline"), [("Gumbel", True), ("Normal", False)]
)
def test_a_perturbed_function_takes_optaxs_samples(noise: str, use_baseline) -> None:
    def winner(x):
        return jax.tree.map(lambda x: jnp.argmax(x) + x**2, x)

    def run(module):
        kind = getattr(module, noise)()
        f = module.make_perturbed_fun(winner, 20, 0.3, kind, use_baseline)
        return f(KEY, TREE), jax.jacobian(f, argnums=1)(KEY, X)

    found, expected = (
        jax.jit(run, static_argnums=0)(m) for m in (perturbations, optax.perturbations)
    )
    assert_close(found, expected, rtol=1e-4)


def test_parts_of_a_batch_are_combined_as_in_optax() -> None:
    x = jnp.arange(24.0).reshape(8, 3)

    def f(x, *, y):
        return x + y[:, None], jnp.sum(x, axis=0), jnp.mean(x)

    def run(module):
        kind = module.AccumulationType
        kinds = kind.CONCAT, kind.SUM, kind.RUNNING_MEAN
        g = module.microbatch(f, 0, 2, kinds, argnames="y", num_real_microbatches=3)
        per_example = module.micro_grad(
            lambda w, x: jnp.sum((x @ w) ** 2),
            microbatch_size=4,
            accumulator=kind.MEAN,
            metrics_fn=jnp.linalg.norm,
        )
        grads, each = per_example(X, x)
        return g(x, y=x[:, 0]), grads, tuple(each)

    assert_close(run(microbatching), run(optax.microbatching))
    ours = microbatching.reshape_batch_axis(x.T, 4, 1)
    assert_close(ours, optax.microbatching.reshape_batch_axis(x.T, 4, 1))
    assert [k.name for k in microbatching.AccumulationType] == [k.name for k in Theirs]


def test_the_door_loads_without_optax() -> None:
    names = ["tree", "tree_utils", *(x.__name__.rpartition(".")[2] for x in MODULES)]
    names.append("numerics")
    code = "import sys, importlib\n"
    code += f"[importlib.import_module('jopt.interop.optax.' + n) for n in {names}]\n"
    code += "assert 'optax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in names:
        module = importlib.import_module(f"jopt.interop.optax.{name}")
        assert all(hasattr(module, n) for n in module.__all__)
