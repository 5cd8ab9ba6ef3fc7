"""The learning rate of a state, for the properties of both classes."""

from __future__ import annotations

import jax

from jopt.core.transformation import OptState
from jopt.state.hyperparams import hyperparams


def learning_rate(opt_state: OptState) -> jax.Array:
    """Return the learning rate in an optimizer's state.

    Raises:
      AttributeError: It does not hold exactly one.
    """
    values = hyperparams(opt_state)
    if "learning_rate" not in values:
        raise AttributeError(
            "the optimizer's state does not hold exactly one learning rate; its "
            f"hyperparameters are {sorted(values)}"
        )
    return values["learning_rate"]
