"""MoCo v3 of a ViT-S/16 on ImageNet-1k: Chen et al. 2021 (arXiv 2104.02057).

    vit-jax train --config configs/mocov3_i1k.py --workdir DIR --config.data.path=TFDS_DIR

Hardware: published, 8 V100 GPUs of 32 GB.
Result: published top-1 of a linear classifier on frozen features, 73.2 % after 300 epochs; not reproduced by this
project.
Published: everything below. The patch projection stays as it was drawn, without which training is unstable. Other than
there, the teacher's momentum changes with every step and not every epoch, and pixels are scaled to [-1, 1].
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "300 epochs"

    config.model.name = "vit_small_patch16_224"
    config.model.heads = 12
    config.model.position = "sincos2d_mae"

    config.objective.name = "moco_v3"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    colours = "color_jitter(0.4, 0.4, 0.2, 0.1, probability=0.8)|grayscale(0.2)"
    first = f"{colours}|gaussian_blur(1.0)|flip_lr"
    second = f"{colours}|gaussian_blur(0.1)|solarize(0.2)|flip_lr"
    crops = "local_count=0, global_scale=(0.08, 1.0), interpolation='bilinear'"
    config.data.train_transforms = (
        f"decode|multi_crop({{size}}, {crops}, global_transforms=({first!r}, {second!r}))"
    )
    config.data.batch_size = 1024
    config.data.num_workers = 16

    config.optimizer.learning_rate = 1.5e-4 * config.data.batch_size / 256
    config.optimizer.clip_norm = 0.0
    config.optimizer.weight_decay = 0.1
    config.optimizer.decay = (r".",)  # biases and norms too
    config.optimizer.frozen = (r"^encoder/patch_embed/",)
    config.schedule.warmup = "40 epochs"

    config.evaluation.probes = ("knn", "rank")
    config.evaluation.every = "10 epochs"
    config.checkpoint.every = "1 epoch"
    return config
