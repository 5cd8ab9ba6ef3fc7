"""The contract: a gradient transformation is a pair of pure functions, and a value.

    state = init(params)
    updates, state = update(updates, state, params, **extra)

`GradientTransformation` is the tuple ``(init, update)``. Decorated factories
(`factory.py`) make it a value as well: one that knows, and is equal by, its call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core.changing_numbers import ChangingNumbers
from jopt.values.arguments import suggestion
from jopt.values.recipe import Recipe, Recorded


PyTree = Any
Params = Any
Updates = Any
OptState = Any


class InitFn(Protocol):
    """``init(params) -> state``."""

    def __call__(self, params: Params, /) -> OptState: ...


class UpdateFn(Protocol):
    """``update(updates, state, params=None, **extra) -> (updates, state)``."""

    def __call__(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Updates, OptState]: ...


class Needs(NamedTuple):
    """What an update takes beyond updates and state."""

    accepts: frozenset[str]
    requires: frozenset[str]
    anything: bool = False  # a foreign update with **kwargs: everything is for it
    third: bool = True  # params are the third argument, whatever its name

    @staticmethod
    def of(update: Callable[..., Any]) -> Needs:
        """Read from a signature; the third argument is the parameters."""
        rest = list(inspect.signature(update).parameters.values())[2:]
        named = [p for p in rest if p.kind is not p.VAR_KEYWORD]
        names = [p.name for p in named]
        third = bool(named) and named[0].kind is not named[0].KEYWORD_ONLY
        if third:
            names[0] = "params"
        required = [
            n for n, p in zip(names, named, strict=True) if p.default is p.empty
        ]
        anything = len(named) < len(rest)
        return Needs(frozenset(names), frozenset(required), anything, third)

    def chosen(self, given: dict[str, Any]) -> dict[str, Any]:
        """Those arguments that the update takes."""
        return {n: x for n, x in given.items() if self.anything or n in self.accepts}

    def check(self, name: str, given: Mapping[str, Any]) -> None:
        """Raise for a misspelt or missing argument of the update called ``name``."""
        for known in sorted(self.accepts - given.keys()):
            for word in given.keys() - self.accepts:
                if suggestion(word, [known], cutoff=0.8):
                    raise TypeError(
                        f"{name}: nothing here takes the argument {word!r}. Did you "
                        f"mean {known!r}?"
                    )
        present = {n for n, x in given.items() if x is not None}
        for missing in sorted(self.requires - present):
            if missing == "params":
                what, call = "the parameters", "params"
            else:
                what, call = f"the argument {missing!r}", f"params, {missing}=…"
            raise TypeError(
                f"{name} needs {what}: call update(updates, state, {call})."
            )


class GradientTransformation(Recorded, tuple[InitFn, UpdateFn]):
    """The pair ``(init, update)``, equal to any other made by an equal call.

    The signature of ``update`` declares what it needs: ``params`` without a default is
    required, as is any further argument without one. Arguments that it does not declare
    do not reach it.

    Args:
      init: ``init(params) -> state``.
      update: ``update(updates, state, params, …) -> (updates, state)``.
      children: The transformations inside this one, each by the field or key of the
        state that holds its state. Their needs are its needs.
      readout: ``readout(state, params) -> params``, the parameters to evaluate with
        where they are others than those that are trained; see `jopt.eval_params`.

    >>> import jopt
    >>> init, update = jopt.sgd(0.1)
    """

    children: Mapping[str, GradientTransformation]
    needs: Needs
    changing: ChangingNumbers | None = None
    readout: Callable[[OptState, Params], Params] | None = None
    unchecked: Callable[..., Any]  # the update as it was given

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_static(cls)  # nnx would look into any other tuple

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        *,
        children: Mapping[str, GradientTransformation] | None = None,
        needs: Needs | None = None,
        readout: Callable[[OptState, Params], Params] | None = None,
    ) -> Self:
        @functools.wraps(update)
        def checked(updates, state, params=None, **extra):
            given = extra if params is None else {"params": params, **extra}
            self.needs.check(self.name, given)
            chosen = self.needs.chosen(given)
            if self.needs.third and "params" in chosen:
                return update(updates, state, chosen.pop("params"), **chosen)
            return update(updates, state, **chosen)

        self = tuple.__new__(cls, (init, checked))
        self.unchecked = update
        self.children = children or {}
        self.readout = readout
        if needs is None and children is not None:
            # What is missing is said by the child that misses it, under its name.
            needs = Needs(
                frozenset({"params"}).union(
                    *(c.needs.accepts for c in children.values())
                ),
                frozenset(),
                any(c.needs.anything for c in children.values()),
            )
        self.needs = needs or Needs.of(update)
        return self

    @property
    def init(self) -> InitFn:
        """``init(params) -> state``."""
        return self[0]

    @property
    def update(self) -> UpdateFn:
        """``update(updates, state, params=None, **extra) -> (updates, state)``."""
        return self[1]

    @property
    def name(self) -> str:
        """The factory's name, which is the name of its state in a chain."""
        if self.recipe is not None:
            return self.recipe.name
        return getattr(self.unchecked, "__qualname__", "update").split(".")[0]

    def recorded(self, recipe: Recipe) -> Self:
        """The same transformation as the result of another call."""
        other = GradientTransformation.__new__(type(self), self.init, self.unchecked)
        other.__dict__.update(self.__dict__, recipe=recipe)
        checked: Any = other.update
        checked.__qualname__ = f"{recipe.name}.update"
        return other

    def with_changing_numbers(
        self, make: Callable[..., GradientTransformation], changing: ChangingNumbers
    ) -> GradientTransformation:
        """This transformation, made anew at each step from that step's numbers."""

        def init(params):
            zero = jnp.zeros((), jnp.int32)
            return changing.extend(self.init(params), changing.initial(), zero)

        def update(updates, state, params=None, **extra):
            own, numbers = changing.split(state)
            numbers = changing.current(state.count, numbers | changing.given)
            inner = make(**numbers)
            updates, own = inner.update(updates, own, params, **extra)
            count = tree.safe_increment(state.count)
            return updates, changing.extend(own, numbers, count)

        def readout(state, params):
            own, numbers = changing.split(state)
            inner = make(**(numbers | changing.given))
            assert inner.readout is not None
            return inner.readout(own, params)

        own = {"needs": self.needs, "children": self.children}
        tx = GradientTransformation(init, update, **own)
        tx.changing = changing
        tx.readout = readout if self.readout else None
        return tx


jax.tree_util.register_static(GradientTransformation)
