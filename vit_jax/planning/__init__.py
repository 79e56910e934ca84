"""A run on hardware that is not here: whether it fits, how long a step takes, what it costs."""
