"""Masks and groups, with optax's arguments and states."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax

import jopt
from jopt.interop.optax.base import (
    MaskedNode,
    MaskOrFn,
    Pair,
    as_pair,
    own,
    without_state,
)
from jopt.interop.optax.tree_states import Placeholder


class MaskedState(NamedTuple):
    """State of `masked`."""

    inner_state: Any


def masked(
    inner: Any, mask: MaskOrFn, *, mask_compatible_extra_args: bool = False
) -> Pair:
    """Apply a transformation to some leaves; the others pass unchanged.

    Args:
      inner: A transformation.
      mask: A tree of bools, or a prefix of one, or a function that returns one for a
        tree of parameters or updates.
      mask_compatible_extra_args: Whether extra arguments with the structure of the
        updates are masked too.

    Returns:
      A transformation. In its state, `MaskedNode` stands for what the mask leaves out.

    >>> from jopt.interop import optax
    >>> tx = optax.masked(optax.trace(0.9), {"b": False, "w": True})
    >>> tx.init({"b": 1.0, "w": 2.0}).inner_state.trace["b"]
    MaskedNode()
    """
    inner = as_pair(inner, "masked: inner")

    def chosen(tree):
        return mask(tree) if _is_function(mask) else mask

    def init(params):
        if not isinstance(params, Placeholder):
            params = _only(chosen(params), params)
        return MaskedState(inner.init(params))

    def update(updates, state, params=None, **extra_args):
        selected = chosen(updates)
        only = functools.partial(_only, node=_node_of(state))
        if mask_compatible_extra_args:
            structure = jax.tree.structure(updates)
            extra_args = {
                name: only(selected, x) if jax.tree.structure(x) == structure else x
                for name, x in extra_args.items()
            }
        new, inner_state = inner.update(
            only(selected, updates),
            state.inner_state,
            None if params is None else only(selected, params),
            **extra_args,
        )
        merged = jax.tree.map(lambda on, u, g: u if on else g, selected, new, updates)
        return merged, state._replace(inner_state=inner_state)

    return own(init, update)


def _is_function(mask: Any) -> bool:
    """Whether a mask is a function; a tree that can be called is a tree."""
    leaves = jax.tree.leaves(mask)
    return bool(leaves) and all(map(callable, leaves))


def _only(mask: Any, tree: Any, node: Any = MaskedNode()) -> Any:  # noqa: B008
    return jax.tree.map(lambda on, x: x if on else node, mask, tree)


def _node_of(state: Any) -> Any:
    """What a state has for masked leaves: optax's own, if optax has made the state."""

    def is_node(x):
        return type(x).__name__ == MaskedNode.__name__

    nodes = filter(is_node, jax.tree.leaves(state, is_leaf=is_node))
    return next(nodes, MaskedNode())


class PartitionState(NamedTuple):
    """State of `partition`: a `MaskedState` by label."""

    inner_states: Mapping[Hashable, Any]


MultiTransformState = PartitionState


def partition(
    transforms: Mapping[Any, Any],
    param_labels: Any,
    *,
    mask_compatible_extra_args: bool = False,
) -> Pair:
    """Give each leaf to the transformation of its label.

    Args:
      transforms: Transformations by label; a label may be any hashable value.
      param_labels: A tree of labels, or a prefix of one, or a function that returns one
        for a tree of parameters or updates.
      mask_compatible_extra_args: See `masked`.

    Returns:
      A transformation.

    Raises:
      ValueError: A leaf has a label that is not in ``transforms``; from ``init``.

    >>> from jopt.interop import optax
    >>> tx = optax.partition({0: optax.sgd(0.1), 1: optax.adam(0.1)}, {"b": 0, "w": 1})
    >>> list(tx.init({"b": 1.0, "w": 2.0}).inner_states)
    [0, 1]
    """

    def groups(tree):
        labels = param_labels(tree) if callable(param_labels) else param_labels
        return labels, {
            group: masked(
                tx,
                jax.tree.map(lambda label, group=group: label == group, labels),
                mask_compatible_extra_args=mask_compatible_extra_args,
            )
            for group, tx in transforms.items()
        }

    def init(params):
        labels, by_group = groups(params)
        used = set(jax.tree.leaves(labels))
        if not used <= transforms.keys():
            raise ValueError(
                f"partition: parameters have the labels {sorted(map(str, used))}, and "
                f"transforms has {sorted(map(str, transforms))}"
            )
        return PartitionState(
            {group: tx.init(params) for group, tx in by_group.items()}
        )

    def update(updates, state, params=None, **extra_args):
        new = {}
        for group, tx in groups(updates)[1].items():
            updates, new[group] = tx.update(
                updates, state.inner_states[group], params, **extra_args
            )
        return updates, state._replace(inner_states=new)

    return own(init, update)


multi_transform = partition


def freeze(mask: MaskOrFn) -> Pair:
    """Set the updates of some leaves to zero.

    Args:
      mask: The leaves; see `masked`.

    Returns:
      A transformation.
    """
    return masked(without_state(jopt.set_to_zero()), mask)


def selective_transform(optimizer: Any, *, freeze_mask: Any) -> Pair:
    """Apply an optimizer to all leaves but frozen ones, which need no state.

    Args:
      optimizer: A transformation.
      freeze_mask: A tree of bools: the frozen leaves.

    Returns:
      A transformation: a `partition` into ``"train"`` and ``"freeze"``.
    """
    labels = jax.tree.map(lambda on: "freeze" if on else "train", freeze_mask)
    zero = without_state(jopt.set_to_zero())
    return partition({"train": optimizer, "freeze": zero}, labels)
