"""Adam-mini."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.algorithms.adam_mini import default_block
from tests.algorithms.runs import assert_follows, common_direction, floats
from tests.algorithms.test_adam import adam
from tests.laws.case import Case
from tests.parity.row import torch_like
from tests.twins.base import Scalar, Tree, at, double


def adam_mini(
    params: Tree,
    grads: Iterable[Tree],
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> Iterator[Tree]:
    """Zhang et al., 2024, "Adam-mini", algorithm 1.

    A bias has a v for every element, a kernel one for every column, others just one.
    """
    p = {name: double(x) for name, x in params.items()}
    m = {name: np.zeros_like(x) for name, x in p.items()}
    v = {name: 0.0 for name in p}
    for t, gs in enumerate(grads, start=1):
        beta1, beta2 = at(b1, t), at(b2, t)
        for name, x in p.items():
            g = double(gs[name])
            m[name] = beta1 * m[name] + (1 - beta1) * g
            squares = g**2
            if name == "kernel":
                squares = squares.mean(0)
            elif name != "bias":
                squares = squares.mean()
            v[name] = beta2 * v[name] + (1 - beta2) * squares
            root = np.sqrt(v[name] / (1 - beta2**t)) + at(eps, t)
            u = m[name] / (1 - beta1**t) / root
            p[name] = x - at(learning_rate, t) * (u + at(weight_decay, t) * x)
        yield dict(p)


def scale_by_adam_mini(
    params: Tree, grads: Iterable[Tree], **options: Any
) -> Iterator[Tree]:
    """The direction of `adam_mini`."""
    before = {name: np.zeros_like(double(x)) for name, x in params.items()}
    for after in adam_mini(before, grads, learning_rate=-1.0, **options):
        yield {name: after[name] - before[name] for name in before}
        before = after


CASES = [
    Case(
        "adam_mini",
        {"b2": 0.95},
        looks_at_all_leaves=True,
        complex_leaves=False,
    ),
    Case(
        "scale_by_adam_mini",
        {"b1": 0.8},
        None,
        looks_at_all_leaves=True,
        complex_leaves=False,
        part=True,
    ),
]


def mini(name, options, jopt):
    """The authors tell the kinds of blocks by the parameters' names."""
    # The first call is not made: it names what is looked up in the library.
    given = "[p.requires_grad_() for p in Adam_mini.args[0]]"
    oracle = f"Adam_mini.func(zip(({name!r}, 'x.bias'), {given}), {options})"
    return torch_like(
        "adam_mini",
        f"adam-mini-{name.partition('.')[0]}",
        f"Adam_mini() if 0 else {oracle}",
        jopt,
        package="adam-mini",
    )


# Their kernels are (out, in), so what they have per output is per input here; and their
# heads are some rows, here one: dim^2 / n_heads = 4 numbers.
INPUT = "blocks=lambda path, leaf: 'input' if 'kernel' in path else 'element'"
ROWS = (
    mini(
        "query.weight",
        "lr=0.05, dim=4, n_heads=4, verbose=False",
        f"adam_mini(0.05, {INPUT.replace('input', 'head')})",
    ),
    mini("mlp.weight", "lr=0.05, verbose=False", f"adam_mini(0.05, {INPUT})"),
    mini("embed.weight", "lr=0.05, verbose=False", f"adam_mini(DECAY, {INPUT})"),
    mini(
        "output.weight",
        "lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, verbose=False",
        f"adam_mini(0.05, 0.8, 0.95, 1e-6, None, 0.1, 'kernel', {INPUT})",
    ),
    mini(
        "other.weight",
        "lr=0.05, verbose=False",
        f"adam_mini(0.05, {INPUT.replace('input', 'tensor')})",
    ),
)


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
    p, grads = common_direction((6, 2, 4))
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
    p, grads = common_direction((3, 4))
    own = jopt.adam_mini(0.1, blocks=lambda path, leaf: "element")
    assert_follows(own, adam(p, grads, learning_rate=0.1), p, grads)
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
