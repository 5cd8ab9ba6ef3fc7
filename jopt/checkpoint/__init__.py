"""Save a training run and go on from it: on this machine, another, or after a crash.

    jopt.checkpoint.save("run/5", params=params, opt_state=state, tx=tx, step=5)
    params, state, step, rng, metadata = jopt.checkpoint.restore(
        "run/5", params=params, tx=tx
    )

A path without a suffix becomes a folder, which orbax writes; it holds arrays of any
sharding, from any number of processes, and restores onto any other. ``.npz``,
``.safetensors`` and ``.msgpack`` are one file, for one process. `Checkpointer` keeps
the newest and the best of many, and can write while training goes on.

What is visible is complete: everything is written under another name first. Nothing is
restored silently wrong: every file has a checksum, every array has one of its bits, and
names, shapes and dtypes are compared before anything is read.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
