"""ViT-S/16 on ImageNet-1k from scratch: "Better plain ViT baselines", Beyer et al. 2022 (arXiv 2205.01580).

    vit-jax train --config configs/vit_s16_i1k.py:90 --workdir DIR --config.data.path=TFDS_DIR

The argument is the number of epochs: 90 (default), 150 or 300.
Hardware: TPU v3-8, 6 to 7 hours for 90 epochs (published).
Result: published 76.5 % (90 epochs) and 80.0 % (300 epochs) top-1; not reproduced by this project yet.
Published: everything below. RandAugment mixes with a grey that depends on the image's size instead of its mean, as
big_vision's did when these numbers were made; mixup leaves every image the larger share of itself. Evaluation in the
paper resizes by area, here bilinear with antialiasing.
Weight decay: big_vision's 1e-4, which it does not multiply by the learning rate of 1e-3, is 0.1 here.
"""

from vit_jax.training.config import default_config


def get_config(arg="90"):
    """Return the configuration for `arg` epochs."""
    config = default_config()
    config.duration = f"{int(arg)} epochs"

    config.model.name = "vit_small_patch16_224"
    config.model.class_token = False
    config.model.pool = "mean"
    config.model.position = "sincos2d_big_vision"
    config.model.representation_size = 384
    config.model.activation = "gelu_tanh"
    config.model.preprocessing = dict(interpolation="bilinear", crop=0.875, crop_rounding="down")

    config.objective.mixup = 0.2
    config.objective.mix_dominant = True

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.train_split = "train[:99%]"
    config.data.eval_split = "validation"
    config.data.train_transforms = "decode|inception_crop({size}, antialias='none')|flip_lr|randaug(2, 10)"
    config.data.batch_size = 1024
    config.data.num_workers = 16

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.first_moment_dtype = "bfloat16"
    config.schedule.warmup = "10000 steps"

    config.evaluation.every = "5 epochs"
    config.checkpoint.every = "1 epoch"
    return config
