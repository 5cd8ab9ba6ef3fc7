"""Kernels on a CPU: every array is computed in one loop, in place.

XLA:CPU makes one loop for each array that a kernel returns, and copies an old slot that
a later loop still reads. Which loop is later, and what it reads, follows from the order
of the outputs and from what they share. Here a kernel is written down again for this
compiler:

- The outputs are put in an order in which old slots are read before they are
  overwritten. Nothing but data keeps XLA to an order, so an output selects its new
  values by a condition that depends on the outputs before it and is always true.
- Each output computes what it needs for itself, from the slots that are there. XLA
  would write a costly value with two users to memory.

The numbers are the same. Other platforms make one loop for all outputs of a kernel, and
get the kernel as it is.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding

from jopt.core import row_loops, tpu_kernels, tpu_shards
from jopt.core.row_kernels import ELEMENTWISE
from jopt.core.row_loops import Output
from jopt.native import switch
from jopt.storage.formats import is_encoded
from jopt.tree.like import zeros_beside
from jopt.tree.platforms import per_platform


# A smaller array stays in the cache between two loops, and its copy costs nothing.
LEAST_SIZE = 2**15
_BY_ENTRY = ELEMENTWISE | {"broadcast_in_dim", "iota", "reshape", "squeeze"}
_SQUARING = {"mul", "square", "integer_pow", "abs"}
_INLINED = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"}


def in_place(
    kernel: Callable[..., tuple[Any, Any]],
    g: Any,
    old: Any,
    rest: Any,
    take: Any,
    *,
    at_once: bool = False,
    sharding: NamedSharding | None = None,
) -> tuple[Any, Any]:
    """Return ``kernel(g, old, rest)``; on one CPU, computed in place.

    Args:
      kernel: Returns the update or the new parameter, and the new slots.
      g: The gradient of the leaf.
      old: The parameter, if the kernel returns a new one, else None; and the slots.
      rest: What else the kernel takes.
      take: One bool: if it is false, the old arrays are returned, and a zero update.
        None means true.
      at_once: Whether outputs need each other's old arrays, so that a TPU computes some
        rows of all at once, as for slots in blocks. On a CPU that takes more than twice
        as long as a loop for each array.
      sharding: How the leaf is split over devices, if it is known.
    """
    if g.size < LEAST_SIZE:
        return select(take, kernel(g, old, rest), old)
    leaves, treedef = jax.tree.flatten((g, old, rest))
    jaxpr, shapes = jax.make_jaxpr(
        lambda *leaves: kernel(*treedef.unflatten(leaves)), return_shape=True
    )(*leaves)
    if jaxpr.effects:  # a rule that prints
        return select(take, kernel(g, old, rest), old)
    # What each output replaces, as the number of an input; the gradient is the first.
    update = [None] if old[0] is None else []
    places = [*update, *range(1, len(jax.tree.leaves(old)) + 1)]
    outputs = [Output(i, x.dtype) for i, x in zip(places, jaxpr.out_avals, strict=True)]

    def usual(leaves, take):
        from jax.extend.core import jaxpr_as_fun

        new = jaxpr_as_fun(jaxpr)(*leaves)
        olds = [None if i is None else leaves[i] for i in places]
        first, rest = select(take, (new[0], new[1:]), (olds[0], olds[1:]))
        return [first, *rest]

    def elsewhere(leaves, take):
        # XLA copies an input that it returns in another's place, and reads it again.
        new, inputs = usual(leaves, take), jaxpr.jaxpr.invars
        if take is not None:
            return new
        return [
            _written(x, leaves[i]) if i and v in inputs and v is not inputs[i] else x
            for x, v, i in zip(new, jaxpr.jaxpr.outvars, places, strict=True)
        ]

    def in_order(leaves, take):
        order = _Order.of(jaxpr, places, take, leaves)
        return order.results() if order.is_elementwise() else usual(leaves, take)

    loop = None
    if switch.enabled():
        # It imports jax.extend, which is slow, and few want it.
        from jopt.native.calls import kernel_for

        whole = jax.make_jaxpr(usual)(leaves, take)
        loop = kernel_for(whole, {i: k for k, i in enumerate(places) if i is not None})

    def selected(g, old, rest, take):
        return select(take, kernel(g, old, rest), old)

    def in_form(form, otherwise):
        """The kernel in the form that a platform has for some rows at a time."""

        def run(leaves, take):
            inputs, structure = jax.tree.flatten((*treedef.unflatten(leaves), take))
            call = form(selected, inputs, structure, outputs)
            return otherwise(leaves, take) if call is None else call(*inputs)

        return run

    in_blocks = any(map(is_encoded, jax.tree.leaves(old, is_leaf=is_encoded)))

    def cpu(leaves, take):
        if loop is not None:
            return loop(*jax.tree.leaves((leaves, take)))
        run = in_form(row_loops.form, in_order) if in_blocks else in_order
        return run(leaves, take)

    def of_parts(kernel, inputs, treedef, outputs):
        return tpu_shards.form(kernel, inputs, treedef, outputs, sharding)

    tpu, tpus = (
        in_form(form, elsewhere) if in_blocks or at_once else None
        for form in (tpu_kernels.form, of_parts)
    )
    new = per_platform(
        elsewhere, cpu, leaves, take, one_device=True, tpu=tpu, tpus=tpus
    )
    return jax.tree.unflatten(jax.tree.structure(shapes), new)


@jax.custom_jvp
def _written(x: jax.Array, old: jax.Array) -> jax.Array:
    """Return ``x``, computed in a way that seems to need the array that it replaces."""
    if jnp.iscomplexobj(x):  # it has no bits to XLA
        return x
    bits = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    key = lax.bitcast_convert_type(old, bits)
    return lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, bits) ^ key ^ key, x.dtype
    )


@_written.defjvp
def _derivative(primals: Any, tangents: Any) -> Any:
    return _written(*primals), tangents[0]


def select(take: Any, new: tuple[Any, Any], old: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return what a kernel returned if ``take``, else the old arrays, or a zero update.

    >>> u, slots = select(jnp.array(False), (jnp.ones(1), [jnp.ones(1)]), (None, [0.0]))
    >>> u, slots
    (Array([0.], dtype=float32), [Array([0.], dtype=float32)])
    """
    if take is None:
        return new
    first = jax.tree.map(zeros_beside, new[0]) if old[0] is None else old[0]
    return jax.tree.map(lambda x, y: jnp.where(take, x, y), new, (first, old[1]))


