"""A tokenizer for masked image modelling: a vector-quantised autoencoder."""
