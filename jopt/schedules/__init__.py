"""Learning-rate schedules: functions of the step that are values, one family a file."""
