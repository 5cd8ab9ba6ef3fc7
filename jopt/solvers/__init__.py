"""Solvers: functions that iterate until a function is at its minimum."""
