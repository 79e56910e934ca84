"""Datasets prepared for training: from image files, archives or tfds to ArrayRecord, without TensorFlow."""
