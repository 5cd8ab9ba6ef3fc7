"""Without a learning rate: it follows from the distance."""
