"""Trained models at work: prediction, evaluation of a workdir, a classifier object."""
