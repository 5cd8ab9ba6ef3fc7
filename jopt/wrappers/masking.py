"""An optimizer for some of the leaves: ``masked``, ``partition``.

The inner transformation sees None in the place of all other leaves, and keeps nothing
for them.
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
from jopt.core.masks import Mask
from jopt.core.transformation import GradientTransformation, Params, Updates
from jopt.transforms.gradients import set_to_zero
from jopt.values.arguments import suggestion


class MaskedState(NamedTuple):
    """State of `masked`."""

    inner_state: Any  # of the inner transformation, with None for the other leaves


@transformation
def masked(inner: GradientTransformation, mask: Mask) -> GradientTransformation:
    """Apply a transformation to some leaves; the others pass unchanged.

    Args:
      inner: A transformation.
      mask: The leaves it is for; see `jopt.Mask`.

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
        chosen = masks.select(mask, _known(updates, params))
        new, own = inner.update(
            masks.only(updates, chosen),
            state.inner_state,
            masks.only(params, chosen),
            **extra,
        )
        return _merged(updates, [(chosen, new)]), MaskedState(own)

    def readout(state, params):
        chosen = masks.select(mask, params)
        own = eval_params(inner, state.inner_state, masks.only(params, chosen))
        return _merged(params, [(chosen, own)])

    return GradientTransformation(
        init,
        update,
        children={"inner_state": inner},
        reach=lambda params: {"inner_state": masks.select(mask, params)},
        readout=readout if has_readout(inner) else None,
    )


@transformation
def partition(
    transforms: Mapping[str, GradientTransformation], param_labels: Callable | Any
) -> GradientTransformation:
    """Give each leaf to the transformation of its label.

    Args:
      transforms: Transformations by label.
      param_labels: The label of each leaf: `rules`, a function ``(path, leaf) ->
        label``, a function ``params -> tree of labels``, or a tree of labels (or a
        prefix of one). For leaves to stay what they are, `set_to_zero` has a label.

    Returns:
      A transformation; its state is a dict by label.

    Raises:
      ValueError: A leaf has a label that ``transforms`` does not have, or none.

    >>> import jopt, jax.numpy as jnp
    >>> tx = jopt.partition(
    ...     {"matrix": jopt.sgd(0.1), "vector": jopt.sgd(0.01)},
    ...     lambda path, leaf: "matrix" if leaf.ndim == 2 else "vector",
    ... )
    >>> params = {"b": jnp.ones(1), "w": jnp.ones((1, 1))}
    >>> tx.update(params, tx.init(params))[0]
    {'b': Array([-0.01], dtype=float32), 'w': Array([[-0.1]], dtype=float32)}
    """
    inner = {
        label: as_transformation(tx, f"partition: the transformation of {label!r}")
        for label, tx in transforms.items()
    }

    def chosen_by_label(params):
        labels = masks.labels(param_labels, params)
        for (path, leaf), label in zip(
            tree.leaves_with_names(params, none=True), labels, strict=True
        ):
            if leaf is not None and label not in inner:
                raise ValueError(
                    f"leaf {path!r} has the label {label!r}, but there are "
                    f"transformations for {sorted(inner)} only."
                    f"{suggestion(str(label), inner)}"
                )
        return {name: [label == name for label in labels] for name in inner}

    def init(params):
        return {
            name: inner[name].init(masks.only(params, chosen))
            for name, chosen in chosen_by_label(params).items()
        }

    def update(updates, state, params=None, **extra):
        new_state, found = {}, []
        by_label = chosen_by_label(_known(updates, params))
        for name, chosen in by_label.items():
            tx = inner[name]
            needed = tx.needs.chosen(extra)
            new, new_state[name] = tx.update(
                masks.only(updates, chosen),
                state[name],
                masks.only(params, chosen),
                **needed,
            )
            found.append((chosen, new))
        return _merged(updates, found), new_state

    def readout(state, params):
        found = []
        for name, chosen in chosen_by_label(params).items():
            own = masks.only(params, chosen)
            own = eval_params(inner[name], state[name], own, default=own)
            found.append((chosen, own))
        return _merged(params, found)

    return GradientTransformation(
        init,
        update,
        children=inner,
        reach=chosen_by_label,
        readout=readout if any(map(has_readout, inner.values())) else None,
    )


@transformation
def multi_transform(
    transforms: Mapping[str, GradientTransformation], param_labels: Callable | Any
) -> GradientTransformation:
    """`partition` under its older name.

    Args:
      transforms: Transformations by label.
      param_labels: The label of each leaf; see `partition`.

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
    """An optimizer for all leaves but the frozen ones, which it keeps no state for.

    Args:
      optimizer: A transformation.
      freeze_mask: The leaves whose updates are zero; see `jopt.Mask`.

    Returns:
      A transformation, a `partition` into ``"train"`` and ``"freeze"``.

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


def _known(updates: Updates, params: Params | None) -> Params:
    """The tree that masks are about: the parameters, where there are any."""
    if params is None:
        return updates
    leaves, treedef = jax.tree.flatten(updates, is_leaf=tree.is_leaf)
    tree_checks.aligned(updates, leaves, treedef, params, "params")
    return params


def _merged(whole: Any, found: list[tuple[list[bool], Any]]) -> Any:
    """The tree with each chosen leaf from the tree that it was chosen for."""
    leaves, treedef = jax.tree.flatten(whole, is_leaf=tree.is_leaf)
    for chosen, new in found:
        for i, x in enumerate(treedef.flatten_up_to(new)):
            leaves[i] = x if chosen[i] else leaves[i]
    return treedef.unflatten(leaves)
