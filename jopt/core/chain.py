"""``chain``: one transformation after the other, with the state as a dict by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Self

import jax

from jopt.core.changing_numbers import NO_STATE
from jopt.core.factory import transformation
from jopt.core.fused import fused_update
from jopt.core.kernels import Landing, run, select_trees
from jopt.core.leafwise import Leafwise
from jopt.core.order import check_order, stepped, with_steps
from jopt.core.transformation import (
    FUSED,
    LANDING,
    UPDATE,
    GradientTransformation,
    OptState,
    Params,
    Place,
    Updates,
    given,
)
from jopt.values.arguments import abbreviated
from jopt.values.recipe import Recipe


P = ParamSpec("P")


@transformation
def chain(
    *members: GradientTransformation, **named: GradientTransformation
) -> GradientTransformation:
    """Apply transformations one after the other.

    The state is a dict with an entry for each member that has state, keyed by the name
    of its factory or by its keyword here. A chain inside a chain is spliced in, and a
    repeated name is numbered (``ema``, ``ema_2``). Adding clipping, weight decay or a
    schedule therefore leaves the structure of the state unchanged.

    Args:
      *members: Transformations, or pairs ``(init, update)`` such as optax's.
      **named: Transformations under names of your choice; they follow the others.

    Returns:
      A transformation. Extra arguments go to the members that declare them.

    Raises:
      TypeError: A member is not a transformation.
      ValueError: A keyword is the name of another member, or a member that must be
        first or last is not: `aggregate` and `densify`, or an average of the
        parameters, after which no member may change the updates.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(0.1, momentum=0.9))
    >>> tx
    chain(clip_by_global_norm(max_norm=1.0), sgd(learning_rate=0.1, momentum=0.9))
    >>> list(tx.init(jnp.ones(3)))
    ['trace', 'scale_by_learning_rate']
    """
    listed = [
        as_transformation(tx, f"chain: member {i}")
        for i, tx in enumerate(members, start=1)
    ]
    flat: list[tuple[str | None, GradientTransformation]] = []
    for tx in listed:
        flat += tx.members if isinstance(tx, Chain) else [(None, tx)]
    flat += [
        (name, as_transformation(tx, f"chain: member {name!r}"))
        for name, tx in named.items()
    ]
    return Chain(flat)


def optimizer(
    factory: Callable[P, GradientTransformation],
) -> Callable[P, GradientTransformation]:
    """Decorate the factory of an optimizer whose one rule contains the learning rate.

    Without it the state of ``ftrl(…)`` would be that of its rule, and become an entry
    ``"ftrl"`` of a dict only beside other members of a chain. So the result is a chain
    of one member, whose entry has the factory's name, as if it were spliced.

    Args:
      factory: A function as for `transformation`; its numbers are numbers of the rule.

    Returns:
      The factory, with everything that `transformation` adds.

    >>> import jopt, jax.numpy as jnp
    >>> jopt.ftrl(0.1).init(jnp.ones(2)).keys()
    dict_keys(['ftrl'])
    """
    # The member keeps a recipe too: its arguments are read by path, and its numbers are
    # kept in its own state. The registration of the chain replaces that of the member.
    member = transformation(factory)

    @functools.wraps(factory)
    def chained(*args, **kwargs):
        return chain(member(*args, **kwargs))

    return transformation(chained)


class Chain(GradientTransformation):
    """What `chain` returns; ``children`` are the members by name.

    With ``any_order``, as optax has it, no member has a place, and all run at every
    gradient.
    """

    members: list[tuple[str | None, GradientTransformation]]
    any_order: bool

    def __new__(
        cls,
        members: list[tuple[str | None, GradientTransformation]],
        *,
        any_order: bool = False,
        recipe: Recipe | None = None,
    ) -> Self:
        children = _by_name(members)
        if not any_order:
            check_order(children)
        in_steps = set() if any_order else with_steps(children)
        groups = _groups(children, in_steps)

        def init(params):
            states = {name: tx.init(params) for name, tx in children.items()}
            return {n: s for n, s in states.items() if not _is_stateless(s)}

        def update(
            updates, state, params=None, *, take=None, adds=False, landing=None, **extra
        ):
            arguments = given(updates, params, extra)
            new, made_step = {}, None
            for names in groups:
                group = [children[name] for name in names]
                before = [state.get(name, NO_STATE) for name in names]
                for tx in group:
                    tx.needs.check(tx.name, tx.needs.chosen(arguments))
                old = (updates, before)
                last = adds and names is groups[-1]
                options = (take, last, landing)
                updates, after = _run(group, updates, before, arguments, *options)
                if names[0] in in_steps and made_step is not None:
                    updates, after = select_trees(made_step, (updates, after), old)
                if in_steps:
                    for tx, x, y in zip(group, before, after, strict=True):
                        made = stepped(tx, x, y)
                        made_step = made_step if made is None else made
                new |= zip(names, after, strict=True)
            return updates, {name: new[name] for name in state}

        fused = FUSED if groups and not in_steps else frozenset[str]()
        if fused and len(groups) == 1 and isinstance(children[groups[0][0]], Leafwise):
            fused |= {LANDING}
        keeps_updates = all(tx.place.keeps_updates for tx in children.values())
        self = super().__new__(
            cls,
            init,
            update,
            children=children,
            place=Place(keeps_updates=keeps_updates),
            fused=fused,
            recipe=recipe,
        )
        self.members, self.any_order = members, any_order
        return self

    def check_state(self, state: OptState, call: str = UPDATE) -> None:
        self.check_entries(state, "this chain", call)

    @property
    def has_state(self) -> bool:
        return True  # a dict, even if it is empty

    def arguments(self) -> dict[str, Any]:
        return {
            "members": self.members,
            "any_order": self.any_order,
            "recipe": self.recipe,
        }


def _run(
    group: list[Any],
    updates: Updates,
    states: list[OptState],
    arguments: dict[str, Any],
    take: jax.Array | None,
    adds: bool,
    landing: Landing | None,
) -> tuple[Updates | Params, list[OptState]]:
    extra = {name: x for name, x in arguments.items() if name != "params"}
    params = arguments.get("params")
    if isinstance(group[0], Leafwise):
        return run(group, updates, states, params, extra, take, adds, landing)
    (tx,) = group
    extra = tx.needs.chosen(extra)
    updates, state = fused_update(
        tx, updates, states[0], params, extra, take=take, adds=adds
    )
    return updates, [state]


def as_transformation(tx: Any, where: str) -> GradientTransformation:
    """Return a transformation as it is, and wrap a foreign pair of functions."""
    if isinstance(tx, GradientTransformation):
        return tx
    is_pair = isinstance(tx, tuple) and len(tx) == 2
    init, update = tx if is_pair else (getattr(tx, n, None) for n in ("init", "update"))
    if callable(init) and callable(update) and not isinstance(tx, type):
        return GradientTransformation(init, update)
    hint = ""
    if inspect.isfunction(tx):
        hint = f". It is a function: call it, {tx.__name__}(…)"
    elif isinstance(tx, list | tuple):
        hint = ". Give the members one by one: chain(*members)"
    raise TypeError(f"{where} is {abbreviated(tx)}, not a transformation{hint}")


def _by_name(
    members: list[tuple[str | None, GradientTransformation]],
) -> dict[str, GradientTransformation]:
    children: dict[str, GradientTransformation] = {}
    for keyword, tx in members:
        name, number = keyword or tx.name, 1
        while name in children:
            if keyword:
                raise ValueError(
                    f"chain: two members are named {keyword!r}; choose a keyword that "
                    "is not the name of a factory"
                )
            number += 1
            name = f"{tx.name}_{number}"
        children[name] = tx
    return children


def _groups(
    children: Mapping[str, GradientTransformation], in_steps: set[str]
) -> list[list[str]]:
    """Groups of neighbouring leafwise members, by name; one kernel runs each group.

    A member that looks at the whole tree of updates starts a new group: inside a kernel
    there is one leaf only, so the tree has to be computed before. So does a member that
    runs in some steps only, after one that runs in all.
    """
    groups: list[list[str]] = []
    previous: GradientTransformation | None = None
    runs_in_steps = False
    for name, tx in children.items():
        if (
            isinstance(previous, Leafwise)
            and isinstance(tx, Leafwise)
            and "updates" not in tx.declaration.inputs
            and (name in in_steps) == runs_in_steps
        ):
            groups[-1].append(name)
        else:
            groups.append([name])
        previous, runs_in_steps = tx, name in in_steps
    return groups


def _is_stateless(state: OptState) -> bool:
    return isinstance(state, tuple) and not state
