"""I-JEPA (Assran et al. 2023, arXiv 2301.08243) at toy size, on scikit-learn's digits.

    vit-jax train --config configs/ijepa_digits.py --workdir runs/ijepa_digits

Hardware: two CPU cores. Recipe: ours; digits are made four times as large, so that there are 64 patches, as many as the
published shares of blocks need. The loss rises while the encoder learns; k-NN and a linear probe judge its features.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "2000 steps"

    config.model.name = "vit_mu_patch4_32"
    config.model.in_channels = 1
    config.model.width = 64
    config.model.depth = 4
    config.model.heads = 4
    config.model.mlp_dim = 256
    config.model.position = "sincos2d_mae"

    config.objective.name = "ijepa"
    config.objective.predictor_width = 32
    config.objective.predictor_depth = 2

    config.data.source = "digits"
    config.data.train_transforms = config.data.eval_transforms = "decode(1)|resize({size}, 'bilinear')"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.04
    config.schedule.warmup = "10%"

    config.evaluation.every = "25%"
    config.evaluation.probes = ("knn", "linear:100%")
    config.evaluation.illustrate = 12
    return config
