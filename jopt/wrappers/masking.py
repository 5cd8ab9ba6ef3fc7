"""Transformations for some of the leaves: ``masked``, ``partition``.

The inner transformation sees None in place of every other leaf and keeps no state for
it. So it does in extra arguments that are trees like the updates, such as ``grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jopt import tree
from jopt.core import masks, tree_checks
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.factory import transformation
from jopt.core.fused import fused_update
from jopt.core.masks import Mask, label_text
from jopt.core.transformation import (
    FUSED,
    GradientTransformation,
    Params,
    Place,
    Updates,
)
from jopt.transforms.gradients import set_to_zero
from jopt.values.arguments import suggestion, text_of


class MaskedState(NamedTuple):
    """State of `masked`."""

    inner_state: Any  # state of the inner transformation, None for the other leaves


@transformation
def masked(inner: GradientTransformation, mask: Mask) -> GradientTransformation:
    """Apply a transformation to some leaves; the others pass unchanged.

    Args:
      inner: A transformation.
      mask: The leaves to transform; see `jopt.Mask`.

    Returns:
      A transformation.

    Raises:
      ValueError: The mask does not fit the parameters.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.masked(jopt.scale(2.0), "w")
    >>> grads = {"b": jnp.ones(1), "w": jnp.ones(1)}
    >>> tx.update(grads, tx.init(grads))[0]
    {'b': Array([1.], dtype=float32), 'w': Array([2.], dtype=float32)}
    """
    inner = as_transformation(inner, "masked: inner")

    def init(params):
        return MaskedState(inner.init(masks.only(params, masks.select(mask, params))))

    def update(updates, state, params=None, **extra):
        selected = masks.select(mask, _mask_target(updates, params))
        new, inner_state = inner.update(
            masks.only(updates, selected),
            state.inner_state,
            masks.only(params, selected),
            **masks.only_in(extra, updates, selected),
        )
        return _merge(updates, [(selected, new)]), MaskedState(inner_state)

    def readout(state, params, name=None):
        selected = masks.select(mask, params)
        part = masks.only(params, selected)
        averages = eval_params(inner, state.inner_state, part, name=name)
        return _merge(params, [(selected, averages)])

    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        state_class=MaskedState,
        reach=lambda params: {"inner_state": masks.select(mask, params)},
        readout=readout if has_readout(inner) else None,
        place=Place(keeps_updates=inner.place.keeps_updates),
    )


@transformation
def partition(
    transforms: Mapping[Any, GradientTransformation], param_labels: Callable | Any
) -> GradientTransformation:
    """Give each leaf to the transformation of its label.

    Args:
      transforms: Transformations by label: a string, a whole number, a bool or a member
        of an Enum. Its text is the key in the state.
      param_labels: The label of each leaf: `rules`, a function ``(path, leaf) ->
        label``, a function ``params -> tree of labels``, or a tree of labels (or a
        prefix of one). To freeze leaves, give them a label of `set_to_zero`.

    Returns:
      A transformation; its state is a dict by label.

    Raises:
      ValueError: A leaf has no label, or one that is not in ``transforms``; or two
        labels have the same text.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.partition(
    ...     {"matrix": jopt.sgd(0.1), "vector": jopt.sgd(0.01)},
    ...     lambda path, leaf: "matrix" if leaf.ndim == 2 else "vector",
    ... )
    >>> params = {"b": jnp.ones(1), "w": jnp.ones((1, 1))}
    >>> tx.update(params, tx.init(params))[0]
    {'b': Array([-0.01], dtype=float32), 'w': Array([[-0.1]], dtype=float32)}
    """
    inner: dict[str, GradientTransformation] = {}
    for label, tx in transforms.items():
        text = label_text(label)
        if text is None or text in inner:
            raise ValueError(
                f"partition: transforms has the key {text_of(label)}, but keys are "
                "strings, whole numbers, bools or members of an Enum, each with a text "
                "of its own"
            )
        inner[text] = as_transformation(
            tx, f"partition: the transformation of {label!r}"
        )

    def selected_by_label(params):
        labels = masks.labels(param_labels, params)
        for (path, leaf), label in zip(
            tree.leaves_with_names(params, none=True), labels, strict=True
        ):
            if leaf is not None and label not in inner:
                raise ValueError(
                    f"leaf {path!r} has the label {label!r}, but transforms has only "
                    f"{sorted(inner)}.{suggestion(str(label), inner)}"
                )
        return {name: [label == name for label in labels] for name in inner}

    def init(params):
        return {
            name: inner[name].init(masks.only(params, selected))
            for name, selected in selected_by_label(params).items()
        }

    def update(updates, state, params=None, *, take=None, adds=False, **extra):
        new_state, parts = {}, []
        by_label = selected_by_label(_mask_target(updates, params))
        for name, selected in by_label.items():
            tx = inner[name]
            # An argument may be meant for one label only.
            arguments = tx.needs.chosen(extra)
            new, new_state[name] = fused_update(
                tx,
                masks.only(updates, selected),
                state[name],
                masks.only(params, selected),
                masks.only_in(arguments, updates, selected),
                take=take,
                adds=adds,
            )
            parts.append((selected, new))
        return _merge(updates, parts), new_state

    def readout(state, params, name=None):
        parts = []
        for label, selected in selected_by_label(params).items():
            part = masks.only(params, selected)
            if has_readout(inner[label], name):
                part = eval_params(inner[label], state[label], part, name=name)
            parts.append((selected, part))
        return _merge(params, parts)

    return GradientTransformation(
        init,
        update,
        children=inner,
        reach=selected_by_label,
        readout=readout if any(map(has_readout, inner.values())) else None,
        place=Place(keeps_updates=all(tx.place.keeps_updates for tx in inner.values())),
        fused=FUSED,
    )


@transformation
def multi_transform(
    transforms: Mapping[Any, GradientTransformation], param_labels: Callable | Any
) -> GradientTransformation:
    """Give each leaf to the transformation of its label: `partition`'s older name.

    Args:
      transforms, param_labels: See `partition`.

    Returns:
      A transformation; its state is a dict by label.

    >>> import jopt
    >>> list(jopt.multi_transform({"all": jopt.sgd(0.1)}, "all").init({})["all"])
    ['scale_by_learning_rate']
    """
    return partition(transforms, param_labels)


@transformation
def selective_transform(
    optimizer: GradientTransformation, *, freeze_mask: Mask
) -> GradientTransformation:
    """Apply an optimizer to all leaves except frozen ones, which need no state.

    Args:
      optimizer: A transformation.
      freeze_mask: The leaves to freeze with zero updates; see `jopt.Mask`.

    Returns:
      A transformation: a `partition` into ``"train"`` and ``"freeze"``.

    Raises:
      ValueError: The mask does not fit the parameters.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.selective_transform(jopt.sgd(1.0, 0.9), freeze_mask="embed")
    >>> tx.init({"embed": jnp.ones(9), "w": jnp.ones(1)})["train"]["trace"].trace
    {'embed': None, 'w': Array([0.], dtype=float32)}
    """

    def labels(params):
        treedef = jax.tree.structure(params, is_leaf=tree.is_leaf)
        frozen = masks.select(freeze_mask, params)
        return treedef.unflatten("freeze" if on else "train" for on in frozen)

    optimizer = as_transformation(optimizer, "selective_transform: optimizer")
    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)


def _mask_target(updates: Updates, params: Params | None) -> Params:
    """Return the tree that masks select from: the parameters if there are any."""
    if params is None:
        return updates
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    tree_checks.aligned(updates, leaves, treedef, params, "params")
    return params


def _merge(whole: Any, parts: list[tuple[list[bool], Any]]) -> Any:
    """Return the tree with the selected leaves replaced by those of each part."""
    leaves, treedef = jax.tree.flatten(whole, is_leaf=tree.is_leaf)
    for selected, part in parts:
        for i, x in enumerate(treedef.flatten_up_to(part)):
            leaves[i] = x if selected[i] else leaves[i]
    return treedef.unflatten(leaves)
