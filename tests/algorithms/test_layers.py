"""Matrices in the layers of Flax and Equinox, built from the real modules."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jopt
from jopt.algorithms.layers import layouts


KEY = jax.random.key(0)
ATTENTION = {"query": "ioo", "key": "ioo", "value": "ioo", "out": "iio"}


def in_order(x: Any, layout: str) -> Any:
    """The matrices (count, inputs, outputs) of a leaf with this layout."""
    x = np.asarray(x)
    order = [i for letter in "bio" for i, at in enumerate(layout) if at == letter]
    sizes = [
        math.prod(n for n, at in zip(x.shape, layout, strict=True) if at == letter)
        for letter in "bio"
    ]
    return x.transpose(order).reshape(sizes)


# Flax linen.


class Block(nn.Module):
    """The layers of a transformer, with the names that linen gives."""

    boxed: bool = False

    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        init: Any = nn.initializers.lecun_normal()
        if self.boxed:
            init = nn.with_partitioning(init, ("in", "out"))
        x = nn.Dense(6, kernel_init=init)(x)
        x = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=10)(x, x)
        return x, None


class DenseAttention(nn.Module):
    """Attention without an axis for heads, as many language models write it."""

    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        q, k, v = (nn.Dense(8, name=name)(x) for name in ("query", "key", "value"))
        return nn.Dense(6, name="out")(q + k + v), None


class Convolutions(nn.Module):
    """Convolutions, with the names that linen gives."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(4, (3, 3))(x)
        x = nn.ConvTranspose(5, (2, 2))(x)
        return nn.Conv(6, (3,), name="conv1d")(x.reshape(1, -1, 5))


def linen(module: Any, *shape: int) -> Any:
    return module.init(KEY, jnp.ones(shape))["params"]


def scanned(block: Any, **metadata: Any) -> Any:
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=3,
        metadata_params=metadata,
    )


def scanned_params(block: Any, **options: Any) -> Any:
    names = {nn.PARTITION_NAME: "layers"}
    stack = scanned(block, **names)(**options)
    return stack.init(KEY, jnp.ones((1, 5, 6)), None)["params"]


def attention(prefix: str, stack: str = "") -> dict[str, str]:
    return {f"{prefix}/{n}/kernel": stack + to for n, to in ATTENTION.items()}


LINEN = "MultiHeadDotProductAttention_0"
LAYERS: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "linen Dense": (lambda: linen(nn.Dense(4), 1, 6), {"kernel": "io"}),
    "linen attention": (
        lambda: linen(Block(), 1, 5, 6),
        {"Dense_0/kernel": "io"} | attention(LINEN),
    ),
    "linen Conv": (
        lambda: linen(Convolutions(), 1, 4, 4, 3),
        {
            "Conv_0/kernel": "iiio",
            "ConvTranspose_0/kernel": "iiio",
            "conv1d/kernel": "iio",
        },
    ),
    "linen Block under scan": (
        lambda: scanned_params(Block),
        {"Dense_0/kernel": "bio"} | attention(LINEN, "b"),
    ),
    "linen Block under scan, boxed": (
        lambda: scanned_params(Block, boxed=True),
        {"Dense_0/kernel": "bio"} | attention(LINEN, "b"),
    ),
    "linen dense attention under scan": (
        lambda: scanned_params(DenseAttention),
        {f"{n}/kernel": "bio" for n in ATTENTION},
    ),
}


# Flax nnx.


class NnxBlock(nnx.Module):
    def __init__(self, rngs: Any):
        self.attention = nnx.MultiHeadAttention(2, 6, 10, rngs=rngs, decode=False)


class NnxLayers(NnxBlock):
    def __init__(self, rngs: Any):
        super().__init__(rngs)
        self.linear = nnx.Linear(6, 4, rngs=rngs)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)


def of_nnx(make: Callable[[Any], Any]) -> Any:
    return nnx.state(make(nnx.Rngs(0)), nnx.Param)


@nnx.split_rngs(splits=3)
@nnx.vmap(in_axes=0)
def stacked_nnx(rngs: Any) -> Any:
    return NnxBlock(rngs)


LAYERS |= {
    "nnx": (
        lambda: of_nnx(NnxLayers),
        {"linear/kernel": "io", "conv/kernel": "iiio"} | attention("attention"),
    ),
    "nnx under vmap": (lambda: of_nnx(stacked_nnx), attention("attention", "b")),
}


# Equinox.


