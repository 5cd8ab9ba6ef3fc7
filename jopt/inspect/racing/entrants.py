"""What may race: an optimizer as a name, a call in text, a value or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, NamedTuple

from jopt.core.chain import chain
from jopt.core.transformation import GradientTransformation
from jopt.values import registry
from jopt.values.arguments import abbreviated, text_of
from jopt.values.config import from_config
from jopt.values.numbers import Tunable
from jopt.values.recipe import Recorded, spread


# The middle of the grid for optimizers whose factory has no learning rate of its own:
# where their papers and the libraries that have them begin. For others it is 1e-3.
STARTING_RATES = {
    "adadelta": 1.0,
    "adafactor": 0.01,
    "adagrad": 0.01,
    "asgd": 0.01,
    "dpsgd": 0.1,
    "fromage": 0.01,
    "ftrl": 0.1,
    "lars": 1.0,
    "lion": 1e-4,
    "madgrad": 0.01,
    "mars_lion": 1e-4,
    "muon": 0.02,
    "muon_squared": 0.1,
    "noisy_sgd": 0.1,
    "normuon": 0.02,
    "optimistic_gradient_descent": 0.1,
    "rprop": 0.01,
    "sgd": 0.1,
    "simplified_ademamix": 1e-5,
    "sm3": 0.1,
    "sophia": 1e-4,
    "sophia_g": 1e-4,
}

# The optimizers of a race that names none.
DEFAULT = {
    "sgd with momentum": "sgd(0.1, momentum=0.9)",
    "adamw": "adamw(1e-3)",
    "lion": "lion(1e-4)",
    "muon": "muon(1e-3, consistent_rms=0.2)",
    "adafactor": "adafactor(0.01)",
    "schedule_free_adamw": "schedule_free_adamw(0.0025)",
}


class Entrant(NamedTuple):
    """An optimizer in a race."""

    name: str
    make: Callable[[Any], GradientTransformation]  # of a learning rate or a schedule
    start: float  # the learning rate in the middle of the grid


def entrants(optimizers: Any) -> list[Entrant]:
    """The optimizers of a race.

    Args:
      optimizers: By name, or a list; see `race`.

    Raises:
      ValueError: There are none, or two have the same name.
      TypeError: Something is not an optimizer.
    """
    if isinstance(optimizers, str | Recorded) or not isinstance(optimizers, Iterable):
        raise TypeError(
            "optimizers must be a list such as ['adamw', 'lion'], or a dict of "
            f"optimizers by name, got {abbreviated(optimizers)}"
        )
    if isinstance(optimizers, Mapping):
        named = list(optimizers.items())
    else:
        listed = list(optimizers)
        short = [_name(optimizer) for optimizer in listed]
        # A call in text has a short name, unless another has it too.
        named = [
            (x if isinstance(x, str) and short.count(name) > 1 else name, x)
            for name, x in zip(short, listed, strict=True)
        ]
    if not named:
        raise ValueError("optimizers is empty: name at least one, such as 'adamw'")
    for name, _ in named:
        if [n for n, _ in named].count(name) > 1:
            raise ValueError(
                f"two optimizers have the name {name!r}. Give them names in a dict: "
                "{'one': …, 'other': …}"
            )
    return [_entrant(str(name), optimizer) for name, optimizer in named]


def _name(optimizer: Any) -> str:
    if isinstance(optimizer, str):
        return optimizer.partition("(")[0].strip()
    if isinstance(optimizer, Recorded) and optimizer.recipe is not None:
        return optimizer.recipe.name
    return getattr(optimizer, "__name__", text_of(optimizer))


def _entrant(name: str, optimizer: Any) -> Entrant:
    if isinstance(optimizer, str):
        optimizer = _named(optimizer)
    if isinstance(optimizer, GradientTransformation):
        return _of_value(name, optimizer)
    if not callable(optimizer):
        raise TypeError(
            f"optimizer {name!r} must be a name, a transformation, or a function of "
            f"the learning rate that makes one, got {abbreviated(optimizer)}"
        )
    return Entrant(name, _checked(name, optimizer), _start(name, optimizer))


def _named(text: str) -> Any:
    """The factory of a name, or the transformation of a call in text."""
    if not text.strip().isidentifier():
        return from_config(text)
    factory = registry.factory(text.strip())
    if factory is None:
        raise registry.unknown(text)
    if getattr(factory, "kind", None) != "optimizer":
        raise ValueError(
            f"{text!r} is a {getattr(factory, 'kind', 'factory')}, not an optimizer. "
            "jopt.names(kind='optimizer') lists the optimizers"
        )
    return factory


def _checked(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, with optax's transformations as jopt's."""

    def make(rate):
        tx = function(rate)
        if isinstance(tx, GradientTransformation):
            return tx
        if not isinstance(tx, tuple) or len(tx) != 2:
            raise TypeError(
                f"optimizer {name!r} must return a transformation, got "
                f"{abbreviated(tx)}"
            )
        pair: Any = tx
        return chain(pair)

    return make


