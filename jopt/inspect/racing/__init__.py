"""Optimizers against each other under one protocol: `jopt.inspect.race`."""