class EquinoxLayers(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    linear: eqx.nn.Linear
    conv: eqx.nn.Conv2d
    signal: eqx.nn.ConvTranspose1d
    cell: eqx.nn.GRUCell
    norm: eqx.nn.LayerNorm

    def __init__(self, key: Any):
        self.attention = eqx.nn.MultiheadAttention(2, 6, key=key)
        self.linear = eqx.nn.Linear(4, 6, key=key)
        self.conv = eqx.nn.Conv2d(3, 4, 3, key=key)
        self.signal = eqx.nn.ConvTranspose1d(3, 4, 5, key=key)
        self.cell = eqx.nn.GRUCell(3, 4, key=key)
        self.norm = eqx.nn.LayerNorm(4)


EQUINOX = {f"attention/{n}_proj/weight": "oi" for n in ("query", "key", "value")} | {
    "attention/output_proj/weight": "oi",
    "linear/weight": "oi",
    "conv/weight": "oiii",
    "signal/weight": "oii",
    "cell/weight_ih": "oi",
    "cell/weight_hh": "oi",
}


def of_equinox(model: Any) -> Any:
    return eqx.filter(model, eqx.is_inexact_array)


LAYERS |= {
    "Equinox": (lambda: of_equinox(EquinoxLayers(KEY)), EQUINOX),
    "Equinox under vmap": (
        lambda: of_equinox(eqx.filter_vmap(EquinoxLayers)(jax.random.split(KEY, 3))),
        {path: "b" + layout for path, layout in EQUINOX.items()},
    ),
}


@functools.cache
def params_of(row: str) -> Any:
    return LAYERS[row][0]()


def gradients(params: Any) -> Any:
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    drawn = (jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in leaves)
    return treedef.unflatten(drawn)


@pytest.mark.parametrize("row", LAYERS)
def test_the_layout_of_each_leaf_is_that_of_its_layer(row: str) -> None:
    params, expected = params_of(row), LAYERS[row][1]
    named = jopt.tree.leaves_with_names(params, none=True)
    found = {path: x for (path, _), x in zip(named, layouts(params), strict=True)}
    assert expected.items() <= found.items()


class Head(eqx.nn.Linear):
    """A layer of the user's."""


def test_layers_of_equinox_are_known_when_they_are_inherited_from() -> None:
    head, cell = Head(4, 6, key=KEY), eqx.nn.LSTMCell(3, 4, key=KEY)
    assert layouts(of_equinox(head))[0] == "oi"
    assert layouts(of_equinox(cell))[:2] == ["oi", "oi"]


KERNELS: dict[str, tuple[dict[str, tuple[int, ...]], list[str | None]]] = {
    "a convolution of Haiku": ({"conv2_d/w": (3, 3, 4, 8)}, ["iiio"]),
    "a name in lower case": ({"my_conv/kernel": (3, 4, 8)}, ["iio"]),
    "queries and an output alone": (
        {"out/kernel": (2, 5, 6), "query/kernel": (6, 2, 5)},
        ["iio", "ioo"],
    ),
    "a name that the shape contradicts": ({"conv2d/kernel": (3, 4, 8)}, [None]),
    "stacks of two lengths": (
        {"out/kernel": (4, 2, 5, 6), "query/kernel": (3, 6, 2, 5)},
        [None, None],
    ),
    "an output without heads": (
        {"out/kernel": (2, 5), "query/kernel": (6, 2, 5)},
        ["io", None],
    ),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_names_and_shapes_tell_the_layout(kind: str) -> None:
    shapes, expected = KERNELS[kind]
    assert layouts({path: np.ones(shape) for path, shape in shapes.items()}) == expected


@pytest.mark.parametrize("row", LAYERS)
def test_every_matrix_of_a_layer_becomes_orthogonal_by_itself(row: str) -> None:
    params, expected = params_of(row), LAYERS[row][1]
    grads = gradients(params)
    tx = jopt.muon(1.0, "deepseek_v4", nesterov=False, shape_scale=None)
    state = tx.init(params)
    updates = dict(
        jopt.tree.leaves_with_names(jax.jit(tx.update)(grads, state, params)[0])
    )
    mu = dict(jopt.tree.leaves_with_names(state["muon"]["scale_by_muon"].mu))
    assert mu.keys() == expected.keys()
    for path, layout in expected.items():
        s = np.linalg.svd(in_order(updates[path], layout), compute_uv=False)
        np.testing.assert_allclose(s, 1.0, atol=5e-3, err_msg=path)


@pytest.mark.parametrize("row", LAYERS)
def test_the_scale_is_that_of_the_inputs_and_outputs_of_a_layer(row: str) -> None:
    params, expected = params_of(row), LAYERS[row][1]
    tx = jopt.muon(1.0, "deepseek_v4", shape_scale="spectral")
    updates = jax.jit(tx.update)(gradients(params), tx.init(params), params)[0]
    for path, u in jopt.tree.leaves_with_names(updates):
        if path in expected:
            u = in_order(u, expected[path])
            largest = np.linalg.norm(u, 2, axis=(1, 2))
            scale = math.sqrt(u.shape[2] / u.shape[1])
            np.testing.assert_allclose(largest, scale, rtol=5e-3, err_msg=path)


@pytest.mark.parametrize("row", LAYERS)
def test_normalized_neurons_are_those_of_a_layer(row: str) -> None:
    params, expected = params_of(row), LAYERS[row][1]
    tx = jopt.muon(1.0, after=jopt.normalize_neurons(0.0))
    updates = jax.jit(tx.update)(gradients(params), tx.init(params), params)[0]
    for path, u in jopt.tree.leaves_with_names(updates):
        if path in expected:
            norms = np.linalg.norm(in_order(u, expected[path]), axis=1)
            same = norms[:, :1] * np.ones_like(norms)
            np.testing.assert_allclose(norms, same, rtol=1e-4, err_msg=path)


# What no rule covers.


def shaped(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


UNKNOWN: dict[str, Any] = {
    "a stack under a name of the user's": {"up": {"kernel": shaped(12, 4, 8)}},
    "DenseGeneral": {"DenseGeneral_0": {"kernel": shaped(6, 2, 3)}},
    "a window that may be a stack": {"Conv_0": {"kernel": shaped(5, 3, 4, 8)}},
    "three axes of window or a stack": {"Conv_0": {"kernel": shaped(3, 3, 3, 4, 8)}},
    "one matrix at each place": {"ConvLocal_0": {"kernel": shaped(5, 12, 8)}},
    "a convolution of torch": {"conv": {"weight": shaped(8, 4, 3, 3)}},
    "queries alone": {"query": {"kernel": shaped(6, 2, 5)}},
    "queries that fit both ways": {
        "query": {"kernel": shaped(4, 4, 4)},
        "out": {"kernel": shaped(4, 4, 4)},
    },
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize(
    "tx", [jopt.scale_by_muon(), jopt.muon(0.1), jopt.normalize_neurons()], ids=str
)
def test_other_leaves_of_three_axes_are_an_error_with_the_axes_to_write(
    kind: str, tx: Any
) -> None:
    (path, leaf), *_ = jopt.tree.leaves_with_names(UNKNOWN[kind])
    with pytest.raises(ValueError) as error:
        jax.eval_shape(tx.init, UNKNOWN[kind])
    message = str(error.value)
    assert message.startswith(f"leaf {path!r} of shape {leaf.shape} may be ")
    assert "axes=jopt.rules((" in message


def test_the_axes_of_the_message_are_right() -> None:
    params = {
        "up": {"kernel": jnp.ones((12, 4, 8))},
        "down": {"kernel": jnp.ones((12, 8, 4))},
        "Dense_0": {"kernel": jnp.ones((4, 8))},
    }
    for some in (params, {"up": params["up"]}, jnp.ones((12, 4, 8))):
        with pytest.raises(ValueError, match="may be 12 matrices") as error:
            jopt.muon(0.1).init(some)
        written = str(error.value).partition("write axes=")[2].partition("; 'iio'")[0]
        axes = eval(written, {"jopt": jopt})
        g = gradients(some)
        tx = jopt.muon(1.0, "deepseek_v4", axes=axes)
        for u in jax.tree.leaves(tx.update(g, tx.init(some), some)[0]):
            s = np.linalg.svd(np.asarray(u), compute_uv=False)
            np.testing.assert_allclose(s, s.max(), rtol=5e-3)


def test_a_name_says_over_how_many_axes_a_convolution_goes() -> None:
    shapes = {"conv1d": (6, 3, 4, 8), "conv2_d": (6, 5, 3, 4, 8), "Conv3D_0": (3,) * 5}
    params = {name: {"kernel": np.ones(shape)} for name, shape in shapes.items()}
    assert sorted(layouts(params)) == ["biiio", "biio", "iiiio"]
