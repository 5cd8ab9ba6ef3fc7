"""The contract of optax, its types, and jopt's transformations behind it.

A `Pair` is ``(init, update)`` as optax has it: the state of a chain is a tuple, a
transformation without state leaves ``EmptyState()``, and slots have the dtypes of the
parameters. Its update gives the states to jopt's transformations, runs all of them as
one chain, and puts what comes back into the form that it was given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import transformation, tree_checks
from jopt.core.chain import Chain, as_transformation
from jopt.core.leafwise import Leafwise
from jopt.tree.row_sparse import is_rows
from jopt.values import arguments
from jopt.values.arguments import abbreviated


Shape = Sequence[int]
PRNGKey = jax.Array
ArrayTree = Any
OptState = Any
Params = Any
Updates = Any
Schedule = Callable[[Any], Any]
ScalarOrSchedule = float | jax.Array | Schedule
MaskOrFn = Any
Numeric = Any  # a number or an array of one

NO_PARAMS_MSG = (
    "this transformation needs the parameters: call update(updates, state, params)"
)


class EmptyState(NamedTuple):
    """The state of a transformation that keeps nothing."""


class MaskedNode(NamedTuple):
    """What stands in a state or tree for a leaf that a mask leaves out."""


class TransformInitFn(Protocol):
    """``init(params) -> state``."""

    def __call__(self, params: Params) -> OptState: ...


class TransformUpdateFn(Protocol):
    """``update(updates, state, params=None) -> (updates, state)``."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """``update(updates, state, params=None, **extra_args) -> (updates, state)``."""

    def __call__(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, OptState]: ...


class GradientTransformation(NamedTuple):
    """A pair of pure functions, see `TransformInitFn` and `TransformUpdateFn`."""

    init: Callable[..., Any]
    update: Callable[..., Any]


class GradientTransformationExtraArgs(GradientTransformation):
    """A transformation whose update takes any further arguments by keyword."""


# Between the state of a pair and the states of its members.
Inward = Callable[[Any, Updates], list[Any]]
Outward = Callable[[Sequence[Any], Any, Updates], Any]


@jax.tree_util.register_static
class Pair(GradientTransformationExtraArgs):
    """A transformation of optax that runs transformations of jopt; see `pair`."""

    members: Sequence[transformation.GradientTransformation]
    inward: Inward
    outward: Outward
    text: str

    @property
    def __class__(self) -> type:  # type: ignore[override]
        # Some libraries check for the class of the real optax.
        real = getattr(
            sys.modules.get("optax"), "GradientTransformationExtraArgs", None
        )
        return real or Pair

    def __repr__(self) -> str:
        return self.text


def pair(
    members: Sequence[Any],
    init: Callable[[Params], OptState],
    inward: Inward,
    outward: Outward,
) -> Pair:
    """Return a transformation of optax that runs transformations of jopt.

    Args:
      members: The transformations of jopt, which run one after the other.
      init: Returns the state in the form of optax.
      inward: Returns the state of each member, from a state in the form of optax and
        the updates.
      outward: Puts new states of the members into a state in the form of optax; it
        takes the updates too.
    """
    names: list[str | None] = [str(i) for i in range(len(members))]
    engine = Chain(list(zip(names, members, strict=True)), any_order=True)
    needs_params = any("params" in tx.needs.requires for tx in members)

    def update(updates, state, params=None, **extra_args):
        if updates is None:  # a tree without arrays, whatever the parameters are
            params = None
        elif needs_params and params is None:
            raise ValueError(NO_PARAMS_MSG)
        updates, params = inexact(updates), inexact(params)
        before = dict(zip(names, inward(state, updates), strict=True))
        with arguments.any_range():
            new, after = engine.update(updates, before, params, **extra_args)
        return new, outward([after[name] for name in names], state, updates)

    def checked_init(params):
        with arguments.any_range():
            return init(tree_checks.without_functions(inexact(params)))

    self = Pair(checked_init, update)
    self.members, self.inward, self.outward = members, inward, outward
    self.text = f"chain({', '.join(map(repr, members))})"
    return self


def inexact(whole: Any) -> Any:
    """Return a tree with floats in place of integers, as optax computes with them."""
    if all(map(tree_checks.can_move, jax.tree.leaves(whole, is_leaf=is_rows))):
        return whole

    def is_integer(x):
        if isinstance(x, int | float | complex):
            return True
        dtype = getattr(x, "dtype", None)
        kinds = (jnp.integer, jnp.bool_)
        return (
            dtype is not None
            and dtype != jax.dtypes.float0
            and not isinstance(x, jax.ShapeDtypeStruct)
            and any(jnp.issubdtype(dtype, kind) for kind in kinds)
        )

    return jax.tree.map(
        lambda x: jnp.asarray(x) * 1.0 if is_integer(x) else x, whole, is_leaf=is_rows
    )


def without_state(*members: Any) -> Pair:
    """Return a pair without state, whatever its members keep.

    Args:
      *members: Transformations whose state does not depend on earlier steps.
    """
    fields = [_Fields(tx) for tx in members]

    def inward(state, updates):
        del state, updates
        return [x.ours({}) for x in fields]

    return pair(members, lambda _: EmptyState(), inward, lambda _, state, __: state)


def with_fields(
    tx: Any,
    state_class: Any,
    *,
    ours: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    theirs: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    wide: bool = False,
    start: Callable[[Any], Any] = lambda state: state,
) -> Pair:
    """Return a pair whose state has the fields of a transformation's state.

    Args:
      tx: A transformation of jopt.
      state_class: The class of the state in optax.
      ours: The fields of jopt that optax has in another form: functions of optax's
        state and a tree like the parameters.
      theirs: The fields of optax that jopt has in another form: functions of jopt's
        state and a tree like the parameters.
      wide: Whether slots keep jopt's dtype; if not, a slot without a dtype of its own
        has that of its parameter, as in optax.
      start: Changes jopt's first state.
    """
    fields = _Fields(tx)
    ours, theirs = ours or {}, theirs or {}

    def written(state, like, count):
        values = {"count": count} | state._asdict()
        values |= {name: f(state, like) for name, f in theirs.items()}
        return {name: values[name] for name in state_class._fields}

    def init(params):
        state = start(tx.init(params))
        state = state if wide else narrowed(tx, state, params)
        return state_class(**written(state, params, jnp.zeros((), jnp.int32)))

    def inward(state, updates):
        changed = {name: f(state, updates) for name, f in ours.items()}
        return [fields.ours(state._asdict() | changed)]

    def outward(states, old, updates):
        counts = "count" in old._fields  # a tuple has a method of that name
        count = tree.safe_increment(old.count) if counts else None
        return old._replace(**written(states[0], updates, count))

    return pair([tx], init, inward, outward)


class _Fields:
    """The fields of the state of one transformation of jopt."""

    def __init__(self, tx: Any):
        self.state_class = tx.state_class
        # What optax does not keep: constants, and what each step computes anew.
        self.constants: dict[str, Any] = {}
        carry = tx.declaration.carry if isinstance(tx, Leafwise) else {}
        sources: dict[str, Any] = {**carry, **getattr(tx.changing, "sources", {})}
        for name, source in sources.items():
            again = callable(source) or isinstance(source, jax.Array)
            self.constants[name] = 0.0 if again else getattr(source, "initial", source)

    def ours(self, values: Mapping[str, Any]) -> Any:
        if self.state_class is None:
            return ()
        dtype = tree.scalar_dtype()
        kept: dict[str, Any] = {"count": np.zeros((), np.int32)}
        kept |= {name: np.asarray(x, dtype) for name, x in self.constants.items()}
        kept |= values
        names = self.state_class._fields
        return self.state_class(**{name: kept[name] for name in names})


def narrowed(tx: Any, state: OptState, params: Params) -> OptState:
    """Return a first state, with its slots in the dtypes of the parameters."""
    if not isinstance(tx, Leafwise):
        return state
    slots = {}
    for name, slot in tx.declaration.slots.items():
        if slot.dtype is None:
            kept = getattr(state, name)
            columns = kept if slot.each else (kept,)
            new = tuple(
                jax.tree.map(_like, x, params, is_leaf=lambda x: x is None)
                for x in columns
            )
            slots[name] = new if slot.each else new[0]
    return state._replace(**slots) if slots else state


def _like(x: jax.Array | None, param: Any) -> jax.Array | None:
    if x is None:
        return None
    dtype = jnp.result_type(param)
    if not jnp.iscomplexobj(x) and jnp.issubdtype(dtype, jnp.complexfloating):
        dtype = jnp.finfo(dtype).dtype
    return x if x.dtype == dtype else x.astype(dtype)


def lenient(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a factory whose numbers may have any value, as in optax."""
    return arguments.any_range()(factory)


