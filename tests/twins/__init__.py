"""Every algorithm a second time: slow, obvious float64 NumPy, written from the papers.

The library must agree with this file to the last digits. So nothing here is shared
with it, no line is clever, and each algorithm can be read beside its paper.

There is a file per group of algorithms. Each function is a generator for one array
``p``. It takes the gradients
``g_1, g_2, ...`` one at a time. An optimizer yields the parameters after each of them;
a transformation (second half) yields the updates, and the parameters stay where they
are. Options about storage types and masks have no place here.

Steps are counted ``t = 1, 2, ...`` as in the papers. A hyperparameter of type `Scalar`
is a number or a function of the 0-based step ``t - 1``. Everything in step ``t``,
powers like ``b1**t`` included, uses its value of that step. ``np.abs(g) ** 2`` is the
square of a real gradient and the squared magnitude of a complex one.
"""

from .adam_variants import *  # noqa: F403
from .averaging import *  # noqa: F403
from .core import *  # noqa: F403
from .curvature import *  # noqa: F403
from .distance import *  # noqa: F403
from .factored import *  # noqa: F403
from .guards import *  # noqa: F403
from .modern import *  # noqa: F403
from .muon import *  # noqa: F403
from .plateau import *  # noqa: F403
from .sgd_variants import *  # noqa: F403
from .wrappers import *  # noqa: F403
