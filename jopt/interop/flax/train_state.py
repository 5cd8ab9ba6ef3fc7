"""Flax's TrainState with extra arguments and readable hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state

from jopt.core.fused import fused_update
from jopt.core.transformation import Needs, Params, Updates
from jopt.interop.flax.rate import learning_rate
from jopt.state.hyperparams import hyperparams, set_hyperparams
from jopt.values.arguments import suggestion


class TrainState(train_state.TrainState):
    """A drop-in subclass of Flax's ``TrainState``.

    - `apply_gradients` passes extra arguments to the optimizer.
    - ``learning_rate`` and ``hyperparams`` are readable; `set_hyperparams` sets them.
    - ``step`` is an int32 array from the start, so the step compiles only once, even
      after a checkpoint is restored.
    - ``params`` can be any PyTree: a bare array, a dataclass, an Equinox module.

    ``tx`` can also be an optax transformation. Subclasses can add fields.

    >>> import jopt
    >>> params = {"w": jnp.ones(2)}
    >>> state = TrainState.create(apply_fn=None, params=params, tx=jopt.sgd(0.5))
    >>> state = state.set_hyperparams(learning_rate=0.25)
    >>> state = state.apply_gradients(grads={"w": jnp.ones(2)})
    >>> state.params, state.learning_rate
    ({'w': Array([0.75, 0.75], dtype=float32)}, Array(0.25, dtype=float32))
    """

    @classmethod
    def create(
        cls,
        *,
        apply_fn: Callable[..., Any] | None,
        params: Params,
        tx: Any,
        **kwargs: Any,
    ) -> Self:
        """Return a state at step 0 with a new optimizer state.

        Args:
          apply_fn: Usually ``model.apply``.
          params: The parameters.
          tx: A transformation.
          **kwargs: The fields that a subclass adds.

        Returns:
          A new state.
        """
        return cls(
            step=jnp.zeros((), jnp.int32),
            apply_fn=apply_fn,  # type: ignore[arg-type]
            params=params,
            tx=tx,
            opt_state=tx.init(_optimized(params)),
            **kwargs,
        )

    def apply_gradients(self, *, grads: Updates, **kwargs: Any) -> Self:
        """Make one optimizer step.

        Args:
          grads: The gradients, with the structure of ``params``. In a dict the entry
            ``OVERWRITE_WITH_GRADIENT`` replaces that entry of the parameters.
          **kwargs: Arguments that ``tx.update`` declares, such as ``value=loss``, go to
            it; fields of the state get new values.

        Returns:
          The state with the new ``step``, ``params`` and ``opt_state``.

        Raises:
          TypeError: An argument is neither.
        """
        extra, fields = self._split(kwargs)
        trees = _optimized(grads), self.opt_state, _optimized(self.params)
        params, opt_state = fused_update(self.tx, *trees, extra, adds=True)
        if _is_split(grads):
            overwritten = grads[OVERWRITE_WITH_GRADIENT]
            params = {"params": params, OVERWRITE_WITH_GRADIENT: overwritten}
        return self.replace(
            step=self.step + 1, params=params, opt_state=opt_state, **fields
        )

    def _split(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split arguments into those of ``tx.update`` and fields of the state."""
        needs = getattr(self.tx, "needs", None) or Needs.of(self.tx.update)
        names = {field.name for field in dataclasses.fields(self)}
        extra = needs.chosen(kwargs)
        fields = {name: value for name, value in kwargs.items() if name in names}
        for name in sorted(kwargs.keys() - extra.keys() - fields.keys()):
            accepted = needs.accepts - {"params"}
            raise TypeError(
                f"apply_gradients got an unknown argument {name!r}."
                f"{suggestion(name, accepted | names)} The optimizer takes "
                f"{sorted(accepted)}, the state has the fields {sorted(names)}."
            )
        return extra, fields

    @property
    def hyperparams(self) -> dict[str, jax.Array]:
        """The hyperparameters in the optimizer's state; see `jopt.hyperparams`."""
        return hyperparams(self.opt_state)

    @property
    def learning_rate(self) -> jax.Array:
        """The learning rate of the last step; before the first, that of the first."""
        return learning_rate(self.opt_state)

    def set_hyperparams(self, **values: float | jax.Array) -> Self:
        """Return the state with new hyperparameters; see `jopt.set_hyperparams`."""
        opt_state = set_hyperparams(self.tx, self.opt_state, **values)
        return self.replace(opt_state=opt_state)


def _is_split(tree: Any) -> bool:
    """Whether the tree has statistics of Flax's fp8 layers beside the parameters."""
    return isinstance(tree, Mapping) and OVERWRITE_WITH_GRADIENT in tree


def _optimized(tree: Any) -> Any:
    """Return the part of the tree that the optimizer updates."""
    return tree["params"] if _is_split(tree) else tree
