"""THE table: every optimizer and transformation that the laws are tested for.

To add a row, add a ``Case`` with the factory's name and the arguments to test it with;
a factory without a row fails ``test_every_factory_has_a_row``. The arguments also go
to the function of the same name in `reference.py`, so write that first, from the paper.
"""

from jopt.interop.keras import average, decay  # noqa: F401, they have factories

from . import (
    adam_variants,
    averaging,
    core,
    curvature,
    distance,
    factored,
    guards,
    modern,
    muon,
    plateau,
    sgd_variants,
    wrappers,
)
from .case import Case


GROUPS = (
    adam_variants,
    averaging,
    core,
    curvature,
    distance,
    factored,
    guards,
    modern,
    muon,
    plateau,
    sgd_variants,
    wrappers,
)
CASES: list[Case] = [case for group in GROUPS for case in group.ROWS]
OPTIMIZERS = [case for case in CASES if case.is_optimizer]
# Factories without a row, and why.
WITHOUT_ROW: dict[str, str] = {
    "add_noise": "random; test_transforms.py tests its distribution",
    "chain": "every optimizer is one; test_chain.py",
    "stateless": "is what its function is; test_transforms.py",
}
for group in GROUPS:
    WITHOUT_ROW |= getattr(group, "WITHOUT_ROW", {})