def _start(name: str, function: Callable[[Any], Any]) -> float:
    """The learning rate that a function of it starts from."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is not None and _is_rate(first.default):
        return float(first.default)
    factory = getattr(function, "__name__", "")
    if registry.factory(factory) is function:
        return STARTING_RATES.get(factory, 1e-3)
    tx = function(1.0)
    found = list(_rates(tx)) if isinstance(tx, Recorded) else []
    if found:
        factory, rate = found[0]
        return STARTING_RATES.get(factory, 1e-3) / rate
    raise ValueError(
        f"optimizer {name!r} does not say where its grid of rates is: give its "
        "argument a default, as in lambda rate=1e-3: …"
    )


# A transformation with a constant learning rate, as a function of it.


def _of_value(name: str, tx: GradientTransformation) -> Entrant:
    found = [rate for _, rate in _rates(tx)]
    if tx.recipe is None or not found:
        raise ValueError(
            f"optimizer {name!r} has no constant learning rate to put others in place "
            f"of: {abbreviated(tx)}. Give a function of the learning rate, such as "
            "lambda rate=1e-3: jopt.chain(jopt.clip(1.0), jopt.adamw(rate))"
        )
    # Rates of groups keep their ratios.
    return Entrant(name, lambda rate: _with_rates(tx, rate, found[0]), found[0])


def _rates(value: Any) -> Iterator[tuple[str, float]]:
    """Yield each constant learning rate in a recipe, with the name of its factory."""
    if isinstance(value, GradientTransformation) and value.recipe is not None:
        recipe = value.recipe
        for name, parameter in recipe.parameters.items():
            argument = recipe.arguments.get(name, parameter.default)
            if name.endswith("learning_rate"):
                if callable(argument) and not isinstance(argument, Tunable):
                    raise ValueError(
                        f"{recipe.name} has the schedule {abbreviated(argument)}, but "
                        "in a race all have the same schedule: give a constant rate"
                    )
                if _is_rate(argument):
                    yield recipe.name, float(getattr(argument, "initial", argument))
            else:
                yield from _rates(argument)
    elif isinstance(value, Mapping):
        for x in value.values():
            yield from _rates(x)
    elif isinstance(value, list | tuple):
        for x in value:
            yield from _rates(x)


def _is_rate(value: Any) -> bool:
    value = getattr(value, "initial", value)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and float(value) > 0


def _with_rates(value: Any, rate: Any, first: float) -> Any:
    """The same recipe, with the learning rate ``first`` replaced by ``rate``."""
    if isinstance(value, GradientTransformation) and value.recipe is not None:
        recipe, replaced = value.recipe, {}
        for name, parameter in recipe.parameters.items():
            argument = recipe.arguments.get(name, parameter.default)
            if name.endswith("learning_rate") and _is_rate(argument):
                ratio = float(getattr(argument, "initial", argument)) / first
                replaced[name] = rate if ratio == 1 else rate * ratio
            elif name in recipe.arguments:
                replaced[name] = _with_rates(argument, rate, first)
        args, kwargs = spread(recipe.parameters, replaced)
        return recipe.factory(*args, **kwargs)
    if type(value) is dict:
        return {name: _with_rates(x, rate, first) for name, x in value.items()}
    kind: Any = type(value)
    if kind in (list, tuple):
        return kind(_with_rates(x, rate, first) for x in value)
    return value
