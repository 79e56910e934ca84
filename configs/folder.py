"""Your own images: a folder with one folder of images for each class, from scratch.

    vit-jax train --config configs/folder.py:PATH --workdir DIR

PATH holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or just `CLASS/*.jpg`, of which a tenth is held out.
Hardware: anything; ViT-Ti/16 at 224 pixels takes about 8 GFLOP an image in training.
Result: depends on the images. Recipe: ours. A ViT trained from scratch needs tens of thousands of images; with
fewer, expect little.
"""

from vit_jax.training.config import default_config


def get_config(arg=""):
    """Return the configuration for the folder `arg`."""
    config = default_config()
    config.duration = "100 epochs"

    config.model.name = "vit_tiny_patch16_224"

    config.objective.label_smoothing = 0.1
    config.objective.mixup = 0.2

    config.data.source = "folder"
    config.data.path = arg or ""
    config.data.batch_size = 64

    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "5%"

    config.evaluation.every = "5 epochs"
    config.evaluation.illustrate = 12
    config.checkpoint.every = "5 epochs"
    return config
