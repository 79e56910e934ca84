"""How good a model is: exact metrics, baselines and pictures."""
