"""The frame of a wrapper: a transformation that holds another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jopt.core.kernels import select_trees
from jopt.core.transformation import (
    ANYWHERE,
    FUSED,
    GradientTransformation,
    Needs,
    Place,
)


VALUE = Needs(frozenset({"value"}), frozenset())


def both(take: jax.Array | None, good: jax.Array) -> jax.Array:
    """Whether a step is good, and taken if a wrapper outside decides it too.

    >>> both(None, True)
    True
    """
    return good if take is None else good & take


def around(
    inner: GradientTransformation,
    init: Callable[..., Any],
    update: Callable[..., Any],
    state_class: Any,
    *,
    also: Needs,
    place: Place = ANYWHERE,
    fused: bool = False,
) -> GradientTransformation:
    """Make a wrapper that keeps the state of ``inner`` in the field ``inner_state``.

    Args:
      inner: The transformation inside, which is passed the arguments that it takes.
      init: The wrapper's ``init``.
      update: The wrapper's ``update``.
      state_class: The class of the wrapper's state.
      also: The arguments that the wrapper itself needs.
      place: Where the wrapper belongs in a chain, if not anywhere.
      fused: Whether ``update`` takes ``take`` and ``adds``, to pass them on to the
        inner `fused_update`.
    """

    def guarded(updates, state, params=None, *, take=None, adds=False, **extra):
        result, new = update(updates, state, params, take=take, adds=adds, **extra)
        if take is not None:
            # The inner state has been selected where it was computed.
            own, old = (x._replace(inner_state=None) for x in (new, state))
            own = select_trees(take, own, old)
            new = own._replace(inner_state=new.inner_state)
        return result, new

    # The inner transformation checks what it requires, so that errors have its name.
    needs = Needs(
        inner.needs.accepts | also.accepts | {"params"},
        also.requires,
        inner.needs.anything or also.anything,
    )
    return GradientTransformation(
        init,
        guarded if fused else update,
        children={"inner_state": inner},
        needs=needs,
        state_class=state_class,
        place=place,
        fused=FUSED if fused else frozenset(),
    )


def in_place_of(
    inner: GradientTransformation,
    init: Callable[..., Any],
    update: Callable[..., Any],
    readout: Callable[..., Any] | None,
    **more: Any,
) -> GradientTransformation:
    """Make a wrapper that has the state of ``inner``, and is like it to all others.

    Args:
      inner: The transformation inside.
      init: The wrapper's ``init``.
      update: The wrapper's ``update``.
      readout: The wrapper's readout; None if ``inner`` has none.
      **more: Further arguments of `GradientTransformation`.
    """
    return GradientTransformation(
        init,
        update,
        children=inner.children,
        needs=inner.needs,
        state_class=inner.state_class,
        reach=inner.reach,
        readout=readout,
        changing=inner.changing,
        gain=inner.gain,
        place=inner.place,
        treatment=inner.treatment,
        slots=inner.slots,
        **more,
    )
