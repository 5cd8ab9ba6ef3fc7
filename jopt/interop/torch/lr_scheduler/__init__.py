"""torch's learning rate schedulers by their names, as schedules.

Where torch takes the optimizer, whose rates it changes, these take the learning rate:

    torch     StepLR(SGD(parameters, lr=0.1), step_size=30)
    here      SGD(lr=StepLR(0.1, step_size=30))

They count updates. Where torch's ``scheduler.step()`` is called once an epoch, count
epochs: ``SGD(lr=jopt.epoch_schedule(StepLR(0.1, step_size=30), steps_per_epoch))``.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
