"""``optax.perturbations``: differentiable means of functions under noise."""

from jopt.gradients import perturbations


__all__ = ["Gumbel", "Normal", "make_perturbed_fun"]

Gumbel = perturbations.Gumbel
Normal = perturbations.Normal
make_perturbed_fun = perturbations.make_perturbed_fun