def own(init: Callable[..., Any], update: Callable[..., Any]) -> Pair:
    """Return a pair of two functions, the second with any extra arguments."""
    return as_pair(GradientTransformationExtraArgs(init, update), "update")


def own_without_extra(init: Callable[..., Any], update: Callable[..., Any]) -> Pair:
    """Return a pair of two functions, the second without extra arguments."""
    return as_pair(GradientTransformation(init, update), "update")


def with_extra_args_support(tx: Any) -> Any:
    """Return a transformation whose update takes any extra arguments.

    Args:
      tx: A transformation. If it does not take them, they are dropped.
    """
    return tx if _takes_more(tx) else as_pair(tx, "with_extra_args_support: tx")


def _takes_more(tx: Any) -> bool:
    return any(
        c.__name__ == "GradientTransformationExtraArgs" for c in type(tx).__mro__
    )


def as_pair(tx: Any, where: str) -> Pair:
    """Return a transformation as a `Pair`; any pair of functions keeps its state."""
    if isinstance(tx, Pair) and hasattr(tx, "members"):
        return tx
    if not callable(getattr(tx, "init", None)):
        raise TypeError(f"{where} is {abbreviated(tx)}, not a transformation")
    takes_more = _takes_more(tx)

    def update(updates, state, params=None, **extra_args):
        extra_args = extra_args if takes_more else {}
        return tx.update(updates, state, params, **extra_args)

    member = as_transformation((tx.init, update), where)
    return pair([member], tx.init, lambda s, _: [s], lambda states, *_: states[0])


