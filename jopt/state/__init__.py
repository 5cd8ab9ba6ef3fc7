"""Read and change the state of a run."""
