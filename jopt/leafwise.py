"""The leaf engine: an algorithm is a few lines about one array; this does the rest.

A rule sees one leaf, its gradient and its slots, in the compute dtype. What is declared
here is data: what is kept per leaf, what is computed once per step, and the rule. How
it runs (structure checks, precision, storage, skipped leaves, one compiled kernel per
distinct leaf, shared by neighbouring rules of a chain) is in `kernels.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jopt import agreement, masks, tree
from jopt.base import GradientTransformation, Needs, OptState, Params, Updates
from jopt.dynamic import NO_STATE, Dynamic
from jopt.kernels import Part, run
from jopt.recipe import Recipe, freeze
from jopt.slots import Slot, copied, full, zeros
from jopt.tree import scalar


# The words of an algorithm file, from one place.
__all__ = ["Declaration", "Leafwise", "copied", "full", "leafwise", "zeros"]


class Declaration(NamedTuple):
    """A leafwise algorithm as data; the fields are the arguments of `leafwise`."""

    rule: Callable[..., Any]
    scalars: Callable[..., Mapping[str, jax.Array]] | None
    state: Any
    slots: Mapping[str, Slot]
    carry: Mapping[str, float]
    mask: masks.Mask
    real_only: bool
    readout: Callable[..., Any] | None

    @property
    def asks(self) -> frozenset[str]:
        """The scalars (and ``p``) that the rule wants."""
        parameters = inspect.signature(self.rule).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    @property
    def wanted(self) -> frozenset[str]:
        """Those of them that ``scalars`` or the state have to give."""
        return self.asks - {"p", "multiple"}

    def multiples(self, params: Params) -> list[float | None]:
        """The mask's number for each leaf; None where the rule is not for the leaf."""
        if "multiple" in self.asks:
            return masks.multiples(self.mask, params)
        return [1.0 if on else None for on in masks.select(self.mask, params)]

    @property
    def inputs(self) -> frozenset[str]:
        """What the scalars are computed from."""
        return frozenset(
            inspect.signature(self.scalars).parameters if self.scalars else ()
        )


class Leafwise(GradientTransformation):
    """A transformation that does the same to every leaf; made by `leafwise`."""

    declaration: Declaration
    part: Part

    def __new__(cls, declaration: Declaration, part: Part | None = None) -> Leafwise:
        def init(params: Params) -> OptState:
            return self._init(params)

        def update(
            updates: Updates,
            state: OptState,
            params: Params | None = None,
            **extra: Any,
        ) -> tuple[Updates, OptState]:
            updates, (state,) = run((self,), updates, (state,), params, extra)
            return updates, state

        own = {"t", "count", "updates", *declaration.carry, *declaration.slots}
        wanted = declaration.inputs - own
        if "p" in declaration.asks:
            wanted |= {"params"}
        needs = Needs(wanted | {"params"}, wanted)
        self = super().__new__(cls, init, update, needs=needs)
        if declaration.readout is not None:
            self.readout = functools.partial(_read, self)
        self.declaration = declaration
        self.part = part or Part(object(), _author(declaration), lambda: declaration)
        return self

    @property
    def name(self) -> str:
        return self.part.name

    def with_dynamic(
        self, make: Callable[..., GradientTransformation], dynamic: Dynamic
    ) -> Leafwise:
        def declare(**numbers: jax.Array) -> Declaration:
            made = make(**numbers)
            assert isinstance(made, Leafwise)
            return made.declaration

        key = (make, freeze(dynamic.schedules))
        names, schedules = dynamic.names, dynamic.schedules
        part = Part(key, dynamic.owner, declare, names, schedules)
        tx = Leafwise(self.declaration, part)
        tx.dynamic = dynamic
        return tx

    def recorded(self, recipe: Recipe) -> Leafwise:
        part = self.part
        if self.dynamic is None:
            part = dataclasses.replace(part, key=recipe.key, name=recipe.name)
        other = Leafwise(self.declaration, part)
        other.dynamic, other.recipe = self.dynamic, recipe
        return other

    @property
    def state_class(self) -> Any:
        own = self.declaration.state
        return self.dynamic.extended(own) if self.dynamic else own

    def _init(self, params: Params) -> OptState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
        owners = [self.name] if self.declaration.real_only else []
        agreement.leaves(leaves, params, "params", owners)
        chosen = self.declaration.multiples(params)
        if self.state_class is None:
            return NO_STATE
        fields: dict[str, Any] = {
            name: slot.stored(
                treedef,
                [
                    None if on is None else slot.init(x)
                    for x, on in zip(leaves, chosen, strict=True)
                ],
            )
            for name, slot in self.declaration.slots.items()
        }
        fields |= {n: scalar(x) for n, x in self.declaration.carry.items()}
        if "count" in self.state_class._fields:
            fields["count"] = jnp.zeros((), jnp.int32)
        if self.dynamic:
            fields |= self.dynamic.initial()
        return self.state_class(**fields)


