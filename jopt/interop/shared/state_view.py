"""A view of a state by parameter, which is how other libraries list their states.

"The momentum of the third variable" of another library is the leaf ``conv/kernel`` of
the field ``trace`` of the member ``trace`` in jopt. A `View` finds such places, reads
them, and returns the state with other values there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import masks
from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation, OptState, Params
from jopt.interop.shared.parameter_order import Permuted, in_order
from jopt.tree.paths import by_name, difference
from jopt.tree.variables import with_variables, without_variables
from jopt.values.arguments import abbreviated


class Member(NamedTuple):
    """A transformation inside another, and its state."""

    path: str  # path of its state in the whole state
    name: str  # name of its factory
    tx: GradientTransformation
    state: Any


def members(tx: Any, state: Any, path: str = "") -> Iterator[Member]:
    """Yield a transformation and all those inside it, in order, with their states.

    Args:
      tx: A transformation.
      state: Its state.
      path: The path of the state in the whole state.
    """
    yield Member(path, tx.name, tx, state)
    for name, inner in tx.children.items():
        if isinstance(state, Mapping):
            inner_state = state.get(
                name, ()
            )  # a chain leaves out members without state
        else:
            inner_state = getattr(state, name)
        yield from members(inner, inner_state, joined(path, name))


def reached(tx: Any, params: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield the path of every state in a whole state, with the paths of its parameters.

    Args:
      tx: A transformation.
      params: The parameters that it sees.
      path: The path of its state.
    """
    yield path, {name for name, _ in tree.leaves_with_names(params)}
    chosen = tx.reach(params) if tx.reach else {}
    for name, inner in tx.children.items():
        seen = masks.only(params, chosen[name]) if name in chosen else params
        yield from reached(inner, seen, joined(path, name))


def joined(*steps: str) -> str:
    """Join the parts of a path, skipping empty ones."""
    return "/".join(step for step in steps if step)


