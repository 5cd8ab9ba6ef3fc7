"""Save a training run and resume it, on this machine or another.

    jopt.checkpoint.save("run/5", params=params, opt_state=state, tx=tx, step=5)
    params, state, step, rng, metadata = jopt.checkpoint.restore(
        "run/5", params=params, tx=tx
    )

A path without a suffix is a folder, written by orbax. It holds arrays of any sharding,
from any number of processes, and restores onto any other sharding. ``.npz``,
``.safetensors`` and ``.msgpack`` are single files, for one process. `Checkpointer`
keeps the newest and the best checkpoints of a run, and can write during training.

A visible checkpoint is complete, because everything is first written under another
name. Errors do not pass silently: every file and every array has a checksum, and
names, shapes and dtypes are compared before any array is read.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
