"""Masked autoencoding of ImageNet-1k with Hiera: Ryali et al. 2023 (arXiv 2306.00989).

    vit-jax train --config configs/hiera_mae_i1k.py:large --workdir DIR --config.data.path=TFDS_DIR

The argument is `tiny`, `small`, `base` (default), `base_plus`, `large` or `huge`.
Hardware: not published for images; the paper names A100 GPUs, and no hours.
Result: published top-1 after fine-tuning, 82.8 (tiny), 83.8 (small), 84.5 (base), 85.2 (base_plus), 86.1 (large),
86.9 % (huge); not reproduced by this project. Fine-tuning pools once more: `configs/finetune.py` with
`--config.model.pooled_stages=3`.
Published: sizes, decoder (512 wide, 8 blocks, 16 heads), 60 % of the mask units hidden, pixels normalised per patch,
two poolings instead of three, 1600 epochs. The authors released no training code: optimizer, schedule and crops are
those of `mae_i1k.py`, on which they build (He et al. 2021, arXiv 2111.06377).
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

SIZES = ("tiny", "small", "base", "base_plus", "large", "huge")


def get_config(arg="base"):
    """Return the configuration for a size."""
    if arg not in SIZES:
        raise ConfigError(f"hiera_mae_i1k.py:{arg} is no size; choose one of {', '.join(SIZES)}.")
    config = default_config()
    config.duration = "1600 epochs"

    config.model.name = f"hiera_{arg}_224.mae"
    config.model.pooled_stages = 2

    config.objective.name = "mae"
    config.objective.mask_ratio = 0.6

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    crop = "random_resized_crop({size}, scale=(0.2, 1.0), interpolation='bicubic')"
    config.data.train_transforms = f"decode|{crop}|flip_lr"
    config.data.batch_size = 4096
    config.data.num_workers = 16

    config.optimizer.learning_rate = 1.5e-4 * config.data.batch_size / 256
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup = "40 epochs"

    config.evaluation.every = "20 epochs"
    config.checkpoint.every = "1 epoch"
    return config
