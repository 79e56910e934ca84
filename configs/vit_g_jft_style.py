"""ViT-g/14 and ViT-G/14 as in "Scaling Vision Transformers", Zhai et al. 2021 (arXiv 2106.04560).

    vit-jax train --config configs/vit_g_jft_style.py:g/14 --workdir DIR --config.data.path=TFDS_DIR

The argument is `g/14` (default) or `G/14`.
Hardware: TPU pods; the paper fits 32 images on a TPU v3 core for g/14 (published).
Result: published, G/14 after fine-tuning at 518 px: 90.45 % top-1 on ImageNet; the data, JFT-3B, is not public.
Published: model, loss, batch, optimizer, schedule. Ours: ImageNet-21k in the place of JFT-3B, the mesh, and
optax's Adafactor, which differs from the paper's in the details its docstring names.
Weight decay: the paper's 0.03 of the learning rate, and a hundred times that for the head.
"""

from vit_jax.training.config import default_config


def get_config(arg="g/14"):
    """Return the configuration for a size."""
    config = default_config()
    config.duration = "1000000 steps"

    config.model.name = f"ViT-{arg}"
    config.model.class_token = False
    config.model.pool = "map"
    config.model.activation = "gelu_tanh"
    config.model.head_bias_init = -10.0
    config.model.remat = "dots"

    config.objective.loss = "sigmoid"

    config.data.source = "tfds"
    config.data.name = "imagenet21k_resized"
    config.data.train_split = "train[:99%]"
    config.data.eval_split = "train[99%:]"
    config.data.train_transforms = "decode|inception_crop({size}, antialias='none')|flip_lr"
    config.data.batch_size = 16384
    config.data.num_workers = 16

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 8e-4
    config.optimizer.weight_decay = 0.03
    config.optimizer.weight_decay_multipliers = ((r"^head/", 100.0),)
    config.optimizer.first_moment_dtype = "bfloat16"
    config.schedule.name = "rsqrt"
    config.schedule.warmup = "10000 steps"
    config.schedule.timescale = "10000 steps"
    config.schedule.cooldown = "50000 steps"

    # Widths 1408 and 1664 divide by 64, not by 256.
    config.mesh.fsdp = 64

    config.evaluation.every = "20000 steps"
    config.checkpoint.every = "5000 steps"
    return config
