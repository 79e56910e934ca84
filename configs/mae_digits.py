"""Masked autoencoding (He et al. 2021, arXiv 2111.06377) at toy size, on scikit-learn's digits.

    vit-jax train --config configs/mae_digits.py --workdir runs/mae_digits

Hardware: two CPU cores. Recipe: ours. The loss is the squared error of hidden pixels, which are scaled to [-1, 1];
`illustration.png` in the workdir shows what is reconstructed.
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

    config.objective.name = "mae"
    config.objective.mask_ratio = 0.5  # an 8x8 digit holds less that is redundant than a photograph
    config.objective.normalise_pixels = False
    config.objective.decoder_width = 32
    config.objective.decoder_depth = 2
    config.objective.decoder_heads = 2

    config.data.source = "digits"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 2e-3
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"

    config.evaluation.illustrate = 12
    return config
