"""Weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import updates_and_state
from tests.laws.case import transform
from tests.parity.row import pytorch_optimizer, torch_like
from tests.public import public
from tests.twins.base import Array, Scalar, at, double, steps


def add_decayed_weights(
    p: Array, grads: Iterable[Array], *, weight_decay: Scalar = 0.0
) -> Iterator[Array]:
    """Krogh & Hertz, 1991, "A simple weight decay can improve generalization".

    The gradient of ``weight_decay / 2 * |p|**2`` is added.
    """
    p = double(p)
    for t, g in steps(grads):
        yield g + at(weight_decay, t) * p


def cautious_weight_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar = 0.0,
) -> Iterator[Array]:
    """Chen et al., 2025, "Cautious weight decay", algorithm 1."""
    p = double(p)
    for t, g in steps(grads):
        agrees = np.real(g * np.conj(p)) >= 0
        yield g + at(weight_decay, t) * p * agrees


def independent_weight_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar,
    peak_rate: Scalar,
) -> Iterator[Array]:
    """Wortsman et al., 2023, "Small-scale proxies", section 3.2.2."""
    p = double(p)
    for t, g in steps(grads):
        yield g + at(weight_decay, t) * p / at(peak_rate, t)


def corrected_weight_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    weight_decay: Scalar,
    rate: Scalar,
    peak_rate: Scalar,
) -> Iterator[Array]:
    """Defazio, 2025, "Why gradients rapidly increase near the end of training"."""
    p = double(p)
    for t, g in steps(grads):
        yield g + at(weight_decay, t) * (at(rate, t) / at(peak_rate, t)) * p


def step_then_decay(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
    skip: int = 0,
) -> Iterator[Array]:
    """The step first, then the decay of what it has left."""
    p = double(p)
    for t, g in steps(grads):
        after = p - at(learning_rate, t) * g
        decay = at(learning_rate, t) * at(weight_decay, t) if t > skip else 0.0
        yield after * (1 - decay) - p


CASES = [
    transform("add_decayed_weights", weight_decay=0.1),
    transform("cautious_weight_decay", weight_decay=0.1),
    transform("corrected_weight_decay", weight_decay=0.1, rate=0.01, peak_rate=0.05),
    transform("independent_weight_decay", weight_decay=0.1, peak_rate=0.05),
    transform("step_then_decay", learning_rate=0.05, weight_decay=0.1, skip=2),
]

optimi = partial(torch_like, "optimi", package="torch-optimi")
# Many of its optimizers add 1e-15 to the second moment, and eps to the root before the
# bias correction.
PO = "eps_root=1e-15, eps_mode='before'"
ROWS = (
    optimi(
        "adamw-independent-weight-decay",
        "AdamW(0.05, weight_decay=0.1, decouple_lr=True, max_lr=0.08)",
        "chain(scale_by_adam(b2=0.99, eps=1e-6), independent_weight_decay(0.1, 0.08), "
        "scale_by_learning_rate(DECAY))",
    ),
    pytorch_optimizer(
        "adamc",
        "AdamC(0.05, weight_decay=0.1, normalized=True)",
        f"chain(scale_by_adam({PO}), corrected_weight_decay(0.1, DECAY, 0.05), "
        "scale_by_learning_rate(DECAY))",
    ),
    pytorch_optimizer(
        "adam-fixed-decay",
        "AdamC(0.05, weight_decay=0.1, fixed_decay=True)",
        f"chain(scale_by_adam({PO}), scale_by_learning_rate(DECAY, flip_sign=False), "
        "add_decayed_weights(0.1), scale(-1.0))",
    ),
)


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
    (updates,), _ = updates_and_state(tx, params, [jnp.zeros(2)])
    np.testing.assert_allclose(updates, -share * params, rtol=1e-6, err_msg=mode)


def test_a_mask_keeps_a_leaf_from_decay_and_not_from_its_step() -> None:
    tx = jopt.step_then_decay(0.5, 0.2, mask={"a": True, "b": False, "c": 0.5})
    params = dict.fromkeys("abc", jnp.ones(1))
    updates, _ = tx.update(params, tx.init(params), params)
    found = {name: float(u[0]) for name, u in updates.items()}
    assert found == pytest.approx({"a": -0.55, "b": -0.5, "c": -0.525})
