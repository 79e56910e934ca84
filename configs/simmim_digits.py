"""SimMIM (Xie et al. 2021, arXiv 2111.09886) at toy size, on scikit-learn's digits.

    vit-jax train --config configs/simmim_digits.py --workdir runs/simmim_digits

Hardware: two CPU cores. Recipe: ours. The loss is the absolute error of hidden pixels, which are scaled to [-1, 1];
`illustration.png` in the workdir shows what is reconstructed, and k-NN and a linear probe judge the features.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "2000 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.width = 64
    config.model.depth = 4
    config.model.heads = 4
    config.model.mlp_dim = 256
    config.model.class_token = False  # no loss reaches it; features are the patches' mean
    config.model.pool = "mean"

    config.objective.name = "simmim"
    config.objective.mask_size = 2

    config.data.source = "digits"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"

    config.evaluation.every = "25%"
    config.evaluation.probes = ("knn", "linear:100%")
    config.evaluation.illustrate = 12
    return config
