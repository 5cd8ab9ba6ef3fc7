"""Flax: a train state that passes extra arguments on and shows the hyperparameters.

jopt transformations work in ``flax.training.train_state.TrainState`` and in
``flax.nnx.Optimizer`` as they are. This `TrainState` is Flax's with what it lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state

from jopt.core.apply import apply_updates
from jopt.core.transformation import Needs, Params, Updates
from jopt.state.hyperparams import hyperparams, set_hyperparams
from jopt.values.arguments import suggestion


class TrainState(train_state.TrainState):
    """Flax's ``TrainState``; a drop-in for it, and a subclass.

    - `apply_gradients` hands extra arguments to the optimizer.
    - ``learning_rate`` and ``hyperparams`` can be read, `set_hyperparams` changes them.
    - ``step`` is an int32 array from the start: one compile, also after a restore.
    - ``params`` may be any PyTree: a bare array, a dataclass, an Equinox module.

    ``tx`` may also be an optax transformation. A subclass may add fields, as of Flax's.

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
        """A state at step 0, with the optimizer's ``init``.

        Args:
          apply_fn: Usually ``model.apply``.
          params: The parameters.
          tx: A transformation.
          **kwargs: The fields of a subclass.

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
        """One optimizer step.

        Args:
          grads: The gradients, of the structure of ``params``. The entry
            ``OVERWRITE_WITH_GRADIENT`` of a dict becomes the parameters' as it is.
          **kwargs: What ``tx.update`` declares goes to it (``value=loss``); what is a
            field is replaced in the new state.

        Returns:
          The state with ``step``, ``params`` and ``opt_state`` of after the step.

        Raises:
          TypeError: An argument is neither.
        """
        extra, fields = self._told_apart(kwargs)
        updates, opt_state = self.tx.update(
            _optimized(grads), self.opt_state, _optimized(self.params), **extra
        )
        params = apply_updates(_optimized(self.params), updates)
        if _is_split(grads):
            overwritten = grads[OVERWRITE_WITH_GRADIENT]
            params = {"params": params, OVERWRITE_WITH_GRADIENT: overwritten}
        return self.replace(
            step=self.step + 1, params=params, opt_state=opt_state, **fields
        )

    def _told_apart(
        self, given: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What of the arguments is for ``tx.update``, and what are fields."""
        needs = getattr(self.tx, "needs", None) or Needs.of(self.tx.update)
        names = {field.name for field in dataclasses.fields(self)}
        extra = needs.chosen(given)
        fields = {name: value for name, value in given.items() if name in names}
        for name in sorted(given.keys() - extra.keys() - fields.keys()):
            known = needs.accepts - {"params"}
            raise TypeError(
                f"apply_gradients has no use for the argument {name!r}."
                f"{suggestion(name, known | names)} The optimizer takes "
                f"{sorted(known)}, the state has the fields {sorted(names)}."
            )
        return extra, fields

    @property
    def hyperparams(self) -> dict[str, jax.Array]:
        """The hyperparameters that the state holds; see `jopt.hyperparams`."""
        return hyperparams(self.opt_state)

    @property
    def learning_rate(self) -> jax.Array:
        """The learning rate last used, or to be used first."""
        found = self.hyperparams
        if "learning_rate" not in found:
            raise AttributeError(
                "the optimizer's state holds no learning rate, or more than one; its "
                f"hyperparameters are {sorted(found)}"
            )
        return found["learning_rate"]

    def set_hyperparams(self, **values: float | jax.Array) -> Self:
        """The state with hyperparameters changed; see `jopt.set_hyperparams`."""
        opt_state = set_hyperparams(self.tx, self.opt_state, **values)
        return self.replace(opt_state=opt_state)


def _is_split(tree: Any) -> bool:
    """Whether Flax's fp8 layers have put statistics beside the parameters."""
    return isinstance(tree, Mapping) and OVERWRITE_WITH_GRADIENT in tree


def _optimized(tree: Any) -> Any:
    return tree["params"] if _is_split(tree) else tree
