"""One row of parity: a setting of jopt that equals a setting of another library.

A row is evaluated in the namespace of its library (for torch and its like, without the
parameters) and in jopt's. Numbers agree within `tol32` in float32 and `tol64` in
float64, absolute and relative, after every step.
"""

from dataclasses import dataclass, replace

from .problem import PARAMS


WIDTHS = ("float32", "float64")


@dataclass(frozen=True)
class Row:
    """One setting: how the library builds it and how jopt does."""

    library: str  # the module's name
    name: str
    oracle: str
    jopt: str
    scheduler: str = ""  # torch's learning rate scheduler
    tol32: float = 2e-6
    tol64: float = 1e-12
    leaves: tuple[str, ...] = ("kernel", "bias")  # those that are optimized
    package: str = ""  # on PyPI, where it is not the module's name

    @property
    def recipe(self):
        """What the oracle's numbers depend on."""
        leaves = "" if len(self.leaves) == 2 else " ".join(self.leaves)
        return " | ".join(
            filter(None, (self.name, self.oracle, self.scheduler, leaves))
        )

    @property
    def size(self):
        """How many parameters are optimized."""
        return sum(PARAMS[name].size for name in self.leaves)

    def tolerance(self, width):
        """The tolerance in this float width."""
        return {"float32": self.tol32, "float64": self.tol64}[width]


def keras(name, oracle, jopt, **options):
    """A row against Keras; DECAY stands for the same decaying rate in both."""
    oracle = oracle.replace("DECAY", "InverseTimeDecay(0.05, 2, 0.5)")
    jopt = jopt.replace("DECAY", "inverse_time_decay(0.05, 2, 0.5)")
    return Row("keras", name, oracle, jopt, **options)


def torch(name, oracle, jopt, **options):
    """A row against torch; DECAY in jopt's text attaches that scheduler to torch's.

    torch's weight_decay is L2 regularization, a part of the gradient, unless it says
    that it is decoupled; maximize negates the gradient before that.
    """
    scheduler = "LambdaLR(lambda t: 1 / (1 + 0.25 * t))" if "DECAY" in jopt else ""
    jopt = jopt.replace("DECAY", "inverse_time_decay(0.05, 2, 0.5)")
    return Row("torch", name, oracle, jopt, scheduler, **options)


def torch_like(library, name, oracle, jopt, **options):
    """A row against a library of torch optimizers, with DECAY as for torch."""
    row = torch(name, oracle, jopt, **options)
    return replace(row, library=library)


def pytorch_optimizer(name, oracle, jopt, **options):
    """A row against pytorch_optimizer."""
    return torch_like("pytorch_optimizer", name, oracle, jopt, **options)


def optax(name, oracle, jopt=None, **options):
    """A row against optax, by default with the very same text."""
    return Row("optax", name, oracle, jopt or oracle, **options)
