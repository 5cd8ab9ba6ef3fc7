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
from jax.experimental.shard_alike import shard_alike
from jax.typing import DTypeLike

from jopt import agreement, checks, masks, tree
from jopt.base import GradientTransformation, Needs, OptState, Params, Updates
from jopt.dynamic import NO_STATE, Dynamic
from jopt.kernels import Part, run
from jopt.recipe import Recipe, freeze
from jopt.tree import scalar


class Slot(NamedTuple):
    """An array kept for every leaf, of the parameter's shape."""

    fill: float
    dtype: str | None
    real: bool

    def init(self, param: Any) -> jax.Array:
        dtype = tree.compute_dtype(jnp.result_type(param))
        if self.real:
            dtype = jnp.finfo(dtype).dtype
        if self.dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating):
            dtype = jnp.dtype(self.dtype)
        return _filled(param, self.fill, dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _filled(param: jax.Array, fill: float, dtype: Any) -> jax.Array:
    # Under jit nothing else ties a constant to the parameter's sharding.
    return shard_alike(param, jnp.full_like(param, fill, dtype=dtype))[1]


def zeros(dtype: DTypeLike | None = None, *, real: bool = False) -> Slot:
    """A slot that starts at zero.

    Args:
      dtype: What it is stored in; None is the compute dtype (float32 for a bfloat16
        parameter: a moving average with decay 0.999 stands still in bfloat16).
      real: Whether it is real also for complex parameters, as squares are.

    Returns:
      A slot for `leafwise`.

    >>> zeros("bfloat16")
    Slot(fill=0.0, dtype='bfloat16', real=False)
    """
    return full(0.0, dtype, real=real)


def full(fill: float, dtype: DTypeLike | None = None, *, real: bool = False) -> Slot:
    """A slot that starts at ``fill``.

    Args:
      fill: The initial value of every element.
      dtype: What it is stored in; see `zeros`.
      real: Whether it is real also for complex parameters.

    Returns:
      A slot for `leafwise`.

    >>> full(0.1).fill
    0.1
    """
    name = None if dtype is None else checks.storage_dtype("dtype", dtype)
    return Slot(fill, name, real)


class Declaration(NamedTuple):
    """A leafwise algorithm as data; the fields are the arguments of `leafwise`."""

    rule: Callable[..., Any]
    scalars: Callable[..., Mapping[str, jax.Array]] | None
    state: Any
    slots: Mapping[str, Slot]
    carry: Mapping[str, float]
    mask: masks.Mask
    real_only: bool

    @property
    def asks(self) -> frozenset[str]:
        """The scalars (and ``p``) that the rule wants."""
        parameters = inspect.signature(self.rule).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

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

        wanted = declaration.inputs - {"t", "updates", *declaration.carry}
        if "p" in declaration.asks:
            wanted |= {"params"}
        needs = Needs(wanted | {"params"}, wanted)
        self = super().__new__(cls, init, update, needs=needs)
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
        chosen = masks.select(self.declaration.mask, params)
        if self.state_class is None:
            return NO_STATE
        fields: dict[str, Any] = {
            name: treedef.unflatten(
                slot.init(x) if on else None
                for x, on in zip(leaves, chosen, strict=True)
            )
            for name, slot in self.declaration.slots.items()
        }
        fields |= {n: scalar(x) for n, x in self.declaration.carry.items()}
        if "count" in self.state_class._fields:
            fields["count"] = jnp.zeros((), jnp.int32)
        if self.dynamic:
            fields |= self.dynamic.initial()
        return self.state_class(**fields)


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
    **slots: Slot,
) -> Leafwise:
    """A transformation from the algorithm for one leaf.

    Args:
      rule: ``rule(g, *slots, **scalars)`` gives the update of one leaf, or the update
        followed by the new slots. ``g`` is the incoming update; the slots come in the
        order of ``slots``; a keyword-only argument gets the scalar of its name, and
        ``p`` the parameter. Everything arrives in the compute dtype (float32 or wider)
        and is stored in its own.
      scalars: Computed once per step: ``scalars(**wanted)`` gives numbers by name. Its
        arguments may be ``t`` (the number of this step: 1, 2, …, as a float), a name of
        ``carry``, ``updates`` and ``params`` (the trees), and anything else that the
        caller then has to pass to ``update``.
      state: A NamedTuple class with a field for each slot and carry, and ``count`` if
        ``scalars`` wants ``t``. None for no state.
      carry: Scalars that are carried in the state, with their initial values;
        ``scalars`` gives the next value under the same name.
      mask: The leaves to act on; see `jopt.masks.Mask`. Others pass unchanged and have
        None in the slots.
      real_only: Whether complex leaves are an error.
      **slots: What is kept for every leaf, made by `zeros` or `full`.

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
        rule, scalars, state, slots, dict(carry or {}), mask, real_only
    )
    needed = {*slots, *declaration.carry}
    needed |= {"count"} if "t" in declaration.inputs else set()
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
                "zeros() or full()"
            )
    agreement.rule_signature(rule, slots)
    return Leafwise(declaration)
