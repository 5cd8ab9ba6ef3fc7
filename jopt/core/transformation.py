"""The contract: a gradient transformation is a pair of pure functions, and a value.

    state = init(params)
    updates, state = update(updates, state, params, **extra)

`GradientTransformation` is the tuple ``(init, update)``. Decorated factories
(`factory.py`) make it a value too: it knows the call that made it, and equals the
result of any equal call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self, TypeVar, cast

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import tree_checks
from jopt.core.changing_numbers import ChangingNumbers
from jopt.core.printed_states import print_shapes
from jopt.core.slots import Slot
from jopt.core.treatment import Treatment
from jopt.tree.variables import with_variables, without_variables
from jopt.values.arguments import abbreviated, suggestion
from jopt.values.recipe import Recipe, Recorded, wrapped


PyTree = Any
Params = Any
Updates = Any
OptState = Any

U = TypeVar("U")
S = TypeVar("S")
T = TypeVar("T")


class InitFn(Protocol):
    """``init(params) -> state``."""

    def __call__(self, params: Params, /) -> OptState: ...


class UpdateFn(Protocol):
    """``update(updates, state, params=None, **extra) -> (updates, state)``."""

    def __call__(
        self, updates: U, state: S, params: Params | None = None, **extra: Any
    ) -> tuple[U, S]: ...


UPDATE = "update(updates, state, params)"

# For each child of a transformation, by its name: the leaves that it is given.
Reach = Callable[[Params], Mapping[str, list[bool]]]


class Needs(NamedTuple):
    """The arguments that an update takes besides updates and state."""

    accepts: frozenset[str]
    requires: frozenset[str]
    anything: bool = False  # a foreign update with **kwargs takes every argument
    third: bool = True  # whether params are the third argument, whatever its name

    @staticmethod
    def of(update: Callable[..., Any]) -> Needs:
        """Read the needs from a signature, whose third argument is the parameters."""
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

    def chosen(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that the update takes."""
        return {
            n: x for n, x in arguments.items() if self.anything or n in self.accepts
        }

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Raise for a misspelt or missing argument of the update called ``name``."""
        for known in sorted(self.accepts - arguments.keys()):
            for word in arguments.keys() - self.accepts:
                if suggestion(word, [known], cutoff=0.8):
                    raise TypeError(
                        f"{name}: no transformation here takes the argument {word!r}. "
                        f"Did you mean {known!r}?"
                    )
        present = {n for n, x in arguments.items() if x is not None or n == "params"}
        for missing in sorted(self.requires - present):
            if missing == "params":
                what, call = "the parameters", "params"
            else:
                what, call = f"the argument {missing!r}", f"params, {missing}=…"
            raise TypeError(
                f"{name} needs {what}: call update(updates, state, {call})."
            )


def given(
    updates: Updates, params: Params | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of an update by name, without params if they were not passed.

    A bare array that a mask leaves out is None, and so are the parameters then: None
    beside updates of None is a tree without arrays.
    """
    passed = params is not None or updates is None
    return {"params": params, **extra} if passed else dict(extra)


class Place(NamedTuple):
    """Where a transformation belongs in a chain, and when it runs there.

    A transformation with a readout is not declared: no later member may change the
    updates, because the parameters to evaluate with follow from them.
    """

    first: bool = False  # no member that changes the updates may come before it
    last: bool = False  # none may come after it, except others that must be last
    keeps_updates: bool = False  # it returns the updates as they are
    # stepped(old state, new state): whether the gradients so far have made a step.
    stepped: Callable[[OptState, OptState], Any] | None = None
    once_per_step: bool = False  # after such a member it runs in its steps only
    freezes: bool = False  # it makes updates zero, so that parameters do not move
    # Its state knows where its updates lead: they must be added to the parameters as
    # they are, in their dtype. No member may change them, not even one that is last.
    lands: bool = False


ANYWHERE = Place()
FUSED = frozenset({"take", "adds"})


