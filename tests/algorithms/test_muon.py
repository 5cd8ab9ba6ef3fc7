"""Muon: what the iteration does to singular values, and to which leaves."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib as optax_contrib
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jopt
from jopt.algorithms import polar
from jopt.algorithms.matrices import is_hidden
from tests.algorithms.matrix_problem import close_to_golden
from tests.algorithms.test_adam import adamw
from tests.laws.case import Case
from tests.parity.row import keras, optax, torch, torch_like
from tests.twins.base import Array, EpsMode, Scalar, at, double, steps


SIMPLE = [(3.4445, -4.7750, 2.0315)] * 5
POLAR_EXPRESS = [
    (8.2373125, -23.1577474, 16.6805684),
    (4.0824420, -2.8930477, 0.5252849),
    (3.9263480, -2.8547468, 0.5318022),
    (3.2982187, -2.4245420, 0.4863201),
    (2.2970369, -1.6366256, 0.4002628),
]

NEWTON_SCHULZ = [(2.0, -1.5, 0.5)] * 12

TRIPLES = {
    "simple": SIMPLE,
    "polar_express": POLAR_EXPRESS,
    "newton_schulz": NEWTON_SCHULZ,
}


def orthogonal(u: Array, ns_coeffs: str, eps: float = 0.0) -> Array:
    """What the iteration does to the singular values of ``u / (|u| + eps)``."""
    norm = np.sqrt(np.sum(np.abs(u) ** 2))
    if norm == 0:
        return u
    p, s, qh = np.linalg.svd(u, full_matrices=False)
    s = s / (norm + eps)
    for a, b, c in TRIPLES[ns_coeffs]:
        s = a * s + b * s**3 + c * s**5
    return (p * s) @ qh


def muon(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    ns_coeffs: str = "simple",
    beta: Scalar = 0.95,
    eps: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = True,
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: Scalar = 0.0,
    adam_learning_rate: Scalar,
    consistent_rms: Scalar | None = None,
    shape_scale: str = "kj",
    equilibrate: bool = False,
    adam_eps: Scalar = 1e-8,
    adam_eps_mode: EpsMode = "after",
    b2: Scalar | None = None,
) -> Iterator[Array]:
    """Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks".

    Kernels are (inputs, outputs). ``consistent_rms`` is Liu et al., 2025, "Muon is
    scalable for LLM training", ``b2`` Li et al., 2025, "NorMuon: making Muon more
    efficient and scalable".
    """
    p = double(p)
    if p.ndim < 2:
        yield from adamw(
            p,
            grads,
            learning_rate=adam_learning_rate,
            b1=adam_b1,
            b2=adam_b2,
            eps=adam_eps,
            eps_root=adam_eps_root,
            weight_decay=adam_weight_decay,
            eps_mode=adam_eps_mode,
        )
        return
    inputs, outputs = p.shape
    buffer = np.zeros_like(p)
    v = np.zeros(outputs)
    for t, g in steps(grads):
        b = at(beta, t)
        buffer = b * buffer + (1 - b) * g
        u = b * buffer + (1 - b) * g if nesterov else buffer
        if equilibrate:
            norms = np.sqrt(np.sum(np.abs(u) ** 2, axis=0))
            u = np.divide(u, norms, out=np.zeros_like(u), where=norms > 0)
        scale = {
            "kj": math.sqrt(max(1, outputs / inputs)),
            "spectral": math.sqrt(outputs / inputs),
        }[shape_scale]
        if consistent_rms is not None:
            scale = at(consistent_rms, t) * math.sqrt(max(inputs, outputs))
        direction = scale * orthogonal(u, ns_coeffs, at(eps, t))
        if b2 is not None:
            v = at(b2, t) * v + (1 - at(b2, t)) * np.mean(
                np.abs(direction) ** 2, axis=0
            )
            before = np.linalg.norm(direction)
            direction = direction / (np.sqrt(v) + 1e-10)
            norm = np.linalg.norm(direction)
            direction = direction * (before / norm if norm else 0.0)
        decay = at(weight_decay, t) * p
        p = p - at(learning_rate, t) * (direction + decay)
        yield p


CASES = [
    Case("muon", {"adam_learning_rate": 0.02}),
    Case(
        "muon",
        {
            "adam_learning_rate": 0.02,
            "ns_coeffs": "polar_express",
            "nesterov": False,
            "consistent_rms": 0.2,
            "weight_decay": 0.1,
            "adam_weight_decay": 0.05,
        },
    ),
]

WITHOUT_ROW = {
    "scale_by_muon": "for matrices only; the rows of muon",
    "scale_by_polar": "for matrices only; scale_by_muon without its momentum",
}

# Keras adds its eps to the norm of a sum, which is 1 / (1 - 0.95) times our average,
# and takes that norm in float32 whatever the dtype.
KERAS = "eps=0.05e-7, adam_eps=1e-7, adam_eps_mode='before'"
SINGLE = {"tol64": 1e-7}
# torch and the author iterate in bfloat16 whatever the dtype, which leaves no digits to
# compare; here their code runs in the dtype of the parameters. Their weights are
# (outputs, inputs), "oi".
WIDE = "(setattr(torch.Tensor, 'bfloat16', torch.Tensor.clone) or 0.05)"
KERNEL = {"leaves": ("kernel",)}
ROWS = (
    keras(
        "muon",
        "Muon(learning_rate=0.05)",
        "muon(0.05, weight_decay=0.004, adam_weight_decay=0.004, consistent_rms=0.2, "
        f"{KERAS})",
        **SINGLE,
    ),
    keras(
        "muon-options",
        "Muon(learning_rate=DECAY, weight_decay=0.1, adam_weight_decay=0.2, "
        "rms_rate=None, nesterov=False, ns_steps=3)",
        "muon(DECAY, ns_steps=3, weight_decay=0.1, adam_weight_decay=0.2, "
        f"shape_scale=None, nesterov=False, {KERAS})",
        **SINGLE,
    ),
    # Keras decays what AdamW gets by the learning rate of the others.
    keras(
        "muon-excluded",
        "Muon(learning_rate=0.05, exclude_layers=['kernel'], adam_lr_ratio=0.5)",
        "muon(0.05, hidden=False, adam_learning_rate=0.025, adam_weight_decay=0.008, "
        f"{KERAS})",
    ),
    torch(
        "muon",
        f"Muon(lr={WIDE})",
        "muon(0.05, weight_decay=0.1, axes='oi')",
        **KERNEL,
    ),
    torch(
        "muon-match-rms",
        f"Muon(lr={WIDE}, momentum=0.8, adjust_lr_fn='match_rms_adamw')",
        "muon(DECAY, beta=0.8, weight_decay=0.1, shape_scale='match_rms_adamw')",
        **KERNEL,
    ),
    torch(
        "muon-no-nesterov",
        f"Muon(lr={WIDE}, nesterov=False, weight_decay=0.0, ns_steps=8)",
        "muon(0.05, ns_steps=8, nesterov=False, axes='oi')",
        **KERNEL,
    ),
    torch_like(
        "muon",
        "muon-of-the-author",
        f"SingleDeviceMuon(lr={WIDE}, momentum=0.9, weight_decay=0.1)",
        "muon(DECAY, beta=0.9, eps=1e-7, weight_decay=0.1, axes='oi')",
        package="muon-optimizer",
        **KERNEL,
    ),
    # optax's momentum with nesterov is another; its AdamW has nesterov too then. It
    # adds eps to the norm of a debiased average.
    optax(
        "muon",
        "muon(0.05, nesterov=False, eps=1e-30)",
        "muon(0.05, nesterov=False)",
        **KERNEL,
    ),
    optax(
        "muon-options",
        "muon(0.05, 'dion', beta=0.9, weight_decay=0.1, nesterov=False, adam_b1=0.8, "
        "adam_b2=0.95, adam_weight_decay=0.2, adam_learning_rate=0.01, "
        "consistent_rms=0.2)",
        tol64=1e-7,
    ),
)

# What singular values from 1e-2 (and from 1e-3) to 1 become, to the digits known.
RANGES = [
    ("simple", None, (0.682, 1.134), (0.471, 1.202)),
    ("quintic", None, (0.978, 1.032), (0.475, 1.145)),
    ("polar_express", None, (0.869, 1.131), (0.863, 1.131)),
    ("polar_express", 8, (1.0, 1.0), (1.0, 1.0)),
    ("polar_express_safe", None, (0.859, 1.141), (0.859, 1.141)),
    ("cans", None, (0.884, 1.120), (0.884, 1.120)),
    ("deepseek_v4", None, (1.0, 1.0005), (1.0, 1.0005)),
    ("newton_schulz", None, (1.0, 1.0), (1.0, 1.0)),
    ("cubic", None, (0.774, 1.300), (0.119, 1.300)),
]


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def exact(u: Any) -> Any:
    """The polar factor, by a singular value decomposition."""
    p, _, qh = np.linalg.svd(u, full_matrices=False)
    return p @ qh


def update(tx: Any, g: Any) -> Any:
    return tx.update(g, tx.init(g))[0]


def of_scalars(triples: Any, s: Any) -> Any:
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return s


# The iteration.


@pytest.mark.parametrize(("name", "steps", "from_2", "from_3"), RANGES)
def test_singular_values_get_into_the_range_of_their_preset(
    name: str, steps: int | None, from_2: Any, from_3: Any
) -> None:
    triples = polar.coefficients(name, steps)
    for low, expected in [(1e-2, from_2), (1e-3, from_3)]:
        ends = of_scalars(triples, np.geomspace(low, 1, 200_001))
        digits = 4 if name == "deepseek_v4" else 3
        assert (round(ends.min(), digits), round(ends.max(), digits)) == expected


@pytest.mark.parametrize("name", polar.PRESETS)
def test_matrices_follow_the_polynomial_of_their_preset(name: str) -> None:
    triples = polar.coefficients(name, None)
    s = np.geomspace(1e-3, 1, 40)
    p, q = exact(random(40, 40)), exact(random(40, 60, seed=1))
    with jax.enable_x64(True):
        found = polar.newton_schulz(jnp.asarray(p * s @ q), triples, jnp.float64)
    expected = p * of_scalars(triples, s) @ q
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_the_range_of_other_rows_down_to_1e_4() -> None:
    s = np.geomspace(1e-4, 1, 200_001)
    slow = of_scalars(polar.coefficients("newton_schulz", None), s)
    fast = of_scalars(polar.coefficients("deepseek_v4", None), s)
    assert round(slow.min(), 3) == 0.393
    assert (round(fast.min(), 3), round(fast.max(), 3)) == (1.0, 1.002)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5)])
def test_what_converges_is_the_polar_factor(shape: tuple[int, int]) -> None:
    g = random(*shape)
    found = update(jopt.scale_by_muon("deepseek_v4"), jnp.asarray(g, jnp.float32))
    np.testing.assert_allclose(found, exact(g), atol=2e-3)


@pytest.mark.parametrize("factor", [1e12, 1e-12, 1e30, 1e-30])
def test_the_magnitude_of_the_gradient_does_not_matter(factor: float) -> None:
    tx, g = jopt.scale_by_muon(), jnp.asarray(random(5, 7), jnp.float32)
    expected = update(tx, g)
    chex.assert_trees_all_close(update(tx, g * factor), expected, atol=2e-5)
    power = 2.0 ** round(np.log2(factor))
    chex.assert_trees_all_equal(update(tx, g * power), expected)
    chex.assert_trees_all_equal(update(tx, 0 * g), 0 * g)


def test_the_norm_can_be_that_of_an_exact_iteration() -> None:
    g = jnp.asarray(np.stack([random(5, 7), 3 * random(5, 7, seed=1)]), jnp.float32)
    found = update(jopt.scale_by_muon(axes="bio", renormalize=True), g)
    plain = update(jopt.scale_by_muon(axes="bio"), g)
    norms = jnp.linalg.norm(found, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(norms, np.sqrt(5), rtol=1e-6)
    ratio = found / plain  # one number for each matrix
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones((2, 5, 7)), rtol=1e-4)


def test_without_momentum_it_is_the_iteration_alone() -> None:
    g, halves = jnp.asarray(random(5, 7), jnp.float32), jopt.linear_schedule(0, 1, 2)
    for options in ({"eps": 0.1}, {"consistent_rms": halves}, {"shape_scale": "kj"}):
        tx = jopt.scale_by_muon(beta=0.0, **options)
        alone = jopt.scale_by_polar(**options)
        state, own = tx.init(g), alone.init(g)
        for _ in range(2):
            expected, state = tx.update(g, state)
            found, own = alone.update(g, own)
            np.testing.assert_array_equal(found, expected)


def test_eps_makes_it_matter() -> None:
    tx, g = jopt.scale_by_muon(eps=1e-3), jnp.asarray(random(5, 7), jnp.float32)
    assert jnp.linalg.norm(update(tx, 1e-9 * g)) < 1e-2 * jnp.linalg.norm(update(tx, g))


def test_rotating_the_gradient_rotates_the_update() -> None:
    tx, g = jopt.scale_by_muon("polar_express"), random(5, 7)
    left, right = exact(random(5, 5, seed=1)), exact(random(7, 7, seed=2))
    with jax.enable_x64(True):
        turned = update(tx, jnp.asarray(left @ g @ right))
        expected = left @ update(tx, jnp.asarray(g)) @ right
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.03), ("float16", 0.004)])
def test_low_precision_iterates_to_nearly_the_same(dtype: str, error: float) -> None:
    g = jnp.asarray(random(64, 96), jnp.float32)
    wide = update(jopt.scale_by_muon(), g)
    for factor in (1.0, 1e-30):  # the norm is in float32 whatever the dtype
        low = update(jopt.scale_by_muon(ns_dtype=dtype), g * factor)
        assert low.dtype == jnp.float32
        assert 0 < jnp.linalg.norm(low - wide) / jnp.linalg.norm(wide) < error


def test_neurons_that_are_equilibrated_count_alike() -> None:
    g = random(6, 4)
    scaled = jnp.asarray(g * np.array([1.0, 1e3, 1e-3, 1.0]), jnp.float32)
    tx = jopt.scale_by_muon(equilibrate=True)
    expected = update(tx, jnp.asarray(g, jnp.float32))
    chex.assert_trees_all_close(update(tx, scaled), expected, atol=1e-5)


def test_aurora_takes_the_steps_of_the_record_and_balances_neurons() -> None:
    tx = jopt.muon(0.02, "newton_schulz", equilibrate="aurora")
    close_to_golden("aurora", tx)
    for shape, axis in (((3, 20), 0), ((20, 3), 1)):
        g = jnp.asarray(random(*shape), jnp.float32)
        spread = [
            jnp.std(
                jnp.linalg.norm(update(jopt.scale_by_muon(equilibrate=x), g), axis=axis)
            )
            for x in (False, "aurora")
        ]
        assert spread[1] < 0.5 * spread[0]
    with pytest.raises(ValueError, match="equilibrate must be"):
        jopt.scale_by_muon(equilibrate="north")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ns_coeffs", "steps", "message"),
    [
        ("polar_expres", None, "Did you mean 'polar_express'"),
        ((1.0, 2.0), None, "a triple"),
        ([], None, "a triple"),
        ((1.0, 2.0, float("nan")), None, "a triple"),
        ("simple", 0, "ns_steps must be >= 1, got ns_steps=0"),
    ],
)
def test_wrong_coefficients_are_refused(
    ns_coeffs: Any, steps: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        jopt.scale_by_muon(ns_coeffs, steps)


def test_coefficients_can_be_given_by_hand_and_written_down() -> None:
    triple, triples = (2.0, -1.5, 0.5), [(3.0, -3.0, 1.0), (2.0, -1.5, 0.5)]
    assert polar.coefficients(triple, None) == (triple,) * 5
    assert polar.coefficients(triples, None) == tuple(triples)
    assert polar.coefficients(triples, 3) == (*triples, triple)
    assert polar.coefficients("polar_express", 10)[7:] == ((1.875, -1.25, 0.375),) * 3
    tx = jopt.muon(0.1, triples)
    assert jopt.from_config(jopt.to_config(tx)) == tx


# Leaves as matrices.


def test_axes_say_how_a_leaf_is_a_matrix() -> None:
    def found(axes: str, g: Any) -> Any:
        g = jnp.asarray(g, jnp.float32)
        return update(jopt.scale_by_muon(axes=axes, shape_scale="kj"), g)

    g = random(6, 24)
    dense = found("io", g)
    np.testing.assert_allclose(
        dense, 2 * update(jopt.scale_by_muon(), jnp.asarray(g, jnp.float32)), rtol=1e-6
    )
    close = {"rtol": 2e-5, "atol": 2e-6}
    np.testing.assert_allclose(found("oi", g.T), dense.T, **close)
    # A convolution (height, width, in, out), as matrices (in here, out).
    conv = found("iiio", g.reshape(1, 2, 3, 24))
    np.testing.assert_allclose(conv.reshape(6, 24), dense, **close)
    # Queries (model, head, size) and the projection (head, size, model) after them.
    queries = found("ioo", g.reshape(6, 4, 6))
    np.testing.assert_allclose(queries.reshape(6, 24), dense, **close)
    projection = found("iio", g.reshape(2, 3, 24))
    np.testing.assert_allclose(projection.reshape(6, 24), dense, **close)
    # Layers under a scan, in front or behind.
    stack = found("bio", np.stack([g, 2 * g, 0 * g]))
    np.testing.assert_allclose(stack, jnp.stack([dense, dense, 0 * dense]), **close)
    behind = found("oib", np.stack([g.T, g.T], axis=-1))
    np.testing.assert_allclose(behind, jnp.stack([dense.T] * 2, axis=-1), **close)


def test_axes_can_be_told_for_each_leaf() -> None:
    params = {"dense": jnp.asarray(random(4, 6)), "stack": jnp.asarray(random(3, 4, 6))}
    told = {"dense": "io", "stack": "bio"}
    ways = [told, lambda path, _: told[path], lambda _: told]
    expected = [
        update(jopt.scale_by_muon(axes=axes), params[name])
        for name, axes in told.items()
    ]
    for axes in ways:
        found = update(jopt.scale_by_muon(axes=axes), params)
        chex.assert_trees_all_close(jax.tree.leaves(found), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        (None, (4,), r"leaf 'w' has shape \(4,\).*jopt.muon gives"),
        ("bio", (4, 4), "axes must have a letter.*'bio' for leaf 'w'"),
        ("ii", (4, 4), "both 'i' and 'o', got 'ii'"),
        ("ix", (4, 4), "got 'ix'"),
    ],
)
def test_what_is_no_matrix_is_refused(
    axes: str | None, shape: tuple[int, ...], message: str
) -> None:
    tx, params = jopt.scale_by_muon(axes=axes), {"w": jnp.ones(shape)}
    with pytest.raises(ValueError, match=message):
        tx.init(params)


def test_a_leaf_without_numbers_stays_as_it_is() -> None:
    params = {"none": jnp.ones((0, 3)), "w": jnp.eye(3), "nothing": None}
    assert update(jopt.scale_by_muon(), params)["none"].shape == (0, 3)
    with jax.numpy_dtype_promotion("standard"), pytest.raises(ZeroDivisionError):
        update_of_optax = optax_contrib.muon(0.1).update
        update_of_optax(params, optax_contrib.muon(0.1).init(params), params)


# Which leaves are whose.

HIDDEN = ["h0/attn/kernel", "MultiHeadAttention_0/query/kernel", "blocks/3/mlp/w"]
HIDDEN += [
    "lora_b",
    "blocks/normalized/weight",
    "Conv_0/kernel",
    "token_mixing/Dense_0/kernel",
    "heading/kernel",
]
OTHERS = ["embed/embedding", "wte", "wpe/w", "pos_embedding", "patch_embed/kernel"]
OTHERS += ["lm_head/kernel", "head/kernel", "heads_0/kernel", "Classifier/kernel"]
OTHERS += ["logits/kernel", "logitdense/kernel", "emb/table", "model.lm_head.weight"]
OTHERS += ["layers/bias", "layers/LayerNorm_0/scale"]  # under a scan over layers
OTHERS += ["layers/norm1/weight", "layers/ln/weight", "cell/bias_n"]  # of Equinox


@pytest.mark.parametrize("path", HIDDEN + OTHERS)
def test_hidden_matrices_are_told_by_their_names(path: str) -> None:
    assert is_hidden(path, jnp.ones((4, 4))) == (path in HIDDEN)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), False),
        ((4,), False),
        ((1, 4), False),
        ((4, 1), False),
        ((1, 1, 8), False),
        ((0, 3), False),
        ((2, 2), True),
        ((3, 3, 1, 8), True),
    ],
)
def test_hidden_matrices_are_told_by_their_shapes(
    shape: tuple[int, ...], expected: bool
) -> None:
    assert is_hidden("layer/kernel", jnp.ones(shape)) == expected


def test_muon_gives_each_leaf_to_the_one_that_is_for_it() -> None:
    params = {
        "embed": {"embedding": jnp.ones((8, 4))},
        "mlp": {"bias": jnp.ones(4), "kernel": jnp.ones((4, 4)) + jnp.eye(4)},
        "head": {"kernel": jnp.ones((4, 8))},
    }
    rates = {"learning_rate": 0.5, "adam_learning_rate": 1e-3}

    def is_orthogonal(**options: Any) -> dict[str, bool]:
        tx = jopt.muon(**rates, **options)
        updates = tx.update(params, tx.init(params), params)[0]
        named = jopt.tree.leaves_with_names(updates)
        # AdamW's first step is its learning rate, in every element.
        return {n: not np.allclose(u, -1e-3, rtol=1e-4) for n, u in named}

    nothing = dict.fromkeys(is_orthogonal(hidden=False), False)
    assert not any(nothing.values())
    assert is_orthogonal() == nothing | {"mlp/kernel": True}
    assert is_orthogonal(hidden="kernel$") == nothing | {
        "mlp/kernel": True,
        "head/kernel": True,
    }
    with pytest.raises(ValueError, match="leaf 'mlp/bias' has shape"):
        is_orthogonal(hidden="mlp")


def test_numbers_are_reached_by_name_in_both_parts() -> None:
    params = {"bias": jnp.ones(3), "kernel": jnp.eye(3)}
    tx = jopt.muon(0.1, beta=jopt.tunable(0.9), adam_b1=jopt.tunable(0.8))
    state = tx.init(params)
    names = ["adam/scale_by_learning_rate/learning_rate", "b1", "beta"]
    names += ["muon/scale_by_learning_rate/learning_rate"]
    assert sorted(jopt.hyperparams(state)) == names
    state = jopt.set_hyperparams(tx, state, **{names[0]: 0.0, "beta": 0.5})
    updates, _ = jax.jit(tx.update)(params, state, params)
    assert not updates["bias"].any() and updates["kernel"].any()


def test_optax_s_call_works() -> None:
    call = {"weight_decay": 0.1, "adam_b2": 0.95, "consistent_rms": 0.2}
    tx = jopt.muon(0.02, (3.4445, -4.7750, 2.0315), 5, 0.95, 1e-8, mu_dtype="bfloat16")
    assert tx.init(jnp.eye(3))["muon"]["scale_by_muon"].mu.dtype == jnp.bfloat16
    assert jopt.muon(0.02, "standard", **call) != jopt.muon(0.02, "dion", **call)


def test_normalized_neurons_have_equal_steps_in_the_end() -> None:
    tx = jopt.normalize_neurons(0.9, axes="bio")
    o = {"vector": jnp.ones(3), "stack": jnp.asarray(random(2, 6, 4), jnp.float32)}
    state = tx.init(o)
    assert state.nu["stack"].shape == (2, 1, 4) and state.nu["vector"] is None
    step = jax.jit(tx.update)
    for _ in range(200):
        u, state = step(o, state)
    chex.assert_trees_all_equal(u["vector"], o["vector"])
    norms = jnp.linalg.norm(u["stack"], axis=1)
    chex.assert_trees_all_close(norms, norms[:, :1] * jnp.ones((1, 4)), rtol=1e-4)
    both = (u["stack"], o["stack"])
    chex.assert_trees_all_close(*(jnp.linalg.norm(x, axis=(1, 2)) for x in both))


# Many leaves at once.


def calls(tx: Any, params: Any) -> collections.Counter[str]:
    """How often each inner function is called, and how many different ones are."""
    eqns = jax.make_jaxpr(tx.update)(params, tx.init(params)).jaxpr.eqns
    found = [e.params for e in eqns if e.primitive.name == "jit"]
    names = collections.Counter(p["name"] for p in found)
    different = {(p["name"], id(p["jaxpr"])) for p in found}
    return names, collections.Counter(name for name, _ in different)


def test_equal_shapes_are_one_trace_and_few_calls() -> None:
    leaves = {f"layer_{i}": jnp.ones((4, 4)) for i in range(200)}
    names, different = calls(jopt.scale_by_muon(), leaves)
    assert names["_together"] == 25 and set(different.values()) == {1}


def test_turned_shapes_are_stacked_together() -> None:
    leaves = {"a": jnp.ones((4, 6)), "b": jnp.ones((6, 4)), "c": jnp.ones((2, 3, 4))}
    names, _ = calls(
        jopt.scale_by_muon(axes={"a": "io", "b": "io", "c": "iio"}), leaves
    )
    assert names["_together"] == 1


def test_large_matrices_are_iterated_one_by_one() -> None:
    leaf = jax.ShapeDtypeStruct((2048, 2048), jnp.float32)
    tx, params = jopt.scale_by_muon(), {"a": leaf, "b": leaf}
    jaxpr = jax.make_jaxpr(tx.update)(params, jax.eval_shape(tx.init, params)).jaxpr
    assert [e.params["name"] for e in jaxpr.eqns].count("_together") == 2


def test_a_leaf_among_many_gets_what_it_gets_alone() -> None:
    rng = np.random.default_rng(0)
    shapes = [(4, 4)] * 20 + [(4, 6), (6, 4)] * 3 + [(2, 3, 4)]
    leaves = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]
    tx = jopt.scale_by_muon(axes=lambda _, x: "io" if x.ndim == 2 else "iio")
    together = jax.jit(lambda x: update(tx, x))(leaves)
    alone = [update(tx, x) for x in leaves]
    chex.assert_trees_all_close(together, alone, rtol=1e-4, atol=1e-5)


# Of microsoft/dion, made for four steps.
TURBO = [
    (4.6051, -9.6552, 5.6769),
    (4.7505, -6.0861, 2.1790),
    (2.7763, -2.3190, 0.5523),
    (2.4231, -2.2861, 0.8193),
]


def test_scaled_rows_need_a_step_less() -> None:
    x = np.random.default_rng(0).normal(size=(6, 9))
    tx = jopt.scale_by_polar(TURBO, ns_start="aol", axes="oi")
    with jax.enable_x64(True):
        found = update(tx, jnp.asarray(x))
    x /= np.sqrt(np.sum(np.abs(x @ x.T), axis=1, keepdims=True))
    for a, b, c in TURBO:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    np.testing.assert_allclose(found, x, rtol=1e-9)
    values = np.linalg.svd(x, compute_uv=False)
    assert values.min() > 0.85 and values.max() < 1.15


def mapped(x: Any, preset: str) -> Any:
    """The iteration's polynomials of the singular values."""
    p, values, qh = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
    for a, b, c in polar.coefficients(preset, None):
        values = a * values + b * values**3 + c * values**5
    return (p * values) @ qh


