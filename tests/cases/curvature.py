"""Curvature and privacy: they take more than gradients, so no row fits them."""

from .case import Case


ROWS: list[Case] = []
WITHOUT_ROW = {
    "differentially_private_aggregate": "takes gradients per example; test_dpsgd.py",
    "dpsgd": "takes gradients per example; test_dpsgd.py",
    "scale_by_sophia": "takes the loss; test_sophia.py",
    "sophia": "takes the loss; test_sophia.py",
}
