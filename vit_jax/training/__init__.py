"""How a model is trained: configuration, state, step, sharding, checkpoints, loop."""
