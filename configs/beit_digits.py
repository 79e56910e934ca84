"""BEiT (Bao et al. 2021, arXiv 2106.08254) at toy size, on scikit-learn's digits.

    vit-jax train --config configs/vq_tokenizer_digits.py --workdir runs/vq_tokenizer_digits
    vit-jax train --config configs/beit_digits.py --workdir runs/beit_digits

The argument is the tokenizer, by default the workdir `runs/vq_tokenizer_digits`.
Hardware: two CPU cores. Recipe: ours. Blocks of at most 8 of 16 patches are hidden; k-NN and a linear probe judge the
features.
"""

from vit_jax.training.config import default_config


def get_config(arg="runs/vq_tokenizer_digits"):
    """Return the configuration for a tokenizer."""
    config = default_config()
    config.duration = "1000 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.width = 64
    config.model.depth = 4
    config.model.heads = 4
    config.model.mlp_dim = 256
    config.model.class_token = False  # no loss reaches it; features are the patches' mean
    config.model.pool = "mean"

    config.objective.name = "beit"
    config.objective.tokenizer = arg

    config.data.source = "digits"
    hidden = "token_image({size})|block_mask(4, most=8, min_area=2)"
    config.data.train_transforms = config.data.eval_transforms = f"decode(1)|resize({{size}})|{hidden}"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"

    config.evaluation.every = "25%"
    config.evaluation.probes = ("knn", "linear:100%")
    return config
