"""QK-clip: heads whose logits are too large shrink, others stay."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jopt


WITHOUT_ROW = {"qk_clip": "needs the logits of the forward pass"}


def params(heads: int = 4, size: int = 8, model: int = 12) -> Any:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        name: {
            "query": {
                "kernel": random(model, heads, size),
                "bias": random(heads, size),
            },
            "key": {"kernel": random(model, heads, size)},
            "value": {"kernel": random(model, heads, size)},
        }
        for name in ("block_0", "block_1")
    }


def logits(layer: Any, x: Any) -> Any:
    """The largest logit of each head."""
    q = (
        jnp.einsum("tm,mhs->ths", x, layer["query"]["kernel"])
        + layer["query"]["bias"][None]
    )
    k = jnp.einsum("tm,mhs->ths", x, layer["key"]["kernel"])
    return jnp.max(jnp.einsum("ths,uhs->htu", q, k), axis=(1, 2))


def test_logits_end_at_the_threshold_and_other_heads_stay() -> None:
    p = params()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 12)), jnp.float32)
    largest = {name: logits(layer, x) for name, layer in p.items()}
    threshold = float(jnp.median(largest["block_0"]))
    tx = jopt.chain(jopt.sgd(0.0), jopt.qk_clip(threshold))
    after, _ = jopt.step(tx, p, tx.init(p), p, max_logits=largest)
    for name, layer in after.items():
        expected = jnp.minimum(largest[name], threshold)
        np.testing.assert_allclose(logits(layer, x), expected, rtol=1e-5)
        np.testing.assert_array_equal(
            layer["value"]["kernel"], p[name]["value"]["kernel"]
        )
        below = np.asarray(largest[name] <= threshold)
        np.testing.assert_array_equal(
            layer["query"]["kernel"][:, below], p[name]["query"]["kernel"][:, below]
        )


def test_heads_may_be_parts_of_the_last_axis_and_layers_stacked() -> None:
    weights = {"attn": {"q_proj": jnp.ones((2, 3, 8)), "k_proj": jnp.ones((2, 3, 4))}}
    tx = jopt.qk_clip(1.0)
    zero = {"attn": {n: 0 * x for n, x in weights["attn"].items()}}
    largest = {"attn": jnp.array([[4.0, 1.0], [0.5, 16.0]])}  # two layers, two heads
    u, _ = tx.update(zero, tx.init(weights), weights, max_logits=largest)
    after = jopt.apply_updates(weights, u)["attn"]
    np.testing.assert_allclose(after["q_proj"][0, 0], [0.5] * 4 + [1.0] * 4)
    np.testing.assert_allclose(after["k_proj"][1, 2], [1.0] * 2 + [0.25] * 2)


def test_wrong_logits_are_refused() -> None:
    p, tx = params(), jopt.qk_clip()
    with pytest.raises(ValueError, match=r"the name 'block_2'.*'block_0', 'block_1'"):
        tx.update(p, tx.init(p), p, max_logits={"block_2": jnp.ones(4)})
    with pytest.raises(ValueError, match=r"leaf 'block_0/key/kernel' .*\(5,\)"):
        tx.update(p, tx.init(p), p, max_logits={"block_0": jnp.ones(5)})
    with pytest.raises(TypeError, match="max_logits"):
        tx.update(p, tx.init(p), p)
