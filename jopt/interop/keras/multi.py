"""Keras's MultiOptimizer: an optimizer for each group of variables, by path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jopt.core.chain import chain
from jopt.core.masks import expression
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.factories import Remembered, Spec
from jopt.interop.keras.loss_scale import WrapperFactory, with_factor
from jopt.transforms.learning_rate import scale
from jopt.values import arguments
from jopt.values.arguments import abbreviated
from jopt.wrappers.masking import partition


class OptimizerMap(Remembered):
    """Which optimizer is for which variables.

    Args:
      default_optimizer: For those that nothing else is for.
      optimizer_map: Optimizers by a path, or a regular expression that matches a whole
        path, such as ``"encoder/.*"``. One that stands twice is two, as after Keras
        has read its config.

    Raises:
      TypeError: A value is no transformation.
      ValueError: A loss scale or a MultiOptimizer among them.

    >>> from jopt.interop.keras import SGD, Adam
    >>> groups = OptimizerMap(SGD(), {"encoder/.*": Adam()})
    >>> list(groups.get_config())
    ['default_optimizer', 'optimizer_map']
    """

    module = "keras.optimizers"

    def __init__(
        self,
        default_optimizer: GradientTransformation,
        optimizer_map: Mapping[str, GradientTransformation] | None = None,
    ):
        if optimizer_map is not None and not isinstance(optimizer_map, Mapping):
            raise TypeError(
                "optimizer_map must be a dict of optimizers by path, got "
                f"{abbreviated(optimizer_map)}"
            )
        self.default_optimizer = default_optimizer
        self.optimizer_map = dict(optimizer_map or {})
        named = {**self.optimizer_map, "default_optimizer": default_optimizer}
        for name, tx in named.items():
            _check(name, tx)
        for pattern in self.optimizer_map:
            expression(pattern)
        given = {
            "default_optimizer": default_optimizer,
            "optimizer_map": self.optimizer_map,
        }
        self.spec = Spec(type(self), "OptimizerMap", given, self.module)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> OptimizerMap:
        """The map of Keras's ``get_config()``."""
        try:
            return cls(**config)
        except TypeError as error:
            raise ValueError(f"the config of OptimizerMap: {error}") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OptimizerMap):
            return NotImplemented
        return self.spec.arguments == other.spec.arguments

    def __hash__(self) -> int:
        return hash((self.default_optimizer, *self.optimizer_map.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.default_optimizer, self.optimizer_map)


def _check(name: str, tx: Any) -> None:
    if not isinstance(tx, GradientTransformation):
        raise TypeError(
            f"the optimizer of {name!r} must be a transformation, got "
            f"{abbreviated(tx)}; get('adam') makes one"
        )
    if not isinstance(tx, Remembered):
        return
    if tx.spec.class_name in ("LossScaleOptimizer", "MultiOptimizer"):
        raise ValueError(
            f"the optimizer of {name!r} cannot be a {tx.spec.class_name}: put that "
            "around, or beside it"
        )


def overwritten(groups: OptimizerMap, loss_scale_factor: float | None) -> OptimizerMap:
    """The map with this loss_scale_factor in every optimizer, as Keras sets it."""

    factor = loss_scale_factor
    rest = {name: with_factor(tx, factor) for name, tx in groups.optimizer_map.items()}
    return OptimizerMap(with_factor(groups.default_optimizer, factor), rest)


class MultiFactory(WrapperFactory):
    """The factory of `MultiOptimizer`."""

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments; the loss scale's is that of the optimizers, too."""
        found = super().bound(args, kwargs)
        if isinstance(groups := found["optimizer_map"], OptimizerMap):
            found["optimizer_map"] = overwritten(groups, found["loss_scale_factor"])
        return found


def multi(build: Callable[..., GradientTransformation]) -> MultiFactory:
    """Decorates what makes the MultiOptimizer."""
    return MultiFactory(build, "keras.optimizers")


@dataclass(frozen=True)
class Groups:
    """The label of each leaf: that of the one expression that matches its path."""

    patterns: tuple[str, ...]

    def name(self, label: str) -> str:
        """The expression of a label."""
        found = {f"group_{i}": x for i, x in enumerate(self.patterns)}
        return found.get(label, "default_optimizer")

    def __call__(self, path: str, leaf: Any) -> str:
        del leaf
        if path in self.patterns:
            return f"group_{self.patterns.index(path)}"
        found = [i for i, x in enumerate(self.patterns) if re.fullmatch(x, path)]
        if len(found) > 1:
            raise ValueError(
                f"{path!r} is matched by {[self.patterns[i] for i in found]}: Keras "
                "takes one optimizer for each variable"
            )
        return f"group_{found[0]}" if found else "default"


@multi
def MultiOptimizer(
    optimizer_map: Any,
    loss_scale_factor: float | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Keras's MultiOptimizer, a `jopt.partition`.

    Args:
      optimizer_map: An `OptimizerMap`. For a function of the leaf take
        `jopt.partition`.
      loss_scale_factor: What all gradients are divided by; that of an optimizer in
        the map has no effect, as in Keras.
      name: Kept for the config.

    Raises:
      TypeError: ``optimizer_map`` is no `OptimizerMap`.

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
            f"{abbreviated(optimizer_map)}. jopt.partition takes a function of "
            "the path and the leaf"
        )
    arguments.positive(loss_scale_factor=loss_scale_factor)
    groups = overwritten(optimizer_map, None)
    found = groups.optimizer_map
    own = {f"group_{i}": tx for i, tx in enumerate(found.values())}
    own["default"] = groups.default_optimizer
    tx = partition(own, Groups(tuple(found)))
    return tx if loss_scale_factor is None else chain(scale(1 / loss_scale_factor), tx)
