"""What users may pass, and other libraries let them pass."""

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import checkpoint
from tests.catalogue import ONCE, Case


PARAMS = {"body": jnp.ones(2), "head": jnp.full(3, 2.0)}


class Group(enum.Enum):
    """Labels as an enumeration."""

    SLOW = 1
    FAST = 2


LABELS = [(0, 1), (True, False), (Group.SLOW, Group.FAST), (np.int64(3), np.int64(4))]


@pytest.mark.parametrize("slow, fast", LABELS)
def test_labels_may_be_numbers_bools_and_members_of_an_enum(
    slow: Any, fast: Any, tmp_path: Any
) -> None:
    labels = {"body": slow, "head": fast}
    tx = jopt.partition({slow: jopt.sgd(0.1), fast: jopt.adam(0.1)}, labels)
    same = jopt.partition(
        {"slow": jopt.sgd(0.1), "fast": jopt.adam(0.1)},
        {"body": "slow", "head": "fast"},
    )
    state, expected = tx.init(PARAMS), same.init(PARAMS)
    assert all(type(key) is str for key in state)
    updates, state = tx.update(PARAMS, state, PARAMS)
    other, _ = same.update(PARAMS, expected, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, updates, other)
    path = checkpoint.save(tmp_path / "run.npz", params=PARAMS, opt_state=state)
    restored = checkpoint.restore(path, params=PARAMS, tx=tx).opt_state
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_labels_with_the_same_text_are_refused() -> None:
    with pytest.raises(ValueError, match="has the key '0', but keys are"):
        jopt.partition({0: jopt.sgd(0.1), "0": jopt.adam(0.1)}, 0)
    with pytest.raises(ValueError, match=r"has the key 0\.5, but keys are"):
        jopt.partition({0.5: jopt.sgd(0.1)}, 0.5)


CLIPS = [
    jopt.clip(jnp.inf),
    jopt.clip_by_global_norm(jnp.inf),
    jopt.clip_by_norm(jnp.inf),
    jopt.clip_by_block_rms(jnp.inf),
    jopt.adaptive_grad_clip(jnp.inf),
]


@pytest.mark.parametrize("tx", CLIPS, ids=lambda tx: tx.name)
def test_an_infinite_bound_clips_nothing(tx: Any) -> None:
    grads = {"body": jnp.array([1e30, 0.0]), "head": jnp.array([1e-30, -1.0, 1e4])}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, updates, grads)


def test_init_takes_a_whole_model_with_functions_among_its_leaves() -> None:
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(0.1))
    state = tx.init(model)
    arrays = eqx.filter(model, eqx.is_inexact_array)
    expected = tx.init(arrays)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    grads = eqx.filter_grad(lambda m: jnp.sum(m(jnp.ones(2))))(model)
    updates, _ = tx.update(grads, state, model)
    other, _ = tx.update(grads, expected, arrays)
    jax.tree.map(np.testing.assert_array_equal, updates, other)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "sm3", "novograd"])
def test_init_of_shapes_is_init_of_parameters(name: str) -> None:
    tx = getattr(jopt, name)(0.1)
    params = {"b": jnp.ones(3, jnp.bfloat16), "w": jnp.ones((2, 3))}
    state = tx.init(jax.eval_shape(lambda: params))
    jax.tree.map(np.testing.assert_array_equal, state, tx.init(params))


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_every_init_takes_shapes_and_has_shapes_where_values_are_needed(
    case: Case,
) -> None:
    shapes = {"kernel": jax.ShapeDtypeStruct((16, 8), jnp.float32)}
    state, expected = case.tx.init(shapes), jax.eval_shape(case.tx.init, shapes)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(state),
        jax.tree.leaves(expected),
        strict=True,
    ):
        assert (x.shape, x.dtype) == (y.shape, y.dtype), path


def test_a_copy_of_a_parameter_without_values_is_a_shape() -> None:
    state = jopt.dog().init(jax.eval_shape(lambda: PARAMS))["scale_by_dog"]
    copies = state.init_params
    assert {name: x.shape for name, x in copies.items()} == {"body": (2,), "head": (3,)}
    assert isinstance(state.count, jax.Array)


def test_the_units_of_a_kernel_over_three_dimensions_are_its_outputs() -> None:
    params, grads = jnp.ones((2, 2, 2, 3, 4)), jnp.ones((2, 2, 2, 3, 4)) * 5
    updates, _ = jopt.adaptive_grad_clip(0.5).update(grads, (), params)
    np.testing.assert_allclose(updates, 0.5 * params, 1e-6)