class _Value:
    """One value of a kernel: an input, a constant, or a result of an equation."""

    def __init__(self, aval: Any, known: Any = None) -> None:
        self.aval, self.known = aval, known
        self.equation: int | None = None  # which computes it, by number
        self.readers: list[int] = []  # the equations that read it

    @property
    def size(self) -> int:
        return math.prod(getattr(self.aval, "shape", ()))


class _Equation(NamedTuple):
    primitive: Any
    params: dict[str, Any]
    inputs: list[_Value]
    outputs: list[_Value]


def _inline(
    jaxpr: Any, consts: Sequence[Any], inputs: list[_Value], equations: list[_Equation]
) -> list[_Value]:
    """Append the equations of a jaxpr, inner calls spliced in; return its outputs."""
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= {
        v: _Value(v.aval, x) for v, x in zip(jaxpr.constvars, consts, strict=True)
    }

    def read(v):
        return _Value(v.aval, v.val) if hasattr(v, "val") else values[v]

    for eqn in jaxpr.eqns:
        arguments = [read(v) for v in eqn.invars]
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if eqn.primitive.name in _INLINED and inner is not None:
            results = _inline(inner.jaxpr, inner.consts, arguments, equations)
        else:
            results = _computed(eqn, arguments, equations)
        values |= zip(eqn.outvars, results, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _computed(
    eqn: Any, inputs: list[_Value], equations: list[_Equation]
) -> list[_Value]:
    """The results of an equation, or of an equal one before it."""
    for x in inputs:
        for number in x.readers:
            e = equations[number]
            if (e.primitive, e.inputs, e.params) == (eqn.primitive, inputs, eqn.params):
                return e.outputs
    outputs = [_Value(v.aval) for v in eqn.outvars]
    for x in outputs:
        x.equation = len(equations)
    for x in inputs:
        x.readers.append(len(equations))
    equations.append(_Equation(eqn.primitive, eqn.params, inputs, outputs))
    return outputs


class _Order:
    """The outputs of one kernel, computed one after the other."""

    @staticmethod
    def of(
        jaxpr: Any, places: Sequence[int | None], take: Any, leaves: Sequence[Any]
    ) -> _Order:
        """The order of a kernel's outputs, which replace these inputs."""
        inputs = [_Value(v, x) for v, x in zip(jaxpr.in_avals, leaves, strict=True)]
        equations: list[_Equation] = []
        outputs = _inline(jaxpr.jaxpr, jaxpr.consts, inputs, equations)
        replaced = [None if i is None else inputs[i] for i in places]
        return _Order(equations, outputs, replaced, leaves[0], take)

    def __init__(
        self,
        equations: list[_Equation],
        outputs: list[_Value],
        places: list[_Value | None],
        g: Any,
        take: Any,
    ) -> None:
        self.equations, self.outputs, self.places = equations, outputs, places
        self.g, self.take = g, take
        # The results so far, and for each those from which it was computed.
        self.done: dict[_Value, Any] = {}
        self.before: dict[_Value, set[_Value]] = {}
        self.computed: set[int] = set()  # the equations, by number
        # The results that were computed from an old array.
        self.readers: dict[_Value, list[_Value]] = {}

    def is_large(self, value: _Value) -> bool:
        return value.size >= self.g.size

    def is_elementwise(self) -> bool:
        """Whether all arrays of the leaf's size are computed entry by entry."""
        return all(
            e.primitive.name in _BY_ENTRY
            for e in self.equations
            if any(map(self.is_large, e.outputs))
        )

    def results(self) -> list[Any]:
        """The outputs, computed in an order without copies."""
        waiting = [*range(1, len(self.outputs)), 0]
        results: dict[int, Any] = {}
        while waiting:
            i = self.next(waiting)
            waiting.remove(i)
            results[i] = self.output(i, is_last=not waiting)
        return [results[i] for i in range(len(self.outputs))]

    def next(self, waiting: list[int]) -> int:
        """The output to compute now: if possible, one that others can be read from."""
        free = [i for i in waiting if self.is_free(i, waiting)]
        for i in free:
            others = [self.outputs[k] for k in waiting if k != i]
            if self.outputs[i] in self.behind(others, self.done):
                return i
        return (free or waiting)[0]

    def is_free(self, i: int, waiting: list[int]) -> bool:
        """Whether no later output reads what this one replaces."""
        if self.places[i] is None:  # an update is computed where it is added
            return len(waiting) == 1
        others = [self.outputs[k] for k in waiting if k != i]
        done = self.done.keys() | {self.outputs[i]}
        return self.places[i] not in self.behind(others, done)

    def behind(
        self, values: Iterable[_Value], done: Collection[_Value]
    ) -> dict[_Value, None]:
        """All values that some are computed from, back to those that are done.

        In an order, unlike a set: equal kernels have to become equal programs, which
        JAX finds in its cache on disk.
        """
        behind: dict[_Value, None] = {}
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if value not in behind:
                behind[value] = None
                if value.equation is not None and value not in done:
                    waiting += self.equations[value.equation].inputs
        return behind

    def output(self, i: int, is_last: bool) -> Any:
        value, place = self.outputs[i], self.places[i]
        conditions = [] if self.take is None else [self.take]
        if value is place:
            return value.known
        if value.known is not None:  # the gradient, or a constant
            self.done[value] = jnp.asarray(value.known, value.aval.dtype)
        if value not in self.done:
            self.compute(value)
        if place is not None and self.is_large(value):
            before = self.before.get(value, set())
            readers = [
                self.done[reader]
                for reader in self.readers.get(place, ())
                if reader is not value and reader not in before
            ]
            if not conditions and not readers and not is_last and self.is_unary(value):
                # XLA would compute it again for its readers, from the old array.
                readers = [self.g]
            conditions += [always(*readers)] if readers else []
        self.done[value] = new = _selected(conditions, self.done[value], place)
        return new

    def is_unary(self, value: _Value) -> bool:
        """Whether XLA takes the last operation to read one array of the leaf's size."""
        if value.equation is None:
            return False
        inputs = self.equations[value.equation].inputs
        return sum(map(self.is_large, inputs)) < 2

    def compute(self, value: _Value) -> None:
        """Compute a value from what is there: old arrays, and results so far."""
        for x in self.small(value):
            if x not in self.done:
                for summand in self.summands(x):
                    self.compute(summand)
                self.compute(x)
        behind = self.behind([value], self.done)
        values = {x: x.known for x in behind if x.known is not None}
        values |= {x: self.done[x] for x in behind if x in self.done}
        missing = {
            x.equation for x in behind if x not in values and x.equation is not None
        }
        large = [x for x in values if self.is_large(x)]
        # An update is computed where it is added, with those who have used it there.
        is_shared = value is self.outputs[0] and self.places[0] is None
        is_shared &= value.equation in self.computed
        if missing & self.computed and large and not is_shared:
            # XLA unites equal computations, unless they have different inputs.
            last = list(self.done.values())[-1]
            own = lax.optimization_barrier(([values[x] for x in large], last))[0]
            values |= zip(large, own, strict=True)
        self.computed |= missing
        for number in sorted(missing):
            e = self.equations[number]
            results = e.primitive.bind(*(values[x] for x in e.inputs), **e.params)
            results = results if e.primitive.multiple_results else [results]
            values |= zip(e.outputs, results, strict=True)
        self.done[value] = values[value]
        sources = [x for x in behind if x in self.before]
        self.before[value] = set(sources).union(*(self.before[x] for x in sources))
        for place in self.places:
            if place in behind:
                self.readers.setdefault(place, []).append(value)

    def small(self, value: _Value) -> list[_Value]:
        """The numbers and sums that a value is computed from, in their order.

        They are computed once, each sum over the leaf in a loop of its own.
        """
        found = [
            (x.equation, k, x)
            for x in self.behind([value], self.done)
            if x is not value and x.equation is not None and not self.is_large(x)
            for k in [self.equations[x.equation].outputs.index(x)]
        ]
        return [x for _, _, x in sorted(found, key=lambda entry: entry[:2])]

    def summands(self, total: _Value) -> list[_Value]:
        """The arrays that a sum over the leaf reads, or reads the squares of.

        They are kept: XLA's sums fuse no more than the squares.
        """
        assert total.equation is not None
        found = filter(self.is_large, self.equations[total.equation].inputs)
        found = [self.without_squares(x) for x in found]
        return [x for x in found if x.equation is not None and x not in self.done]

    def without_squares(self, value: _Value) -> _Value:
        while value.equation is not None and value not in self.done:
            e = self.equations[value.equation]
            if e.primitive.name not in _SQUARING or len(set(e.inputs)) > 1:
                break
            (value,) = set(e.inputs)
        return value


def _selected(conditions: list[Any], new: Any, place: _Value | None) -> Any:
    if not conditions:
        return new
    old = jnp.zeros_like(new) if place is None else place.known
    return lax.select(functools.reduce(operator.and_, conditions), new, old)


def always(*arrays: jax.Array) -> jax.Array:
    """Return True, computed from an entry of each array.

    XLA does not see that it is constant, so what depends on it comes after the arrays.

    >>> always(jnp.ones(2))
    Array(True, dtype=bool)
    """
    bits = functools.reduce(operator.or_, map(_bits, arrays))
    return (bits >> 16) >> 16 == 0


def _bits(x: jax.Array) -> jax.Array:
    entry = lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())
    return lax.bitcast_convert_type(jnp.real(entry).astype(jnp.float32), jnp.uint32)
