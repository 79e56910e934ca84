"""How good a representation is, asked of frozen features by simple classifiers and by their spectrum."""
