"""Schedules: the public names, by family."""

from .decay import (
    constant_schedule as constant_schedule,
    linear_schedule as linear_schedule,
    polynomial_schedule as polynomial_schedule,
    rex_schedule as rex_schedule,
    exponential_decay as exponential_decay,
)
from .inverse import (
    inverse_time_decay as inverse_time_decay,
    inverse_sqrt_schedule as inverse_sqrt_schedule,
    power_schedule as power_schedule,
)
from .piecewise import (
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_constant as piecewise_constant,
)
from .cosine import (
    cosine_decay_schedule as cosine_decay_schedule,
    cosine_decay_restarts as cosine_decay_restarts,
    sgdr_schedule as sgdr_schedule,
)
from .linear_cosine import (
    linear_cosine_decay as linear_cosine_decay,
    noisy_linear_cosine_decay as noisy_linear_cosine_decay,
)
from .warmup import (
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    warmup_cosine as warmup_cosine,
    warmup_linear as warmup_linear,
    warmup_inverse_sqrt as warmup_inverse_sqrt,
)
from .stable import warmup_stable_decay as warmup_stable_decay
from .onecycle import (
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    linear_onecycle_schedule as linear_onecycle_schedule,
    onecycle_schedule as onecycle_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
)
from .cyclic import cyclic_schedule as cyclic_schedule
from .averaging import (
    swa_schedule as swa_schedule,
    ema_warmup_schedule as ema_warmup_schedule,
)
from .join import join_schedules as join_schedules
from .product import (
    multiply_schedules as multiply_schedules,
    multiplicative_schedule as multiplicative_schedule,
)
from .micro_steps import (
    epoch_schedule as epoch_schedule,
    micro_step_schedule as micro_step_schedule,
)
