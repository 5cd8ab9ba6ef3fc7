"""The frame of a wrapper: a transformation that holds another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jopt.core.transformation import (
    ANYWHERE,
    GradientTransformation,
    Needs,
    Place,
)


VALUE = Needs(frozenset({"value"}), frozenset())


def around(
    inner: GradientTransformation,
    init: Callable[..., Any],
    update: Callable[..., Any],
    state_class: Any,
    *,
    also: Needs,
    place: Place = ANYWHERE,
) -> GradientTransformation:
    """Make a wrapper that keeps the state of ``inner`` in the field ``inner_state``.

    Args:
      inner: The transformation inside, which is passed the arguments that it takes.
      init: The wrapper's ``init``.
      update: The wrapper's ``update``.
      state_class: The class of the wrapper's state.
      also: The arguments that the wrapper itself needs.
      place: Where the wrapper belongs in a chain, if not anywhere.
    """

    # The inner transformation checks what it requires, so that errors have its name.
    needs = Needs(
        inner.needs.accepts | also.accepts | {"params"},
        also.requires,
        inner.needs.anything or also.anything,
    )
    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        needs=needs,
        state_class=state_class,
        place=place,
    )
