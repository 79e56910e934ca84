"""Tokenizers: images to a code for each patch, which masked image modelling predicts."""
