"""``optax.microbatching``: functions of a large batch, one part after the other."""

from jopt.gradients import microbatching


__all__ = [
    "AccumulationType",
    "Accumulator",
    "micro_grad",
    "micro_vmap",
    "microbatch",
    "reshape_batch_axis",
]

AccumulationType = microbatching.AccumulationType
Accumulator = microbatching.Accumulator
micro_grad = microbatching.micro_grad
micro_vmap = microbatching.micro_vmap
microbatch = microbatching.microbatch
reshape_batch_axis = microbatching.reshape_batch_axis