@pytest.mark.parametrize("preset", ["simple", "polar_express", "deepseek_v4", "cubic"])
@pytest.mark.parametrize("shape", [(6, 24), (24, 6), (8, 8), (8, 12)], ids=str)
def test_the_gram_method_is_the_same_iteration(shape: Any, preset: str) -> None:
    p, _, qh = np.linalg.svd(random(*shape), full_matrices=False)
    x = (p * np.geomspace(1, 1e-4, min(shape))) @ qh
    tx = jopt.scale_by_polar(preset, ns_method="gram")
    found = update(tx, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, mapped(x, preset), atol=2e-4)
    with jax.enable_x64(True):
        found = update(tx, jnp.asarray(x))
    np.testing.assert_allclose(found, mapped(x, preset), atol=1e-10)


def test_the_gram_method_multiplies_less_where_matrices_are_long() -> None:
    tx = jopt.scale_by_polar(ns_method="gram")
    text = str(jax.make_jaxpr(lambda g: tx.update(g, tx.init(g)))(jnp.ones((6, 24))))
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert sum("f32[6,24]" in line for line in products) == 2  # of 5 without
    with pytest.raises(ValueError, match="needs float32, got ns_dtype='bfloat16'"):
        jopt.muon(0.02, ns_method="gram", ns_dtype="bfloat16")


