"""Groups of leaves: ordered rules, multiples, frozen leaves, in every container."""

from __future__ import annotations

import json
import pickle
from typing import Any

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.testing.problem import draw
from tests.core.test_masks import CONTAINERS
from tests.public import public


# dense/bias, dense/kernel and out, with a gradient for each of four steps.
_PARAMS, _GRADS = draw(steps=4)
LEAVES = [jnp.asarray(_PARAMS[n], jnp.float32) for n in ("bias", "kernel", "scalar")]
GRADS = [
    [jnp.asarray(g[n], jnp.float32) for n in ("bias", "kernel", "scalar")]
    for g in _GRADS
]


def run(tx: Any, params: Any, grads: list[Any]) -> tuple[Any, Any]:
    """The leaves after all steps, and the last state."""
    state = tx.init(params)
    step = jax.jit(tx.update)
    for g in grads:
        updates, state = step(g, state, params)
        params = jopt.apply_updates(params, updates)
    return jax.tree.leaves(params), state


def alone(tx: Any, i: int) -> Any:
    """The i-th leaf after all steps, with an optimizer of its own."""
    (leaf,), _ = run(tx, LEAVES[i], [g[i] for g in GRADS])
    return leaf


RULES = jopt.rules(
    (jopt.is_bias_or_norm, "vector"), (jopt.glob("out*"), "frozen"), ("", "matrix")
)


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_one_set_of_rules_gives_each_leaf_its_optimizer_in_every_container(
    make: Any,
) -> None:
    tx = jopt.partition(
        {
            "vector": jopt.sgd(0.3, 0.9),
            "matrix": jopt.adamw(0.1, weight_decay=0.2),
            "frozen": jopt.set_to_zero(),
        },
        RULES,
    )
    found, state = run(tx, make(*LEAVES), [make(*g) for g in GRADS])
    expected = [
        alone(jopt.sgd(0.3, 0.9), 0),
        alone(jopt.adamw(0.1, weight_decay=0.2), 1),
        LEAVES[2],
    ]
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    # Momentum of the bias, two moments of the kernel; the rest are scalars.
    sizes = sorted(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert sizes == sorted([LEAVES[0].size, LEAVES[1].size, LEAVES[1].size])


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_multiples_of_the_learning_rate_and_the_decay_are_those_of_own_optimizers(
    make: Any,
) -> None:
    decay = jopt.rules((jopt.is_bias_or_norm, 0.0), ("dense", 0.5), ("", 1.0))
    rate = jopt.rules(("out", 10.0), (jopt.ndim_at_least(2), 0.1), ("", True))
    tx = jopt.chain(
        jopt.adamw(0.05, weight_decay=0.2, mask=decay), jopt.scale_by_group(rate)
    )
    found, _ = run(tx, make(*LEAVES), [make(*g) for g in GRADS])
    options = [(0.05, 0.0), (0.005, 0.1), (0.5, 0.2)]
    expected = [
        alone(jopt.adamw(rate, weight_decay=decay), i)
        for i, (rate, decay) in enumerate(options)
    ]
    chex.assert_trees_all_close(found, expected, rtol=3e-6)


def test_groups_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.nn.Parameter(torch.tensor(np.asarray(x))) for x in LEAVES]
    groups = [
        {"params": [tensors[0]], "weight_decay": 0.0},
        {"params": [tensors[1]], "lr": 0.005, "weight_decay": 0.1},
        {"params": [tensors[2]], "lr": 0.5},
    ]
    theirs = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.2)
    for grads in GRADS:
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(np.asarray(g))
        theirs.step()
    names = ("bias", "kernel", "scalar")
    tx = jopt.chain(
        jopt.adamw(
            0.05, weight_decay=0.2, mask={"bias": 0, "kernel": 0.5, "scalar": 1}
        ),
        jopt.scale_by_group({"bias": 1, "kernel": 0.1, "scalar": 10}),
    )
    grads = [dict(zip(names, g, strict=True)) for g in GRADS]
    found, _ = run(tx, dict(zip(names, LEAVES, strict=True)), grads)
    expected = [tensor.detach().numpy() for tensor in tensors]
    chex.assert_trees_all_close(found, expected, rtol=3e-6, atol=1e-7)


def equations(tx: Any, params: Any) -> int:
    """All equations of an update, those inside of inner functions as often as they are
    called."""

    def count(jaxpr: Any) -> int:
        inner = [
            x
            for eqn in jaxpr.eqns
            for x in jax.extend.core.jaxprs_in_params(eqn.params)
        ]
        return len(jaxpr.eqns) + sum(map(count, inner))

    return count(jax.make_jaxpr(tx.update)(params, tx.init(params), params).jaxpr)