class View:
    """A state by member, field and parameter.

    Args:
      tx: A transformation.
      state: Its state.
      params: The parameters.
      order: The paths of the parameters in the order of the other library; for None
        see `in_order`.

    Raises:
      TypeError: ``tx`` is not a transformation.
      ValueError: ``state`` is not a state of ``tx``, or ``order`` does not name every
        parameter once.
    """

    def __init__(
        self,
        tx: GradientTransformation,
        state: OptState,
        params: Params,
        order: Sequence[str | Permuted] | None,
    ):
        self.tx = as_transformation(tx, "tx")
        self.original = state
        state, params = without_variables((state, params))
        expected = jax.tree.structure(jax.eval_shape(tx.init, params))
        if (structure := jax.tree.structure(state)) != expected:
            where = difference(
                "the state", state, "init", jax.eval_shape(tx.init, params)
            )
            raise ValueError(
                f"this state is not one of {abbreviated(tx)} for these "
                f"parameters; {where}" + ("" if structure else ". It is empty")
            )
        self.state = state
        self.members = list(members(tx, state))
        self.reach = dict(reached(tx, params))
        self.flat = by_name(tree.leaves_with_names(state))
        self.parameters = in_order(params, order)

    def places(self, source: str, path: str) -> list[str]:
        """Return the places of a ``member/field`` for a parameter."""
        member, field = source.split("/")
        names = [joined(m.path, field, path) for m in self.members if m.name == member]
        return [name for name in names if name in self.flat]

    def holding(self, state_class: type) -> list[Member]:
        """The members whose state has this class, whatever their factory is called."""
        return [
            m
            for m in self.members
            # Numbers that change extend a state's class.
            if getattr(type(m.state), "base", type(m.state)) is state_class
        ]

    def place(self, sources: Sequence[str], path: str) -> str | None:
        """Return the only place of any ``member/field`` for a parameter, or None.

        Raises:
          ValueError: There are several places.
        """
        places = [x for s in sources for x in self.places(s, path)]
        if len(places) > 1:
            raise ValueError(
                f"the parameter {path!r} has {places} in this state, but the other "
                "library keeps only one of them"
            )
        return places[0] if places else None

    def named(self, field: str) -> dict[str, Member]:
        """Return the members with this scalar in their state, by its place."""
        places = {joined(m.path, field): m for m in self.members}
        return {
            name: m
            for name, m in places.items()
            if name in self.flat and field in getattr(m.state, "_fields", ())
        }

    def free_rates(self) -> list[str]:
        """Return the places of the learning rates without a schedule."""
        rates = self.named("learning_rate").items()
        return [
            name
            for name, m in rates
            if m.tx.changing is not None
            and "learning_rate"
            not in {**m.tx.changing.schedules, **m.tx.changing.arrays}
        ]

    def governed(self) -> dict[str, set[str]]:
        """Return the parameters of each of these learning rates, by its place."""
        rates = self.named("learning_rate")
        return {place: self.reach[rates[place].path] for place in self.free_rates()}

    def rate_values(self, value: Any) -> dict[str, Any]:
        """Return rates by place: the first is the value, others keep their ratio."""
        places = self.free_rates()
        if not places:
            return {}
        first = float(self.flat[places[0]])
        ratios = [float(self.flat[x]) / first if first else 1.0 for x in places]
        return {x: float(value) * r for x, r in zip(places, ratios, strict=True)}

    def first_rate(self, path: str | None = None) -> float | None:
        """Return the first learning rate in the state, or the first of a parameter."""
        members = self.named("learning_rate").items()
        rates = (float(self.flat[x]) for x, m in members if self._acts_on(m, path))
        return next(rates, None)

    def count(self) -> int | None:
        """Return the number of steps so far, None if the state does not count them.

        Raises:
          ValueError: The counts of the members differ.
        """
        counts = {name: int(self.flat[name]) for name in self.named("count")}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"the step counts of this state differ: {counts}. The other library "
                "has only one: set them to one number first"
            )
        return next(iter(counts.values()), None)

    def scalar(self, source: str, path: str | None = None) -> tuple[str, Member]:
        """Return the place and member of a ``member/field`` that is one number.

        With a path, it is the one that acts on that parameter.
        """
        name, field = source.split("/")
        members = self.named(field).items()
        return next(
            (p, m) for p, m in members if m.name == name and self._acts_on(m, path)
        )

    def scalars(self, source: str) -> list[str]:
        """Return all places of a ``member/field`` that is one number."""
        name, field = source.split("/")
        return [p for p, m in self.named(field).items() if m.name == name]

    def _acts_on(self, member: Member, path: str | None) -> bool:
        return path is None or path in self.reach[member.path]

    def row_of(self, rows: Iterable[Any], library: str, *more: str) -> Any:
        """Return the first row whose sources include all members of this state.

        Args:
          rows: Each has ``classes``, the names in the other library, and ``sources``,
            the places in jopt's state, each a ``member/field``.
          library: The name of the other library for errors.
          *more: Further sources that every row allows.

        Raises:
          ValueError: No row fits, or the state keeps arrays that the row has not.
        """
        rows = list(rows)
        names = {
            source.split("/")[0]
            for source in {s for row in rows for s in row.sources}
            if any(self.places(source, p.path) for p in self.parameters)
        }
        fit = [r for r in rows if names <= {s.split("/")[0] for s in r.sources}]
        if not fit:
            raise ValueError(
                f"no optimizer of {library} has the state of {sorted(names)} together; "
                f"there are {sorted({name for row in rows for name in row.classes})}"
            )
        sources = [*fit[0].sources, *more]
        used = {
            x for p in self.parameters for s in sources for x in self.places(s, p.path)
        } | {
            joined(m.path, field)
            for m in self.members
            for field in getattr(m.state, "_fields", ())
        }
        if rest := [name for name in self.flat if name not in used]:
            more_of_it = f" and {len(rest) - 4} more" if len(rest) > 4 else ""
            raise ValueError(
                f"{library}'s {fit[0].classes[0]} keeps nothing like "
                f"{rest[:4]}{more_of_it}"
            )
        return fit[0]

    def replaced(self, values: Mapping[str, Any]) -> OptState:
        """Return the state with new values at these places, in the old dtypes.

        Raises:
          ValueError: A value has another shape, or the old dtype cannot hold it.
        """
        missing = values.keys() - self.flat.keys()
        assert not missing, missing
        new = jax.tree_util.tree_map_with_path(
            lambda path, old: (
                _like(name, old, values[name])
                if (name := tree.path_name(path)) in values
                else old
            ),
            self.state,
        )
        return with_variables(new, self.original)


def _like(name: str, old: Any, value: Any) -> jax.Array:
    new = np.asarray(value)
    if new.shape != old.shape:
        raise ValueError(
            f"{name} has the shape {old.shape}, but the new value has {new.shape}"
        )
    narrow = not jnp.issubdtype(old.dtype, jnp.inexact)
    with np.errstate(invalid="ignore"):
        exact = not narrow or np.array_equal(new.astype(old.dtype), new)
    if not exact or (np.iscomplexobj(new) and not jnp.iscomplexobj(old)):
        raise ValueError(
            f"{name} has the dtype {old.dtype}, which cannot hold the new value of "
            f"{new.dtype}: {abbreviated(value)}"
        )
    loaded = jnp.array(new, old.dtype)  # a copy, so that it can be donated
    if getattr(old, "committed", False):
        return jax.device_put(loaded, old.sharding)
    return loaded
