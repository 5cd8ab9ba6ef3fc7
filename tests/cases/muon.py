"""Orthogonalized momentum."""

import jopt
from tests import twins as reference

from .case import Case


def normuon(p, grads, *, after, **options):
    """The twin has the constant of the transformation that comes after."""
    return reference.muon(p, grads, **after.recipe.arguments, **options)


ROWS = [
    Case("muon", {"adam_learning_rate": 0.02}),
    Case(
        "muon",
        {
            "adam_learning_rate": 0.02,
            "ns_coeffs": "polar_express",
            "nesterov": False,
            "consistent_rms": 0.2,
            "weight_decay": 0.1,
            "adam_weight_decay": 0.05,
        },
    ),
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
    "scale_by_muon": "for matrices only; the rows of muon, and test_muon.py",
}
