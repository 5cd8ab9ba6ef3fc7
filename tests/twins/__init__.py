"""Every algorithm a second time: slow, obvious float64 NumPy, written from the papers.

The library must agree with its twins to the last digits. So nothing here is shared
with it, no line is clever, and each algorithm can be read beside its paper. The twin
of a factory has the factory's name and stands in the test file of the factory's
module; this package has what several twins need.

Each twin is a generator for one array ``p``. It takes the gradients ``g_1, g_2, ...``
one at a time. The twin of an optimizer yields the parameters after each of them; the
twin of a transformation yields the updates, and the parameters stay where they are.
Options about storage types and masks have no place here.

Steps are counted ``t = 1, 2, ...`` as in the papers. A hyperparameter of type `Scalar`
is a number or a function of the 0-based step ``t - 1``. Everything in step ``t``,
powers like ``b1**t`` included, uses its value of that step. ``np.abs(g) ** 2`` is the
square of a real gradient and the squared magnitude of a complex one.
"""
