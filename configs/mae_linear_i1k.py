"""Linear classification on an MAE's frozen features: He et al. 2021 (arXiv 2111.06377), appendix A.1.

    vit-jax train --config configs/mae_linear_i1k.py:large --workdir DIR --config.data.path=TFDS_DIR \
        --config.model.checkpoint=WORKDIR

WORKDIR is that of `configs/mae_i1k.py`, or any published checkpoint of an MAE. The argument is `base`, `large`
(default) or `huge`. A batch norm without parameters stands between the class token and the classifier.
Hardware: published, 32 GPUs with 512 images each. No gradient is computed inside the encoder.
Result: published top-1 68.0 (base), 75.8 (large), 76.6 % (huge); not reproduced by this project.
Published: everything below.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

EPOCHS = {"base": 90, "large": 50, "huge": 50}


def get_config(arg="large"):
    """Return the configuration for a size."""
    if arg not in EPOCHS:
        raise ConfigError(f"mae_linear_i1k.py:{arg} is no size; choose one of {', '.join(EPOCHS)}.")
    config = default_config()
    config.duration = f"{EPOCHS[arg]} epochs"

    config.model = {"checkpoint": "", "pool": "cls", "head_batch_norm": True, "head_std": 0.01}

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.train_transforms = "decode|random_resized_crop({size}, interpolation='bicubic')|flip_lr"
    config.data.batch_size = 16384
    config.data.num_workers = 16

    config.optimizer.name = "lars"
    config.optimizer.trained = (r"^head/",)
    config.optimizer.learning_rate = 0.1 * config.data.batch_size / 256
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup = "10 epochs"
    config.schedule.final = 0.0

    config.evaluation.every = "5 epochs"
    config.checkpoint.every = "1 epoch"
    return config
