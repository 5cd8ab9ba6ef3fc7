"""The leaf engine: an algorithm is a few lines about one array; this does the rest.

A rule sees one leaf, its gradient and its slots, in the compute dtype. What is declared
here is data: the slots kept for each leaf, the scalars computed once per step, and the
rule. How it runs (structure checks, precision, storage, skipped leaves, one compiled
kernel per distinct leaf, shared by neighbouring rules of a chain) is in `kernels.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from jopt import tree
from jopt.core import masks, tree_checks
from jopt.core.changing_numbers import NO_STATE, ChangingNumbers, with_count
from jopt.core.declaration import Declaration, KernelKey, rounds_at_random
from jopt.core.kernels import run
from jopt.core.slots import Slot, copied, full, zeros
from jopt.core.transformation import (
    ANYWHERE,
    FUSED,
    GradientTransformation,
    Needs,
    OptState,
    Params,
    Place,
)
from jopt.core.treatment import Treatment
from jopt.tree import scalar
from jopt.tree.state_fields import declare_slots
from jopt.values.arguments import text_of
from jopt.values.recipe import Recipe, freeze


# What an algorithm file needs, from one place.
__all__ = ["Leafwise", "copied", "full", "leafwise", "zeros"]


class Leafwise(GradientTransformation):
    """A transformation that applies one rule to every leaf; made by `leafwise`."""

    declaration: Declaration
    kernel_key: KernelKey

    def __new__(
        cls,
        declaration: Declaration,
        kernel_key: KernelKey | None = None,
        *,
        changing: ChangingNumbers | None = None,
        recipe: Recipe | None = None,
    ) -> Self:
        kernel_key = kernel_key or KernelKey(
            object(), _author(declaration), lambda: declaration
        )
        if recipe is not None and changing is None:
            # Equal calls share their kernels. Where numbers change, the key that
            # `with_changing_numbers` made is more general: it leaves the numbers out.
            kernel_key = dataclasses.replace(
                kernel_key, identity=recipe.key, name=recipe.name
            )

        def init(params):
            return self._init(params)

        def update(updates, state, params=None, *, take=None, adds=False, **extra):
            members, states = (self,), (state,)
            result, (state,) = run(members, updates, states, params, extra, take, adds)
            return result, state

        def readout(state, params):
            return _read(self, state, params)

        computed = {"t", "count", "updates", *declaration.carry, *declaration.slots}
        required = declaration.inputs - computed
        if "p" in declaration.keywords:
            required |= {"params"}
        state_class = declaration.state
        if changing:
            state_class = changing.extended(state_class)
        elif rounds_at_random(declaration):
            state_class = with_count(state_class, kernel_key.name)
        self = super().__new__(
            cls,
            init,
            update,
            state_class=state_class,
            needs=Needs(required | {"params"}, required),
            readout=readout if declaration.readout else None,
            changing=changing,
            gain=declaration.gain,
            place=declaration.place,
            treatment=declaration.treatment,
            slots=declaration.slots,
            fixed_name=kernel_key.name,
            fused=FUSED,
            recipe=recipe,
        )
        if self.state_class is not None:
            declare_slots(self.state_class, declaration.slots)
        self.declaration, self.kernel_key = declaration, kernel_key
        return self

    def arguments(self) -> dict[str, Any]:
        return {
            "declaration": self.declaration,
            "kernel_key": self.kernel_key,
            "changing": self.changing,
            "recipe": self.recipe,
        }

    def with_changing_numbers(
        self, make: Callable[..., GradientTransformation], changing: ChangingNumbers
    ) -> Leafwise:
        def declare(**numbers):
            tx = make(**numbers)
            assert isinstance(tx, Leafwise)
            return tx.declaration

        names, schedules = changing.names, changing.untraced
        identity = (make, freeze(schedules))
        kernel_key = KernelKey(identity, changing.owner, declare, names, schedules)
        return Leafwise(self.declaration, kernel_key, changing=changing)

    def _init(self, params: Params) -> OptState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
        owners = [self.name] if self.declaration.real_only else []
        if self.declaration.any_dtype:
            tree_checks.arrays(params, "params")
        else:
            tree_checks.leaves(leaves, params, "params", owners)
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
        if self.changing:
            fields |= self.changing.initial()
        return self.state_class(**fields)


@functools.partial(jax.jit, static_argnums=0)
def _read(tx: Leafwise, state: OptState, params: Params) -> Params:
    """The parameters to evaluate with, by the declared ``readout``."""
    fields = state._asdict()
    numbers = fields | (tx.changing.arrays if tx.changing else {})
    key = tx.kernel_key
    declared = key.declare(**{name: numbers[name] for name in key.numbers})
    readout: Any = declared.readout
    parameters = inspect.signature(readout).parameters.values()
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def read(p, *slots):
        if p is None or slots[0] is None:
            return p
        wide = tree.compute_dtype(p.dtype)
        scalars = {name: jnp.asarray(numbers[name], wide) for name in keywords}
        values = jax.tree.map(lambda x: x.astype(tree.compute_dtype(x.dtype)), slots)
        return readout(p.astype(wide), *values, **scalars).astype(p.dtype)

    slots = [slot.whole(fields[name]) for name, slot in declared.slots.items()]
    return jax.tree.map(read, params, *slots, is_leaf=lambda x: x is None)


def _author(declaration: Declaration) -> str:
    """The name of the outermost function that the rule is written in."""
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
    gain: str | None = None,
    place: Place = ANYWHERE,
    any_dtype: bool = False,
    treatment: Treatment | None = None,
    **slots: Slot,
) -> Leafwise:
    """Make a transformation of the algorithm for one leaf.

    Args:
      rule: ``rule(g, *slots, **scalars)`` returns the update of one leaf, or the update
        followed by the new slots. ``g`` is the incoming update; the slots come in the
        order of ``slots``. A keyword-only argument receives the scalar of its name;
        ``p`` is the parameter, and ``multiple`` the number that the mask has for the
        leaf. Everything arrives in the compute dtype (float32 or wider), and each
        result is stored in the dtype of what it replaces.
      scalars: Runs once per step: ``scalars(**inputs)`` returns numbers by name. Its
        arguments may be ``t`` (the number of this step: 1, 2, …, as a float), ``count``
        (the steps before this one, as an integer), a name of ``carry``, ``updates`` and
        ``params`` (the trees), the name of a slot (its tree, before this step), and any
        other name, which the caller must then pass to ``update``.
      state: A NamedTuple class with a field for each slot and carry, and ``count`` if
        ``scalars`` takes ``t`` or ``count``. None for no state.
      carry: Initial values of scalars that the state carries; ``scalars`` returns the
        next value under the same name.
      mask: The leaves to act on; see `jopt.Mask`. Other leaves pass unchanged and have
        None in the slots.
      real_only: Whether to reject complex leaves.
      readout: ``readout(p, *slots, **fields)`` returns the parameter to evaluate with,
        for `jopt.eval_params`. A keyword-only argument is a scalar field of the state.
      gain: The name under which `jopt.monitor` reports ``|update| / |gradient|``.
      place: Where the transformation belongs in a chain, if not anywhere.
      any_dtype: Whether the rule is for leaves of integers too, which arrive as they
        are. Only for a rule without scalars and slots.
      treatment: What the rule does to a leaf, for `jopt.describe`; None if it is
        neither a factor nor a weight decay.
      **slots: What to keep for every leaf, made by `zeros`, `full` or `copied`.

    Returns:
      A transformation.

    Raises:
      TypeError: The fields of the state are not the slots, carry and count; or an
        option is neither an argument of this function nor a slot.
      ValueError: The storage dtype of a slot has not the range that the slot needs.

    >>> import jopt
    >>> tx = jopt.leafwise(lambda g, *, p: g + 0.1 * p)
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, (), {"w": jnp.full(2, 10.0)})
    >>> updates
    {'w': Array([2., 2.], dtype=float32)}
    """
    declaration = Declaration(
        *(rule, scalars, state, slots, dict(carry or {}), mask, real_only, readout),
        gain,
        place,
        any_dtype,
        treatment,
    )
    needed = {*slots, *declaration.carry}
    needed |= {"count"} if {"t", "count"} & declaration.inputs else set()
    fields = set(getattr(state, "_fields", ()))
    if needed not in (fields, fields - {"count"}):
        raise TypeError(
            f"the fields of the state must be {sorted(needed)}, one for each slot, "
            f"carry and count, but {text_of(state)} has {sorted(fields)}"
        )
    for name, slot in slots.items():
        if not isinstance(slot, Slot):
            raise TypeError(
                f"{name}={text_of(slot)} is neither an option of leafwise nor a slot "
                "made by zeros(), full() or copied()"
            )
        slot.check(name)
    tree_checks.rule_signature(rule, slots)
    return Leafwise(declaration)
