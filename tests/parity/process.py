"""A process of its own for each library.

Keras fixes its backend, and JAX its float width, when they are imported; and optax
needs JAX's standard dtype promotion, which the tests forbid.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


# The package is tests.parity, or parity where tests is not a package.
ROOT = Path(__file__).parents[__package__.count(".") + 1]


def result_of(module, *arguments, x64, text=""):
    """What ``python -m module --run *arguments PATH`` saves at PATH.

    One array, or several by name. It reads the text from its standard input.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {
            "JAX_ENABLE_X64": str(int(x64)),
            "JAX_NUMPY_DTYPE_PROMOTION": "standard",
            "JAX_NUMPY_RANK_PROMOTION": "allow",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # most of the time is compiling
            "KERAS_BACKEND": "jax",
            "KERAS_HOME": folder,  # not the user's keras.json, which sets a floatx
        }
        path = Path(folder, "result.npy")
        command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.{module}"]
        command += ["--run", *arguments, str(path)]
        subprocess.run(command, cwd=ROOT, env=env, check=True, input=text, text=True)
        found = np.load(path)
        return found if isinstance(found, np.ndarray) else dict(found)
