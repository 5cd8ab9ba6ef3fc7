"""NorMuon."""

from __future__ import annotations

import jopt
from tests.algorithms.matrix_problem import POLAR_EXPRESS, close_to_golden
from tests.algorithms.test_muon import muon
from tests.laws.case import Case
from tests.parity.row import torch_like


def normuon(p, grads, *, after, **options):
    """The twin has the constant of the transformation that comes after."""
    return muon(p, grads, **after.recipe.arguments, **options)


CASES = [
    Case(
        "muon",
        {
            "adam_learning_rate": 0.02,
            "equilibrate": True,
            "shape_scale": "spectral",
            "after": jopt.normalize_neurons(b2=0.9),
        },
        twin=normuon,
    ),
]

WITHOUT_ROW = {
    "normalize_neurons": "for orthogonal matrices only; a row of muon",
    "normuon": "muon with normalize_neurons after it",
}

KERNEL = {"leaves": ("kernel",)}
# pytorch_optimizer takes groups of parameters only, and has the dtype for a default.
GROUPED = (
    "(NorMuon.args[0].__setitem__(slice(None), [{'params': [*NorMuon.args[0]], "
    "'use_muon': True}]) or setattr(optimizer.utils.matrix"
    ".zero_power_via_newton_schulz_5, '__defaults__', (5, 1e-7, 1.0, (3.4445, -4.775, "
    "2.0315), torch.get_default_dtype())) or 0.05)"
)

ROWS = (
    torch_like(
        "pytorch_optimizer",
        "normuon",
        f"NorMuon(lr={GROUPED}, ns_coeffs='quintic')",
        "muon(0.05, 'quintic', axes='oi', after=normalize_neurons(axes='oi'))",
        tol64=1e-10,  # it adds 1e-10 to the norm as well
        **KERNEL,
    ),
)


def test_the_recipe_takes_the_steps_of_the_authors() -> None:
    tx = jopt.normuon(
        0.02,
        POLAR_EXPRESS,
        weight_decay=0.01,
        nesterov=False,
        shape_scale="spectral",
    )
    close_to_golden("normuon", tx)
    after = jopt.normalize_neurons(b2=0.9)
    same = jopt.muon(0.1, adam_b2=0.95, after=after)
    assert jopt.normuon(0.1, b2=0.9).init({}).keys() == same.init({}).keys()