# Many devices.


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("mesh_axis", [None, "data"])
def test_spread_matrices_get_the_same_updates(kind: Any, mesh_axis: str | None) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    rows = NamedSharding(mesh, P("data"))
    params = {f"layer_{i}": random(16, 8, seed=i) for i in range(11)}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    expected = update(jopt.scale_by_muon(), params)
    tx = jopt.scale_by_muon(mesh_axis=mesh_axis)
    with jax.set_mesh(mesh):
        spread = jax.device_put(params, rows)
        compiled = jax.jit(tx.update).lower(spread, tx.init(spread)).compile()
        found, _ = compiled(spread, tx.init(spread))
    chex.assert_trees_all_close(jax.device_get(found), expected, atol=1e-5)
    assert all(x.sharding.is_equivalent_to(rows, 2) for x in found.values())
    if mesh_axis:  # there and back, for all matrices and steps together
        text = compiled.as_text()
        assert " all-gather(" not in text and text.count(" all-to-all(") == 2


def test_an_unknown_mesh_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="mesh_axis='data' is not an axis of the mesh"):
        update(jopt.scale_by_muon(mesh_axis="data"), jnp.eye(3))


def test_matrices_that_each_device_has_cost_one_exchange_of_updates() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = {f"layer_{i}": jnp.asarray(random(16, 8), jnp.float32) for i in range(11)}
    tx = jopt.scale_by_muon(mesh_axis="data")
    with jax.set_mesh(mesh):
        params = jax.device_put(params, NamedSharding(mesh, P()))
        state = jax.jit(tx.init)(params)
        text = jax.jit(tx.update).lower(params, state).compile().as_text()
    assert " all-to-all(" not in text and text.count(" all-gather(") == 1
