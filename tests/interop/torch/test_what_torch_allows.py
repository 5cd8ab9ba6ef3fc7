"""Calls that torch allows and refuses: the same here, with its numbers.

The recorded numbers are those of torch 2.13 in float64, for the parameter 1, -2 with
the gradients of `GRADS`. Where torch is installed, it is asked again.
"""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.interop import torch
from tests.parity import torch_front_door
from tests.parity.torch_front_door import CALLS
from tests.public import public


GRADS = np.array([[0.5, -1.0], [0.25, 0.5], [-1.0, 0.125], [2.0, -0.5]])
PARAMS = np.array([1.0, -2.0])
HOW_TO_RUN = ("foreach", "fused", "capturable", "differentiable")

# The parameters after all steps, by call.
ALLOWED = {
    "SGD(lr=0.1, momentum=1.0)": [0.725, -1.725],
    "SGD(lr=0.1, momentum=1.5, nesterov=True)": [0.1125, -1.021875],
    "SGD(lr=0.1, momentum=0.9, dampening=1.5)": [0.866925, -1.601475],
    "SGD(lr=0.1, momentum=0.9, dampening=-0.5)": [0.711425, -1.819975],
    "Adam(lr=0.1, eps=0)": [0.785380438201038, -1.82638588963013],
    "Adam(lr=0.1, eps=0.0, amsgrad=True, weight_decay=0.1)": [
        0.764023246757452,
        -1.75905457375129,
    ],
    "AdamW(lr=0.1, eps=0.0)": [0.781851841309116, -1.81876417848464],
    "NAdam(lr=0.1, eps=0.0)": [0.829962825756996, -1.89352423208221],
    "RAdam(lr=0.1, eps=0.0)": [0.878337637839885, -1.8495866278814],
    "Adamax(lr=0.1, eps=0.0)": [0.815658471322394, -1.8494859931496],
    "Adadelta(lr=0.1, eps=0.0)": [1.0, -2.0],
    "Adadelta(lr=0.1, rho=1)": [0.825, -1.9125],
    "Adagrad(lr=0.1, eps=0)": [0.855793613416939, -1.91521862405576],
    "RMSprop(lr=0.1, eps=0.0)": [-0.44352410827899, -1.15023343965231],
    "RMSprop(lr=0.1, eps=0.0, centered=True)": [-0.454902569467504, -1.1446679047592],
    "RMSprop(lr=0.1, alpha=1.0)": [-17499999.0, 8749998.0],
    "RMSprop(lr=0.1, momentum=1.0)": [-3.46681002472155, 0.83963213420649],
    "RMSprop(lr=0.1, momentum=1.25, eps=0.0, weight_decay=0.1)": [
        -5.06209359934264,
        2.64719126687711,
    ],
    "Adafactor(lr=0.1, eps=(0.0, 0.0))": [0.762913266692941, -1.858551003798],
    "Adafactor(lr=0.1, beta2_decay=0.0)": [0.685138597044999, -1.97154099584604],
    "Rprop(lr=0.0)": [0.9999968, -2.0],
    "Rprop(lr=0.0, step_sizes=(0.25, 50.0))": [0.2, -2.0],
    "Rprop(lr=0.1, step_sizes=(0.5, 0.05))": [0.85, -2.0],
    "Rprop(lr=0.1, step_sizes=(0.0, 50.0))": [0.72, -1.95],
    "Rprop(lr=0.1, step_sizes=(-0.5, 50.0), etas=(0.25, 1.5))": [0.7125, -1.925],
    "ASGD(lr=0.1, lambd=-0.5)": [1.03099162100846, -2.35870743232615],
    "ASGD(lr=0.1, lambd=0.5, alpha=-0.5)": [0.627535431614972, -1.53618643044923],
    "ASGD(lr=0.1, t0=-2.0)": [0.824964188440836, -1.91242243953792],
}


def own(text):
    """What a call gives here."""
    with jax.enable_x64(True):
        tx, params = eval(text, public(torch) | {"jopt": jopt}), jnp.asarray(PARAMS)
        state = tx.init(params)
        for g in GRADS:
            params, state = jopt.step(tx, jnp.asarray(g), state, params)
        return np.asarray(params)


