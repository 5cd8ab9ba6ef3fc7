"""What every optimizer of Keras 3 does around its rule, in Keras's order.

g <- g / loss_scale_factor
g <- the mean of gradient_accumulation_steps of them; the rest once per step
g <- clipped
p <- p - learning_rate weight_decay p
p <- the rule
the average of p
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypedDict, cast, get_type_hints

from jopt.core.chain import chain
from jopt.core.masks import Mask, expression
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.average import params_ema_of_gradients
from jopt.interop.keras.decay import decayed_first
from jopt.interop.keras.factories import Factory, KerasOptimizer, P
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
    """What every optimizer of Keras 3 takes, but for weight decay."""

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
    """A method of Keras's: regular expressions, searched for in the paths of leaves.

    Like Keras, `serialize` does not write them.
    """

    exclude_from_weight_decay: list[str] | None


class Options(Excluding, total=False):
    """What every optimizer of Keras 3 takes, by name."""

    weight_decay: float | None


TYPES = get_type_hints(Options)
DEFAULTS = {"weight_decay": None} | dict.fromkeys(TYPES)
DEFAULTS |= {"use_ema": False, "ema_momentum": 0.99}
HINTS = {
    "lr": "Keras 3 calls it learning_rate; lr and decay are arguments of "
    "jopt.interop.keras.legacy.",
    "decay": "Keras 3 ignores it: give learning_rate=InverseTimeDecay(learning_rate, "
    "1, decay), or take the optimizer of jopt.interop.keras.legacy.",
    "jit_compile": "jax.jit compiles the step.",
    "is_legacy_optimizer": "A config with it is for jopt.interop.keras.get.",
}


class Rule(NamedTuple):
    """What an optimizer of Keras is here."""

    whole: GradientTransformation  # without weight decay
    # With weight decay, of it and the mask; None: `decayed_first` around the whole.
    decayed: Callable[[float, Mask], GradientTransformation] | None = None


def between(learning_rate: Any, *direction: GradientTransformation) -> Any:
    """Weight decay between a direction and the learning rate; for a `Rule`."""

    def decayed(weight_decay, mask):
        rate = scale_by_learning_rate(learning_rate)
        return chain(*direction, add_decayed_weights(weight_decay, mask), rate)

    return decayed


class OptimizerFactory(Factory[P, Any], Generic[P]):
    """A factory with Keras's arguments, of a transformation that has its numbers."""

    def __init__(self, build: Callable[P, Rule]):
        options = {name: (DEFAULTS[name], TYPES[name]) for name in DEFAULTS}
        super().__init__(build, "keras.optimizers", options, HINTS)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> KerasOptimizer:
        """A transformation that stands for Keras's optimizer."""
        return cast(KerasOptimizer, super().__call__(*args, **kwargs))

    def plain(self, given: dict[str, Any]) -> GradientTransformation:
        """The transformation, of all arguments."""
        options = check_options(given)
        rate, steps = given["learning_rate"], options["gradient_accumulation_steps"]
        if steps and callable(rate):  # Keras's schedules count gradients
            given["learning_rate"] = micro_step_schedule(rate, steps)
        tx = self._decayed(super().plain(given), given)
        clips = clipping(**{n: options[n] for n in CLIPS})
        tx = chain(*clips, tx) if clips else tx
        tx = accumulate(tx, steps) if steps else tx
        factor, members = options["loss_scale_factor"], [tx]
        if factor is not None:
            members.insert(0, scale(1 / factor))
        if options["use_ema"]:
            members.append(average(options, steps))
        return chain(*members) if len(members) > 1 else tx

    def _decayed(self, rule: Rule, given: dict[str, Any]) -> Any:
        weight_decay, mask = given["weight_decay"], excluding(given)
        if not weight_decay or isinstance(rule, GradientTransformation):
            return rule.whole if isinstance(rule, Rule) else rule
        if rule.decayed is not None:
            return rule.decayed(weight_decay, mask)
        decay = between(given["learning_rate"])(weight_decay, mask)
        return decayed_first(rule.whole, decay)


CLIPS = ("clipvalue", "clipnorm", "global_clipnorm")


def check_options(given: dict[str, Any]) -> dict[str, Any]:
    """The options among the arguments, if Keras would take them.

    Raises:
      ValueError: One is out of its range, or two exclude each other.
    """
    options = {name: given[name] for name in DEFAULTS}
    if len(set_ := [n for n in CLIPS if options[n]]) > 1:
        raise ValueError(
            f"Keras 3 clips in one way, got {' and '.join(set_)}: give one of "
            f"{', '.join(CLIPS)}, or chain the others before the optimizer"
        )
    arguments.nonnegative(**{n: options[n] for n in (*CLIPS, "weight_decay")})
    arguments.decay_rate(ema_momentum=options["ema_momentum"])
    arguments.positive(loss_scale_factor=options["loss_scale_factor"])
    for name, least in (
        ("gradient_accumulation_steps", 2),
        ("ema_overwrite_frequency", 1),
    ):
        if options[name] is not None:
            arguments.at_least(least, **{name: options[name]})
    return options


def clipping(**norms: float | None) -> list[GradientTransformation]:
    """The clipping of Keras: by value, by the norm of each leaf, of all; 0 is none."""
    made = {"clipvalue": clip, "clipnorm": clip_by_norm}
    made["global_clipnorm"] = clip_by_global_norm
    return [make(norms[name]) for name, make in made.items() if norms.get(name)]


def average(options: dict[str, Any], steps: int | None) -> GradientTransformation:
    """The average of the parameters, which in Keras counts gradients, not steps."""
    every, momentum = options["ema_overwrite_frequency"], options["ema_momentum"]
    if steps is None:
        return params_ema(momentum, overwrite_every=every)
    if every is not None:
        return params_ema_of_gradients(momentum, steps, every)
    # While its count of steps is zero, Keras copies.
    return params_ema(piecewise_constant([steps], [0.0, momentum]))


def excluding(given: dict[str, Any]) -> str | None:
    """The mask of the leaves that decay, of the expressions for those that do not."""
    names = given["exclude_from_weight_decay"]
    if not names:
        return None
    if isinstance(names, str) or not all(isinstance(x, str) for x in names):
        raise TypeError(
            "exclude_from_weight_decay must be a list of regular expressions, got "
            f"exclude_from_weight_decay={abbreviated(names)}"
        )
    for name in names:
        expression(name)
    return f"^(?!.*(?:{'|'.join(names)}))"


def optimizer(build: Callable[P, Rule]) -> OptimizerFactory[P]:
    """Decorates what makes the `Rule` of an optimizer of Keras."""
    return OptimizerFactory(build)


# What a learning rate may be: a number, a schedule of Keras or jopt, or `tunable`.
Rate = ScalarOrSchedule
