"""Masked autoencoding of ImageNet-1k: He et al. 2021 (arXiv 2111.06377).

    vit-jax train --config configs/mae_i1k.py:large --workdir DIR --config.data.path=TFDS_DIR

The argument is `base`, `large` (default) or `huge`.
Hardware: published, ViT-L for 800 epochs takes about 42 hours on 64 V100 GPUs.
Result: published top-1 after fine-tuning of the encoder, pretrained for 1600 epochs: 83.6 (base), 85.9 (large), 86.9 %
(huge); not reproduced by this project. The loss alone says little; `configs/finetune.py` takes the encoder on.
Published: everything below; decoder and mask (512 wide, 8 blocks, 16 heads, three quarters of the patches hidden,
pixels normalised per patch) are the objective's defaults.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

NAMES = {
    "base": "vit_base_patch16_224.mae",
    "large": "vit_large_patch16_224.mae",
    "huge": "vit_huge_patch14_224.mae",
}


def get_config(arg="large"):
    """Return the configuration for a size."""
    if arg not in NAMES:
        raise ConfigError(f"mae_i1k.py:{arg} is no size; choose one of {', '.join(NAMES)}.")
    config = default_config()
    config.duration = "800 epochs"

    config.model.name = NAMES[arg]
    config.model.position = "sincos2d_mae"

    config.objective.name = "mae"

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
