"""Fine-tuning of an MAE on ImageNet-1k: He et al. 2021 (arXiv 2111.06377), table 9 and the authors' instructions.

    vit-jax train --config configs/mae_finetune_i1k.py:large --workdir DIR --config.data.path=TFDS_DIR \
        --config.model.checkpoint=WORKDIR

WORKDIR is that of `configs/mae_i1k.py`, or any published checkpoint of an MAE. The argument is `base`, `large`
(default) or `huge`.
Hardware: published, 32 GPUs with 32 images each.
Result: published top-1 83.6 (base), 85.9 (large), 86.9 % (huge); not reproduced by this project.
Published: everything below. Ours: the norm after the pooling starts as the encoder's last one, theirs anew, and the
head at zero.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

# Rate for 256 images, epochs, decay from layer to layer, drop path.
SIZES = {"base": (5e-4, 100, 0.65, 0.1), "large": (1e-3, 50, 0.75, 0.2), "huge": (1e-3, 50, 0.75, 0.3)}


def get_config(arg="large"):
    """Return the configuration for a size."""
    if arg not in SIZES:
        raise ConfigError(f"mae_finetune_i1k.py:{arg} is no size; choose one of {', '.join(SIZES)}.")
    rate, epochs, layer_decay, drop_path = SIZES[arg]
    config = default_config()
    config.duration = f"{epochs} epochs"

    config.model = {"checkpoint": "", "pool": "mean", "pool_norm": "after", "drop_path_rate": drop_path}

    config.objective.label_smoothing = 0.1
    config.objective.mixup = 0.8
    config.objective.cutmix = 1.0
    config.objective.erase_probability = 0.25

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    augmentation = "rand_augment('rand-m9-mstd0.5-inc1', interpolation='bicubic')"
    crop = "random_resized_crop({size}, interpolation='bicubic')"
    config.data.train_transforms = f"decode|{crop}|flip_lr|{augmentation}"
    config.data.batch_size = 1024
    config.data.num_workers = 16

    config.optimizer.learning_rate = rate * config.data.batch_size / 256
    config.optimizer.weight_decay = 0.05
    config.optimizer.layer_decay = layer_decay
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup = "5 epochs"
    config.schedule.final = 1e-6 / config.optimizer.learning_rate

    config.evaluation.every = "5 epochs"
    config.checkpoint.every = "1 epoch"
    return config
