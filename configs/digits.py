"""Quickstart: a small ViT on scikit-learn's handwritten digits, 8x8 pixels, from scratch.

Recipe: ours, after Hassani et al. 2021 (arXiv 2104.05704) and Xiao et al. 2021 (arXiv 2106.14881): on small
images a convolution before the patches helps most.

    vit-jax train --config configs/digits.py --workdir runs/digits

Hardware: two CPU cores, about a minute. Result (measured by this project, `benchmarks/digits.py`): see README.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "1300 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.stem = (32, 32)
    config.model.width = 48
    config.model.depth = 3
    config.model.heads = 4
    config.model.mlp_dim = 96
    config.model.class_token = False
    config.model.pool = "mean"
    config.model.drop_path_rate = 0.1

    config.objective.label_smoothing = 0.1
    config.objective.mixup = 0.2

    config.data.source = "digits"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"
    config.ema.decay = 0.99

    config.evaluation.baselines = ("logistic_regression", "svm_rbf")
    config.evaluation.illustrate = 12
    return config
