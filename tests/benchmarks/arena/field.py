"""Who competes: one line an optimizer, with the rate in the middle of its grid.

Weight decay is 0 for all: the problems are about optimization.
"""

from __future__ import annotations


FIELD = {
    "sgd": "sgd(0.1, momentum=0.9)",
    "adamw": "adamw(1e-3, weight_decay=0.0)",
    "nadamw": "nadamw(1e-3, weight_decay=0.0)",
    "lion": "lion(1e-4, weight_decay=0.0)",
    "adafactor": "adafactor(0.01)",
    "muon": "muon(1e-3, consistent_rms=0.2)",
    "normuon": "normuon(1e-3, consistent_rms=0.2)",
    "muon_h": "muon_h(0.018)",
    "soap": "soap(3e-3, weight_decay=0.0)",
    "kl_soap": "kl_soap(3e-3, weight_decay=0.0)",
    "shampoo": "shampoo(1e-3)",
    "psgd_kron": "psgd_kron(3e-4)",
    "splus": "splus(0.1, weight_decay=0.0)",
    "schedule_free_adamw": "schedule_free_adamw(0.0025)",
    "ademamix": "ademamix(1e-3)",
    "adopt": "adopt(1e-3)",
    "mars_adamw": "mars_adamw(3e-3)",
    "prodigy": "prodigy(1.0)",
}

# As its authors use it, the first and the last layer included.
EVERY_LAYER = {"soap in all layers": "soap(3e-3, weight_decay=0.0, hidden=True)"}

# Their averages take the place of a decay of the rate, so theirs is constant.
WITHOUT_DECAY = {"schedule_free_adamw"}
