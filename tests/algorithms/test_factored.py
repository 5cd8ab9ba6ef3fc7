"""Second moments that take little memory: what the laws and the parity do not say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.algorithms.adam_mini import default_block
from tests import twins as reference
from tests.public import public


def draw(shape: tuple[int, ...], steps: int = 12) -> tuple[Any, list[Any]]:
    """A parameter and gradients with a direction in common."""
    rng = np.random.default_rng(1)
    p, main = rng.normal(size=(2, *shape))
    return p, [main + 0.1 * rng.normal(size=shape) for _ in range(steps)]


def assert_follows(tx: Any, twin: Iterator[Any], p: Any, grads: list[Any]) -> None:
    """The parameters after each step are those of the twin."""
    with jax.enable_x64(True):
        params = jnp.asarray(p)
        state = tx.init(params)
        for g in grads:
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = jopt.apply_updates(params, updates)
            np.testing.assert_allclose(params, next(twin), 1e-9, 1e-12)


def floats(state: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(state) if x.dtype == jnp.float32)


# Adafactor.


def test_adafactor_keeps_a_number_per_row_and_column_only() -> None:
    state = jopt.adafactor(1e-2).init(jnp.zeros((256, 512)))
    assert floats(state) == 256 + 512 + 1  # and the learning rate
    state = jopt.adafactor(1e-2).init(jnp.zeros((127, 512)))
    assert floats(state) == 127 * 512 + 1


@pytest.mark.parametrize("axes", ["largest", "last"])
@pytest.mark.parametrize("shape", [(5, 6, 3), (2, 4, 4), (3, 2, 1, 7)])
def test_adafactor_factors_the_largest_or_the_last_axes(
    shape: tuple[int, ...], axes: Any
) -> None:
    p, grads = draw(shape)
    options = {"min_dim_size_to_factor": 1, "factored_axes": axes}
    twin = reference.adafactor(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.adafactor(0.1, **options), twin, p, grads)


def test_adafactor_without_a_learning_rate_takes_the_paper_s_steps() -> None:
    p, grads = draw((3, 4), steps=3)
    tx = jopt.adafactor(min_dim_size_to_factor=1)
    twin = reference.adafactor(p, grads, min_dim_size_to_factor=1)
    assert_follows(tx, twin, p, grads)
    params = jnp.asarray(p, jnp.float32)
    state = tx.init(params)
    for t in range(1, 4):
        _, state = tx.update(params, state, params)
        assert jopt.hyperparams(state) == {"learning_rate": jnp.float32(0.01)}
        assert state["scale_by_relative_step"].count == t


def test_an_offset_of_adafactor_s_decay_is_finite_where_optax_gives_nan() -> None:
    params = jnp.ones((2, 3))
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.adafactor(0.1, decay_offset=5)
        updates, _ = theirs.update(params, theirs.init(params), params)
        assert jnp.isnan(updates).any()
    p, grads = draw((3, 4), steps=9)
    options = {"min_dim_size_to_factor": 1, "decay_offset": 5}
    twin = reference.adafactor(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.adafactor(0.1, **options), twin, p, grads)


def test_the_decay_of_a_factored_moment_can_be_another() -> None:
    p, grads = draw((3, 4))
    options = {"decay_rate_fn": lambda t, c: 0.5 * (1 - (t + 1) ** -c)}
    tx = jopt.chain(
        jopt.scale_by_factored_rms(min_dim_size_to_factor=1, **options),
        jopt.scale_by_learning_rate(0.1),
    )
    options |= {"multiply_by_parameter_scale": False, "clipping_threshold": None}
    twin = reference.adafactor(
        p, grads, learning_rate=0.1, min_dim_size_to_factor=1, **options
    )
    assert_follows(tx, twin, p, grads)


def test_clipping_within_the_factored_moment_is_clipping_behind_it() -> None:
    p, grads = draw((3, 4))
    params = jnp.asarray(p, jnp.float32)
    within = jopt.scale_by_factored_rms(
        min_dim_size_to_factor=1, clipping_threshold=0.5
    )
    behind = jopt.chain(
        jopt.scale_by_factored_rms(min_dim_size_to_factor=1),
        jopt.clip_by_block_rms(0.5),
    )
    states = within.init(params), behind.init(params)
    for g in grads:
        g = jnp.asarray(g, jnp.float32)
        ours, own = within.update(g, states[0])
        theirs, other = behind.update(g, states[1])
        np.testing.assert_allclose(ours, theirs, 1e-6)
        states = own, other


@pytest.mark.parametrize("eps_mode", ["add", "clamp"])
def test_a_row_without_gradient_beside_a_huge_one_stays_at_rest(eps_mode: Any) -> None:
    tx = jopt.scale_by_factored_rms(
        min_dim_size_to_factor=1, clipping_threshold=1.0, eps_mode=eps_mode
    )
    grads = jnp.zeros((3, 4)).at[0, 0].set(1e15)
    state = tx.init(grads)
    for _ in range(3):
        updates, state = tx.update(grads, state)
        assert jnp.isfinite(updates).all()
        assert updates[0, 0] > 0 and jnp.sum(updates != 0) == 1


def test_an_infinite_gradient_is_not_hidden() -> None:
    tx, grads = jopt.adafactor(0.1, 1), jnp.ones((3, 4)).at[1, 1].set(jnp.inf)
    updates, _ = tx.update(grads, tx.init(grads), jnp.ones((3, 4)))
    assert not jnp.isfinite(updates).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("adafactor(0.1, 0)", "min_dim_size_to_factor must be >= 1"),
        ("adafactor(0.1, decay_rate=0.0)", "decay_rate must be > 0"),
        ("adafactor(0.1, decay_offset=-1)", "step_offset must be >= 0"),
        ("adafactor(0.1, eps=None)", "epsilon=None is for eps_mode='clamp'"),
        ("adafactor(0.1, eps_mode='inside')", "eps_mode must be one of"),
        ("adafactor(0.1, factored_axes='all')", "factored_axes must be one of"),
        ("adafactor(0.1, clipping_threshold=0.0)", "clipping_threshold must be > 0"),
        ("came(0.1, eps2=0.0)", "eps2 must be > 0"),
        ("sm3(0.1, b2=1.5)", r"b2 must be in [0, 1], got b2=1.5"),
        ("adam_mini(0.1, head_dim=0)", "head_dim must be >= 1"),
        ("galore(0.1, rank=0)", "rank must be >= 1"),
        ("galore(0.1, side='left')", "side must be one of"),
        ("galore(0.1, base_optimizer=adamw(0.1))", "needs params, but it sees"),
    ],
)
def test_wrong_arguments_are_refused(call: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        eval(call, public(jopt))


# CAME and SM3.


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 5), (6, 1)])
def test_came_factors_the_last_two_axes(shape: tuple[int, ...]) -> None:
    p, grads = draw(shape)
    options = {"b2": 0.9, "b3": 0.8, "eps1": 1e-10, "eps2": 1e-8}
    twin = reference.came(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.came(0.1, **options), twin, p, grads)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_sm3_has_an_accumulator_per_axis_also_where_there_is_none(
    shape: tuple[int, ...],
) -> None:
    p, grads = draw(shape)
    assert_follows(jopt.sm3(0.1), reference.sm3(p, grads, learning_rate=0.1), p, grads)
    state = jopt.sm3(0.1, None).init(jnp.asarray(p, jnp.float32))
    assert floats(state) == max(sum(shape), 1) + 1
    if not shape:
        with pytest.raises(IndexError):
            theirs = optax.sm3(0.1)
            theirs.update(jnp.float32(1.0), theirs.init(jnp.float32(1.0)))


# Adam-mini.


def test_blocks_are_told_by_name_and_shape() -> None:
    cases = {
        "attn/key/bias": ((2, 4), "element", (2, 4)),
        "attn/out/kernel": ((2, 4, 8), "output", (1, 1, 8)),
        "attn/query/kernel": ((8, 2, 4), "head", (1, 2, 1)),
        "attn/value/kernel": ((8, 2, 4), "neuron", (1, 2, 4)),
        "conv/kernel": ((3, 3, 8, 16), "output", (1, 1, 1, 16)),
        "mlp/kernel": ((8, 32), "output", (1, 32)),
        "monkey/kernel": ((8, 2, 4), "output", (1, 1, 4)),
        "norm/scale": ((8,), "tensor", (1,)),
        "wte/embedding": ((50, 8), "input", (50, 1)),
    }
    params = {name: jnp.ones(shape) for name, (shape, _, _) in cases.items()}
    nu = jopt.scale_by_adam_mini().init(params).nu
    for name, (_, block, kept) in cases.items():
        assert default_block(name, params[name]) == block
        assert nu[name].shape == kept


def test_heads_of_the_last_axis_are_heads_of_their_own_axis() -> None:
    p, grads = draw((6, 2, 4))
    apart, together = {"query": p}, {"query": p.reshape(6, 8)}
    own, parts = jopt.adam_mini(0.1), jopt.adam_mini(0.1, head_dim=4)
    with jax.enable_x64(True):
        states = own.init(apart), parts.init(together)
        assert states[0]["scale_by_adam_mini"].nu["query"].shape == (1, 2, 1)
        for g in grads:
            expected, first = own.update({"query": jnp.asarray(g)}, states[0], apart)
            flat = {"query": jnp.asarray(g.reshape(6, 8))}
            found, second = parts.update(flat, states[1], together)
            states = first, second
            np.testing.assert_allclose(
                found["query"], expected["query"].reshape(6, 8), 1e-12
            )
        assert (
            len(np.unique(np.asarray(states[1]["scale_by_adam_mini"].nu["query"]))) == 2
        )


def test_all_of_a_tensor_s_elements_can_be_blocks_or_one() -> None:
    p, grads = draw((3, 4))
    adam = jopt.adam_mini(0.1, blocks=lambda path, leaf: "element")
    assert_follows(adam, reference.adam(p, grads, learning_rate=0.1), p, grads)
    one = jopt.adam_mini(0.1, blocks=lambda path, leaf: "tensor")
    assert floats(one.init(jnp.ones((3, 4)))) == 12 + 1 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": lambda path, leaf: "row"}, "block must be one of"),
        (
            {"blocks": lambda path, leaf: "head", "head_dim": 3},
            "no heads of head_dim=3",
        ),
    ],
)
def test_blocks_that_a_leaf_cannot_have_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jopt.adam_mini(0.1, **options).init({"w": jnp.ones((2, 4))})
    heads = jopt.adam_mini(0.1, blocks=lambda path, leaf: "head")
    with pytest.raises(ValueError, match="no axis for heads"):
        heads.init({"w": jnp.ones(4)})
    with pytest.raises(TypeError, match="blocks must be a function"):
        jopt.adam_mini(0.1, blocks="output")


# GaLore.


@pytest.mark.parametrize("side", ["shorter", "longer"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_galore_follows_its_twin_through_new_projectors(
    shape: tuple[int, ...], side: Any
) -> None:
    p, grads = draw(shape)
    options = {"rank": 2, "update_proj_gap": 4, "scale": 0.25, "side": side}
    twin = reference.galore(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.galore(0.1, **options), twin, p, grads)


def test_the_sign_of_singular_vectors_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p, grads = draw((6, 4))
    signs = iter(np.random.default_rng(2).choice([-1, 1], size=(12, 4)))

    def svd(x: Any, full_matrices: bool) -> Any:
        u, s, vh = np.linalg.svd(np.asarray(x), full_matrices=full_matrices)
        sign = next(signs)
        return jnp.asarray(u * sign), s, jnp.asarray(vh * sign[:, None])

    monkeypatch.setattr(jnp.linalg, "svd", svd)
    options = {"rank": 2, "update_proj_gap": 4}
    twin = reference.galore(p, grads, learning_rate=0.1, **options)
    with jax.disable_jit():
        assert_follows(jopt.galore(0.1, **options), twin, p, grads)
    assert len(list(signs)) == 12 - 3  # decompositions: of steps 1, 5 and 9


def test_galore_decomposes_within_a_branch_of_the_compiled_step() -> None:
    params = jnp.ones((8, 6))
    tx = jopt.galore(0.1, rank=2)
    jaxpr = str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))
    assert jaxpr.count("svd[") == 1
    assert "svd[" in jaxpr[jaxpr.index("cond[") :]


def test_galore_keeps_what_its_rank_needs() -> None:
    params = {"matrix": jnp.ones((64, 16)), "vector": jnp.ones(16)}
    state = jopt.galore(0.1, rank=4).init(params)
    assert floats(state) == 16 * 4 + 2 * 64 * 4 + 2 * 16 + 1
    shorter = jopt.galore(0.1, rank=4, side="longer").init(params)
    assert floats(shorter) == 64 * 4 + 2 * 16 * 4 + 2 * 16 + 1


def test_hyperparameters_of_galore_s_base_optimizer_can_be_set() -> None:
    tx = jopt.galore(0.1, 2, base_optimizer=jopt.scale_by_adam(b1=jopt.tunable(0.9)))
    state = tx.init(jnp.ones((4, 4)))
    state = jopt.set_hyperparams(tx, state, b1=0.5)
    assert jopt.hyperparams(state)["b1"] == 0.5
    tx.update(jnp.ones((4, 4)), state, jnp.ones((4, 4)))
