"""Monotone schedules."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jopt import checks
from jopt.factory import schedule
from jopt.tree import scalar_dtype
