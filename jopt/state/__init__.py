"""Functions that read and change the state of a run."""
