"""The order of a chain: members that must be first or last are.

Where several gradients make a step, an average runs once per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jopt.core.eval_params import has_readout
from jopt.core.transformation import GradientTransformation, OptState


def check_order(members: Mapping[str, GradientTransformation]) -> None:
    """Raise ValueError if a member of a chain is in the wrong place.

    What is inside a member counts, through any nesting: `aggregate` in a `masked` has
    to be first too, and an average in a guard last.

    Args:
      members: The members by name, in their order.
    """
    for name, tx in members.items():
        earlier = _before(name, members)
        if inside := _first(tx):
            for other in earlier:
                if not _may_precede(members[other]):
                    raise ValueError(
                        f"chain: {_where(inside, name)} has to come before {other!r}. "
                        f"Put {inside.name} first in the chain"
                    )
        _check_frozen(name, tx, [members[other] for other in earlier])
        if tx.place.keeps_updates:
            continue
        for other in earlier:
            if inside := lands(members[other]):
                raise ValueError(
                    f"chain: {name!r} changes the updates after "
                    f"{_where(inside, other)}, which has to know where they lead. Put "
                    f"{name!r} inside: {inside.name}(chain(optimizer, {tx.name}(…)), …)"
                )
        is_average = tx.readout is not None and not tx.children
        for other in earlier:
            inside = _last(members[other])
            # In Keras, an average that overwrites the parameters may follow
            # Schedule-Free. Another average would miss what it overwrites.
            if inside and not (is_average and not inside.place.keeps_updates):
                if inside.place.last and _may_follow_last(tx):
                    continue
                why = (
                    "which decides where the parameters end"
                    if inside.place.last
                    else "whose parameters to evaluate with follow from the final "
                    "updates"
                )
                raise ValueError(
                    f"chain: {name!r} changes the updates after "
                    f"{_where(inside, other)}, {why}. Put {inside.name} after {name!r}"
                    f"{_instead(inside)}"
                )


def _check_frozen(
    name: str, tx: GradientTransformation, earlier: Sequence[GradientTransformation]
) -> None:
    """Raise if a weight decay moves what an earlier member has frozen.

    A decay with a mask may leave out the frozen leaves, which only `init` would show.
    """
    frozen = next(filter(None, map(_freezes, earlier)), None)
    if frozen is not None and (decay := _decays(tx)) is not None:
        raise ValueError(
            f"chain: the weight decay of {_where(decay, name)} moves the leaves that "
            f"{frozen.name} before it has frozen. Put {frozen.name} last, or write "
            "selective_transform(optimizer, freeze_mask=…), which keeps no state for "
            "frozen leaves"
        )


def _freezes(tx: GradientTransformation) -> GradientTransformation | None:
    """What makes updates zero inside a transformation, if anything."""
    if tx.place.freezes:
        return tx
    return next(filter(None, map(_freezes, tx.children.values())), None)


def _decays(tx: GradientTransformation) -> GradientTransformation | None:
    """What has a weight decay without a mask inside a transformation, if anything."""
    given = tx.recipe.arguments if tx.recipe else {}
    strengths = [given.get(n) for n in ("weight_decay", "weight_decay_rate")]
    masks = [given.get(n) for n in ("mask", "weight_decay_mask")]
    # Only a constant can be 0 for good: others are traced, scheduled or tunable.
    acts = [x for x in strengths if x is not None and not (type(x) is float and x == 0)]
    if acts and masks == [None, None]:
        return tx
    # A wrapper that chooses leaves may leave out the frozen ones too.
    inside = [] if tx.reach else tx.children.values()
    return next(filter(None, map(_decays, inside)), None)


def _before(name: str, members: Mapping[str, GradientTransformation]) -> list[str]:
    names = list(members)
    return names[: names.index(name)]


def _where(inside: GradientTransformation, name: str) -> str:
    return repr(name) if inside.name == name else f"{inside.name} in {name!r}"


def _instead(inside: GradientTransformation) -> str:
    if inside.changing is None or "learning_rate" not in inside.changing.names:
        return ", at the end of the chain"
    return "; to scale its steps, change its learning rate"


def _first(tx: GradientTransformation) -> GradientTransformation | None:
    """What must be first in a transformation, if anything."""
    if tx.place.first:
        return tx
    return next(filter(None, map(_first, tx.children.values())), None)


def _may_precede(tx: GradientTransformation) -> bool:
    """Whether members that must be first may come after a transformation."""
    if tx.place.first or tx.place.keeps_updates:
        return True
    return bool(tx.children) and all(map(_may_precede, tx.children.values()))


def must_be_last(tx: GradientTransformation) -> bool:
    """Whether nothing may change the updates of a transformation any more."""
    return _last(tx) is not None


def lands(tx: GradientTransformation) -> GradientTransformation | None:
    """What has to know where updates lead in a transformation, if anything."""
    if tx.place.lands:
        return tx
    return next(filter(None, map(lands, tx.children.values())), None)


def check_changeable(owner: str, inner: GradientTransformation) -> None:
    """Raise ValueError if a wrapper may not change the updates of what it wraps.

    Args:
      owner: The name of the wrapper.
      inner: What it wraps.
    """
    if inside := lands(inner):
        raise ValueError(
            f"{owner} changes or rounds the updates of what is inside it, and "
            f"{inside.name} has to know where its updates lead. Put {owner} inside: "
            f"{inside.name}({owner}(…), …). Got {inner!r}"
        )


def _last(tx: GradientTransformation) -> GradientTransformation | None:
    """What must be last in a transformation, if anything."""
    inside = next(filter(None, map(_last, tx.children.values())), None)
    must = has_readout(tx) or tx.place.last or tx.place.lands
    return inside or (tx if must else None)


def _may_follow_last(tx: GradientTransformation) -> bool:
    """Whether a transformation only decides where parameters end, such as others."""
    if tx.place.last or tx.place.keeps_updates:
        return True
    return bool(tx.children) and all(map(_may_follow_last, tx.children.values()))


def with_steps(members: Mapping[str, GradientTransformation]) -> set[str]:
    """The names of members that run only where an earlier member makes a step."""
    names, waits = set(), False
    for name, tx in members.items():
        if waits and _once_per_step(tx):
            names.add(name)
        waits = waits or _waits(tx)
    return names


def stepped(tx: GradientTransformation, old: OptState, new: OptState) -> Any:
    """Whether the gradients so far have made a step; None if each of them makes one.

    Args:
      tx: A member of a chain.
      old: Its state before the update.
      new: Its state after it.
    """
    if tx.place.stepped is not None:
        return tx.place.stepped(old, new)
    pairs = zip(tx.inside(old), tx.inside(new), strict=True)
    inside = [stepped(child, x, y) for (_, child, x), (_, _, y) in pairs]
    known = [x for x in inside if x is not None]
    return jnp.any(jnp.stack(known)) if known else None


def _waits(tx: GradientTransformation) -> bool:
    return tx.place.stepped is not None or any(map(_waits, tx.children.values()))


def _once_per_step(tx: GradientTransformation) -> bool:
    return tx.place.once_per_step or any(map(_once_per_step, tx.children.values()))