@functools.partial(jax.jit, static_argnums=0)
def _read(tx: Leafwise, state: OptState, params: Params) -> Params:
    """The parameters to evaluate with, by the declared ``readout``."""
    own = state._asdict()
    numbers = own | (tx.dynamic.given if tx.dynamic else {})
    declared = tx.part.declare(**{name: numbers[name] for name in tx.part.numbers})
    keywords = inspect.signature(declared.readout).parameters.values()
    asked = {p.name: numbers[p.name] for p in keywords if p.kind is p.KEYWORD_ONLY}

    def read(p: Any, *slots: Any) -> Any:
        if p is None or slots[0] is None:
            return p
        wide = tree.compute_dtype(p.dtype)
        given = {name: jnp.asarray(x, wide) for name, x in asked.items()}
        loaded = jax.tree.map(lambda x: x.astype(tree.compute_dtype(x.dtype)), slots)
        return declared.readout(p.astype(wide), *loaded, **given).astype(p.dtype)

    slots = [own[name] for name in declared.slots]
    return jax.tree.map(read, params, *slots, is_leaf=lambda x: x is None)


def _author(declaration: Declaration) -> str:
    """The name of the function that the rule is written in."""
    outermost = getattr(declaration.rule, "__qualname__", "").split(".")[0]
    return outermost if outermost.isidentifier() else "leafwise"


def leafwise(
    rule: Callable[..., Any],
    scalars: Callable[..., Mapping[str, jax.Array]] | None = None,
    state: Any = None,
    *,
    carry: Mapping[str, float] | None = None,
    mask: masks.Mask = None,
    real_only: bool = False,
    readout: Callable[..., Any] | None = None,
    **slots: Slot,
) -> Leafwise:
    """A transformation from the algorithm for one leaf.

    Args:
      rule: ``rule(g, *slots, **scalars)`` gives the update of one leaf, or the update
        followed by the new slots. ``g`` is the incoming update; the slots come in the
        order of ``slots``; a keyword-only argument gets the scalar of its name, and
        ``p`` the parameter, ``multiple`` the number that the mask has for the leaf.
        Everything arrives in the compute dtype (float32 or wider)
        and is stored in its own.
      scalars: Computed once per step: ``scalars(**wanted)`` gives numbers by name. Its
        arguments may be ``t`` (the number of this step: 1, 2, …, as a float), ``count``
        (the steps before this one, as an integer), a name of ``carry``, ``updates`` and
        ``params`` (the trees), the name of a slot (its tree, before this step), and
        anything else that the caller then has to pass to ``update``.
      state: A NamedTuple class with a field for each slot and carry, and ``count`` if
        ``scalars`` wants ``t`` or ``count``. None for no state.
      carry: Scalars that are carried in the state, with their initial values;
        ``scalars`` gives the next value under the same name.
      mask: The leaves to act on; see `jopt.masks.Mask`. Others pass unchanged and have
        None in the slots.
      real_only: Whether complex leaves are an error.
      readout: ``readout(p, *slots, **fields)`` gives the parameter to evaluate with,
        for `jopt.eval_params`; a keyword-only argument is a scalar field of the state.
      **slots: What is kept for every leaf, made by `zeros`, `full` or `copied`.

    Returns:
      A transformation.

    Raises:
      TypeError: The state's fields are not the slots, carry and count.

    >>> import jopt
    >>> tx = jopt.leafwise(lambda g, *, p: g + 0.1 * p)
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, (), {"w": jnp.full(2, 10.0)})
    >>> updates
    {'w': Array([2., 2.], dtype=float32)}
    """
    declaration = Declaration(
        rule, scalars, state, slots, dict(carry or {}), mask, real_only, readout
    )
    needed = {*slots, *declaration.carry}
    needed |= {"count"} if {"t", "count"} & declaration.inputs else set()
    fields = set(getattr(state, "_fields", ()))
    if needed not in (fields, fields - {"count"}):
        raise TypeError(
            f"the fields of the state must be {sorted(needed)}, one for each slot, "
            f"carry and count, but {state!r} has {sorted(fields)}"
        )
    for name, slot in slots.items():
        if not isinstance(slot, Slot):
            raise TypeError(
                f"{name}={slot!r} is no option of leafwise, and no slot made by "
                "zeros(), full() or copied()"
            )
    agreement.rule_signature(rule, slots)
    return Leafwise(declaration)