def theirs(text):
    """What it gives in torch."""
    library = pytest.importorskip("torch")
    params = library.tensor(PARAMS, requires_grad=True)
    text = text.replace("(", "([PARAMS], ", 1)
    optimizer = eval(text, vars(library.optim) | {"PARAMS": params})
    before = library.get_default_dtype()
    library.set_default_dtype(library.float64)
    try:
        for g in GRADS:
            params.grad = library.tensor(g)
            optimizer.step()
    finally:
        library.set_default_dtype(before)
    return params.detach().numpy()


@pytest.mark.parametrize("text", ALLOWED)
def test_a_call_that_torch_allows_has_its_numbers(text):
    np.testing.assert_allclose(own(text), ALLOWED[text], 1e-12, 1e-12)


@pytest.mark.parametrize("text", ALLOWED)
def test_the_recorded_numbers_are_those_of_the_installed_torch(text):
    np.testing.assert_allclose(theirs(text), ALLOWED[text], 1e-12, 1e-12)


def test_of_a_schedule_rprop_uses_the_first_rate_only():
    made = torch.Rprop(lr=torch.lr_scheduler.LinearLR(0.1, 0.5))
    assert made == torch.Rprop(lr=float(np.float32(0.05)))
    with pytest.raises(TypeError, match="number or a schedule, got lr=tunable"):
        torch.Rprop(lr=jopt.tunable(0.1))


def test_so_does_torch():
    library, params = pytest.importorskip("torch"), []
    for schedule in (False, True):
        p = library.tensor(PARAMS, requires_grad=True)
        optimizer = library.optim.Rprop([p], lr=0.1 if schedule else 0.05)
        schedulers = library.optim.lr_scheduler
        if schedule:
            scheduler = schedulers.LinearLR(optimizer, 0.5)
        for g in GRADS:
            p.grad = library.tensor(g)
            optimizer.step()
            if schedule:
                scheduler.step()
        params.append(p.detach().numpy())
    np.testing.assert_array_equal(*params)


@pytest.mark.parametrize("name", torch_front_door.OPTIMIZERS)
def test_how_to_run_a_step_changes_nothing_and_is_accepted_where_torch_has_it(name):
    make, theirs = getattr(torch, name), json.loads(CALLS.read_text())[name]
    there = {n for n, _ in theirs}
    for option in HOW_TO_RUN:
        if option in there:
            for value in (True, False, None):
                assert make(**{option: value}) == make()
            groups = [{"params": "a", option: True}, {"params": ""}]
            plain = [{"params": "a"}, {"params": ""}]
            assert make(groups) == make(plain)
            with pytest.raises(TypeError, match=f"{option} must be True or False"):
                make(**{option: "yes"})
        else:
            with pytest.raises(TypeError, match=f"has no argument '{option}'"):
                make(**{option: True})


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "Adamax", "RMSprop"])
def test_without_eps_a_zero_gradient_gives_no_step(name):
    tx, params = getattr(torch, name)(eps=0.0), jnp.ones(2)
    state = tx.init(params)
    for g in ([0.0, 0.0], [0.0, 1.0], [0.0, 0.0]):
        updates, state = tx.update(jnp.asarray(g), state, params)
        assert updates[0] == 0 and jnp.isfinite(updates).all()


class Tensor:
    """What the door reads of a tensor of torch."""

    def __init__(self, value, shape=()):
        self.value, self.shape = value, shape

    def detach(self):
        return self

    def numel(self):
        return int(np.prod(self.shape))

    def item(self):
        return self.value


