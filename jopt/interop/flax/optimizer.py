"""An ``nnx.Optimizer`` with the learning rate, averages and checkpoints of jopt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer

from jopt import checkpoint
from jopt.core.apply import apply_updates
from jopt.core.chain import as_transformation
from jopt.core.eval_params import eval_params, has_readout
from jopt.core.fused import fused_update
from jopt.core.transformation import GradientTransformation, OptState
from jopt.interop.flax.rate import learning_rate
from jopt.state.hyperparams import hyperparams, set_hyperparams
from jopt.state.state_dict import load_state_dict, state_dict


M = TypeVar("M")


class Optimizer(nnx.Optimizer[M]):
    """A drop-in subclass of ``nnx.Optimizer``.

    - ``learning_rate`` can be read and set, `set_hyperparams` sets any hyperparameter,
      and nothing compiles again.
    - `eval_model` returns the model to evaluate, with averaged parameters for example.
    - `save` writes a checkpoint of model and optimizer, `restore` reads it into both.

    All but `save` and `restore` works inside ``nnx.jit``. ``tx`` can also be an optax
    transformation.

    >>> import jopt
    >>> model = nnx.Dict(w=nnx.Param(jnp.ones(2)))
    >>> optimizer = Optimizer(model, jopt.sgd(0.5), wrt=nnx.Param)
    >>> optimizer.learning_rate = 0.25
    >>> _ = optimizer.update(model, nnx.state(model))
    >>> model["w"][...], optimizer.learning_rate
    (Array([0.75, 0.75], dtype=float32), Array(0.25, dtype=float32))
    """

    def __setattr__(self, name: str, value: Any) -> None:
        # nnx would note the name as one more attribute, which changes the structure.
        if name == "learning_rate":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def hyperparams(self) -> dict[str, jax.Array]:
        """The hyperparameters in the optimizer's state; see `jopt.hyperparams`."""
        return hyperparams(self.opt_state)

    @property
    def learning_rate(self) -> jax.Array:
        """The learning rate of the last step; before the first, that of the first."""
        return learning_rate(self.opt_state)

    @learning_rate.setter
    def learning_rate(self, value: float | jax.Array) -> None:
        self.set_hyperparams(learning_rate=value)

    def set_hyperparams(self, **values: float | jax.Array) -> None:
        """Set hyperparameters by name; see `jopt.set_hyperparams`."""
        self._set_state(set_hyperparams(self.tx, self.opt_state, **values))

    def update(self, model: M, grads: Any, /, **kwargs: Any) -> Any:
        """Make one step: change the model's parameters and the optimizer's state.

        Args:
          model: The model.
          grads: The gradients, with the structure of ``nnx.grad``'s.
          **kwargs: Arguments that ``tx.update`` declares, such as ``value=loss``.

        Returns:
          The updates that were added to the parameters.
        """
        pure = nnx.as_pure
        params = pure(nnx.state(model, self.wrt, graph=self.graph))
        trees = pure(nnx.state(grads, self.wrt, graph=self.graph)), pure(self.opt_state)
        extra = pure(kwargs)
        updates, state = self.tx.update(*trees, params, **extra)
        traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(trees))
        if traced and "adds" in getattr(self.tx, "fused", ()):
            # The sum in one pass with the rest; XLA drops what is computed twice, and
            # the updates, unless the caller uses them.
            new, state = fused_update(self.tx, *trees, params, extra, adds=True)
        else:
            new = apply_updates(params, updates)
        nnx.update(model, new)
        self._set_state(state)
        self.step[...] += 1
        return updates

    def eval_model(self, model: M, *, default: M | None = None) -> M:
        """Return a copy of the model with the parameters to evaluate.

        Everything else, such as the statistics of batch normalization, is copied from
        ``model``; run some batches through the copy in training mode if they should
        belong to its parameters.

        Args:
          model: The model that is trained.
          default: What to return if ``tx`` keeps no other parameters: ``model``, in
            code that serves any optimizer. None makes that an error.

        Returns:
          A new model, whose Variables are its own; see `jopt.eval_params`.

        Raises:
          ValueError: ``tx`` keeps no parameters besides those that are trained, and
            ``default`` is None; or it keeps several.

        >>> import jopt
        >>> model = nnx.Dict(w=nnx.Param(jnp.ones(1)))
        >>> tx = jopt.chain(jopt.sgd(1.0), jopt.params_ema(0.5))
        >>> optimizer = Optimizer(model, tx, wrt=nnx.Param)
        >>> for _ in range(2):
        ...     _ = optimizer.update(model, nnx.State({"w": nnx.Param(jnp.ones(1))}))
        >>> model["w"][...], optimizer.eval_model(model)["w"][...]
        (Array([-1.], dtype=float32), Array([-0.5], dtype=float32))
        """
        tx = as_transformation(self.tx, "eval_model: tx")
        if default is not None and not has_readout(tx):
            return default
        graphdef, params, rest = nnx.split(model, self.wrt, ..., graph=self.graph)
        params = eval_params(tx, self.opt_state, params)
        return nnx.merge(graphdef, params, rest, copy=True)

    def state_dict(self) -> dict[str, jax.Array]:
        """Return the arrays of ``opt_state`` by path; see `jopt.state_dict`."""
        return state_dict(self.opt_state)

    def load_state_dict(
        self,
        model: M,
        flat: Mapping[str, Any],
        *,
        strict: bool = True,
        migrate: Sequence[Any] = (),
        hyperparams: Literal["checkpoint", "recipe"] = "checkpoint",
    ) -> None:
        """Set ``opt_state`` from the dict that `state_dict` returned.

        Args:
          model: The model.
          flat: Arrays by path.
          strict: See `jopt.load_state_dict`.
          migrate: See `jopt.load_state_dict`.
          hyperparams: See `jopt.load_state_dict`.

        Raises:
          ValueError: Entries are missing, unexpected, or of another shape or dtype. The
            message lists all of them.
        """
        self._set_state(
            load_state_dict(
                self.tx,  # type: ignore[arg-type]
                nnx.state(model, self.wrt, graph=self.graph),
                flat,
                strict=strict,
                migrate=migrate,
                hyperparams=hyperparams,
            )
        )

    def save(
        self, path: str | Path, model: M, *, rng: Any = None, metadata: Any = None
    ) -> Path:
        """Write a checkpoint of the model, the optimizer's state and the step.

        Args:
          path: A folder, or a file with a suffix; see `jopt.checkpoint.save`.
          model: The model. All its Variables are saved: those that are not trained,
            batch statistics and random keys too.
          rng: Random keys that are not in the model; see `jopt.checkpoint.save`.
          metadata: Further data to save, as plain JSON.

        Returns:
          The absolute path.

        Raises:
          FileExistsError: The folder exists.

        >>> import jopt, tempfile
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> optimizer = Optimizer(model, jopt.adam(1e-3), wrt=nnx.Param)
        >>> path = optimizer.save(tempfile.mkdtemp() + "/run.npz", model)
        >>> optimizer.restore(path, model).step
        0
        """
        return checkpoint.save(
            path,
            params=self._arrays(model),
            opt_state=self.opt_state,
            tx=as_transformation(self.tx, "save: tx"),
            step=int(self.step[...]),
            rng=rng,
            metadata=metadata,
        )

    def restore(
        self,
        path: str | Path,
        model: M,
        *,
        strict: bool = True,
        migrate: Sequence[Any] = (),
        hyperparams: Literal["checkpoint", "recipe"] = "checkpoint",
    ) -> checkpoint.Restored:
        """Read a checkpoint into the model and this optimizer, step included.

        Args:
          path: The path that was given to `save`.
          model: The model, whose Variables get the saved values.
          strict: See `jopt.checkpoint.restore`.
          migrate: See `jopt.checkpoint.restore`.
          hyperparams: See `jopt.checkpoint.restore`.

        Returns:
          ``(params, opt_state, step, rng, metadata)``; model and optimizer already have
          the first three.

        Raises:
          FileNotFoundError: There is no such checkpoint.
          ValueError: The checkpoint is damaged, or does not fit the model or ``tx``.
        """
        restored = checkpoint.restore(
            path,
            params=self._arrays(model),
            tx=self._of_models(),
            strict=strict,
            migrate=migrate,
            hyperparams=hyperparams,
        )
        nnx.update(model, restored.params)
        self._set_state(restored.opt_state)
        if restored.step is not None:
            self.step[...] = jnp.asarray(restored.step, self.step[...].dtype)
        return restored

    def _set_state(self, state: OptState) -> None:
        nnx.update(self.opt_state, nnx.state(nnx.as_pure(state), graph=self.graph))

    def _arrays(self, model: M) -> nnx.State:
        """Return everything that the model contains, numbers as arrays."""
        state = nnx.state(model, graph=self.graph)
        return jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.array(x), state)

    def _of_models(self) -> GradientTransformation:
        """Return ``tx`` with an ``init`` that takes the state of a whole model."""
        tx = as_transformation(self.tx, "restore: tx")
        return GradientTransformation(
            lambda state: tx.init(nnx.filter_state(state, self.wrt)),
            tx.update,
            children=tx.children,
            needs=tx.needs,
            changing=tx.changing,
            fixed_name=tx.name,
            recipe=tx.recipe,
        )
