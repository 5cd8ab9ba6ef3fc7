"""Learning-rate schedules: functions of the step that are values, one family a file."""

from jopt.schedules.cosine import cosine_decay_restarts as cosine_decay_restarts
from jopt.schedules.cosine import cosine_decay_schedule as cosine_decay_schedule
from jopt.schedules.decay import constant_schedule as constant_schedule
from jopt.schedules.decay import exponential_decay as exponential_decay
from jopt.schedules.decay import inverse_sqrt_schedule as inverse_sqrt_schedule
from jopt.schedules.decay import inverse_time_decay as inverse_time_decay
from jopt.schedules.decay import linear_schedule as linear_schedule
from jopt.schedules.decay import piecewise_constant as piecewise_constant
from jopt.schedules.decay import (
    piecewise_constant_schedule as piecewise_constant_schedule,
)
from jopt.schedules.decay import polynomial_schedule as polynomial_schedule
from jopt.schedules.join import join_schedules as join_schedules
from jopt.schedules.onecycle import cosine_onecycle_schedule as cosine_onecycle_schedule
from jopt.schedules.onecycle import linear_onecycle_schedule as linear_onecycle_schedule
from jopt.schedules.onecycle import onecycle_schedule as onecycle_schedule
from jopt.schedules.onecycle import (
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
)
from jopt.schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
from jopt.schedules.warmup import warmup_cosine as warmup_cosine
from jopt.schedules.warmup import (
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
)
from jopt.schedules.warmup import (
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
)
from jopt.schedules.warmup import warmup_inverse_sqrt as warmup_inverse_sqrt
from jopt.schedules.warmup import warmup_linear as warmup_linear
from jopt.schedules.warmup import warmup_stable_decay as warmup_stable_decay
