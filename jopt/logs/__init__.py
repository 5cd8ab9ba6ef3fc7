"""Write the numbers of a run: a table, JSON lines, TensorBoard, Weights & Biases.

    with jopt.logs.CSV("run.csv") as log:
        for step in range(1000):
            params, state, loss = train_step(params, state, batches[step])
            log(step, jopt.metrics(state), loss=loss)

One call a step takes numbers by name, and dicts of them. A log does not wait for the
device: what is not computed yet stays there, and many steps are fetched at once. So the
program can go on to dispatch the next step. The numbers are copied on the device, so a
later step may donate the state that they come from.

`CSV`, `JSONLines`, `TensorBoard`, `Wandb` and `Memory` are logs, `together` makes one
of several, and a log of your own is a `Log` with a method ``write``.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
