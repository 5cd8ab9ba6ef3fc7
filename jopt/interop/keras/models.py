"""``as_optimizer``: a jopt transformation as the optimizer of a Keras model."""

from __future__ import annotations

from typing import Any

from jopt.core.chain import as_transformation
from jopt.core.transformation import GradientTransformation
from jopt.interop.keras.factories import KerasOptimizer
from jopt.interop.keras.loss_scale import LossScaleOptimizer, with_factor


def as_optimizer(tx: GradientTransformation, name: str | None = None) -> Any:
    """Return a ``keras.optimizers.Optimizer`` that makes the steps of a transformation.

    It goes wherever Keras takes an optimizer on its JAX backend: ``compile`` and
    ``fit``, custom loops with ``stateless_apply``, callbacks, ``.keras`` files. The
    paths of the parameters are those of the variables, ``"sequential/dense/kernel"``.

    ``optimizer.learning_rate`` can be read and set if ``tx`` has one, or several that
    are equal; a scheduled one can be read. ``optimizer.state`` is the state of ``tx``,
    for `jopt.metrics` and the like, and ``optimizer.set_state`` replaces it. At the end
    of ``fit`` the average of `jopt.params_ema`, or of ``use_ema=True``, becomes the
    parameters.

    The arguments of Keras's class, such as ``beta_1`` and ``clipnorm``, are attributes,
    as there, but cannot be set.

    A program that loads a saved model has to know the class first: ``import
    jopt.interop.keras.model_optimizer``.

    Args:
      tx: A transformation, made by `jopt.interop.keras` or any other. It cannot need
        more than gradients and parameters.
      name: The optimizer's name; None makes one up, as Keras does: ``"adam_1"``.

    Returns:
      An optimizer of Keras; its ``LossScaleOptimizer`` if ``tx`` is jopt's.

    Raises:
      ImportError: Keras is not installed.
      RuntimeError: Keras has another backend than JAX.
      TypeError: ``tx`` is not a transformation.
      ValueError: ``tx`` needs an argument that Keras does not pass to optimizers, such
        as the value of the loss.

    >>> import jopt
    >>> from jopt.interop.keras import Adam
    >>> def compiled(model):
    ...     model.compile(loss="mse", optimizer=as_optimizer(Adam(0.01)))
    ...     return model
    """
    # This imports Keras, which nothing else here needs.
    from jopt.interop.keras.model_optimizer import JoptOptimizer, keras

    tx = as_transformation(tx, "as_optimizer: tx")
    if not isinstance(tx, KerasOptimizer):
        return JoptOptimizer(tx, name=name)
    arguments = tx.spec.arguments
    name = name or arguments.get("name")
    if tx.spec.factory is LossScaleOptimizer:
        # `compile` recognizes its own class, and would scale the loss twice.
        numbers = {n: arguments[n] for n in ("initial_scale", "dynamic_growth_steps")}
        inner = as_optimizer(arguments["inner_optimizer"])
        return keras.optimizers.LossScaleOptimizer(inner, **numbers, name=name)
    # Keras divides by this factor itself, unless a LossScaleOptimizer is around.
    factor = arguments.get("loss_scale_factor")
    tx = with_factor(tx, None) if factor is not None else tx
    return JoptOptimizer(tx, loss_scale_factor=factor, name=name)