def test_the_step_does_not_grow_with_the_number_of_groups() -> None:
    params = {f"layer_{i}": jnp.ones((2, 2)) for i in range(32)}

    def by_multiples(groups: int) -> Any:
        numbers = {n: 0.5 + (i % groups) / 100 for i, n in enumerate(params)}
        return jopt.chain(jopt.adamw(1e-3, mask=numbers), jopt.scale_by_group(numbers))

    sizes = {equations(by_multiples(groups), params) for groups in (2, 8, 32)}
    assert len(sizes) == 1

    def by_optimizers(groups: int) -> Any:
        labels = {n: str(i % groups) for i, n in enumerate(params)}
        return jopt.partition(
            {str(i): jopt.sgd(0.1 + i, 0.9) for i in range(groups)}, labels
        )

    # Each optimizer counts its steps, and has a call for its leaves if there are two;
    # nothing is done twice for a leaf.
    two, eight, all_ = (equations(by_optimizers(n), params) for n in (2, 8, 32))
    assert max((eight - two) / 6, (all_ - eight) / 24) < 8


def test_frozen_leaves_keep_no_state_and_do_not_move() -> None:
    params = {"embed": LEAVES[0], "w": LEAVES[1]}
    grads = [{"embed": g[0], "w": g[1]} for g in GRADS]
    tx = jopt.selective_transform(jopt.adam(0.1), freeze_mask="embed")
    found, state = run(tx, params, grads)
    chex.assert_trees_all_equal(found[0], LEAVES[0])
    chex.assert_trees_all_equal(found[1], alone(jopt.adam(0.1), 1))
    assert all(x.shape != LEAVES[0].shape for x in jax.tree.leaves(state))
    frozen, _ = run(jopt.chain(jopt.adam(0.1), jopt.freeze("embed")), params, grads)
    chex.assert_trees_all_equal(frozen, found)


def test_groups_nest() -> None:
    params = {"a": LEAVES[0], "b": LEAVES[1], "c": LEAVES[2]}
    inner = jopt.partition(
        {"x": jopt.sgd(0.1), "y": jopt.sgd(0.2)}, lambda path, leaf: "xy"[path == "b"]
    )
    tx = jopt.partition(
        {"in": inner, "out": jopt.sgd(0.3)}, {"a": "in", "b": "in", "c": "out"}
    )
    updates, _ = tx.update(params, tx.init(params), params)
    expected = {n: -r * params[n] for n, r in {"a": 0.1, "b": 0.2, "c": 0.3}.items()}
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


# Rules inside a group.


MULTIPLES = jopt.rules((jopt.is_bias_or_norm, 0.0), ("embed", 0.5), ("", 1.0))


def test_rules_hold_inside_a_group_that_lacks_some_of_their_leaves() -> None:
    params = {"bias": LEAVES[0], "w": LEAVES[1], "embed": LEAVES[2]}
    grads = [dict(zip(params, g, strict=True)) for g in GRADS]
    tx = jopt.partition(
        {
            "slow": jopt.adamw(0.1, weight_decay=0.2, mask=MULTIPLES),
            "fast": jopt.chain(
                jopt.adamw(0.5, weight_decay=0.2, mask=MULTIPLES),
                jopt.masked(jopt.scale_by_group(MULTIPLES), "w"),
            ),
        },
        jopt.rules(("embed|bias", "slow"), ("", "fast")),
    )
    found, _ = run(tx, params, grads)  # in the order of the names
    options = [(0, 0.1, 0.0), (2, 0.1, 0.1), (1, 0.5, 0.2)]
    expected = [alone(jopt.adamw(r, weight_decay=wd), i) for i, r, wd in options]
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        # An expression is about paths, and those of masked leaves are known.
        (
            [("haed", 1), ("", 2)],
            r"'haed' -> 1 chooses no leaf; the paths are 'bias' \(masked here\), "
            r"'kernel' \(3, 4\)",
        ),
        ([("", 1), ("bias", 2)], "'bias' -> 2 chooses only leaves that earlier rules"),
        ([("bias", 1)], r"no rule chooses 'kernel' \(3, 4\)"),
    ],
)
def test_a_misspelt_rule_inside_a_group_is_an_error(rules: Any, message: str) -> None:
    params = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
    tx = jopt.masked(jopt.scale_by_group(jopt.rules(*rules)), "kernel")
    with pytest.raises(ValueError, match=message):
        tx.init(params)


# Rules are values, and say what is wrong with them.


def test_rules_are_values() -> None:
    again = {
        "made again": jopt.rules(
            (jopt.is_bias_or_norm, "vector"),
            (jopt.glob("out*"), "frozen"),
            ("", "matrix"),
        ),
        "repr": eval(repr(RULES), public(jopt)),
        "pickle": pickle.loads(pickle.dumps(RULES)),
        "config": jopt.from_config(json.loads(json.dumps(jopt.to_config(RULES)))),
    }
    params = {"bias": 0.0, "out": 0.0, "w": 0.0}
    for how, other in again.items():
        assert other == RULES and hash(other) == hash(RULES), how
        assert other(params) == {"bias": "vector", "out": "frozen", "w": "matrix"}
    assert jopt.rules(("", "a")) != jopt.rules(("", "b"))


