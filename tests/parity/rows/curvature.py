"""Curvature and privacy."""

from .row import torch_like


ROWS = (
    # The estimate of each step is the same in both: the Hessian is diagonal.
    torch_like(
        "pytorch_optimizer",
        "sophia",
        "SophiaH(lr=0.05, p=0.5, eps=1e-6, weight_decay=0.1)",
        "sophia(0.05, 0.96, 0.99, 1e-6, 0.1, gamma=1.0, clip_threshold=0.5, "
        "update_interval=1)",
    ),
    torch_like(
        "pytorch_optimizer",
        "sophia-schedule",
        "SophiaH(lr=0.05, betas=(0.9, 0.95), p=1.0)",
        "sophia(DECAY, 0.9, 0.95, 1e-12, 0.0, gamma=1.0, update_interval=1)",
    ),
)
