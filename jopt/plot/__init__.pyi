"""Every public name of jopt.plot."""

from .schedule_lines import schedules as schedules
from .training_run import run as run, update_ratios as update_ratios
from .rate_range import range_test as range_test
from .surfaces import trajectories as trajectories
