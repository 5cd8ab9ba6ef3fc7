"""A transformation is a value: equal to any other that an equal call makes."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import jax

from jopt.core.chain import chain
from jopt.testing import needs
from jopt.testing.law import law
from jopt.testing.problem import update
from jopt.testing.subject import Subject
from jopt.transforms.gradients import identity
from jopt.values import registry
from jopt.values.config import from_config, to_config


def copies(subject: Subject) -> dict[str, Any]:
    """The value in other ways: made again, read from text and data, copied."""
    value = subject.make()
    ways = {
        "what the same call makes": lambda: subject.make(),
        "what repr evaluates to": lambda: eval(repr(value), {}, Names()),
        "from_config of repr": lambda: from_config(repr(value)),
        "from_config(to_config(…))": lambda: from_config(
            json.loads(json.dumps(to_config(value)))
        ),
        "what pickle restores": lambda: pickle.loads(pickle.dumps(value)),
        "copy.deepcopy": lambda: copy.deepcopy(value),
    }
    made = {}
    for how, make in ways.items():
        try:
            made[how] = make()
        except Exception as error:
            raise AssertionError(
                f"{how} does not exist, because of {type(error).__name__}: {error}. "
                f"The repr is {value!r}"
            ) from error
    return made


FIX = (
    "decorate the factory with @jopt.transformation, and give it arguments that can be "
    "compared and written down: numbers, text, lists, schedules, transformations, and "
    "functions that @jopt.config_function has registered. Read nothing that is not an "
    "argument. pickle finds a factory at the top level of its module only."
)


@law("values", fix=FIX, needs=[needs.recipe])
def equal_recipes_are_equal_and_survive_repr_config_pickle_and_copy(
    subject: Subject,
) -> None:
    """Equal calls make equal values, which repr, config, pickle and copy preserve."""
    tx = subject.make()
    again = copies(subject)
    for how, other in again.items():
        assert other == tx, f"{how} differs: {other!r} instead of {tx!r}"
        assert hash(other) == hash(tx), f"{how} is equal and has another hash"
    assert tx != chain(tx, identity()), "it equals a chain that it is in"
    for name, x in subject.numbers.items():
        if name == "learning_rate":
            other = subject.make(**{name: 0.123 if x != 0.123 else 0.2})
            assert tx != other, f"it equals {other!r}, which has another {name}"
    # The copy is not only equal but does the same: it makes the same program.
    expected = _program(tx, subject)
    for how, other in again.items():
        same = _program(other, subject) == expected
        assert same, f"{how} is equal, but its first step is not the same program"


def _program(tx: Any, subject: Subject) -> str:
    """What is compiled for ``init`` and the first update, as text."""
    params, grads = subject.small()

    def first(params, grads):
        return update(tx, grads, tx.init(params), params)

    return jax.jit(first).lower(params, grads).as_text()


class Names(dict[str, Any]):
    """What a text may call: every registered factory and function, by name."""

    def __missing__(self, name: str) -> Any:
        found = registry.factory(name) or registry.function(name)
        if found is None:
            raise KeyError(name)
        return found
