"""torch's learning rate schedulers by their names, as schedules.

They take the learning rate in place of torch's optimizer, whose rates torch changes:

    torch     StepLR(SGD(parameters, lr=0.1), step_size=30)
    here      SGD(lr=StepLR(0.1, step_size=30))

They count updates. If ``scheduler.step()`` runs once per epoch in torch, count epochs:
``SGD(lr=jopt.epoch_schedule(StepLR(0.1, step_size=30), steps_per_epoch))``.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
