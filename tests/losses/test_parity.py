"""Losses: the names, arguments, values, gradients and dtypes of optax."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.assignment
import optax.losses
import pytest

from jopt import losses


THEIRS: dict[str, Callable[..., Any]] = {
    name: value
    for module in (optax.losses, optax.assignment)
    for name, value in vars(module).items()
    if not name.startswith("_") and callable(value)
}
RNG = np.random.default_rng(0)
SHAPE = (4, 3, 5)
X, Y = RNG.normal(size=(2, *SHAPE))
P = RNG.dirichlet(np.ones(5), size=SHAPE[:-1])
P_ZERO = np.where(P < 0.1, 0, P)
ONE_HOT = np.eye(5)[RNG.integers(5, size=SHAPE[:-1])]
ONE_HOT_FLAT = np.eye(15)[RNG.integers(15, size=4)].reshape(SHAPE)
LABELS = RNG.integers(5, size=SHAPE[:-1])
BITS = RNG.integers(2, size=SHAPE)
SIGNS = 2 * BITS - 1
LOG_Q = np.log(RNG.dirichlet(np.ones(5), size=SHAPE[:-1]))
MASK = RNG.random(SHAPE) < 0.6
MASK[..., 0] = True
EXAMPLES = RNG.random(SHAPE[:-1]) < 0.6
EXAMPLES[0, :2] = True, False
MASK_EMPTY = MASK & EXAMPLES[..., None]
CTC = {
    "logits": RNG.normal(size=(3, 6, 4)),
    "logit_paddings": np.arange(6) >= np.array([[6], [5], [4]]),
    "labels": np.array([[1, 2, 2], [3, 3, 0], [2, 0, 0]]),
    "label_paddings": np.arange(3) >= np.array([[3], [2], [1]]),
}
PAIRS = np.array([0, 0, 1, 1, 1, 2])


class Call(NamedTuple):
    """A loss, its floating point arguments (which have gradients), and the others."""

    name: str
    arrays: tuple[np.ndarray, ...]
    others: Any = MappingProxyType({})
    differentiated: int = 2

    def __str__(self) -> str:
        options = ",".join(
            f"{k}={getattr(v, '__name__', v)}" if np.ndim(v) == 0 else k
            for k, v in self.others.items()
        )
        shapes = " ".join(str(np.shape(x)).replace(" ", "") for x in self.arrays)
        return f"{self.name} {shapes} {options}"

    def loss(self, module: Any, *arrays: Any) -> Any:
        found = getattr(module, self.name)(*arrays, **self.others)
        return found[0] if isinstance(found, tuple) else found


CALLS = [
    *(Call(name, (X, Y)) for name in ("squared_error", "l2_loss")),
    *(Call(name, (3 * X,)) for name in ("squared_error", "l2_loss", "log_cosh")),
    Call("huber_loss", (3 * X,)),
    *(Call("huber_loss", (3 * X, Y), {"delta": d}) for d in (0.3, 1.0, 10)),
    Call("log_cosh", (3 * X, Y)),
    Call("huber_loss", (X, Y[0, 0])),
    *(
        Call(name, (X, Y), options)
        for name in ("cosine_similarity", "cosine_distance")
        for options in (
            {},
            {"axis": 0},
            {"axis": (0, 2)},
            {"axis": None},
            {"where": MASK},
            {"epsilon": 0.5},
            {"epsilon": 5.0},
        )
    ),
    Call("cosine_similarity", (X[0][None], Y[0][:, None])),
    Call("sigmoid_binary_cross_entropy", (5 * X, BITS.astype(float))),
    Call("sigmoid_binary_cross_entropy", (5 * X, P)),
    *(
        Call("sigmoid_focal_loss", (5 * X, BITS), options, 1)
        for options in ({}, {"gamma": 0.5}, {"alpha": 0.25}, {"gamma": 0, "alpha": 1})
    ),
    Call("sigmoid_focal_loss", (5 * X, P), {"gamma": 1.5}),
    *(
        Call(name, (3 * X, labels), options)
        for name in ("softmax_cross_entropy", "poly_loss_cross_entropy")
        for labels in (ONE_HOT, P)
        for options in ({}, {"axis": 1}, {"axis": (0, 1)}, {"where": MASK})
    ),
    Call("softmax_cross_entropy", (X, ONE_HOT_FLAT), {"axis": (1, 2)}),
    Call("softmax_cross_entropy", (X, P), {"axis": None}),
    Call("softmax_cross_entropy", (X, P), {"where": EXAMPLES}),
    Call("softmax_cross_entropy", (X, P), {"where": MASK_EMPTY}),
    Call("softmax_cross_entropy", (X, P[0, 0])),
    Call("poly_loss_cross_entropy", (X, P), {"epsilon": -1.0}),
    Call("safe_softmax_cross_entropy", (X, P)),
    *(
        Call("softmax_cross_entropy_with_integer_labels", (3 * X,), options)
        for options in (
            {"labels": LABELS},
            {"labels": LABELS[:, :, None] % 3, "axis": 1}
            | {"labels": RNG.integers(3, size=(4, 5))},
            {"labels": RNG.integers(15, size=4), "axis": (1, 2)},
            {"labels": RNG.integers(15, size=4), "axis": (-1, -2)},
            {"labels": LABELS, "where": EXAMPLES},
            {"labels": LABELS, "where": MASK},
            {"labels": LABELS, "where": MASK_EMPTY},
        )
    ),
    Call("hinge_loss", (X, SIGNS), differentiated=1),
    Call("perceptron_loss", (X, SIGNS), differentiated=1),
    Call("sparsemax_loss", (2 * X, BITS), differentiated=1),
    Call("multiclass_hinge_loss", (X,), {"labels": LABELS}),
    Call("multiclass_perceptron_loss", (X,), {"labels": LABELS}),
    Call("multiclass_sparsemax_loss", (X[0],), {"labels": LABELS[0]}),
    *(
        Call(name, (LOG_Q, P), options)
        for name in ("kl_divergence", "generalized_kl_divergence")
        for options in ({}, {"axis": 0}, {"axis": None}, {"where": MASK})
    ),
    Call("convex_kl_divergence", (LOG_Q, P)),
    Call("kl_divergence", (LOG_Q, P_ZERO), differentiated=1),
    Call("kl_divergence", (LOG_Q, P[0, 0])),
    *(
        Call("kl_divergence_with_log_targets", (LOG_Q, np.log(P)), options)
        for options in ({}, {"axis": (0, 1)}, {"where": MASK})
    ),
    Call("ctc_loss_with_forward_probs", tuple(CTC.values()), {}, 1),
    Call("ctc_loss", tuple(CTC.values()), {"blank_id": 3, "log_epsilon": -1e4}, 1),
    *(
        Call("ranking_softmax_loss", (X, BITS), options, 1)
        for options in (
            {},
            {"where": MASK},
            {"where": MASK_EMPTY},
            {"weights": P},
            {"reduce_fn": None},
            {"reduce_fn": jnp.sum, "where": MASK_EMPTY},
            {"reduce_fn": None, "where": MASK_EMPTY, "weights": P},
        )
    ),
    *(
        Call("dice_loss", (X, ONE_HOT), options)
        for options in (
            {},
            {"alpha": 0.3, "beta": 0.7},
            {"class_weights": np.arange(5.0)},
            {"reduction": "none", "ignore_background": True},
            {"reduction": "sum", "smooth": 0.1},
            {"axis": (0, 1)},
        )
    ),
    Call("dice_loss", (X[..., None], BITS), differentiated=1),
    Call("binary_dice_loss", (X, BITS), differentiated=1),
    Call("multiclass_generalized_dice_loss", (X, ONE_HOT)),
    Call("multiclass_generalized_dice_loss", (X, P), {"ignore_background": True}),
    Call("ntxent", (RNG.normal(size=(6, 4)),), {"labels": PAIRS}),
    Call("ntxent", (RNG.normal(size=(6, 4)), PAIRS % 2, 0.5), {}, 1),
    *(
        Call("triplet_margin_loss", (X, Y, X[::-1]), options, 3)
        for options in ({}, {"axis": 1}, {"norm_degree": 4, "margin": 2.0})
    ),
    *(Call("smooth_labels", (P, 0.1), o) for o in ({}, {"axis": 1}, {"axis": (0, 2)})),
    Call("smooth_labels", (P, 0.3), {"where": MASK}),
]


@contextlib.contextmanager
def as_optax_runs() -> Iterator[None]:
    """The default settings of JAX, without the warnings of old names."""
    with (
        warnings.catch_warnings(),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def arguments(f: Any) -> list[tuple[Any, ...]]:
    parameters = inspect.signature(f).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


@pytest.mark.parametrize("name", THEIRS)
def test_the_losses_of_optax_are_here_with_their_arguments(name: str) -> None:
    ours = getattr(losses, name)
    # Some names are wrapped there, which hides the defaults of none.
    assert arguments(ours) == arguments(inspect.unwrap(THEIRS[name]))
    text = inspect.getdoc(ours) or ""
    assert ">>>" in text and "Returns:" in text
    assert all(f"{argument}: " in text for argument, *_ in arguments(ours))


def test_all_of_optax_is_here_and_all_is_compared() -> None:
    assert set(losses.__all__) == set(THEIRS) and len(THEIRS) > 32
    tested = {call.name for call in CALLS}
    others = {"make_fenchel_young_loss"} | set(vars(optax.assignment))
    assert set(THEIRS) - tested <= others


def results(call: Call, module: Any, dtype: Any) -> list[np.ndarray]:
    """The loss, and the gradients of its weighted sum."""
    arrays = [
        jnp.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else jnp.asarray(x)
        for x in call.arrays
    ]
    weighted = range(min(call.differentiated, len(arrays)))

    def run(*arrays):
        found = call.loss(module, *arrays)
        weights = jnp.cos(jnp.arange(found.size, dtype=found.dtype))
        return jnp.sum(found * weights.reshape(found.shape)), found

    run = jax.jit(jax.value_and_grad(run, tuple(weighted), has_aux=True))
    (_, found), gradients = run(*arrays)
    return [found, *gradients]


FIRST = {call.name: call for call in reversed(CALLS)}
# In float64 each loss once, and in float32 too if it is called once only.
NUMBER = Counter(call.name for call in CALLS)
IN_DTYPES = [
    *((c, "float32") for c in CALLS if NUMBER[c.name] == 1 or c is not FIRST[c.name]),
    *((c, "float64") for c in FIRST.values()),
]


@pytest.mark.parametrize(("call", "dtype"), IN_DTYPES, ids=str)
def test_values_and_gradients_are_those_of_optax(call: Call, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        with as_optax_runs():
            wanted = results(call, optax.losses, dtype)
        with quiet():
            found = results(call, losses, dtype)
    rtol, atol = (1e-5, 2e-6) if dtype == "float32" else (1e-9, 1e-12)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        # optax has NaN gradients for labels that a mask leaves out.
        assert np.isfinite(ours).all()
        theirs = np.where(np.isnan(theirs), ours, theirs)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", FIRST)
def test_half_precision_is_rounded_once_to_the_dtype_of_optax(name: str) -> None:
    call = FIRST[name]
    arrays = [jnp.asarray(x) for x in call.arrays]
    halves = [x.astype("bfloat16") if x.dtype == "float32" else x for x in arrays]
    with as_optax_runs():
        wanted = jax.eval_shape(lambda *x: call.loss(optax.losses, *x), *halves)
    exact = [x.astype("float32") if x.dtype == "bfloat16" else x for x in halves]
    with quiet():
        run = jax.jit(lambda *x: call.loss(losses, *x))
        found, exact = run(*halves), run(*exact)
    assert found.dtype == wanted.dtype
    bits = 2**-8 if found.dtype == "bfloat16" else 1e-6
    found = found.astype("float32")
    np.testing.assert_allclose(found, exact, rtol=bits, atol=1e-6)
