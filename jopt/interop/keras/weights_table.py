"""THE table: the state of each Keras optimizer, in its order, and its place in jopt.

Checked against Keras 3.15; the older orders follow the source of tf_keras 2.15. A
source is ``member/field``: the name of a factory and a field of its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jopt.interop.shared.momentum_units import argument, one, sum_of_average, velocity
from jopt.interop.shared.parameter_order import Parameter
from jopt.interop.shared.state_view import View, joined


Shape = tuple[int, ...]


class Slot(NamedTuple):
    """An array that Keras keeps for every parameter, under one name."""

    name: str
    sources: tuple[str, ...]
    factor: Callable[[View, str], float] = one  # Keras's value / jopt's value
    shape: Callable[[Shape], Shape] | None = None  # None: the parameter's shape
    # Keras's value where jopt keeps none; None if Keras keeps none there either.
    instead: Callable[[View, Parameter], Any] | None = None


class Row(NamedTuple):
    """One optimizer of Keras."""

    classes: tuple[str, ...]
    # Since Keras 2.11 the slots of a group alternate, parameter by parameter. Before,
    # all parameters of the first slot came before those of the second.
    groups: tuple[tuple[Slot, ...], ...]
    scalars: tuple[str, ...] = ()  # last in Keras 3, first before 2.11, absent between
    turns_in_legacy: bool = False  # whether they alternated before 2.11 already
    derived: Callable[[View, int], dict[str, Any]] | None = None  # by the step count

    @property
    def sources(self) -> list[str]:
        """The sources of all slots."""
        return [s for group in self.groups for slot in group for s in slot.sources]


def _momenta(view: View, count: int) -> dict[str, Any]:
    """Compute the product of Nadam's momenta, which Keras 2.11 to 2.15 did not save."""
    source = "scale_by_nadam/mu_product"
    _, member = view.scalar(source)
    b1, decay = (argument(member, name) for name in ("b1", "momentum_decay"))
    t = np.arange(1, count + 1, dtype=np.float64)
    product = np.prod(b1 * (1 - 0.5 * 0.96 ** (t * decay)))
    return dict.fromkeys(view.scalars(source), product)


def _weights(view: View, count: int) -> dict[str, Any]:
    """Compute the sum of the weights of the average: every step weighs 1 in Keras."""
    place, member = view.scalar("scale_by_schedule_free/weight_sum")
    powers = {n: argument(member, n) for n in ("weight_lr_power", "r")}
    if any(powers.values()):
        raise ValueError(
            "every step has the same weight in Keras's ScheduleFreeAdamW: the recipe "
            f"needs weight_lr_power=0.0 and r=0.0, but has {powers}"
        )
    largest = joined(member.path, "max_lr")
    return {place: float(count), largest: view.first_rate()}


def _unfactored(view: View, parameter: Parameter) -> np.ndarray:
    """Compute the second moment that Keras keeps beside its factors from them."""
    row, column = (
        np.asarray(
            view.flat[view.places(f"scale_by_factored_rms/{f}", parameter.path)[0]]
        )
        for f in ("v_row", "v_col")
    )
    mean = row.mean(-2, keepdims=True)
    return row * column / np.where(mean > 0, mean, 1)


def _no_factor(view: View, parameter: Parameter) -> np.ndarray:
    del view, parameter
    return np.zeros((), np.int32)


MOMENTS = (
    Slot("momentum", ("scale_by_adam/mu",)),
    Slot("velocity", ("scale_by_adam/nu",)),
)
# The first row whose members include all members of a recipe is the recipe's.
ROWS = (
    Row(("SGD",), ((Slot("momentum", ("trace/trace",), velocity(-1.0)),),)),
    Row(
        ("RMSprop",),
        (
            (Slot("velocity", ("scale_by_rms/nu", "scale_by_stddev/nu")),),
            (Slot("momentum", ("trace/trace",), velocity(1.0)),),
            (Slot("average_gradient", ("scale_by_stddev/mu",)),),
        ),
    ),
    Row(("Adam", "AdamW", "Lamb"), (MOMENTS,)),
    Row(
        ("Adam", "AdamW"),
        (
            (
                Slot("momentum", ("scale_by_amsgrad/mu",)),
                Slot("velocity", ("scale_by_amsgrad/nu",)),
            ),
            (Slot("velocity_hat", ("scale_by_amsgrad/nu_max",)),),
        ),
    ),
    Row(
        ("Adadelta",),
        (
            (
                Slot("accumulated_grad", ("scale_by_adadelta/e_g",)),
                Slot("accumulated_delta_var", ("scale_by_adadelta/e_x",)),
            ),
        ),
    ),
    Row(("Adagrad",), ((Slot("accumulator", ("scale_by_rss/sum_of_squares",)),),)),
    Row(
        ("Adamax",),
        (
            (
                Slot("momentum", ("scale_by_adamax/mu",)),
                Slot("norm", ("scale_by_adamax/nu",)),
            ),
        ),
    ),
    Row(
        ("Nadam",),
        (
            (
                Slot("momentum", ("scale_by_nadam/mu",)),
                Slot("velocity", ("scale_by_nadam/nu",)),
            ),
        ),
        scalars=("scale_by_nadam/mu_product",),
        derived=_momenta,
    ),
    Row(
        ("Ftrl",),
        (
            (
                Slot("accumulator", ("ftrl/accumulator",)),
                Slot("linear", ("ftrl/linear",)),
            ),
        ),
        turns_in_legacy=True,
    ),
    Row(("Lion",), ((Slot("momentum", ("scale_by_lion/mu",)),),)),
    Row(
        ("Muon",),
        (
            (
                Slot("momentum", ("scale_by_muon/mu",), sum_of_average("beta")),
                *MOMENTS,
            ),
        ),
    ),
    Row(
        ("ScheduleFreeAdamW",),
        (
            (
                Slot("momentum", ("scale_by_schedule_free/z",)),
                Slot("velocity", ("scale_by_rms/nu",)),
            ),
        ),
        derived=_weights,
    ),
    Row(
        ("Adafactor",),
        (
            (
                Slot(
                    "row",
                    ("scale_by_factored_rms/v_row",),
                    shape=lambda shape: shape[:-1] if len(shape) > 1 else (),
                    instead=_no_factor,
                ),
                Slot(
                    "column",
                    ("scale_by_factored_rms/v_col",),
                    shape=lambda s: (*s[:-2], s[-1]) if len(s) > 1 else (),
                    instead=_no_factor,
                ),
                Slot("velocity", ("scale_by_factored_rms/v",), instead=_unfactored),
            ),
        ),
    ),
)

# Slots that Keras lists before those of the optimizer, one after the other: of use_ema
# and of gradient_accumulation_steps.
AVERAGE = Slot("average", ("params_ema/ema", "params_ema_of_gradients/ema"))
ACCUMULATOR = Slot("gradient_accumulator", ("accumulate/acc_grads",))


def row_of(view: View) -> Row:
    """Return the row of a recipe."""
    return view.row_of(ROWS, "Keras", *AVERAGE.sources, *ACCUMULATOR.sources)
