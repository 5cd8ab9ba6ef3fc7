"""The steps that every optimizer of Keras 3 makes around its rule, in Keras's order.

g <- g / loss_scale_factor
g <- mean of gradient_accumulation_steps gradients; what follows runs once per mean
g <- clip(g)
p <- p - learning_rate weight_decay p
p <- rule(p, g)
avg <- average of p
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypedDict, cast, get_type_hints

import numpy as np

from jopt.core.chain import chain
from jopt.core.factory import Schedule, recorded
from jopt.core.masks import Mask, expression
from jopt.core.rules import Predicate
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.average import params_ema_of_gradients
from jopt.interop.keras.decay import decayed_first
from jopt.interop.keras.factories import Factory, KerasOptimizer, Option, P
from jopt.schedules.decay import constant_schedule
from jopt.schedules.micro_steps import micro_step_schedule
from jopt.schedules.piecewise import piecewise_constant
from jopt.transforms.clipping import clip, clip_by_global_norm, clip_by_norm
from jopt.transforms.learning_rate import scale, scale_by_learning_rate
from jopt.transforms.weight_decay import add_decayed_weights
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.values.numbers import ScalarOrSchedule
from jopt.wrappers.accumulation import accumulate
from jopt.wrappers.averaging import params_ema


class WithoutDecay(TypedDict, total=False):
    """Options that every optimizer of Keras 3 takes, except for weight decay."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class Excluding(WithoutDecay, total=False):
    """The same, with the parameters that do not decay."""

    exclude_from_weight_decay: list[str] | None


class Options(Excluding, total=False):
    """All options of the optimizers of Keras 3, given by name."""

    weight_decay: float | None


TYPES = get_type_hints(Options)
DEFAULTS = {"weight_decay": None} | dict.fromkeys(TYPES)
DEFAULTS |= {"use_ema": False, "ema_momentum": 0.99}
# The entries that replace ``**options`` in the docstring of every optimizer.
TEXTS = {
    "weight_decay": "Before each step the parameters shrink by ``learning_rate "
    "weight_decay``, >= 0; None means 0.",
    "clipnorm": "Bound on the norm of each leaf of the gradient; None or 0 means no "
    "bound. Only one of ``clipnorm``, ``clipvalue`` and ``global_clipnorm`` may be "
    "set.",
    "clipvalue": "Bound on the magnitude of each element of the gradient; None or 0 "
    "means no bound.",
    "global_clipnorm": "Bound on the norm of the whole gradient; None or 0 means no "
    "bound.",
    "use_ema": "Whether to keep an exponential moving average of the parameters; "
    "`jopt.eval_params` returns it.",
    "ema_momentum": "Decay of that average, in [0, 1].",
    "ema_overwrite_frequency": "Every so many steps, >= 1, the average replaces the "
    "parameters; None means never.",
    "loss_scale_factor": "Factor > 0 that the loss was multiplied by; gradients are "
    "divided by it. None means 1.",
    "gradient_accumulation_steps": "Number of gradients, >= 2, whose mean makes one "
    "step; None means that every gradient makes a step.",
    "name": "Name in the config; None means the name of the class in snake case. Keras "
    "numbers these names, here the configs of equal calls are equal.",
    "exclude_from_weight_decay": "Regular expressions: a leaf does not decay if one is "
    "found in its name, the last step of its path: ``kernel`` in ``norm/kernel``. The "
    "``mask`` of `jopt.adamw` goes by paths. This is a method in Keras; like Keras, "
    "`serialize` does not write it.",
}
OPTIONS = {n: Option(x, TYPES[n], TEXTS[n]) for n, x in DEFAULTS.items()}
HINTS = {
    "lr": "Keras 3 calls it learning_rate; the optimizers of jopt.interop.keras.legacy "
    "take lr and decay.",
    "decay": "Keras 3 ignores it: give learning_rate=InverseTimeDecay(learning_rate, "
    "1, decay), or use the optimizer of jopt.interop.keras.legacy.",
    "jit_compile": "Compile the step with jax.jit.",
    "is_legacy_optimizer": "Read a config that has it with jopt.interop.keras.get.",
}


