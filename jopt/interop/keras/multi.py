"""Keras's MultiOptimizer: an optimizer for each group of variables, by path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from jopt.core.chain import chain
from jopt.core.masks import expression
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.factories import ArgumentError, Remembered, Spec, decoded
from jopt.interop.keras.loss_scale import WrapperFactory, with_factor
from jopt.transforms.learning_rate import scale
from jopt.values import arguments
from jopt.values.arguments import abbreviated, text_of
from jopt.wrappers.masking import partition


class OptimizerMap(Remembered, MutableMapping[str, GradientTransformation]):
    """An assignment of optimizers to variables, as a dict of those that it names.

        groups = OptimizerMap(SGD())
        groups["encoder/.*"] = Adam()

    ``groups[path]`` is the optimizer of a path. `MultiOptimizer` takes the map as it
    is at the call: a later change has no effect on it.

    Args:
      default_optimizer: The optimizer of variables that no key matches.
      optimizer_map: Optimizers by path, or by a regular expression that matches a whole
        path, such as ``"encoder/.*"``. An optimizer that occurs twice makes two groups
        with separate states, as after Keras has read its config.

    Raises:
      TypeError: A value is not a transformation, or a key is not a string.
      ValueError: An optimizer is a LossScaleOptimizer or a MultiOptimizer, or a key is
        not a regular expression. When an item is set: the map has the key already. When
        an item is read: two keys match.

    >>> from jopt.interop.keras import SGD, Adam
    >>> groups = OptimizerMap(SGD(), {"encoder/.*": Adam()})
    >>> groups["encoder/kernel"] == Adam(), groups["head/kernel"] == SGD(), len(groups)
    (True, True, 1)
    """

    module = "keras.optimizers"

    def __init__(
        self,
        default_optimizer: GradientTransformation,
        optimizer_map: Mapping[str, GradientTransformation] | None = None,
    ):
        if optimizer_map is not None and not isinstance(optimizer_map, Mapping):
            raise ArgumentError(
                "optimizer_map must be a dict of optimizers by path, got "
                f"{abbreviated(optimizer_map)}"
            )
        _check("default_optimizer", default_optimizer)
        self.default_optimizer = default_optimizer
        self.optimizer_map: dict[str, GradientTransformation] = {}
        for name, tx in (optimizer_map or {}).items():
            self[name] = tx
        values = {
            "default_optimizer": default_optimizer,
            "optimizer_map": self.optimizer_map,
        }
        self.spec = Spec(type(self), "OptimizerMap", values, self.module)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        custom_objects: Mapping[str, Callable[..., Any]] | None = None,
    ) -> OptimizerMap:
        """Make the map of Keras's ``get_config()``."""
        values = decoded(dict(config), custom_objects)
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"the config of OptimizerMap: {error}") from None

    def __getitem__(self, path: str) -> GradientTransformation:
        key = match(path, self.optimizer_map)
        return self.default_optimizer if key is None else self.optimizer_map[key]

    def __setitem__(self, key: str, tx: GradientTransformation) -> None:
        if not isinstance(key, str):
            raise ArgumentError(
                f"a key must be a path or an expression for paths, got {text_of(key)}"
            )
        if key in self.optimizer_map:
            raise ValueError(
                f"{key!r} has an optimizer already, {abbreviated(self[key])}. To "
                f"replace it, delete it first: del groups[{key!r}]"
            )
        _check(key, tx)
        expression(key)
        self.optimizer_map[key] = tx

    def __delitem__(self, key: str) -> None:
        del self.optimizer_map[key]

    def __contains__(self, key: object) -> bool:
        return key in self.optimizer_map

    def __iter__(self) -> Iterator[str]:
        return iter(self.optimizer_map)

    def __len__(self) -> int:
        return len(self.optimizer_map)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OptimizerMap):
            return NotImplemented
        return self.spec.arguments == other.spec.arguments

    def __hash__(self) -> int:
        return hash((self.default_optimizer, *self.optimizer_map.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.default_optimizer, self.optimizer_map)


def match(path: str, patterns: Collection[str]) -> str | None:
    """Return the one expression that matches a path, None if there is none.

    Raises:
      ValueError: Several do, and none of them is the path itself.
    """
    # As in Keras, an exact path takes precedence over expressions.
    if path in patterns:
        return path
    matches = [x for x in patterns if re.fullmatch(x, path)]
    if len(matches) > 1:
        raise ValueError(
            f"{path!r} matches {matches}: Keras takes one optimizer for each variable"
        )
    return matches[0] if matches else None


def _check(name: str, tx: Any) -> None:
    if not isinstance(tx, GradientTransformation):
        raise ArgumentError(
            f"the optimizer of {name!r} must be a transformation, got "
            f"{abbreviated(tx)}; get('adam') makes one"
        )
    if not isinstance(tx, Remembered):
        return
    if tx.spec.class_name in ("LossScaleOptimizer", "MultiOptimizer"):
        raise ValueError(
            f"the optimizer of {name!r} cannot be a {tx.spec.class_name}: wrap the "
            "whole MultiOptimizer, or add its groups to this map"
        )


def overwritten(groups: OptimizerMap, loss_scale_factor: float | None) -> OptimizerMap:
    """Return the map with this loss_scale_factor in every optimizer, as in Keras."""
    factor = loss_scale_factor
    rest = {name: with_factor(tx, factor) for name, tx in groups.optimizer_map.items()}
    return OptimizerMap(with_factor(groups.default_optimizer, factor), rest)


class MultiFactory(WrapperFactory):
    """The factory of `MultiOptimizer`."""

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call; set the optimizers' loss_scale_factor."""
        values = super().bound(args, kwargs)
        if isinstance(groups := values["optimizer_map"], OptimizerMap):
            values["optimizer_map"] = overwritten(groups, values["loss_scale_factor"])
        return values


def multi(build: Callable[..., GradientTransformation]) -> MultiFactory:
    """Turn the function that makes the MultiOptimizer into a factory."""
    return MultiFactory(build, "keras.optimizers")


@dataclass(frozen=True)
class Groups:
    """Label a leaf by the one expression that matches its path."""

    patterns: tuple[str, ...]

    def name(self, label: str) -> str:
        """Return the expression of a label."""
        patterns = {f"group_{i}": x for i, x in enumerate(self.patterns)}
        return patterns.get(label, "default_optimizer")

    def __call__(self, path: str, leaf: Any) -> str:
        del leaf
        pattern = match(path, self.patterns)
        return "default" if pattern is None else f"group_{self.patterns.index(pattern)}"


@multi
def MultiOptimizer(
    optimizer_map: Any,
    loss_scale_factor: float | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Keras's MultiOptimizer, a `jopt.partition`.

    Args:
      optimizer_map: An `OptimizerMap`. To label leaves with a function use
        `jopt.partition`.
      loss_scale_factor: Factor > 0 that the loss was multiplied by; all gradients are
        divided by it. As in Keras, that of an optimizer in the map has no effect.
      name: Name in the config; None means the name of the class in snake case.

    Raises:
      TypeError: ``optimizer_map`` is not an `OptimizerMap`.

    >>> import jax.numpy as jnp
    >>> from jopt.interop.keras import SGD
    >>> tx = MultiOptimizer(OptimizerMap(SGD(1.0), {"head": SGD(0.5)}))
    >>> params = {"body": jnp.ones(1), "head": jnp.ones(1)}
    >>> tx.update(params, tx.init(params))[0]
    {'body': Array([-1.], dtype=float32), 'head': Array([-0.5], dtype=float32)}
    """
    del name
    if not isinstance(optimizer_map, OptimizerMap):
        raise TypeError(
            "optimizer_map must be an OptimizerMap, got "
            f"{abbreviated(optimizer_map)}. To label leaves with a function of the "
            "path and the leaf use jopt.partition"
        )
    arguments.positive(loss_scale_factor=loss_scale_factor)
    groups = overwritten(optimizer_map, None)
    # The factor divides all gradients once, below, instead of in every group.
    transforms = {f"group_{i}": x for i, x in enumerate(groups.optimizer_map.values())}
    transforms["default"] = groups.default_optimizer
    tx = partition(transforms, Groups(tuple(groups.optimizer_map)))
    return tx if loss_scale_factor is None else chain(scale(1 / loss_scale_factor), tx)
