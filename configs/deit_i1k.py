"""DeiT on ImageNet-1k from scratch, without distillation: Touvron et al. 2020 (arXiv 2012.12877).

    vit-jax train --config configs/deit_i1k.py:small --workdir DIR --config.data.path=TFDS_DIR

The argument is `tiny`, `small` (default) or `base`.
Hardware: a single machine, less than three days (published).
Result: published 72.2, 79.9 and 81.8 % top-1; not reproduced by this project yet.
Published: everything below; like timm's, the authors' code leaves out colour jitter where it has RandAugment. Ours:
crops are filtered nearly as by Pillow, which theirs are (`antialias="pillow"` is exact).
"""

from vit_jax.training.config import default_config


def get_config(arg="small"):
    """Return the configuration for a size."""
    config = default_config()
    config.duration = "300 epochs"

    config.model.name = f"deit_{arg}_patch16_224"
    config.model.drop_path_rate = 0.1

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
    config.data.repeats = 3  # of each image in a batch
    config.data.batch_size = 1024
    config.data.num_workers = 16

    config.optimizer.learning_rate = 5e-4 * config.data.batch_size / 512
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup = "5 epochs"
    config.schedule.warmup_start = 1e-6 / config.optimizer.learning_rate
    config.schedule.final = 1e-5 / config.optimizer.learning_rate

    config.evaluation.every = "10 epochs"
    config.checkpoint.every = "1 epoch"
    return config
