"""Cautious updates, decay modes, MARS, norm limits: what laws and parity do not say."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from tests.public import public


def run(tx: Any, params: Any, grads: list[Any]) -> tuple[list[Any], Any]:
    """The updates of each step, and the last state."""
    state, found = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        found.append(updates)
    return found, state


def draw(steps: int = 6, shape: tuple[int, ...] = (5, 4)) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(0)
    params = {
        n: jnp.asarray(rng.normal(size=s)) for n, s in (("b", (4,)), ("w", shape))
    }
    grads = [
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
        for _ in range(steps)
    ]
    return params, grads


# cautious, gradient_sign


@pytest.mark.parametrize(
    ("inner", "sign"),
    [
        (jopt.scale_by_adam(), 1),
        (jopt.chain(jopt.scale_by_adam(), jopt.scale(2.0)), 1),
        (jopt.adam(0.1), -1),
        (jopt.lion(jopt.linear_schedule(0.1, 0.0, 10)), -1),
        (jopt.masked(jopt.sgd(0.1, momentum=0.9), "w"), -1),
    ],
    ids=repr,
)
def test_what_cautious_keeps_goes_the_gradients_way(inner: Any, sign: int) -> None:
    params, grads = draw()
    plain, _ = run(inner, params, grads)
    kept, _ = run(jopt.cautious(inner, "none"), params, grads)
    turned, _ = run(jopt.gradient_sign(inner), params, grads)
    dropped = 0
    for g, u, k, s in zip(grads, plain, kept, turned, strict=True):
        along = g["w"] * u["w"] * sign > 0
        chex.assert_trees_all_equal(k["w"], jnp.where(along, u["w"], 0))
        chex.assert_trees_all_equal(s["w"], sign * jnp.sign(g["w"]) * jnp.abs(u["w"]))
        dropped += int(jnp.sum(~along))
    assert dropped > 0


def test_cautious_can_be_told_that_a_foreign_optimizer_descends() -> None:
    params, grads = draw()
    ours, _ = run(jopt.cautious(jopt.sgd(0.1, momentum=0.9)), params, grads)
    theirs = jopt.cautious(optax.sgd(0.1, momentum=0.9), descent=True)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        found, _ = run(theirs, params, grads)
    chex.assert_trees_all_close(found, ours, rtol=1e-5)


def test_the_state_and_the_hyperparameters_of_cautious_are_those_inside() -> None:
    params, grads = draw()
    rate = jopt.linear_schedule(0.1, 0.0, 10)
    core = jopt.scale_by_adam(b1=jopt.tunable(0.9))
    for inner in (core, jopt.chain(core, jopt.scale_by_learning_rate(rate))):
        tx = jopt.cautious(inner)
        assert jax.tree.structure(tx.init(params)) == jax.tree.structure(
            inner.init(params)
        )
        outer = jopt.chain(jopt.clip(1.0), caution=tx)
        state = jopt.set_hyperparams(outer, outer.init(params), b1=0.0)
        assert float(jopt.hyperparams(state)["b1"]) == 0.0
        with pytest.raises(ValueError, match="b1"):
            jopt.set_hyperparams(outer, state, b1=1.5)
        updates, _ = outer.update(grads[0], state, params)
        assert all(jnp.all(u != 0) for u in jax.tree.leaves(updates))
    with pytest.raises(ValueError, match="is scheduled by"):
        jopt.set_hyperparams(outer, state, learning_rate=0.3)


def test_around_a_direction_the_decay_is_not_masked_and_around_all_it_is() -> None:
    params = jnp.array([1.0, -1.0])
    grads = jnp.zeros(2)
    decay = (jopt.add_decayed_weights(0.5), jopt.scale_by_learning_rate(0.1))
    within = jopt.chain(jopt.cautious(jopt.scale_by_adam()), *decay)
    around = jopt.cautious(jopt.chain(jopt.scale_by_adam(), *decay))
    assert run(within, params, [grads])[0][0].tolist() == pytest.approx([-0.05, 0.05])
    assert run(around, params, [grads])[0][0].tolist() == [0.0, 0.0]


def test_a_leaf_that_is_left_out_inside_is_not_masked() -> None:
    params, grads = draw()
    tx = jopt.cautious(jopt.add_decayed_weights(0.1, mask="w"))
    updates, _ = run(tx, params, grads)
    chex.assert_trees_all_equal(updates[0]["b"], grads[0]["b"])


# Weight decay


@pytest.mark.parametrize(
    ("mode", "members", "share"),
    [
        ("decoupled", "add_decayed_weights(w), lr", 0.02 * 0.1),
        ("cautious", "cautious_weight_decay(w), lr", 0.02 * 0.1),
        ("independent", "independent_weight_decay(w, 0.05), lr", 0.02 / 0.05 * 0.1),
        (
            "corrected",
            "corrected_weight_decay(w, 0.02, 0.05), lr",
            0.02**2 / 0.05 * 0.1,
        ),
        ("unscaled", "up, add_decayed_weights(w), scale(-1.0)", 0.1),
    ],
    ids=lambda x: x if isinstance(x, str) and x.isidentifier() else "",
)
def test_a_step_without_gradient_takes_this_share(
    mode: str, members: str, share: float
) -> None:
    lr = jopt.scale_by_learning_rate
    names = public(jopt) | {"w": 0.1, "lr": lr(0.02), "up": lr(0.02, flip_sign=False)}
    tx = jopt.chain(jopt.scale_by_adam(), *eval(f"({members})", dict(names)))
    params = jnp.array([2.0, -3.0])
    (updates,), _ = run(tx, params, [jnp.zeros(2)])
    np.testing.assert_allclose(updates, -share * params, rtol=1e-6, err_msg=mode)


def test_the_mask_of_stable_adamw_is_about_its_decay_only() -> None:
    params, grads = draw()
    plain, _ = run(jopt.stable_adamw(0.1, weight_decay=0.0), params, grads)
    decayed, _ = run(jopt.stable_adamw(0.1, weight_decay=0.3), params, grads)
    masked, state = run(
        jopt.stable_adamw(0.1, weight_decay=0.3, mask="w"), params, grads
    )
    for found, without, full in zip(masked, plain, decayed, strict=True):
        chex.assert_trees_all_close(found["b"], without["b"])
        chex.assert_trees_all_close(found["w"], full["w"])
    assert list(state) == ["scale_by_stable_adamw", "scale_by_learning_rate"]
    tx = jopt.stable_adamw(0.1, weight_decay=jopt.tunable(0.3), mask="w")
    state = jopt.set_hyperparams(tx, tx.init(params), weight_decay=0.0)
    chex.assert_trees_all_close(tx.update(grads[0], state, params)[0], plain[0])
    with pytest.raises(ValueError, match="matches no leaf"):
        jopt.stable_adamw(0.1, mask="kernel").init(params)


# Adam's relatives


def test_stable_adamw_is_adamw_until_a_gradient_exceeds_its_second_moment() -> None:
    params, grads = draw()
    grads[4] = jax.tree.map(lambda g: 1e3 * g, grads[4])
    options: dict[str, Any] = {"b2": 0.99, "eps": 1e-6, "weight_decay": 0.1}
    adamw, _ = run(jopt.adamw(0.1, **options), params, grads)
    stable, _ = run(jopt.stable_adamw(0.1, **options), params, grads)
    norms = [float(jopt.tree.norm(u)) for u in adamw]
    found = [float(jopt.tree.norm(u)) for u in stable]
    assert found[4] < 0.5 * norms[4]
    assert found[5] == pytest.approx(norms[5], rel=1e-6)


def test_adam_atan2_does_not_see_the_scale_of_the_gradients() -> None:
    params, grads = draw()
    small = jax.tree.map(lambda g: 1e-12 * g, grads)
    tx = jopt.scale_by_adam_atan2()
    chex.assert_trees_all_close(
        run(tx, params, small)[0], run(tx, params, grads)[0], rtol=1e-5
    )
    largest = max(jnp.max(jnp.abs(u["w"])) for u in run(tx, params, grads)[0])
    assert largest <= 1.27 * np.pi / 2


def test_mars_keeps_gradients_of_the_leaves_it_corrects_only() -> None:
    params, grads = draw()
    for tx in (
        jopt.scale_by_mars(matrices_only=True),
        jopt.scale_by_mars_lion(matrices_only=True),
        jopt.mars_correction(mask=lambda path, p: p.ndim == 2),
    ):
        _, state = run(tx, params, grads)
        assert state.previous_gradient["b"] is None
        chex.assert_trees_all_close(state.previous_gradient["w"], grads[-1]["w"])
    plain, _ = run(jopt.scale_by_adam(0.95, 0.99), params, grads)
    mars, _ = run(jopt.scale_by_mars(matrices_only=True), params, grads)
    chex.assert_trees_all_close([u["b"] for u in mars], [u["b"] for u in plain])


def test_mars_adamw_is_the_correction_before_adamw() -> None:
    params, grads = draw()
    for fused, adam in (
        (jopt.mars_adamw(0.1, 0.9, 0.95), jopt.adam(0.1, 0.9, 0.95)),
        (jopt.mars_lion(0.1, 0.9), jopt.lion(0.1, 0.9, 0.9, weight_decay=0.0)),
    ):
        chained = jopt.chain(jopt.mars_correction(b1=0.9), adam)
        chex.assert_trees_all_close(
            run(fused, params, grads)[0], run(chained, params, grads)[0], rtol=1e-5
        )


# Norms


def test_zclip_bounds_a_spike_and_is_not_fooled_by_it() -> None:
    params = {"a": jnp.zeros(1), "b": jnp.zeros(3)}

    def of_norm(norm: float) -> Any:
        return {"a": jnp.full(1, norm), "b": jnp.zeros(3)}

    usual = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    tx = jopt.zclip(max_norm=None, warmup_steps=4)
    updates, state = run(tx, params, [of_norm(x) for x in [*usual, 500.0, 1.0]])
    norms = [float(jopt.tree.norm(u)) for u in updates]
    assert norms[:6] == pytest.approx(usual)
    assert 1.0 < norms[6] < 1.1
    assert norms[7] == pytest.approx(1.0)
    assert 0.9 < float(state.mean) < 1.1
    for bad in (jnp.inf, jnp.nan):
        updates, after = tx.update(of_norm(bad), state, params)
        assert all(jnp.all(jnp.isnan(u)) for u in jax.tree.leaves(updates))
        chex.assert_trees_all_equal(after._replace(count=state.count), state)


def test_the_first_norms_of_zclip_count_alike() -> None:
    norms = [3.0, 1.0, 4.0, 1.0, 5.0]
    tx = jopt.zclip(warmup_steps=5)
    updates, state = run(tx, jnp.zeros(1), [jnp.full(1, x) for x in norms])
    assert [float(u[0]) for u in updates] == pytest.approx([1.0] * 5)
    assert float(state.mean) == pytest.approx(np.mean(norms))
    assert float(state.deviation) == pytest.approx(np.std(norms))


def test_zclip_stands_norms_whose_squares_do_not_fit() -> None:
    tx = jopt.zclip(max_norm=None, warmup_steps=2)
    grads = [jnp.full(1, x) for x in (1e30, 1.2e30, 9e30, 1e-30)]
    updates, state = run(tx, jnp.zeros(1), grads)
    assert 1.1e30 < float(updates[2][0]) < 1.3e30
    assert bool(jnp.isfinite(state.mean) & jnp.isfinite(state.deviation))


def test_norms_grow_by_the_bound_and_start_again_after_a_zero_gradient() -> None:
    tx = jopt.limit_norm_growth(1.5)
    params = jnp.zeros((2, 2))
    sizes = [1.0, 9.0, 9.0, 0.0, 9.0, 2.0, 9.0]
    updates, state = run(tx, params, [jnp.full((2, 2), x) for x in sizes])
    found = [float(u[0, 0]) for u in updates]
    assert found == pytest.approx([1.0, 1.5, 2.25, 0.0, 9.0, 2.0, 3.0])
    assert state.norm.shape == (1, 1)
    for bad in (jnp.inf, jnp.nan):
        u, after = tx.update(jnp.array([[1.0, bad], [1.0, 1.0]]), state)
        assert jnp.all(jnp.isnan(u))
        chex.assert_trees_all_equal(after, state)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("filter_type", ["mean", "sum"])
def test_grokfast_ma_adds_what_is_in_the_window(filter_type: str, warmup: bool) -> None:
    params, grads = draw()
    tx = jopt.grokfast_ma(4, 2.0, filter_type, warmup)
    updates, _ = run(tx, params, grads)
    for t, (u, g) in enumerate(zip(updates, grads, strict=True)):
        window = jnp.stack([x["w"] for x in grads[max(0, t - 3) : t + 1]])
        slow = getattr(jnp, filter_type)(window, axis=0)
        share = 0.0 if warmup and t < 3 else 2.0
        chex.assert_trees_all_close(u["w"], g["w"] + share * slow, rtol=1e-5)


# Misuse


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("cautious(0.1)", TypeError, "cautious: inner is 0.1, not a transformation"),
        ("cautious(adam)", TypeError, r"It is a function: call it, adam\("),
        ("gradient_sign(None)", TypeError, "gradient_sign: inner is None"),
        ("cautious(sgd(0.1), 'lion')", ValueError, "normalizer must be one of 'mean'"),
        ("cautious(sgd(0.1), descent=1)", TypeError, "descent must be True or False"),
        ("cautious_weight_decay(-1.0)", ValueError, "weight_decay must be >= 0"),
        ("independent_weight_decay(0.1, 0.0)", ValueError, "peak_rate must be > 0"),
        ("corrected_weight_decay(0.1, 0.1, 0.0)", ValueError, "peak_rate must be > 0"),
        ("corrected_weight_decay(0.1, -0.1, 0.1)", ValueError, "rate must be >= 0"),
        ("mars_adamw(0.1, gamma=-1.0)", ValueError, "gamma must be >= 0"),
        ("mars_lion(0.1, b1=1.0)", ValueError, r"b1 must be in \[0, 1\)"),
        ("mars_correction(max_norm=0.0)", ValueError, "max_norm must be > 0"),
        ("stable_adamw(0.1, eps=0.0)", ValueError, "eps must be > 0"),
        ("adam_atan2(0.1, b=0.0)", ValueError, "b must be > 0"),
        ("grams(0.1, b2=1.0)", ValueError, r"b2 must be in \[0, 1\)"),
        ("zclip(warmup_steps=0)", ValueError, "warmup_steps must be >= 1"),
        ("zclip(alpha=1.0)", ValueError, r"alpha must be in \[0, 1\)"),
        ("zclip(max_norm=-1.0)", ValueError, "max_norm must be > 0"),
        ("limit_norm_growth(0.0)", ValueError, "max_growth must be > 0"),
        ("grokfast_ma(0)", ValueError, "window_size must be >= 1"),
        ("grokfast_ma(2, 1.0, 'max')", ValueError, "filter_type must be one of"),
        ("grokfast_ema(lamb=-1.0)", ValueError, "lamb must be >= 0"),
    ],
)
def test_wrong_numbers_are_refused_by_name(
    call: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        eval(call, public(jopt))
