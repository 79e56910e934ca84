"""Semantic segmentation of own images and masks, from any checkpoint of a backbone.

    vit-jax train --config configs/segmentation_folder.py --workdir runs/seg \
        --config.model.checkpoint=timm/vit_small_patch16_dinov3.lvd1689m --config.data.path=DIR

`DIR` has `images/` and `masks/` with files of equal names (each with split folders, or lists `train.txt` and `val.txt`;
else a tenth is held out as `test`), and `classes.txt` with the name of a class in each line; see `data.classes`.

    :linear     the backbone stays, a linear head is learned (the default): minutes on a GPU
    :upernet    UPerNet's decoder, and the backbone with a hundredth of its rate; so with `dpt`, `setr_naive`,
                `setr_pup` and `setr_mla`

Recipe: after DINOv3's linear evaluation on ADE20K (Simeoni et al. 2025, arXiv 2508.10104): crops of 512, batches of
16, 40,000 steps; ViT-S there reaches an mIoU of 47.0, with windows of 512 every 341 pixels. Here images are evaluated
whole; for windows over larger ones set objective.evaluation=slide, objective.eval_size and data.eval_transforms.

Hardware: one GPU. Not measured by this project.
"""

from vit_jax.errors import ConfigError
from vit_jax.objectives.segmentation.heads import HEADS
from vit_jax.training.config import default_config


def get_config(arg="linear"):
    """Return the configuration.

    Args:
      arg: the head.
    """
    if arg not in HEADS:
        raise ConfigError(f"segmentation_folder.py:{arg} is no head; choose one of {', '.join(HEADS)}.")
    config = default_config()
    config.duration = "40000 steps"

    config.model = dict(checkpoint="", image_size=512)

    config.objective.name = "segmentation"
    config.objective.head = arg
    config.data.source = "masks"
    config.data.eval_split = "val"
    config.data.train_transforms = (
        "decode|scale_jitter({size}, (0.5, 2.0))|random_crop({size}, fill=0)|flip_lr"
    )
    config.data.eval_transforms = "decode|resize({size})"
    config.data.batch_size = 16
    config.data.eval_batch_size = 8
    config.data.num_workers = 4

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-3
    config.schedule.warmup = "1500 steps"
    if arg == "linear":
        config.optimizer.frozen = (r"^encoder/",)
    else:
        config.optimizer.learning_rate_multipliers = ((r"^encoder/", 0.01),)

    config.evaluation.illustrate = 8
    return config
