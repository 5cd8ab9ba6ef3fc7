"""torch's Muon as it is shipped, which iterates in bfloat16."""

import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch


STEPS = 6


# The parameters at the end in torch 2.13, from zeros of shape (2, 3).
SHIPPED = [
    (
        {},
        [
            [0.042882998, -0.13743396, 0.089217104],
            [0.048785042, 0.24017079, -0.036766365],
        ],
    ),
    (
        {"momentum": 0.5, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
        [
            [0.0095629496, -0.04818508, 0.031998541],
            [0.014300228, 0.079415239, -0.0096032405],
        ],
    ),
    (
        {"momentum": 1.5, "weight_decay": 0.0},
        [
            [-0.0019531278, 0.12880859, -0.10585938],
            [-0.044677734, -0.26523438, 0.043261718],
        ],
    ),
    (
        {"ns_steps": 0, "momentum": 0.5},
        [
            [0.016595647, -0.066504829, 0.080676354],
            [0.014081169, 0.15290019, -0.091291845],
        ],
    ),
    (
        {"eps": 100.0},
        [
            [0.039866325, -0.037492875, 0.071559124],
            [0.020018846, 0.082766771, -0.10729766],
        ],
    ),
]


# A gradient, (outputs, inputs), and torch's update. That of the transposed gradient,
# transposed, is another one: it rounds in another order.
SQUARE = (
    [[1.5, 0.5, 0.0], [-1.0, -0.75, -2.0], [-1.75, -2.0, -1.5]],
    [
        [0.9609375, -0.2197265625, -0.408203125],
        [-0.1005859375, 0.333984375, -0.92578125],
        [-0.12890625, -0.8515625, -0.05419921875],
    ],
)


def gradients(shape):
    """Random numbers, of other sizes in other steps."""
    random = np.random.default_rng(0)
    return [random.normal(size=shape) * 4.0 ** (step - 3) for step in range(STEPS)]


def own(shape, **options):
    """The parameters at the end, from zeros; weights are (outputs, inputs)."""
    tx = torch.Muon(lr=0.1, axes="oi", **options)
    params = jnp.zeros(shape)
    state = tx.init(params)
    for g in gradients(shape):
        params, state = jopt.step(tx, jnp.asarray(g, "float32"), state, params)
    return np.asarray(params)


def theirs(shape, **options):
    library = pytest.importorskip("torch")
    params = library.zeros(shape, requires_grad=True)
    optimizer = library.optim.Muon([params], lr=0.1, **options)
    for g in gradients(shape):
        params.grad = library.tensor(g, dtype=library.float32)
        optimizer.step()
    return params.detach().numpy()


@pytest.mark.parametrize(("options", "expected"), SHIPPED)
def test_with_bfloat16_the_numbers_are_those_of_torch(options, expected):
    found = own((2, 3), ns_dtype="bfloat16", **options)
    np.testing.assert_allclose(found, expected, 1e-6, 1e-7)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (8, 8), (16, 32), (33, 17)])
@pytest.mark.parametrize("options", [options for options, _ in SHIPPED])
def test_they_are_those_of_the_installed_torch(options, shape):
    expected = theirs(shape, **options)
    if shape == (2, 3):
        np.testing.assert_allclose(expected, dict_of(SHIPPED)[repr(options)], 1e-6)
    found = own(shape, ns_dtype="bfloat16", **options)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("axes", ["oi", "io"])
def test_a_square_matrix_is_iterated_on_as_torch_does(axes):
    tx = jopt.scale_by_muon(ns_dtype="bfloat16", ns_start="round", eps=1e-7, axes=axes)
    weight, expected = np.array(SQUARE, "float32")
    if axes == "io":
        weight, expected = weight.T, expected.T
    updates, _ = tx.update(jnp.asarray(weight), tx.init(jnp.asarray(weight)))
    np.testing.assert_array_equal(updates, expected)


def test_the_recorded_square_is_that_of_the_installed_torch():
    library = pytest.importorskip("torch")
    params = library.zeros((3, 3), requires_grad=True)
    optimizer = library.optim.Muon([params], lr=1.0)
    params.grad = library.tensor(SQUARE[0])
    optimizer.step()
    np.testing.assert_array_equal(-params.detach().numpy(), SQUARE[1])


def dict_of(rows):
    return {repr(options): expected for options, expected in rows}


def test_without_it_they_are_near_those_of_torch():
    expected = np.array(SHIPPED[0][1])
    gap = np.abs(own((2, 3)) - expected).max() / np.abs(expected).max()
    assert 0.001 < gap < 0.04


def test_rounding_first_gives_no_step_for_no_gradient():
    tx = jopt.scale_by_muon(ns_dtype="bfloat16", ns_start="round")
    updates, _ = tx.update(jnp.zeros((2, 3)), tx.init(jnp.zeros((2, 3))))
    assert not updates.any()
    with pytest.raises(ValueError, match="ns_start must be one of"):
        jopt.scale_by_muon(ns_start="rounded")
