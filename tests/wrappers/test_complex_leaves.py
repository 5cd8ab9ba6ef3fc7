"""Complex leaves as pairs of real numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest

import jopt
from jopt.interop import torch
from tests.algorithms.test_adam import adam
from tests.laws.case import Case, core_of
from tests.twins.base import Array, double


def split_real_and_imaginary(
    p: Array, grads: Iterable[Array], *, inner: Any
) -> Iterator[Array]:
    """Adam for the real and the imaginary part, each by itself."""
    del inner
    twin, grads = core_of(adam), [double(g) for g in grads]
    real = twin(double(p).real, [g.real for g in grads])
    imaginary = twin(double(p).imag, [g.imag for g in grads])
    for x, y in zip(real, imaginary, strict=True):
        yield x + 1j * y if np.iscomplexobj(grads[0]) else x


CASES = [
    Case(
        "split_real_and_imaginary",
        {"inner": jopt.scale_by_adam()},
        learning_rate=None,
    ),
]


def drawn(dtype: Any = jnp.complex64) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(0)

    def leaves() -> Any:
        z = rng.normal(size=(2, 3, 4, 2))
        return {
            "complex": jnp.asarray(z[..., 0] + 1j * z[..., 1], dtype)[0],
            "real": jnp.asarray(z[1, 0, :, 0], jnp.finfo(dtype).dtype),
        }

    return leaves(), [leaves() for _ in range(6)]


def pairs(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x, tree
    )


INNER = [
    jopt.adamw(0.1, weight_decay=0.1),
    jopt.adamw(jopt.linear_schedule(0.1, 0.0, 9), b1=jopt.tunable(0.8)),
    jopt.rprop(0.1),
    jopt.adagrad(0.1, initial_accumulator_value=0.1),
    jopt.scale_by_adan(),
    jopt.chain(jopt.clip_by_global_norm(0.1), jopt.scale_by_amsgrad()),
    # What is more than a rule for elements.
    jopt.lamb(0.1),
    jopt.sm3(0.1),
    jopt.novograd(0.1),
    jopt.adafactor(0.1, min_dim_size_to_factor=1),
    jopt.prodigy(),
    jopt.came(0.1),
    jopt.masked(jopt.scale_by_adam(), "complex"),
    jopt.schedule_free_adamw(0.1),
]


@pytest.mark.parametrize("inner", INNER, ids=lambda tx: str(tx)[:40])
def test_a_complex_leaf_gets_what_its_parts_get(inner: Any) -> None:
    params, grads = drawn()
    tx = jopt.split_real_and_imaginary(inner)
    state, parts = tx.init(params), pairs(params)
    expected_state = inner.init(parts)
    for g in grads:
        params, state = jopt.step(tx, g, state, params)
        parts, expected_state = jopt.step(inner, pairs(g), expected_state, parts)
        chex.assert_trees_all_close(pairs(params), parts, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(
        pairs(jopt.eval_params(tx, state, params, default=params)),
        jopt.eval_params(inner, expected_state, parts, default=parts),
        rtol=1e-5,
        atol=1e-6,
    )
    assert jax.tree.structure(state) == jax.tree.structure(expected_state)


@pytest.mark.parametrize("inner", INNER[:6], ids=lambda tx: str(tx)[:40])
def test_real_leaves_have_the_same_state_and_the_same_numbers(inner: Any) -> None:
    params, grads = ({"w": x["real"]} for x in (drawn()[0], drawn()[1][0]))
    tx = jopt.split_real_and_imaginary(inner)
    state = tx.init(params)
    chex.assert_trees_all_equal(state, inner.init(params))
    # Two kernels, which may round in other places.
    chex.assert_trees_all_close(
        tx.update(grads, state, params), inner.update(grads, state, params), rtol=3e-7
    )


def test_the_slots_of_a_complex_leaf_are_complex() -> None:
    params, grads = drawn()
    tx = jopt.chain(jopt.split_real_and_imaginary(jopt.adagrad(0.1, 0.5)))
    state = tx.init(params)
    assert list(state) == ["scale_by_rss", "scale_by_learning_rate"]
    np.testing.assert_allclose(
        state["scale_by_rss"].sum_of_squares["complex"], 0.5 + 0.5j
    )
    _, state = tx.update(grads[0], state, params)
    g = np.asarray(grads[0]["complex"])
    np.testing.assert_allclose(
        state["scale_by_rss"].sum_of_squares["complex"],
        0.5 + g.real**2 + 1j * (0.5 + g.imag**2),
        rtol=1e-6,
    )


def test_numbers_of_the_inner_transformation_can_be_set() -> None:
    params, grads = drawn()
    tx = jopt.split_real_and_imaginary(jopt.adam(0.1, b1=jopt.tunable(0.9)))
    state = jopt.set_hyperparams(tx, tx.init(params), learning_rate=0.0, b1=0.5)
    updates, _ = jax.jit(tx.update)(grads[0], state, params)
    assert not any(u.any() for u in jax.tree.leaves(updates))
    assert jopt.from_config(jopt.to_config(tx)) == tx != jopt.adam(0.1)


def test_the_numbers_are_those_of_optax() -> None:
    params, grads = drawn()
    tx = jopt.split_real_and_imaginary(jopt.adam(0.1))
    theirs = optax.contrib.split_real_and_imaginary(optax.adam(0.1))
    state, their_state = tx.init(params), theirs.init(params)
    for g in grads:
        found, state = tx.update(g, state, params)
        with jax.numpy_dtype_promotion("standard"):
            expected, their_state = theirs.update(g, their_state, params)
        chex.assert_trees_all_close(found, expected, rtol=1e-4)


# torch.

OF_TORCH: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Rprop": {},
    "ASGD": {"lr": 0.05, "t0": 1.0},
    "Adadelta": {"lr": 1.0, "weight_decay": 0.1},
    "Adagrad": {"lr": 0.05, "initial_accumulator_value": 0.1},
    "RMSprop": {"lr": 0.05, "centered": True, "momentum": 0.5, "maximize": True},
    "Adam": {"lr": 0.05, "amsgrad": True},
    "AdamW": {"lr": 0.05},
    "NAdam": {"decoupled_weight_decay": True, "weight_decay": 0.1},
    "RAdam": {"weight_decay": 0.1},
    "Adamax": {},
}


@pytest.mark.parametrize("name", OF_TORCH)
def test_torch_s_optimizers_take_a_complex_number_as_two(name: str) -> None:
    params, grads = ([x["complex"] for x in y] for y in ([drawn()[0]], drawn()[1]))
    p, tx = params[0], getattr(torch, name)(**OF_TORCH[name])
    parts, both = pairs(p), tx.init(p)
    state = tx.init(parts)
    for g in grads:
        p, both = jopt.step(tx, g, both, p)
        parts, state = jopt.step(tx, pairs(g), state, parts)
    np.testing.assert_allclose(pairs(p), parts, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OF_TORCH)
def test_complex_numbers_and_states_are_those_of_the_installed_torch(name: str) -> None:
    library = pytest.importorskip("torch")
    with jax.enable_x64(True):
        params, grads = drawn(jnp.complex128)
        theirs = library.nn.Parameter(library.tensor(np.asarray(params["complex"])))
        optimizer = getattr(library.optim, name)([theirs], **OF_TORCH[name])
        tx, p = getattr(torch, name)(**OF_TORCH[name]), params["complex"]
        state = tx.init(p)
        for g in grads:
            theirs.grad = library.tensor(np.asarray(g["complex"]))
            optimizer.step()
            p, state = jopt.step(tx, g["complex"], state, p)
        expected = theirs.detach().numpy()
        np.testing.assert_allclose(p, expected, rtol=1e-7, atol=1e-7)
        # There, and back.
        like, count = optimizer.state_dict(), len(grads)
        loaded = torch.load_state_dict(tx, p, like, count=count)
        written = torch.state_dict(tx, state, p, like, count=count)
        again = torch.load_state_dict(tx, p, written, count=count)
        chex.assert_trees_all_equal(
            again, torch.load_state_dict(tx, p, written, count=count)
        )
        for key, value in like["state"][0].items():
            if value is not None and key != "prev":  # only signs of it matter
                found = written["state"][0][key]
                np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-8)
        updates, _ = tx.update(grads[0]["complex"], loaded, p)
        expected, _ = tx.update(grads[0]["complex"], state, p)
        np.testing.assert_allclose(updates, expected, rtol=1e-5, atol=1e-7)


def test_a_second_moment_of_magnitudes_is_nothing_for_torch() -> None:
    p, tx = drawn()[0]["complex"], jopt.adam(0.1)
    like = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    with pytest.raises(ValueError, match=r"is complex.*split_real_and_imaginary"):
        torch.state_dict(tx, tx.init(p), p, like)
    moments = {"step": 1.0, "exp_avg": np.asarray(p), "exp_avg_sq": np.asarray(p)}
    with pytest.raises(ValueError, match=r"is complex.*split_real_and_imaginary"):
        torch.load_state_dict(tx, p, like | {"state": {0: moments}})


@pytest.mark.parametrize("steps", [1, 2])
def test_an_average_inside_is_one_of_complex_numbers(steps: int) -> None:
    averages = {"fast": jopt.params_ema(0.5), "slow": jopt.params_ema(0.9)}
    average = jopt.chain(jopt.sgd(0.5), **averages)
    inner = jopt.accumulate(average, steps)
    params, grads = drawn()
    results = []
    for tx in (inner, jopt.split_real_and_imaginary(inner)):
        p, state = params, tx.init(params)
        for g in grads:
            updates, state = tx.update(g, state, p)
            p = jopt.apply_updates(p, updates)
        results.append(jopt.eval_params(tx, state, p, name="fast"))
    chex.assert_trees_all_close(*results, rtol=1e-6)


def test_what_others_know_of_the_inner_transformation_they_know_of_the_whole() -> None:
    params = {"w": jnp.ones(2)}
    found = []
    for split in (lambda tx: tx, jopt.split_real_and_imaginary):
        clip = split(jopt.clip_by_global_norm(jopt.tunable(0.5)))
        with pytest.raises(ValueError, match="max_norm must be >"):
            jopt.set_hyperparams(clip, clip.init(params), max_norm=-1.0)
        measured = jopt.monitor(clip, keep=True)
        _, state = measured.update(params, measured.init(params), params)
        # An average beside it is one of its steps, not of its gradients.
        tx = jopt.chain(split(jopt.accumulate(jopt.sgd(0.5), 2)), jopt.params_ema(0.5))
        p, own = params, tx.init(params)
        for _ in range(4):
            updates, own = tx.update(params, own, p)
            p = jopt.apply_updates(p, updates)
        found.append((dict(jopt.metrics(state)), jopt.eval_params(tx, own, p)))
    assert "clip_factor" in found[0][0]
    chex.assert_trees_all_close(*found)