def chain(*args: Any) -> Pair:
    """Apply transformations one after the other.

    Args:
      *args: Transformations: those of this package, of optax, or pairs of your own.

    Returns:
      A transformation, whose state is a tuple of the states of ``args``.

    >>> from jopt.interop import optax
    >>> tx = optax.chain(optax.scale_by_adam(), optax.scale(-0.1))
    >>> tx.init(jnp.ones(2))[1]
    EmptyState()
    """
    pairs = [as_pair(tx, f"chain: argument {i}") for i, tx in enumerate(args, 1)]

    def entries(state):
        if len(state) != len(pairs):
            raise ValueError(
                f"this chain has {len(pairs)} members, but the state has {len(state)} "
                "entries. Make it with state = tx.init(params), and call "
                "update(updates, state, params)"
            )
        return state

    return joined(pairs, lambda states, _: tuple(states), entries)


def named_chain(*args: tuple[str, Any]) -> Pair:
    """Apply named transformations one after the other.

    Args:
      *args: Pairs ``(name, transformation)``.

    Returns:
      A transformation, whose state is a dict of the states by name.

    Raises:
      ValueError: Two names are equal.

    >>> from jopt.interop import optax
    >>> tx = optax.named_chain(("noise", optax.identity()), ("sgd", optax.sgd(0.1)))
    >>> list(tx.init(jnp.ones(2)))
    ['noise', 'sgd']
    """
    names = [name for name, _ in args]
    if len(set(names)) < len(names):
        raise ValueError(f"named_chain: the names must differ, got {names}")
    pairs = [as_pair(tx, f"named_chain: {name!r}") for name, tx in args]

    def named(states, _):
        return dict(zip(names, states, strict=True))

    return joined(pairs, named, lambda state: [state[name] for name in names])


def joined(
    pairs: Sequence[Pair],
    collected: Callable[[Sequence[Any], Any], Any],
    entries: Callable[[Any], Sequence[Any]],
) -> Pair:
    """Return a pair that applies several, in one chain of jopt.

    Args:
      pairs: The pairs.
      collected: Makes the state of the states of ``pairs`` and the state before; that
        is None in ``init``.
      entries: Returns the states of ``pairs``, from the state.
    """

    def inward(state, updates):
        each = zip(pairs, entries(state), strict=True)
        return [x for tx, entry in each for x in tx.inward(entry, updates)]

    def outward(states, old, updates):
        new, at = [], 0
        for tx, entry in zip(pairs, entries(old), strict=True):
            end = at + len(tx.members)
            new.append(tx.outward(states[at:end], entry, updates))
            at = end
        return collected(new, old)

    members = [member for tx in pairs for member in tx.members]
    return pair(
        members,
        lambda params: collected([tx.init(params) for tx in pairs], None),
        inward,
        outward,
    )
