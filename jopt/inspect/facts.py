"""What each transformation of an optimizer does to each leaf, asked from the engine.

Masks, groups, layouts and numbers come from the transformations themselves; the shapes
of the state come from one abstract ``init``. Nothing is allocated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jopt import tree
from jopt.core import masks
from jopt.core.leafwise import Leafwise
from jopt.core.transformation import GradientTransformation, Params
from jopt.inspect.folding import template
from jopt.tree.paths import leaves_with_keys
from jopt.values.arguments import shown_function, text_of
from jopt.values.numbers import Tunable
from jopt.values.recipe import Recorded, shown_argument


RATE = "learning_rate"

Kind = Literal["constant", "scheduled", "tunable"]


class Number(NamedTuple):
    """A hyperparameter: its value at the first step, and whether it changes."""

    value: float | None  # None if only the run decides
    kind: Kind = "constant"
    schedule: str = ""  # the text of the schedule

    def __str__(self) -> str:
        if self.kind == "scheduled":
            return f"{self.schedule}, {_short(self.value)} at first"
        return _short(self.value) + (" tunable" if self.kind == "tunable" else "")


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:.6g}"


@dataclasses.dataclass(eq=False)
class Part:
    """A transformation inside an optimizer, and the leaves that it acts on."""

    tx: GradientTransformation
    name: str
    path: tuple[str, ...]  # of its state
    depth: int
    group: str
    reached: Mapping[int, float]  # leaf -> multiple of its factor or decay
    layouts: Mapping[int, str]
    later: Sequence[Part]  # what changes its updates after it

    @property
    def is_wrapper(self) -> bool:
        """Whether other transformations are inside it."""
        return bool(self.tx.children)


def parts_of(tx: GradientTransformation, params: Params) -> list[Part]:
    """All transformations inside ``tx`` in the order in which they run.

    Args:
      tx: The optimizer.
      params: The parameters without Variables and functions.
    """
    leaves = jax.tree.leaves(params, is_leaf=tree.is_leaf)
    on = [x is not None for x in leaves]
    return _inside(tx, _Place(tx.name, (), 0, ""), params, on, [])


class _Place(NamedTuple):
    name: str
    path: tuple[str, ...]
    depth: int
    group: str


def _inside(
    tx: GradientTransformation,
    place: _Place,
    params: Params,
    on: list[bool],
    later: list[Part],
) -> list[Part]:
    is_labels = tx.reach is not None and tx.state_class is None
    # Members of a chain have names; the fields of wrappers say nothing.
    is_chain = bool(tx.children) and tx.reach is None and tx.state_class is None
    own: list[Part] = []
    if not tx.children:
        return [_one(tx, place, params, on, later)]
    if not is_labels and (not is_chain or tx.treatment is not None):
        own = [_one(tx, place, params, on, later)]
        place = place._replace(depth=place.depth + 1)
    reach = tx.reach(params) if tx.reach else {}
    results: list[list[Part]] = []
    after = [*own, *later]
    # Backwards, because each member is asked what comes after it.
    for key, child in reversed(list(tx.children.items())):
        chosen, part = on, params
        if key in reach:
            chosen = [a and b for a, b in zip(on, reach[key], strict=True)]
            part = masks.only(params, chosen)
        group = place.group
        if is_labels:
            group = f"{group}/{key}" if group else key
        name = key if is_chain else child.name
        inner = _Place(name, (*place.path, key), place.depth, group)
        results.append(_inside(child, inner, part, chosen, after))
        if is_chain:
            after = [*results[-1], *after]
    return own + [x for part in reversed(results) for x in part]


def _one(
    tx: GradientTransformation,
    place: _Place,
    params: Params,
    on: list[bool],
    later: list[Part],
) -> Part:
    treatment = tx.treatment
    multiples: list[float | None] = [1.0] * len(on)
    if isinstance(tx, Leafwise):
        multiples = tx.declaration.multiples(params)
    elif treatment is not None and treatment.mask is not None:
        multiples = [x or 0.0 for x in masks.multiples(treatment.mask, params)]
    layouts = []
    if treatment is not None and treatment.layouts is not None:
        layouts = treatment.layouts(params)
    return Part(
        tx,
        *place,
        {i: m for i, m in enumerate(multiples) if m is not None and on[i]},
        {i: x for i, x in enumerate(layouts) if x is not None and on[i]},
        later,
    )


class Facts(NamedTuple):
    """What an optimizer does to a leaf."""

    group: str
    learning_rate: Number | None
    rate_multiple: float | None
    weight_decay: Number | None
    decay_per_step: float | None
    decay_enters: str | None
    frozen: bool
    untouched: bool
    branch: str | None
    axes: str | None


def facts(on_leaf: Mapping[Part, float], layouts: Mapping[Part, str]) -> Facts:
    """What the transformations that act on a leaf do to it.

    Args:
      on_leaf: These transformations in their order, and their multiples for the leaf.
      layouts: The layouts that they see it in.
    """
    rate, learning_rate = _learning_rate(on_leaf)
    acting = [x for x in on_leaf if _factors(x) and x is not rate]
    # A factor before a rule such as Adam's changes no step.
    scales = [_size(x, on_leaf) for x in acting if _tail(x, on_leaf) is not None]
    multiple = abs(math.prod(scales)) if rate or scales else None
    decay = _weight_decay(on_leaf)
    branch = next(iter(layouts), None)
    return Facts(
        max((x.group for x in on_leaf), key=len, default=""),
        learning_rate,
        None if multiple is None or math.isnan(multiple) else multiple,
        *decay,
        _is_frozen(on_leaf),
        all(x.tx.place.keeps_updates for x in on_leaf if not x.is_wrapper),
        branch and branch.name,
        branch and layouts[branch],
    )


def _learning_rate(
    on_leaf: Mapping[Part, float],
) -> tuple[Part | None, Number | None]:
    """The last transformation that has a learning rate, and the rate."""
    for x in reversed(list(on_leaf)):
        sources = x.tx.changing.sources if x.tx.changing else {}
        if RATE in sources:
            return x, number(sources[RATE])
    return None, None


def _factors(x: Part) -> tuple[Any, ...]:
    return x.tx.treatment.factor if x.tx.treatment else ()


def _size(x: Part, on_leaf: Mapping[Part, float]) -> float:
    """The number by which a transformation multiplies the updates of a leaf."""
    # The mask of a weight decay says which leaves decay.
    of_decay = x.tx.treatment is not None and x.tx.treatment.decay
    start = 1.0 if of_decay else on_leaf[x]
    return math.prod(map(first_value, _factors(x)), start=start)


def _tail(x: Part, on_leaf: Mapping[Part, float]) -> float | None:
    """The factor between what a transformation returns and the final update.

    None if something comes later that is not known to be linear.
    """
    product = 1.0
    for y in x.later:
        if y not in on_leaf or y.tx.place.keeps_updates:
            continue
        if _factors(y):
            product *= _size(y, on_leaf)
        elif not _is_linear(y):
            return None
    return product


def _weight_decay(
    on_leaf: Mapping[Part, float],
) -> tuple[Number | None, float | None, str | None]:
    """The decay of a leaf, the fraction that a step takes, and the rule it enters."""
    total, per_step, enters, kind, text = 0.0, 0.0, None, "constant", ""
    decays = [x for x in on_leaf if x.tx.treatment and x.tx.treatment.decay]
    if not decays:
        return None, 0.0, None
    for x in decays:
        treatment = x.tx.treatment
        assert treatment is not None
        numbers = list(map(number, treatment.decay))
        strength = math.prod(map(first_value, treatment.decay), start=on_leaf[x])
        constant = all(n.kind == "constant" for n in numbers)
        if constant and strength == 0:
            continue
        for n in numbers:
            kind, text = (n.kind, n.schedule) if n.kind != "constant" else (kind, text)
        total += strength
        tail = _tail(x, on_leaf)
        known = treatment.linear or bool(treatment.factor)
        if tail is None:
            enters = next(
                (y.name for y in x.later if y in on_leaf and not _is_linear(y)), None
            )
        after = math.nan if tail is None or not known else tail
        per_step -= strength * _size(x, on_leaf) * after
    if total == 0 and kind == "constant":
        return None, 0.0, None
    value = None if math.isnan(total) else total
    taken = None if math.isnan(per_step) else per_step
    return Number(value, kind, text), taken, enters  # type: ignore[arg-type]


def _is_linear(x: Part) -> bool:
    treatment = x.tx.treatment
    if treatment is None:
        # Wrappers pass on what is inside them, unless they say otherwise.
        return x.is_wrapper or x.tx.place.keeps_updates
    return treatment.linear or bool(treatment.factor)


def _is_frozen(on_leaf: Mapping[Part, float]) -> bool:
    """Whether the updates of a leaf are zero, and nothing later moves it."""

    def zeroes(x):
        factors = _factors(x)
        constant = all(isinstance(f, float) for f in factors)
        is_zero = bool(factors) and constant and _size(x, on_leaf) == 0
        return x.tx.place.freezes or is_zero

    def moves(x):
        treatment = x.tx.treatment
        if treatment is None:
            return not _is_known(x.tx)
        decays = bool(treatment.decay) and math.prod(
            map(first_value, treatment.decay), start=on_leaf[x]
        )
        return treatment.noise or bool(decays)

    return any(
        zeroes(x) and not any(moves(y) for y in x.later if y in on_leaf)
        for x in on_leaf
    )


def number(source: Any) -> Number:
    """A hyperparameter as it is in a recipe."""
    if isinstance(source, Tunable):
        return Number(_known(source.initial), "tunable")
    if callable(source):
        text = (
            text_of(source) if isinstance(source, Recorded) else shown_function(source)
        )
        return Number(_known(first_value(source)), "scheduled", text)
    return Number(_known(first_value(source)))


def _known(value: Any) -> float | None:
    value = first_value(value)
    return None if math.isnan(value) else value


def first_value(source: Any) -> float:
    """The value of a number at the first step; NaN if it is not known."""
    source = getattr(source, "initial", source)
    if callable(source):
        source = source(jnp.zeros((), jnp.int32))
    try:
        return float(source)
    except (TypeError, jax.errors.ConcretizationTypeError):  # traced, or several
        return math.nan


class Kept(NamedTuple):
    """An array that a state keeps for a leaf."""

    owner: int  # the position of its transformation
    before: str  # its path in the state before the leaf's, and after it
    after: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class States(NamedTuple):
    """The arrays of a state: those of each leaf, and the bytes of all others."""

    of_leaf: list[tuple[Kept, ...]]
    shared: list[int]  # bytes by transformation


def states(
    tx: GradientTransformation,
    params: Params,
    parts: Sequence[Part],
    kinds: Sequence[Any],
) -> States:
    """What ``tx.init(params)`` keeps for each leaf, from shapes alone.

    ``init`` sees one leaf of each kind. What is not a rule for one leaf may look at the
    path, and then the leaves of a kind are those of equal layers.

    Args:
      tx: The optimizer.
      params: The parameters without Variables and functions.
      parts: Its parts, see `parts_of`.
      kinds: What decides the state of each leaf, besides its path.
    """
    pairs = leaves_with_keys(params, none=True)
    like: dict[Any, int] = {}
    known = all(_is_known(x.tx) for x in parts)
    by_shape = all(isinstance(x.tx, Leafwise) or x.is_wrapper for x in parts)
    representative = []
    for i, ((keys, _), kind) in enumerate(zip(pairs, kinds, strict=True)):
        path = "" if by_shape else template("/".join(keys))
        representative.append(like.setdefault((path, kind) if known else i, i))
    chosen = [i == r for i, r in enumerate(representative)]
    state = jax.eval_shape(tx.init, masks.only(params, chosen))
    places = {keys: i for i, (keys, x) in enumerate(pairs) if x is not None}
    kept: dict[int, list[Kept]] = {}
    shared = [0] * len(parts)
    for k, part in enumerate(parts):
        for field, value in fields(part, state):
            for keys, x in leaves_with_keys(value):
                place = _owner(part.tx, field, keys, x, places)
                if place is None:
                    shared[k] += nbytes(x)
                    continue
                leaf, start, end = place
                before = "/".join([*part.path, *filter(None, [field]), *keys[:start]])
                array = Kept(
                    *(k, before, "/".join(keys[end:])),
                    *(x.shape, str(x.dtype), nbytes(x)),
                )
                kept.setdefault(leaf, []).append(array)
    of_kind = {i: tuple(arrays) for i, arrays in kept.items()}
    return States([of_kind.get(r, ()) for r in representative], shared)


def _is_known(tx: GradientTransformation) -> bool:
    """Whether it is jopt's own, which treats equal layers alike."""
    module = tx.recipe.factory.__module__ if tx.recipe else ""
    return isinstance(tx, Leafwise) or (
        module.startswith("jopt.") and not module.startswith("jopt.interop.optax")
    )


