"""jopt against the real Keras, torch and optax."""
