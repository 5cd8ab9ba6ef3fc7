"""``jopt.lr_range_test``: what it suggests, when it does not, and what it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.inspect.range_test import judged
from tests.benchmarks import range_test as digits


RATES = np.geomspace(1e-7, 10, 200)
X = jax.random.normal(jax.random.key(0), (8, 32, 3))
Y = X @ jnp.array([1.0, -2.0, 3.0])
W = jnp.zeros(3)


def regression(w, batch):
    x, y = batch
    return jnp.mean((x @ w - y) ** 2)


def suggest(*args, **kwargs):
    return jopt.lr_range_test(*args, **kwargs)


@pytest.fixture(scope="module")
def found():
    return suggest(jopt.sgd(1.0), regression, W, (X, Y), steps=60)


def test_the_rates_grow_geometrically_and_the_suggestion_has_a_reason(found):
    assert np.all(np.diff(np.log(found.rates)) > 0)
    assert np.ptp(np.diff(np.log(found.rates))) < 1e-9
    assert len(found.rates) == len(found.losses) == len(found.smoothed) == 60
    assert found.losses[0] == pytest.approx(float(regression(W, (X[0], Y[0]))))
    assert 0.03 < found.suggestion < 1.5  # the loss diverges at about 1
    assert found.reason.startswith("90% of the fall of the loss is done at ")
    assert not W.any()


def test_the_losses_are_those_of_a_loop_that_sets_the_rate(found):
    tx = jopt.adamw(1.0)
    again = suggest(tx, regression, W, (X, Y), steps=60)
    params, state = W, tx.init(W)
    for i in range(12):
        batch = (X[i % 8], Y[i % 8])
        loss, grads = jax.value_and_grad(regression)(params, batch)
        np.testing.assert_allclose(again.losses[i], loss, 1e-5)
        state = jopt.set_hyperparams(tx, state, learning_rate=again.rates[i])
        params, state = jopt.step(tx, grads, state, params)


def test_batches_may_be_stacked_listed_or_generated_and_the_last_one_smaller(found):
    listed = [(X[i], Y[i]) for i in range(8)]
    for batches in (listed, [*listed, (X[0, :5], Y[0, :5])], iter(listed)):
        again = suggest(jopt.sgd(1.0), regression, W, batches, steps=60)
        np.testing.assert_array_equal(again.losses, found.losses)
    with pytest.raises(ValueError, match="equal shapes: batch 1 has"):
        suggest(
            jopt.sgd(1.0), regression, W, [listed[0], (X[0, :5], Y[0, :5]), listed[0]]
        )
    with pytest.raises(ValueError, match="number of batches as their first axis"):
        suggest(jopt.sgd(1.0), regression, W, (X, Y[0]))
    with pytest.raises(ValueError, match="batches must be one or more, got none"):
        suggest(jopt.sgd(1.0), regression, W, [])


def test_an_aux_and_a_key_are_passed_and_a_second_call_compiles_nothing():
    traces = []

    def loss_fn(w, batch, key):
        traces.append(1)
        noise = 0.0 * jax.random.normal(key)
        return regression(w, batch) + noise, batch[0]

    options = {"steps": 60, "has_aux": True, "key": jax.random.key(1)}
    first = suggest(jopt.sgd(1.0), loss_fn, W, (X, Y), **options)
    once = len(traces)
    second = suggest(jopt.sgd(1.0), loss_fn, W, (X, Y), **options)
    assert first.suggestion == second.suggestion is not None
    assert len(traces) <= once + 1  # at most to see what the loss returns


def test_rates_of_groups_keep_their_ratios():
    groups = jopt.rules(("a", "a"), ("", "b"))
    tx = jopt.partition({"a": jopt.sgd(0.5), "b": jopt.sgd(0.05)}, groups)
    params = {"a": W, "b": W}

    def loss_fn(params, batch):
        return regression(params["a"], batch) + regression(params["b"], batch)

    both = suggest(tx, loss_fn, params, (X, Y), steps=60)
    assert both.suggestion is not None
    grads = jax.grad(loss_fn)(params, (X[0], Y[0]))
    rate = both.rates[0]
    moved = {"a": W - rate * grads["a"], "b": W - rate / 10 * grads["b"]}
    np.testing.assert_allclose(both.losses[1], loss_fn(moved, (X[1], Y[1])), 1e-5)


# Where none is right.


def test_three_losses_have_no_suggestion():
    flat = suggest(jopt.sgd(1.0), lambda w, b: 0 * w.sum() + 3.0, W, (X, Y))
    assert flat.suggestion is None and "stays the same" in flat.reason
    noise = suggest(jopt.sgd(1.0), lambda w, b: b[1].mean() + 0 * w.sum(), W, (X, Y))
    assert noise.suggestion is None and "may be noise" in noise.reason
    diverges = suggest(jopt.sgd(1.0), regression, W, (X, Y), min_rate=1.5)
    assert diverges.suggestion is None and "diverges" in diverges.reason


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        (np.full(200, np.nan), "the first loss is nan, before any step"),
        (np.where(np.arange(200) < 5, 1.0, np.nan), "diverges at .*, almost the first"),
        (np.full(200, 2.0), "stays the same at all rates"),
        (
            2.0 + np.exp((np.arange(200) - 150) / 5.0),
            "does not clearly fall before it div",
        ),
        (
            2.0 - np.arange(200) / 200,
            r"still falls at the last rate, 10\. Raise max_rate",
        ),
        (
            np.where(np.arange(200) < 150, -np.exp(np.arange(200.0) - 100), np.nan),
            "falls without bound at",
        ),
    ],
)
def test_a_curve_without_a_valley_has_its_reason(losses, why):
    result = judged(RATES, np.asarray(losses, float))
    assert result.suggestion is None
    assert result.reason.startswith("no suggestion: ")
    assert re.search(why, result.reason), result.reason


def test_noise_alone_has_no_suggestion_and_a_valley_in_noise_has_one():
    rng = np.random.default_rng(0)
    for noise in (rng.normal(size=(100, 200)), rng.lognormal(0, 1, (100, 200))):
        assert sum(judged(RATES, x).suggestion is not None for x in noise) <= 3
    i = np.arange(200)
    valley = 2.3 - 1.5 / (1 + np.exp((110 - i) / 8)) + np.exp((i - 150) / 6)
    valley[170:] = np.nan
    found = [
        judged(RATES, valley + 0.2 * x).suggestion for x in rng.normal(size=(50, 200))
    ]
    assert max(found) / min(found) < 4
    assert RATES[110] < min(found) < max(found) < RATES[150]


def test_what_comes_after_divergence_does_not_matter():
    i = np.arange(200)
    valley = 2.3 - 1.5 / (1 + np.exp((110 - i) / 8)) + np.exp((i - 150) / 6)
    huge, nan = valley.copy(), valley.copy()
    huge[175:], nan[175:] = 1e30, np.nan
    first, second = judged(RATES, huge), judged(RATES, nan)
    assert first.suggestion == second.suggestion == judged(RATES, valley).suggestion
    assert np.isnan(first.smoothed[175:]).all()


# Errors.


def test_an_optimizer_without_a_rate_to_set_is_an_error():
    scheduled = jopt.adamw(jopt.warmup_cosine(1e-3, warmup_steps=5, total_steps=50))
    with pytest.raises(
        ValueError, match=r"with a number, such as adamw\(1.0\).*scheduled"
    ):
        suggest(scheduled, regression, W, (X, Y))
    with pytest.raises(ValueError, match="has no learning rate that could be tested"):
        suggest(jopt.clip(1.0), regression, W, (X, Y))


def test_wrong_arguments_are_errors_that_name_them():
    tx, data = jopt.sgd(1.0), (X, Y)
    with pytest.raises(ValueError, match="max_rate must be > min_rate"):
        suggest(tx, regression, W, data, min_rate=1.0, max_rate=0.1)
    with pytest.raises(ValueError, match="min_rate must be > 0"):
        suggest(tx, regression, W, data, min_rate=0.0)
    with pytest.raises(ValueError, match="steps must be >= 20, got steps=5"):
        suggest(tx, regression, W, data, steps=5)
    with pytest.raises(TypeError, match=r"called as loss_fn\(params, batch\).*\*batch"):
        suggest(tx, lambda w, x, y: 0.0, W, data)
    with pytest.raises(TypeError, match="give has_aux=True"):
        suggest(tx, lambda w, b: (regression(w, b), 1), W, data)
    with pytest.raises(TypeError, match="the loss must be one number"):
        suggest(tx, lambda w, b: b[0], W, data)


def test_the_picture_has_the_suggestion_or_says_why_there_is_none(found):
    from tests.plot.picture import check

    ax = found.plot()
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate"
    assert f"suggestion {found.suggestion:.2g}" == ax.get_title(loc="left")
    assert found.suggestion in [line.get_xdata()[0] for line in ax.get_lines()]
    check(ax)
    none = judged(RATES, np.full(200, 2.0)).plot()
    assert none.get_title(loc="left").startswith("no suggestion: the loss stays the")
    assert len(none.get_lines()) == 2
    with pytest.raises(TypeError, match=r"the result of jopt\.lr_range_test, got 3"):
        jopt.plot.range_test(3)


# A piece of the benchmark: the best rates of its sweep, of the MLP at batch size 64.
BEST = {"sgd": 0.5, "adamw": 2.0**-5, "lion": 2.0**-8, "muon": 2.0**-5}


@pytest.mark.parametrize("name", BEST)
def test_on_digits_the_suggestion_is_within_a_factor_of_three_of_a_sweep(name):
    params = digits.mlp(jax.random.key(0))
    tx, batches = digits.OPTIMIZERS[name], digits.batches(100, 64)
    suggestion = suggest(tx, digits.loss_fn, params, batches).suggestion
    assert BEST[name] / 3 <= suggestion <= BEST[name] * 3
