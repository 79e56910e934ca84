"""A norm and one dense layer on maps."""
