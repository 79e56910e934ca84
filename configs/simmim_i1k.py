"""SimMIM on ImageNet-1k: Xie et al. 2021 (arXiv 2111.09886).

    vit-jax train --config configs/simmim_i1k.py:swin_base --workdir DIR --config.data.path=TFDS_DIR

The argument is `swin_base` (default; 100 epochs at 192 pixels) or `vit_base` (800 epochs at 224).
Hardware: 16 GPUs of 32 GB with 128 images each (the authors' instructions).
Result: published top-1 after fine-tuning, 82.8 % (swin_base, fine-tuned at 192) or 83.5 (at 224), and 83.8 (vit_base);
not reproduced by this project. `configs/finetune.py` takes the encoder on.
Published: everything below, from the authors' configuration files. The plain ViT is BEiT's, without absolute positions
and with one table of relative ones.
"""

from vit_jax.errors import ConfigError
from vit_jax.models.preprocessing import IMAGENET
from vit_jax.training.config import default_config

NAMES = {"swin_base": "microsoft/swin-base-simmim-window6-192", "vit_base": "beit_base_patch16_224"}


def get_config(arg="swin_base"):
    """Return the configuration for a model."""
    if arg not in NAMES:
        raise ConfigError(f"simmim_i1k.py:{arg} is no model; choose one of {', '.join(NAMES)}.")
    config = default_config()
    config.model.name = NAMES[arg]
    config.objective.name = "simmim"  # squares of 32 pixels, 60 % of them hidden

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.train_transforms = "decode|random_resized_crop({size}, scale=(0.67, 1.0))|flip_lr"
    config.data.batch_size = 2048
    config.data.num_workers = 16

    scale = config.data.batch_size / 512
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 5.0
    config.schedule.warmup = "10 epochs"
    if arg == "swin_base":
        config.duration = "100 epochs"
        config.optimizer.learning_rate = 2e-4 * scale
        config.schedule.warmup_start = 1e-6 / 2e-4
        config.schedule.final = 1e-5 / 2e-4
    else:
        config.duration = "800 epochs"
        config.model.position_bias = "shared"
        config.model.pool_norm = "before"
        config.model.drop_path_rate = 0.1
        config.model.preprocessing = dict(mean=IMAGENET.mean, std=IMAGENET.std)
        config.optimizer.learning_rate = 1e-4 * scale
        config.schedule.warmup_start = 5e-7 / 1e-4
        config.schedule.name = "steps"
        config.schedule.milestones = ("700 epochs",)

    config.evaluation.every = "10 epochs"
    config.checkpoint.every = "1 epoch"
    return config