class Rule(NamedTuple):
    """An optimizer of Keras, without and with weight decay."""

    whole: GradientTransformation  # without weight decay
    # Called with the weight decay and its mask. None wraps `whole` in `decayed_first`,
    # for rules that depend on the parameters or have the rate in the momentum.
    decayed: Callable[[float, Mask], GradientTransformation] | None = None


def between(learning_rate: Any, *direction: GradientTransformation) -> Any:
    """Return `Rule.decayed` with weight decay between direction and learning rate."""
    # Equal to shrinking the parameters first if the direction does not depend on them.

    def decayed(weight_decay, mask):
        rate = scale_by_learning_rate(learning_rate)
        return chain(*direction, add_decayed_weights(weight_decay, mask), rate)

    return decayed


@dataclass(frozen=True)
class WithoutStep:
    """A schedule that does not depend on the step, made of a function of nothing."""

    function: Callable[[], Any]

    def __call__(self, step: Any) -> Any:
        del step
        return self.function()


def takes_nothing(value: Any) -> bool:
    """Whether a value is a function without parameters, which Keras takes as a rate."""
    if not callable(value) or isinstance(value, Schedule | type):
        return False
    try:
        return not inspect.signature(value).parameters
    except ValueError:  # of some built-in functions
        return False


def decay(**values: float) -> Any:
    """Return a decay in [0, 1] in a form that jopt's factories take.

    They refuse a constant of 1, so it becomes a schedule and a number of the state.

    Raises:
      ValueError: It is not in this range.
    """
    arguments.fraction(**values)
    (value,) = values.values()
    return constant_schedule(1.0) if value == 1 else value


def check_signs(sign: Literal["positive", "negative"], **values: float) -> None:
    """Raise in Keras's words if a number has the other sign, or is not finite."""
    for name, value in values.items():
        number = arguments.known(value) or 0.0  # a traced one is not known
        if number < 0 if sign == "positive" else number > 0:
            raise ValueError(
                f"`{name}` needs to be {sign} or zero. Received: {name}={value}."
            )
    arguments.finite(**values)


class OptimizerFactory(Factory[P, Any], Generic[P]):
    """A factory with the arguments and numbers of a Keras 3 optimizer."""

    def __init__(self, build: Callable[P, Rule]):
        super().__init__(build, "keras.optimizers", OPTIONS, HINTS)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> KerasOptimizer:
        """Make a transformation that stands for Keras's optimizer."""
        return cast(KerasOptimizer, super().__call__(*args, **kwargs))

    def normalized(self, name: str, value: Any) -> Any:
        """Return an argument in its form; the learning rate may be a function of ().

        Raises:
          ValueError: Keras refuses the type of a number.
        """
        if name == "learning_rate" and takes_nothing(value):
            value = WithoutStep(value)
        is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if name == "learning_rate" and is_whole:
            raise ValueError(
                "Argument `learning_rate` should be float, or an instance of "
                "LearningRateSchedule, or a callable, and Keras takes no integer. "
                f"Received instead: learning_rate={value}. Write {float(value)}"
            )
        if name == "momentum" and self.class_name == "SGD" and is_whole:
            raise ValueError(
                "`momentum` must be a float between [0, 1], and not an integer. "
                f"Received: momentum={value}. Write {float(value)}"
            )
        if name == "ema_overwrite_frequency" and isinstance(value, float):
            raise ValueError(
                "`ema_overwrite_frequency` must be an integer >= 1 or None. Received: "
                f"ema_overwrite_frequency={value}"
            )
        return super().normalized(name, value)

    def plain(self, values: dict[str, Any]) -> GradientTransformation:
        """Make the bare transformation from the values of all arguments."""
        options = check_options(values)
        rate, steps = values["learning_rate"], options["gradient_accumulation_steps"]
        if steps and callable(rate):  # Keras's schedules count gradients
            values["learning_rate"] = micro_step_schedule(rate, steps)
        tx = self._decayed(super().plain(values), values)
        clips = clipping(**{n: options[n] for n in CLIPS})
        tx = chain(*clips, tx) if clips else tx
        tx = accumulate(tx, steps) if steps else tx
        factor, members = options["loss_scale_factor"], [tx]
        if factor is not None:
            members.insert(0, scale(1 / factor))
        if options["use_ema"]:
            members.append(average(options, steps))
        return chain(*members) if len(members) > 1 else tx

    def _decayed(self, rule: Rule, values: dict[str, Any]) -> Any:
        weight_decay, mask = values["weight_decay"], excluding(values)
        # Muon returns a transformation: it has two weight decays and applies both.
        if not weight_decay or isinstance(rule, GradientTransformation):
            return rule.whole if isinstance(rule, Rule) else rule
        if rule.decayed is not None:
            return rule.decayed(weight_decay, mask)
        decay = between(values["learning_rate"])(weight_decay, mask)
        return decayed_first(rule.whole, decay)


CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


def check_options(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options among the arguments, checked as Keras checks them.

    Raises:
      ValueError: An option is out of range, or two options exclude each other.
    """
    options = {name: values[name] for name in DEFAULTS}
    clips = {n: options[n] for n in CLIPS}
    if sum(x is not None for x in clips.values()) > 1:
        raise ValueError(
            "Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. "
            f"Received: {', '.join(f'{n}={x}' for n, x in clips.items())}. Chain the "
            "others before the optimizer"
        )
    arguments.nonnegative(**clips, weight_decay=options["weight_decay"])
    arguments.fraction(ema_momentum=options["ema_momentum"])
    arguments.positive(loss_scale_factor=options["loss_scale_factor"])
    for name, least in (
        ("gradient_accumulation_steps", 2),
        ("ema_overwrite_frequency", 1),
    ):
        if options[name] is not None:
            arguments.at_least(least, **{name: options[name]})
    return options


def clipping(**norms: float | None) -> list[GradientTransformation]:
    """Return Keras's clips in its order; a bound of None or 0 does not clip."""
    clips = {"clipvalue": clip, "clipnorm": clip_by_norm}
    clips["global_clipnorm"] = clip_by_global_norm
    return [make(norms[name]) for name, make in clips.items() if norms.get(name)]


def average(options: dict[str, Any], steps: int | None) -> GradientTransformation:
    """Return the average of the parameters, which counts gradients in Keras."""
    every, momentum = options["ema_overwrite_frequency"], options["ema_momentum"]
    if steps is None and momentum == 1:
        # Keras copies the parameters after the first step, also then.
        return params_ema(piecewise_constant([1], [0.0, 1.0]), overwrite_every=every)
    if steps is None:
        return params_ema(momentum, overwrite_every=every)
    if every is not None:
        return params_ema_of_gradients(momentum, steps, every)
    # Keras copies the parameters while its count of steps is zero.
    decay = piecewise_constant([steps], [0.0, momentum])
    return params_ema(decay, each_gradient=True)


def excluding(values: dict[str, Any]) -> Predicate | None:
    """Return a mask of the leaves that ``exclude_from_weight_decay`` leaves over."""
    patterns = values["exclude_from_weight_decay"]
    if not patterns:
        return None
    if isinstance(patterns, str) or not all(isinstance(x, str) for x in patterns):
        raise TypeError(
            "exclude_from_weight_decay must be a list of regular expressions, got "
            f"exclude_from_weight_decay={abbreviated(patterns)}"
        )
    return unless_named(*patterns)


@recorded
def unless_named(*patterns: str) -> Predicate:
    """Choose the leaves whose name has no match of these regular expressions.

    The name is the last step of the path, as is ``variable.name`` in Keras 3. Keras
    joins the expressions with ``|``, where flags such as ``(?i)`` hold for all of them;
    here each is on its own.

    Args:
      *patterns: The regular expressions.

    Returns:
      A function ``(path, leaf) -> bool``, which may choose no leaf at all.

    Raises:
      ValueError: One of them is not a regular expression.

    >>> decays = unless_named("^b", "(?i)NORM")
    >>> [decays(x, 0.0) for x in ("norm/kernel", "dense/bias", "dense/norm_1")]
    [True, False, False]
    """
    found = [expression(x) for x in patterns]

    def decays(path, leaf):
        del leaf
        name = path.rpartition("/")[2]
        return not any(x.search(name) for x in found)

    return Predicate(decays)


def optimizer(build: Callable[P, Rule]) -> OptimizerFactory[P]:
    """Turn a function that returns the `Rule` of a Keras optimizer into a factory."""
    return OptimizerFactory(build)


# A learning rate: a number, a schedule of Keras or jopt, or `tunable`.
Rate = ScalarOrSchedule