def test_a_tensor_of_one_element_is_read_as_its_number():
    betas = (Tensor(0.5), Tensor(0.75, (1,)))
    assert torch.Adam(lr=Tensor(0.1), betas=betas) == torch.Adam(
        lr=0.1, betas=(0.5, 0.75)
    )
    groups = [{"params": "a", "lr": Tensor(0.5)}, {"params": ""}]
    plain = [{"params": "a", "lr": 0.5}, {"params": ""}]
    assert torch.SGD(groups, Tensor(0.1)) == torch.SGD(plain, 0.1)
    with pytest.raises(TypeError, match="lr must be a number"):
        torch.SGD(lr=Tensor([0.1, 0.2], (2,)))
    with pytest.raises(ValueError, match="lr must be >= 0"):
        torch.SGD(lr=Tensor(-0.1))


def test_a_tensor_of_the_installed_torch_is_read_as_its_number():
    library = pytest.importorskip("torch")
    assert torch.Adam(lr=library.tensor(0.25)) == torch.Adam(lr=0.25)
    assert torch.Adam(lr=library.nn.Parameter(library.ones(1))) == torch.Adam(lr=1.0)
    # Elsewhere a tensor is an error, which says how to pass it.
    with pytest.raises(TypeError, match=r"of torch; pass float\(x\)"):
        jopt.adam(library.tensor(0.25))


def test_lists_have_one_value_for_each_group():
    groups = [{"params": "bias", "name": "b"}, {"params": ""}]
    tx = torch.SGD(groups, lr=[0.5, lambda step: 0.25], momentum=(0.5, 0.75))
    expected = [
        {"params": "bias", "name": "b", "lr": 0.5, "momentum": 0.5},
        {"params": "", "lr": 0.25, "momentum": 0.75},
    ]
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    results = []
    for made in (tx, torch.SGD(groups, [0.5, 0.25], [0.5, 0.75]), torch.SGD(expected)):
        p, state = params, made.init(params)
        for _ in range(3):
            p, state = jopt.step(made, params, state, p)
        results.append(p)
    assert results[0] == results[1] == results[2]
    assert torch.SGD(lr=[0.5]).init(params) is not None


# What torch refuses, and what is an error only here.
REFUSED = [
    ("SparseAdam(lr=0.0)", "lr must be > 0"),
    ("Adafactor(d=0.5)", "d must be >= 1, got d=0.5"),
    ("Adafactor(beta2_decay=0.1)", "beta2_decay must be <= 0"),
    ("Adadelta(rho=1.5)", r"rho must be in \[0, 1\]"),
    ("RMSprop(alpha=-0.5)", "alpha must be >= 0"),
    ("RMSprop(momentum=-0.5)", "momentum must be >= 0"),
    ("SGD(momentum=-0.5)", "momentum must be >= 0"),
    ("Muon(momentum=-0.5)", "momentum must be >= 0"),
    ("Adam(eps=-1e-8)", "eps must be >= 0"),
    ("Rprop(etas=(0.5, 1.0))", r"etas must be below and above 1, and > 0"),
]
ERRORS = [
    (
        "Adagrad([{'params': '', 'initial_accumulator_value': 0.5}])",
        "torch ignores that of a group: give Adagrad",
    ),
    (
        "SGD([{'params': ''}], lr=[0.1, 0.2])",
        "lr must have one value for each of the 1",
    ),
    ("SGD(lr=[0.1, 0.2])", "lr must have one value for each of the 1"),
    ("SGD([{'params': '', 'lr': 0.1}], lr=[0.2])", "group 0 has its own lr=0.1"),
    ("Rprop(lr=0.0, step_sizes=(0.0, 50.0))", "no step size would leave 0"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED + ERRORS)
def test_what_is_refused_says_what_is_allowed(text, message):
    with pytest.raises(ValueError, match=message):
        own(text)


@pytest.mark.parametrize("text", [text for text, _ in REFUSED])
def test_torch_refuses_it_too(text):
    with pytest.raises(ValueError):
        theirs(text)


@pytest.mark.parametrize("name", ["RMSprop", "ASGD"])
def test_maximize_is_not_taken_for_another_option_of_torch(name):
    # There, the place behind the last number or centered is that of foreach.
    signature = inspect.signature(getattr(torch, name))
    assert signature.parameters["maximize"].kind is inspect.Parameter.KEYWORD_ONLY