def test_the_first_rule_that_chooses_a_leaf_counts() -> None:
    params = {"a": {"bias": 0.0, "kernel": 0.0}, "b": {"bias": 0.0, "nothing": None}}
    found = jopt.rules(
        ("^b/", 1), ({"a": {"bias": True, "kernel": False}, "b": False}, 2), (True, 3)
    )
    assert found(params) == {
        "a": {"bias": 2, "kernel": 3},
        "b": {"bias": 1, "nothing": None},
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("kernel", 1)], r"no rule chooses 'bias' \(4,\)"),
        ([("head", 1), ("", 2)], r"'head' -> 1 chooses no leaf; the paths are 'bias'"),
        ([("", 1), ("bias", 2)], r"'bias' -> 2 chooses only leaves that earlier rules"),
    ],
)
def test_a_leaf_or_a_rule_that_is_left_over_is_an_error(
    rules: Any, message: str
) -> None:
    params = {"bias": jnp.ones(4), "kernel": jnp.ones((3, 4))}
    with pytest.raises(ValueError, match=message):
        jopt.scale_by_group(jopt.rules(*rules)).init(params)
    marked = [(jopt.optional(where), what) for where, what in rules]
    jopt.scale_by_group(jopt.rules(*marked, (jopt.optional(""), 3))).init(params)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jopt.rules(), ValueError, "at least one pair"),
        (lambda: jopt.rules("bias"), TypeError, "a rule is a pair .* got 'bias'"),
        (lambda: jopt.rules(("bias", jopt.sgd(0.1))), TypeError, "jopt.partition"),
        (lambda: jopt.rules(("*bias", "a")), ValueError, r"jopt\.glob"),
        (lambda: jopt.ndim_at_least(-1), ValueError, "ndim"),
        (
            lambda: jopt.scale_by_group({"w": "a"}).init({"w": jnp.ones(1)}),
            TypeError,
            "'w'",
        ),
        (
            lambda: jopt.scale_by_group({"w": jnp.nan}).init({"w": jnp.ones(1)}),
            TypeError,
            "finite",
        ),
        (
            lambda: jopt.partition({"a": jopt.sgd(0.1)}, jopt.rules(("", "b"))).init(
                jnp.ones(1)
            ),
            ValueError,
            "has the label 'b', but transforms has only",
        ),
    ],
)
def test_a_wrong_rule_is_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dense/bias", True),
        ("params/LayerNorm_0/scale", True),
        ("layers/3/norm1/weight", True),
        ("batch_stats_encoder/kernel", False),
        ("block/ln_f/w", True),
        ("encoder/RMSNorm/gain", True),
        ("normal_init/kernel", False),
        ("dense/kernel", False),
        ("attention/query/bias", True),
        ("attention/in_proj_bias", True),
        ("attention/bias_k", True),
        ("window/relative_position_bias_table", True),
        ("debiased/kernel", False),
    ],
)
def test_biases_and_norms_are_told_by_their_names(path: str, expected: bool) -> None:
    assert jopt.is_bias_or_norm(path, 0.0) is expected
    assert jopt.not_bias_or_norm(path, 0.0) is not expected


LAYERS = ["embed|pos", r"block_(\d+)/", "norm|head"]


def test_layer_decay_has_the_factors_of_beit_and_timm() -> None:
    """They are decay ** (blocks + 1 - i): embeddings 0, blocks from 1, head last."""
    blocks = {f"block_{i}": {"kernel": jnp.ones(2)} for i in (0, 1, 2, 10, 11)}
    params = {**blocks, "embed": jnp.ones(2), "head": jnp.ones(2), "norm": jnp.ones(2)}
    factors = jopt.layer_decay(0.75, LAYERS)(params)
    assert factors["embed"] == 0.75**13
    for i in (0, 1, 2, 10, 11):  # those between are frozen, but count
        assert factors[f"block_{i}"]["kernel"] == 0.75 ** (12 - i)
    assert factors["head"] == factors["norm"] == 1.0
    multiples = jopt.layer_decay(0.5, LAYERS)
    tx = jopt.chain(jopt.sgd(1.0), jopt.scale_by_group(multiples))
    assert jopt.from_config(jopt.to_config(tx)) == tx
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["block_11"]["kernel"], [-0.5, -0.5])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["embed"], r"no layer chooses 'block_0/w'"),
        (["embed", "blok", "block|head"], r"'blok' chooses no leaf; the paths are"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: list[str], message: str) -> None:
    params = {"block_0": {"w": jnp.ones(1)}, "embed": jnp.ones(1), "head": jnp.ones(1)}
    with pytest.raises(ValueError, match=message):
        jopt.layer_decay(0.5, layers)(params)


def test_layer_decay_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match="decay must be > 0 and finite"):
        jopt.layer_decay(0.0, LAYERS)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\], got decay=1.5"):
        jopt.layer_decay(1.5, LAYERS)
    with pytest.raises(ValueError, match="layers must be a list"):
        jopt.layer_decay(0.5, "embed")
    with pytest.raises(ValueError, match=r"'block_\(' is not a regular expression"):
        jopt.layer_decay(0.5, ["block_("])


def test_a_masked_leaf_has_no_layer() -> None:
    factors = jopt.layer_decay(0.5, ["embed", "head"])
    params = {"embed": jnp.ones(1), "head": jnp.ones(1), "other": None}
    assert factors(params) == {"embed": 0.5, "head": 1.0, "other": None}