class FromElements(type):
    """A class of pairs that can be made again from the elements of one.

    Keras tracks the attributes of models, layers and optimizers, and replaces a tuple
    by ``type(x)(list(x))``. For a transformation, that is the same one.
    """

    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Make a transformation, or return the one whose elements these are."""
        if len(args) == 1 and not kwargs and isinstance(args[0], list | tuple):
            owners = [getattr(x, "transformation", None) for x in args[0]]
            # Only the second element, the update, knows its transformation.
            if len(owners) == 2 and isinstance(owners[1], cls):
                return owners[1]
        return super().__call__(*args, **kwargs)  # type: ignore[misc]


class GradientTransformation(Recorded, tuple[InitFn, UpdateFn], metaclass=FromElements):
    """The pair ``(init, update)``, equal to any other made by an equal call.

    The signature of ``update`` declares its needs: ``params`` without a default is
    required, as is any further argument without one. An argument that it does not
    declare does not reach it.

    Args:
      init: ``init(params) -> state``.
      update: ``update(updates, state, params, …) -> (updates, state)``.
      children: The transformations inside this one, each under the field or key of the
        state that holds its state. Their needs are its needs.
      needs: The arguments that the update takes; None reads them from its signature, or
        from the children.
      state_class: The class of its state, to recognize another one; None if the state
        has no class, or is checked by the update.
      reach: ``reach(params)`` gives the leaves that each child sees, by its name. A
        child without an entry sees all of them.
      readout: ``readout(state, params) -> params``, the parameters to evaluate with,
        where they differ from those that are trained; see `jopt.eval_params`. Where
        children may have several, it takes the ``name`` of one as a third argument.
      changing: The numbers that are fields of the state.
      gain: The name under which `jopt.monitor` reports ``|update| / |gradient|``, for a
        transformation that is about this ratio, such as a clip.
      place: Where it belongs in a chain, if not anywhere.
      treatment: What it does to a leaf, for `jopt.describe`; None if nobody says.
      slots: The fields of its state that hold an array for every leaf, as far as they
        are declared; see ``jopt.core.slots``.
      fixed_name: Its name, whatever factory makes it.
      fused: What ``update`` itself can do in the pass that computes an array: skip a
        step (``take``), add to the parameters (``adds``). It then has arguments of
        these names; see ``jopt.core.fused.fused_update``.
      recipe: The call that makes it.

    >>> import jopt
    >>> init, update = jopt.sgd(0.1)
    """

    # The two functions without the checks of their arguments.
    unchecked_init: Callable[..., Any]
    unchecked: Callable[..., Any]
    # The update as `fused_update` calls it, with the options first.
    call: Callable[..., Any]
    children: Mapping[str, GradientTransformation]
    needs: Needs
    state_class: Any
    reach: Reach | None
    readout: Callable[..., Params] | None
    changing: ChangingNumbers | None
    gain: str | None
    place: Place
    treatment: Treatment | None
    slots: Mapping[str, Slot]
    fixed_name: str | None
    fused: frozenset[str]

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_static(cls)  # nnx would look into any other tuple

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        *,
        children: Mapping[str, GradientTransformation] | None = None,
        needs: Needs | None = None,
        state_class: Any = None,
        reach: Reach | None = None,
        readout: Callable[..., Params] | None = None,
        changing: ChangingNumbers | None = None,
        gain: str | None = None,
        place: Place = ANYWHERE,
        treatment: Treatment | None = None,
        slots: Mapping[str, Slot] | None = None,
        fixed_name: str | None = None,
        fused: frozenset[str] = frozenset(),
        recipe: Recipe | None = None,
    ) -> Self:
        # An update that no factory made is named after the function that it is in.
        outermost = getattr(update, "__qualname__", "update").split(".")[0]
        name = fixed_name or (outermost if recipe is None else recipe.name)
        needs = needs or (Needs.of(update) if children is None else _needs_of(children))

        def call(options, updates, state, params, extra):
            updates = tree_checks.without_float0(updates)
            params = tree_checks.without_statics(params, updates)
            arguments = given(updates, params, extra)
            needs.check(name, arguments)
            trees = updates, state, params, needs.chosen(extra)
            bare = without_variables(trees)
            if bare is not trees:
                u, s = call(options, *bare)
                like = params if options.get("adds") else updates
                return with_variables(u, like), with_variables(s, state)
            self.check_state(state)
            tree_checks.arrays(updates, "updates")
            chosen = needs.chosen(arguments)
            third = [chosen.pop("params")] if needs.third and "params" in chosen else []
            try:
                return update(updates, state, *third, **chosen, **options)
            except TypeError:
                tree_checks.of_jax(updates=updates, params=params, state=state)
                raise

        @functools.wraps(update)
        def checked(
            updates: U, state: S, params: Params | None = None, **extra: Any
        ) -> tuple[U, S]:
            return call({}, updates, state, params, extra)

        @functools.wraps(init)
        def checked_init(params: Params, /) -> OptState:
            state = init(tree_checks.without_functions(params))
            print_shapes(type(state))
            return state

        checked.__qualname__ = f"{name}.update"
        self = tuple.__new__(cls, (checked_init, checked))
        self.unchecked_init, self.unchecked = init, update
        self.children, self.needs = children or {}, needs
        self.state_class, self.reach = state_class, reach
        print_shapes(state_class)
        self.readout, self.changing = readout, changing
        self.gain, self.place, self.treatment = gain, place, treatment
        self.slots = slots or {}
        self.fixed_name, self.fused, self.recipe = fixed_name, fused, recipe
        self.call = call
        cast(Any, checked).transformation = self  # see FromElements
        return self

    def __repr__(self) -> str:
        return super().__repr__() if self.recipe is None else wrapped(self)

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
        update: Any = self.update
        return update.__qualname__.rpartition(".")[0]

    def check_state(self, state: OptState, call: str = UPDATE) -> None:
        """Raise TypeError or ValueError unless ``init`` may have made this state.

        Args:
          state: The state.
          call: The call with its arguments in the right order.
        """
        if self.state_class is not None:
            inside = self.children if len(self.children) == 1 else ()
            tree_checks.state_fields(self.name, self.state_class, state, call, inside)
        elif self.children:
            self.check_entries(state, self.name, call)

    def check_entries(self, state: OptState, what: str, call: str) -> None:
        """Raise unless a state is a dict with the states of the children."""
        needed = {n for n, tx in self.children.items() if tx.has_state}
        if not isinstance(state, Mapping):
            raise TypeError(
                f"the state of {what} is a dict with the entries {sorted(needed)}, but "
                f"got {abbreviated(state)}. Make it with state = tx.init(params), "
                f"and call {call}."
            )
        missing, unknown = needed - state.keys(), state.keys() - self.children.keys()
        if missing or unknown:
            lacks = [f"it lacks {sorted(missing)}"] if missing else []
            strange = [f"no member knows its {sorted(unknown)}"] if unknown else []
            raise ValueError(
                f"this state, with the entries {sorted(state)}, does not belong to "
                f"{what}: {' and '.join(lacks + strange)}. Call init again, or restore "
                f"into the result of init. (The order is {call}.)"
            )

    @property
    def has_state(self) -> bool:
        """Whether it is known to have a state that is not empty."""
        return self.state_class is not None or bool(self.children)

    def inside(
        self, state: OptState
    ) -> Iterator[tuple[str, GradientTransformation, OptState]]:
        """The name, transformation and state of each child that has a state."""
        for name, child in self.children.items():
            is_dict = isinstance(state, Mapping)
            child_state = state.get(name) if is_dict else getattr(state, name)
            if child_state is not None:
                yield name, child, child_state

    def arguments(self) -> dict[str, Any]:
        """The arguments of the class that make this transformation."""
        both = {"init": self.unchecked_init, "update": self.unchecked}
        functions = {"unchecked_init", "unchecked", "call"}
        return both | {n: x for n, x in vars(self).items() if n not in functions}

    def replace(self, **changes: Any) -> Self:
        """The same transformation with some arguments of its class changed."""
        return type(self)(**(self.arguments() | changes))

    def with_changing_numbers(
        self, make: Callable[..., GradientTransformation], changing: ChangingNumbers
    ) -> GradientTransformation:
        """This transformation, made again in each step from the numbers of the step."""

        def init(params):
            zero = jnp.zeros((), jnp.int32)
            return changing.extend(self.init(params), changing.initial(), zero)

        def update(updates, state, params=None, **extra):
            inner_state, numbers = changing.split(state)
            numbers = changing.current(state.count, numbers | changing.arrays)
            inner = make(**numbers)
            updates, inner_state = inner.update(updates, inner_state, params, **extra)
            count = tree.safe_increment(state.count)
            return updates, changing.extend(inner_state, numbers, count)

        def readout(state, params, *name):
            inner_state, numbers = changing.split(state)
            inner = make(**(numbers | changing.arrays))
            assert inner.readout is not None
            return inner.readout(inner_state, params, *name)

        return GradientTransformation(
            init,
            update,
            children=self.children,
            needs=self.needs,
            state_class=self.state_class and changing.extended(self.state_class),
            reach=self.reach,
            readout=readout if self.readout else None,
            changing=changing,
            gain=self.gain,
            place=self.place,
            treatment=self.treatment,
            slots=self.slots,
        )


def _needs_of(children: Mapping[str, GradientTransformation]) -> Needs:
    # Each child checks what it requires itself, so that the error has its name.
    accepts = (child.needs.accepts for child in children.values())
    anything = any(child.needs.anything for child in children.values())
    return Needs(frozenset({"params"}).union(*accepts), frozenset(), anything)


jax.tree_util.register_static(GradientTransformation)
