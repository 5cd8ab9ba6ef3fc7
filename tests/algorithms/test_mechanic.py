"""Mechanic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.algorithms.runs import descend, momentum, quadratic
from tests.laws.case import Case
from tests.parity.row import torch_like
from tests.twins.base import Tree, as_tree, as_vector, double


def mechanize_momentum(
    params: Tree,
    grads: Iterable[Tree],
    *,
    weight_decay: float = 1e-2,
    eps: float = 1e-8,
    s_init: float = 1e-8,
    num_betas: int = 6,
    store_delta: bool = True,
    moves: bool = True,
) -> Iterator[Tree]:
    """Cutkosky, Defazio & Mehta, 2023, "Mechanic", algorithm 1, of momentum 0.9.

    ``m`` starts at 1e-6, as in the authors' code.
    """
    del store_delta  # here it always is
    like = {n: double(p) for n, p in params.items()}
    x = as_vector(like)
    x0, delta, momentum = x, np.zeros_like(x), np.zeros_like(x)
    betas = 1 - 0.1 ** np.arange(1, num_betas + 1)
    m, v = np.full(num_betas, 1e-6), np.zeros(num_betas)
    r, s = np.zeros(num_betas), np.zeros(num_betas)
    for tree in grads:
        g = as_vector({n: double(tree[n]) for n in like})
        momentum = 0.9 * momentum + g
        pull = np.sum(s) * np.linalg.norm(g) / (np.linalg.norm(x) + eps)
        h = np.vdot(g + weight_decay * pull * x, delta).real
        m = np.maximum(betas * m, np.abs(h))
        v = betas**2 * v + h**2
        r = np.maximum(0, betas * r - s * h)
        s = (s_init / num_betas * m + r) / (np.sqrt(v) + eps)
        delta = delta - momentum
        new = x0 + np.sum(s) * delta
        yield as_tree(new if moves else new - x0, like)
        x = new if moves else x


whole_transform = partial(Case, looks_at_all_leaves=True, learning_rate=None)
CASES = [
    whole_transform(
        "mechanize",
        {
            "base_optimizer": jopt.chain(jopt.trace(0.9), jopt.scale(-1.0)),
            "store_delta": True,  # else it is computed from the parameters
        },
        twin=lambda p, grads, base_optimizer, **options: mechanize_momentum(
            p, grads, moves=False, **options
        ),
    ),
]


def mechanic(name, base, options, jopt, **row):
    # The first call of a text is given the parameters; mechanize takes a class.
    leaves = "is_mechanized.args[0]"
    oracle = f"is_mechanized() or mechanize({base[0]}{options})({leaves}, {base[1]})"
    return torch_like("mechanic_pytorch", name, oracle, jopt, **row)


ROWS = (
    mechanic(
        "mechanic",
        ("torch.optim.SGD", "lr=1.0, momentum=0.9"),
        ", s_decay=0.0",
        "mechanize(sgd(1.0, 0.9), 0.0)",
    ),
    mechanic(
        "mechanic-large",
        ("torch.optim.Adam", "lr=1.0"),
        ", s_decay=0.0, s_init=1e-3, eps=1e-7, betas=(0.9, 0.99)",
        "mechanize(adam(1.0), 0.0, 1e-7, 1e-3, 2)",
    ),
    mechanic(
        "mechanic-stored",
        ("torch.optim.SGD", "lr=0.5"),
        ", s_decay=0.0, s_init=1e-3, store_delta=True",
        "mechanize(sgd(0.5), 0.0, s_init=1e-3, store_delta=True)",
    ),
    mechanic(
        "mechanic-decay",
        ("torch.optim.SGD", "lr=1.0"),
        "",
        "mechanize(sgd(1.0))",
    ),
)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("store_delta", [False, True])
def test_mechanic_has_the_numbers_of_the_paper(
    store_delta: bool, weight_decay: float
) -> None:
    options = {"weight_decay": weight_decay, "s_init": 1e-3, "num_betas": 4}
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=3), "b": rng.normal(size=(2, 2))}
    pull = {n: p + 0.1 * rng.normal(size=p.shape) for n, p in params.items()}
    with jax.enable_x64(True):
        tx = jopt.mechanize(momentum(), store_delta=store_delta, **options)
        x = jax.tree.map(jnp.asarray, params)
        state, update = tx.init(x), jax.jit(tx.update)
        back = jax.tree.map(lambda g: -g, pull)  # the first step was a loss
        grads = [pull] + [back] * 3 + [pull] * 26
        run = mechanize_momentum(params, grads, **options)
        for g, expected in zip(grads, run, strict=True):
            updates, state = update(g, state, x)
            x = jopt.apply_updates(x, updates)
            # Without the steps, they are divided by the factor and eps.
            close = 1e-10 if store_delta else 1e-4
            chex.assert_trees_all_close(x, expected, rtol=close, atol=close)
        assert float(jnp.sum(state.s)) > 0.01  # it has found more than it began with


def test_mechanic_learns_the_rate_of_any_optimizer() -> None:
    params = {"w": jnp.zeros(8)}
    for base in (jopt.adam(1.0), jopt.lion(1.0), jopt.sgd(1e-3, 0.9)):
        final, state = descend(jopt.mechanize(base), quadratic, params, 2000)
        assert quadratic(final) < 0.01 * quadratic(params), base
        assert state.delta is None


def test_mechanic_with_its_steps_kept_moves_bfloat16_parameters() -> None:
    params = {"w": jnp.zeros(8, jnp.bfloat16) + 1}
    tx = jopt.mechanize(jopt.adam(1.0), store_delta=True)
    final, state = descend(tx, quadratic, params, 1000)
    wide, _ = descend(tx, quadratic, {"w": jnp.ones(8)}, 1000)
    assert state.delta["w"].dtype == state.x0["w"].dtype == jnp.float32
    difference = final["w"].astype(jnp.float32) - wide["w"]
    assert np.max(np.abs(difference)) < 0.05


def test_mechanic_hands_on_what_its_optimizer_wants() -> None:
    tx = jopt.mechanize(jopt.polyak_sgd())
    params = {"w": jnp.zeros(8)}
    state, grads = tx.init(params), jax.grad(quadratic)(params)
    updates, state = tx.update(grads, state, params, value=quadratic(params))
    assert np.any(updates["w"] != 0)
    with pytest.raises(TypeError, match="'value'"):
        tx.update(grads, state, params)
    with pytest.raises(ValueError, match="the state's x0"):
        tx.update({"a": jnp.ones(1)}, state, {"a": jnp.ones(1)}, value=1.0)


def test_mechanic_leaves_alone_what_has_no_gradient() -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": None}
    tx = jopt.mechanize(momentum(), store_delta=True)
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    updates, new = tx.update({**params, "b": None}, state, params)
    assert updates["b"] is None and updates["c"] is None
    chex.assert_trees_all_equal(new.delta["b"], state.delta["b"])
    assert np.all(new.delta["a"] != state.delta["a"])
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_beside_another_optimizer_it_compiles_to_no_more_than_both_alone() -> None:
    # Numbers of whole trees feed all leaves; XLA may copy their sums into each of them.
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones(4), "c": jnp.ones((4, 2))}
    params["d"] = jnp.ones(2)

    def instructions(tx: jopt.GradientTransformation, names: str) -> int:
        some = {name: params[name] for name in names}
        compiled = jax.jit(tx.update).lower(some, tx.init(some), some).compile()
        return len(compiled.as_text().splitlines())

    mechanic, dog = jopt.mechanize(jopt.adam(1.0)), jopt.dog()
    labels = {"a": "mechanic", "b": "dog", "c": "mechanic", "d": "dog"}
    both = jopt.partition({"mechanic": mechanic, "dog": dog}, labels)
    alone = instructions(mechanic, "ac") + instructions(dog, "bd")
    assert instructions(both, "abcd") <= 1.05 * alone
