"""The version, in the one place that the build, checkpoints and the package read."""

__version__ = "0.1.0"
