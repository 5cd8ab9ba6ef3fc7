"""A description says what an optimizer really does, checked by running it."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.inspect import tables
from tests.tools.table import made, optimizers


def block(d: int) -> Any:
    return {"kernel": jnp.full((d, 4), 0.5), "bias": jnp.full((4,), 0.5)}


PARAMS = {
    "embed": jnp.full((6, 4), 0.5),
    "h": [block(4), block(4), block(4)],
    "head": block(4),
}
ONES = jax.tree.map(jnp.ones_like, PARAMS)
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)
RATE = jopt.linear_schedule(0.1, 0.0, 100)
GROUPS = jopt.rules(("embed", 0.5), ("^h/", 0.1), ("", 1.0))
LABELS = jopt.rules(("embed", "frozen"), ("kernel", "muon"), ("", "adamw"))

RECIPES = [
    jopt.sgd(0.1, momentum=0.9),
    jopt.adamw(RATE, weight_decay=0.1, mask="kernel"),
    jopt.adamw(0.1, b1=jopt.tunable(0.8), mu_dtype="bfloat16"),
    jopt.chain(jopt.clip_by_global_norm(1.0), jopt.lion(0.1), jopt.params_ema(0.9)),
    jopt.chain(jopt.adamw(0.1, weight_decay=0.1), jopt.scale_by_group(GROUPS)),
    jopt.partition(
        {
            "muon": jopt.muon(0.1, weight_decay=0.1),
            "adamw": jopt.adamw(0.2, weight_decay=0.3),
            "frozen": jopt.set_to_zero(),
        },
        LABELS,
    ),
    jopt.multi_transform({"a": jopt.sgd(0.1), "b": jopt.sm3(0.1)}, lambda p: "b"),
    jopt.chain(jopt.masked(jopt.scale(0.5), "kernel"), jopt.sgd(0.1)),
    jopt.chain(jopt.adamw(0.1), jopt.freeze("embed|bias")),
    jopt.selective_transform(jopt.adafactor(0.1), freeze_mask="embed"),
    jopt.accumulate(jopt.skip_nonfinite(jopt.adamw(0.1, weight_decay=0.1)), 2),
    jopt.lookahead(jopt.monitor(jopt.adam(0.1), keep=True)),
    jopt.schedule_free_adamw(0.1, weight_decay=0.1, mask="kernel"),
    jopt.mechanize(jopt.adamw(0.1, weight_decay=0.1)),
    jopt.inject_hyperparams(jopt.adamw)(0.1, weight_decay=0.2),
    jopt.dynamic_loss_scale(jopt.sgd(0.1)),
    jopt.chain(jopt.add_decayed_weights(0.1), jopt.adam(0.1)),
    jopt.chain(jopt.scale(0.5), jopt.adam(0.1), jopt.scale(0.25)),
    jopt.cautious(jopt.adamw(0.1, weight_decay=0.1)),
    jopt.stable_adamw(0.1, weight_decay=0.1, mask="kernel"),
    jopt.adan(0.1, weight_decay=0.1, mask="kernel"),
    jopt.chain(
        jopt.scale_by_adam(),
        jopt.independent_weight_decay(0.01, peak_rate=0.2),
        jopt.scale_by_learning_rate(0.1),
    ),
    jopt.chain(
        jopt.scale_by_adam(),
        jopt.scale_by_learning_rate(0.1, flip_sign=False),
        jopt.add_decayed_weights(0.01),
        jopt.scale(-1.0),
    ),
    jopt.interop.torch.SGD([{"params": "bias", "lr": 0.2}, {"params": ""}], lr=0.1),
    jopt.interop.keras.AdamW(0.1, weight_decay=0.1),
    jopt.galore(0.1),
    jopt.adam_mini(0.1),
    optax.adamw(0.1),
    jopt.interop.optax.adamw(0.1),
]


def nbytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def split(array: str) -> tuple[Any, ...]:
    dtype, _, shape = array[:-1].partition("[")
    return (dtype, *map(int, filter(None, shape.split(","))))


def text(tx: Any) -> str:
    return " ".join(repr(tx).split())[:60]


@pytest.mark.parametrize("tx", RECIPES, ids=text)
def test_the_bytes_are_those_of_a_real_state(tx: Any) -> None:
    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(PARAMS)
    d = jopt.describe(tx, PARAMS)
    assert d.totals.state_bytes == nbytes(state)
    assert sum(stage.state_bytes for stage in d.stages) == nbytes(state)
    if not isinstance(tx, jopt.GradientTransformation):
        return
    arrays = jopt.state_dict(state)
    for leaf in d.leaves:
        kept = {path: arrays.pop(path) for path in leaf.state}
        shapes = {path: (x.dtype.name, *x.shape) for path, x in kept.items()}
        assert {path: split(x) for path, x in leaf.state.items()} == shapes
        assert leaf.state_bytes == nbytes(kept)
    assert sum(x.size for x in arrays.values()) < 40  # counts and numbers


@pytest.mark.parametrize("name", optimizers())
def test_the_bytes_of_every_optimizer_are_those_that_init_traces(name: str) -> None:
    tx = made(name)
    d = jopt.describe(tx, PARAMS)
    assert d.totals.state_bytes == nbytes(jax.eval_shape(tx.init, PARAMS))
    assert all(stage.formula or stage.summary for stage in d.stages)


def first_updates(tx: Any, grads: Any) -> dict[str, np.ndarray]:
    state = tx.init(PARAMS)
    extra = {"value": jnp.ones(())} if "value" in tx.needs.requires else {}
    for _ in range(2 if "accumulate" in repr(tx) else 1):
        updates, state = tx.update(grads, state, PARAMS, **extra)
    pairs = jax.tree_util.tree_leaves_with_path(updates)
    return {jopt.tree.path_name(p): np.asarray(x) for p, x in pairs}


NATIVE = [tx for tx in RECIPES if isinstance(tx, jopt.GradientTransformation)]


@pytest.mark.parametrize("tx", NATIVE, ids=text)
def test_decays_and_frozen_leaves_are_what_a_step_does(tx: Any) -> None:
    d = jopt.describe(tx, PARAMS)
    without, with_ones = first_updates(tx, ZEROS), first_updates(tx, ONES)
    known = 0
    for leaf in d.leaves:
        moves = np.any(with_ones[leaf.path] != 0)
        assert leaf.frozen == (not moves), leaf.path
        if leaf.decay_per_step is not None and not leaf.frozen:
            known += 1
            # Adan's step is implicit, 1 - 1 / (1 + x).
            rtol = 0.02 if tx.name == "adan" else 1e-5
            decayed = np.full_like(without[leaf.path], -leaf.decay_per_step * 0.5)
            np.testing.assert_allclose(without[leaf.path], decayed, rtol, 1e-9)
    assert known or tx.recipe.name in ("mechanize", "cautious", "chain", "stable_adamw")


def test_a_rate_multiple_is_the_ratio_of_the_updates() -> None:
    for before in (jopt.adam(0.1), jopt.sgd(0.1, momentum=0.9), jopt.lion(0.1)):
        tx = jopt.chain(before, jopt.scale_by_group(GROUPS), jopt.scale(0.5))
        plain, updates = first_updates(before, ONES), first_updates(tx, ONES)
        for leaf in jopt.describe(tx, PARAMS).leaves:
            assert leaf.learning_rate == jopt.inspect.Number(0.1)
            ratio = updates[leaf.path] / plain[leaf.path]
            np.testing.assert_allclose(ratio, leaf.rate_multiple, 1e-5)


def test_a_factor_before_adam_multiplies_no_rate() -> None:
    (leaf,) = jopt.describe(RECIPES[17], jnp.ones(3)).leaves
    assert leaf.rate_multiple == 0.25


def test_layers_have_the_factors_of_layer_decay() -> None:
    factors = jopt.layer_decay(0.5, ["embed", r"h/(\d+)", "head"])
    d = jopt.describe(jopt.chain(jopt.adam(0.1), jopt.scale_by_group(factors)), PARAMS)
    multiples = {leaf.path: leaf.rate_multiple for leaf in d.leaves}
    assert multiples["embed"] == 0.0625 and multiples["h/2/bias"] == 0.5
    # Layers of different factors are not equal.
    assert "h/1/kernel" in [path for path, _ in d.rows()]


def test_groups_branches_and_axes() -> None:
    d = jopt.describe(RECIPES[5], PARAMS)
    leaves = {leaf.path: leaf for leaf in d.leaves}
    hidden, head = leaves["h/0/kernel"], leaves["head/kernel"]
    assert (hidden.group, hidden.branch, hidden.axes) == (
        *("muon/muon", "scale_by_muon"),
        "io",
    )
    assert (head.group, head.branch, head.axes) == ("muon/adam", None, None)
    assert leaves["head/bias"].learning_rate == jopt.inspect.Number(0.2)
    assert leaves["embed"].frozen and leaves["embed"].state_bytes == 0
    assert sum(x.state_bytes for x in d.groups.values()) < d.totals.state_bytes
    assert sum(x.parameters for x in d.groups.values()) == d.totals.parameters


def test_numbers_say_how_they_change() -> None:
    stages = jopt.describe(jopt.adam(RATE, b1=jopt.tunable(0.8)), PARAMS).stages
    adam, rate = (stage.hyperparameters for stage in stages)
    assert adam["b1"] == jopt.inspect.Number(0.8, "tunable")
    assert str(adam["b1"]) == "0.8 tunable" and str(adam["b2"]) == "0.999"
    value, *how = rate["learning_rate"]
    assert value == pytest.approx(0.1) and how == ["scheduled", repr(RATE)]
    assert "m <- b1 m + (1 - b1) g" in (stages[0].formula or "")


def test_a_decay_before_adam_is_shown_as_a_penalty() -> None:
    leaf = jopt.describe(RECIPES[16], PARAMS).leaves[0]
    assert (leaf.decay_enters, leaf.decay_per_step) == ("scale_by_adam", None)
    assert "0.1 L2" in str(jopt.describe(RECIPES[16], PARAMS))


def test_a_leaf_that_nothing_acts_on_is_pointed_out() -> None:
    d = jopt.describe(jopt.masked(jopt.adam(0.1), "kernel"), PARAMS)
    leaves = {leaf.path: leaf for leaf in d.leaves}
    assert leaves["embed"].untouched and not leaves["head/kernel"].untouched
    assert "their updates are the gradients" in str(d).replace("\n", " ")


def many(n: int) -> Any:
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    return {f"h_{i}": {"a": {"kernel": x}, "b": {"kernel": x}} for i in range(n // 2)}


@pytest.mark.parametrize("n", [30, 3000])
def test_work_grows_with_the_leaves_and_init_sees_one_of_each_kind(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, seen, evaluate = [0], [], jax.eval_shape

    def mask(path, leaf):
        calls[0] += 1
        return True

    def counted(f, params):
        seen.append(len(jax.tree.leaves(params)))
        return evaluate(f, params)

    monkeypatch.setattr(jax, "eval_shape", counted)
    before = len(jax.live_arrays())
    d = jopt.describe(jopt.adamw(0.1, mask=mask), many(n))
    assert len(jax.live_arrays()) <= before
    assert seen == [1]
    assert calls[0] <= 2 * n
    assert d.totals.leaves == n and d.totals.state_bytes == n * 2 * 4 * 64**2 + 12
    assert [path for path, _ in d.rows()] == [
        f"h_[0..{n // 2 - 1}]/{name}/kernel" for name in "ab"
    ]


def test_a_transformation_of_a_user_is_not_taken_to_treat_equal_layers_alike() -> None:
    def init(params):
        return {"h_0": jax.tree.leaves(params)[0]}  # keeps one leaf only

    def update(updates, state, params=None):
        return updates, state

    d = jopt.describe(jopt.GradientTransformation(init, update), many(6))
    assert d.totals.state_bytes == 4 * 64**2


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("rich", [True, False])
def test_the_tables_fit_the_terminal(
    width: int, rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    if not rich:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    d = jopt.describe(RECIPES[5], PARAMS)
    shown = str(d)
    assert max(map(len, shown.splitlines())) <= width
    assert "h[0..2]/kernel" in shown and " ×3" in shown  # noqa: RUF001
    assert "\x1b" not in shown  # no colours where nobody sees them
    assert repr(d) == shown == tables.as_text(d, width)


def test_a_notebook_gets_tables_without_colours_of_their_own() -> None:
    tx = jopt.chain(jopt.clip(1.0), jopt.adamw(0.1, mask="kernel"))
    page = jopt.describe(tx, {"<kernel>": jnp.ones(3)})._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 2
    assert "&lt;kernel&gt;" in page and "<kernel>" not in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "#" not in style and set(re.findall(r"color: ([^;}]*)", style)) == {
        "inherit"
    }


def test_text_in_a_notebook_is_that_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rich = pytest.importorskip("rich.console")
    described = jopt.describe(jopt.sgd(0.1), {"w": jnp.ones(3)})
    expected = str(described)
    monkeypatch.setattr(rich, "_is_jupyter", lambda: True)
    assert "scale_by_learning_rate" in expected
    assert str(described) == expected


@pytest.mark.parametrize("tx", RECIPES, ids=text)
def test_a_description_is_data(tx: Any) -> None:
    d = jopt.describe(tx, PARAMS)
    data = json.loads(json.dumps(d.to_dict(), allow_nan=False))
    assert [x["path"] for x in data["leaves"]] == [x.path for x in d.leaves]
    assert data["totals"]["state_bytes"] == d.totals.state_bytes


def test_hundreds_of_different_leaves_are_cut() -> None:
    params = {"x" * i: jax.ShapeDtypeStruct((i,), jnp.float32) for i in range(1, 251)}
    shown = str(jopt.describe(jopt.adam(0.1), params))
    assert "and 50 more leaves" in shown and len(shown.splitlines()) < 220


def test_the_table_shows_the_dtypes_of_a_state_unlike_its_leaf() -> None:
    params = {"b": jnp.ones(8, jnp.bfloat16), "w": jnp.ones((8, 8))}

    def rows(tx: Any, params: Any) -> list[str]:
        return str(jopt.describe(tx, params)).splitlines()[-len(params) :]

    mixed = rows(jopt.adam(1e-3, mu_dtype="bfloat16"), params)
    assert [row.endswith(" bf16+f32") for row in mixed] == [True, True]
    wide = rows(jopt.adam(1e-3), params)
    assert [row.endswith("B f32") for row in wide] == [True, True]
    (plain,) = rows(jopt.adam(1e-3), {"w": params["w"]})
    assert plain.endswith("512 B")