def fields(part: Part, state: Any) -> list[tuple[str, Any]]:
    """The fields of the state of a transformation without those of its children."""
    for key in part.path:
        if state is None:
            return []
        is_dict = isinstance(state, Mapping)
        state = state.get(key) if is_dict else getattr(state, key)
    if hasattr(state, "_fields"):
        pairs = list(zip(state._fields, state, strict=True))
    elif isinstance(state, Mapping):
        pairs = list(state.items())
    else:
        pairs = [("", state)]
    return [(n, x) for n, x in pairs if n not in part.tx.children]


def _owner(
    tx: GradientTransformation,
    field: str,
    keys: tuple[str, ...],
    x: Any,
    places: Mapping[tuple[str, ...], int],
) -> tuple[int, int, int] | None:
    """The leaf that an array of a state belongs to, and where its path has the leaf's.

    None for an array of the whole tree, such as a count.
    """
    if isinstance(tx, Leafwise) and field not in tx.declaration.slots:
        return None
    if () in places:  # a bare array has no path
        is_slot = isinstance(tx, Leafwise) or np.shape(x) != ()
        return (places[()], len(keys), len(keys)) if is_slot else None
    # The path of the field, then the leaf's, then that of what is kept for the leaf.
    ends = range(len(keys), 0, -1)
    return next(
        (
            (places[keys[n:end]], n, end)
            for n in range(len(keys))
            for end in ends
            if end > n and keys[n:end] in places
        ),
        None,
    )


def nbytes(x: Any) -> int:
    """The bytes of an array, of which only shape and dtype are known."""
    bits = math.prod(np.shape(x)) * jax.dtypes.itemsize_bits(jnp.result_type(x))
    return -(-bits // 8)


def hyperparameters(
    tx: GradientTransformation, show: Callable[[Any], bool]
) -> dict[str, Number | str]:
    """The numbers of the call that made a transformation, and what differs in it.

    Args:
      tx: A transformation.
      show: Whether to list an argument that is not a number.
    """
    recipe = tx.recipe
    if recipe is None:
        return {}
    declared = getattr(recipe.factory, "hyperparameters", ())
    shown: dict[str, Number | str] = {}
    for name, parameter in recipe.parameters.items():
        value = recipe.arguments.get(name, parameter.default)
        if name in declared:
            if value is not None and value is not parameter.empty:
                shown[name] = number(value)
        elif name in recipe.arguments and show(value):
            shown[name] = shown_argument(value)
    return shown
