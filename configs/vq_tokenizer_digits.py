"""A tokenizer for BEiT on scikit-learn's digits: a vector-quantised autoencoder (van den Oord et al. 2017, arXiv
1711.00937).

    vit-jax train --config configs/vq_tokenizer_digits.py --workdir runs/vq_tokenizer_digits

Hardware: two CPU cores. Recipe: ours. `configs/beit_digits.py` predicts its codes; `illustration.png` in the workdir
shows digits that went through them, and `perplexity` how many of the 64 are in use.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "1000 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.width = 64
    config.model.depth = 2
    config.model.heads = 4
    config.model.mlp_dim = 256
    config.model.position = "sincos2d_mae"

    config.objective.name = "vq_tokenizer"
    config.objective.vocabulary = 64
    config.objective.code_width = 8
    config.objective.decoder_width = 64
    config.objective.decoder_depth = 2
    config.objective.decoder_heads = 4

    config.data.source = "digits"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = "10%"

    config.evaluation.illustrate = 12
    return config
