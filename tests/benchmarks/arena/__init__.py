"""Optimizers on problems that tell them apart: ``python -m tests.benchmarks.arena``."""
