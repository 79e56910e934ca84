"""Swin on ImageNet-1k from scratch: Liu et al. 2021 (arXiv 2103.14030), section A2.1.

    vit-jax train --config configs/swin_i1k.py:small --workdir DIR --config.data.path=TFDS_DIR

The argument is `tiny` (default), `small` or `base`.
Hardware: 8 GPUs with 128 images each (the authors' instructions).
Result: published 81.2, 83.2 and 83.5 % top-1 (the authors' model hub); not reproduced by this project yet.
Published: everything below, from the authors' configuration files; like timm's, their code leaves out colour jitter
where it has RandAugment. Ours: crops are filtered nearly as by Pillow, which theirs are (`antialias="pillow"` is
exact).
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

DROP_PATH = {"tiny": 0.2, "small": 0.3, "base": 0.5}


def get_config(arg="tiny"):
    """Return the configuration for a size."""
    if arg not in DROP_PATH:
        raise ConfigError(f"swin_i1k.py:{arg} is no size; choose one of {', '.join(DROP_PATH)}.")
    config = default_config()
    config.duration = "300 epochs"

    config.model.name = f"swin_{arg}_patch4_window7_224"
    config.model.drop_path_rate = DROP_PATH[arg]

    config.objective.label_smoothing = 0.1
    config.objective.mixup = 0.8
    config.objective.cutmix = 1.0
    config.objective.mix_partner = "flip"
    config.objective.erase_probability = 0.25

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    # Pixels from outside have ImageNet's mean colour.
    augmentation = "rand_augment('rand-m9-mstd0.5-inc1', interpolation='bicubic', fill=(124, 116, 104))"
    crop = "random_resized_crop({size}, interpolation='bicubic')"
    config.data.train_transforms = f"decode|{crop}|flip_lr|{augmentation}"
    config.data.batch_size = 1024
    config.data.num_workers = 16

    config.optimizer.learning_rate = 5e-4 * config.data.batch_size / 512
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 5.0
    config.schedule.warmup = "20 epochs"
    config.schedule.warmup_start = 5e-7 / config.optimizer.learning_rate
    config.schedule.final = 5e-6 / config.optimizer.learning_rate

    config.evaluation.every = "10 epochs"
    config.checkpoint.every = "1 epoch"
    return config
