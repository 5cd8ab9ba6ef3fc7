"""GaLore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import assert_follows, common_direction, floats
from tests.laws.case import Case, core_of
from tests.parity.row import optax, torch_like
from tests.twins.base import Array, Scalar, at, double, steps


def galore(
    p: Array,
    grads: Iterable[Array],
    *,
    learning_rate: Scalar,
    rank: int,
    update_proj_gap: int,
    scale: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    side: Literal["shorter", "longer"] = "shorter",
) -> Iterator[Array]:
    """Zhao et al., 2024, "GaLore", algorithm 2, with Adam.

    New singular vectors have the signs that fit the old ones.
    """
    p = double(p)
    projector = None
    m = v = 0.0
    for t, g in steps(grads):
        left = p.ndim == 2 and (p.shape[0] < p.shape[1]) == (side == "shorter")
        if p.ndim == 2 and (t - 1) % update_proj_gap == 0:
            u, _, vh = np.linalg.svd(g, full_matrices=False)
            new = (u if left else vh.T)[:, :rank]
            if projector is not None:
                new = new * np.where((new * projector).sum(0) < 0, -1, 1)
            projector = new
        if projector is not None:
            g = projector.T @ g if left else g @ projector
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        n = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if projector is not None:
            n = at(scale, t) * (projector @ n if left else n @ projector.T)
        p = p - at(learning_rate, t) * (n + at(weight_decay, t) * p)
        yield p


CASES = [
    # Of three singular values 1e-2 apart, float32 knows the vectors of the first.
    Case(
        "galore",
        {"rank": 1, "update_proj_gap": 5, "scale": 0.5},
        complex_leaves=False,
    ),
    Case(
        "scale_by_galore",
        {"rank": 1, "update_proj_gap": 200, "side": "longer"},
        None,
        core_of(galore),
        complex_leaves=False,
        part=True,
    ),
]


def authors(name, options, jopt):
    """Here the first call is made, for the class and the parameters."""
    group = (
        "'params': GaLore.args[0], 'update_proj_gap': 1000, 'projection_type': 'std'"
    )
    return torch_like(
        "pytorch_optimizer",
        name,
        f"GaLore().__class__([{{{group}, 'rank': 1, 'scale': 0.25}}], {options})",
        jopt,
        package="pytorch-optimizer",
        tol64=1e-10,
    )


# All others decompose in float32 in any case, of float64 gradients too.
SVD = {"tol64": 1e-7}
BASE = "scale_by_adam(eps=1e-6, eps_mode='before')"
ROWS = (
    authors("galore", "lr=0.05", f"galore(0.05, 1, 1000, 0.25, {BASE})"),
    authors("galore-schedule", "lr=0.05", f"galore(DECAY, 1, 1000, 0.25, {BASE})"),
    # The authors decay what the step has left.
    authors(
        "galore-weight-decay",
        "lr=0.05, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1",
        "chain(scale_by_galore(1, 1000, 0.25, scale_by_adam(0.8, 0.95, 1e-4, "
        "eps_mode='before')), scale(1 - 0.05 * 0.1), add_decayed_weights(0.1), "
        "scale_by_learning_rate(0.05))",
    ),
    optax(
        "galore",
        "galore(0.05, 1, 200, 0.5, weight_decay=0.1)",
        "galore(0.05, 1, 200, 0.5, weight_decay=0.1, side='longer')",
        **SVD,
    ),
    optax(
        "galore-base-optimizer",
        "galore(0.05, 1, 200, 0.5, scale_by_lion())",
        "galore(0.05, 1, 200, 0.5, scale_by_lion(), side='longer')",
        **SVD,
    ),
)


@pytest.mark.parametrize("side", ["shorter", "longer"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_galore_follows_its_twin_through_new_projectors(
    shape: tuple[int, ...], side: Any
) -> None:
    p, grads = common_direction(shape)
    options = {"rank": 2, "update_proj_gap": 4, "scale": 0.25, "side": side}
    twin = galore(p, grads, learning_rate=0.1, **options)
    assert_follows(jopt.galore(0.1, **options), twin, p, grads)


def test_the_sign_of_singular_vectors_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p, grads = common_direction((6, 4))
    signs = iter(np.random.default_rng(2).choice([-1, 1], size=(12, 4)))

    def svd(x: Any, full_matrices: bool) -> Any:
        u, s, vh = np.linalg.svd(np.asarray(x), full_matrices=full_matrices)
        sign = next(signs)
        return jnp.asarray(u * sign), s, jnp.asarray(vh * sign[:, None])

    monkeypatch.setattr(jnp.linalg, "svd", svd)
    options = {"rank": 2, "update_proj_gap": 4}
    twin = galore(p, grads, learning_rate=0.1, **options)
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
