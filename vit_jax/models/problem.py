"""What a classifier's outputs mean, in words; needs no jax."""

# Classes of which one is right (softmax), classes each on its own (sigmoid), or values as they are.
PROBLEMS = ("single_label", "multi_label", "regression")

# What a loss teaches the outputs to mean.
LOSSES = {"softmax": "single_label", "sigmoid": "multi_label", "bce": "multi_label"}
