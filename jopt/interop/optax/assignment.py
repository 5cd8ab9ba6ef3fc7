"""The names of ``optax.assignment``."""

from jopt.losses.assignment import base_hungarian_algorithm, hungarian_algorithm


__all__ = ["base_hungarian_algorithm", "hungarian_algorithm"]
