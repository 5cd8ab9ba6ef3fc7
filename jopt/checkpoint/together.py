"""What all processes of a program do together; one process does it alone."""

from __future__ import annotations

import itertools
import secrets

import jax
import numpy as np
from jax.experimental import multihost_utils


_barriers = itertools.count()  # the same sequence in every process


def wait_for_all() -> None:
    """Wait until every process is here.

    The barrier is not a collective, because it also runs in background threads.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        barrier = multihost.get_barrier_sync_fn()
        barrier(key=f"jopt.checkpoint {next(_barriers)}", timeout_ms=600_000)


def same_in_all(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers of process 0 in every process; not for background threads."""
    if jax.process_count() == 1:
        return numbers
    return np.asarray(multihost_utils.broadcast_one_to_all(numbers))


def new_name() -> str:
    """Return 16 random hexadecimal digits, the same in every process."""
    digits = np.frombuffer(secrets.token_bytes(8), np.uint8)
    return bytes(same_in_all(digits)).hex()
