"""A value of an image: by how many degrees a handwritten digit of scikit-learn's was turned, -60 to 60.

Recipe: ours, on a ViT with a convolution before its patches (Xiao et al. 2021, arXiv 2106.14881). The model learns
values less their mean over their standard deviation in the training records; predictions come in degrees.

    vit-jax train --config configs/regression.py --workdir runs/regression

Your own images, from a table with a column of numbers, or several, fine-tuned from any checkpoint:

    vit-jax train --config configs/regression.py:images --workdir runs/mine --config.data.path=values.csv \\
        --config.data.value_columns="('age',)" --config.model.checkpoint=timm/vit_small_patch16_224.augreg_in21k

Hardware: two CPU cores, a few minutes. Result (measured by this project, one run): a mean absolute error of 1.3
degrees; that of the nearest neighbour of raw pixels is 3.3, that of always guessing the mean 31. Part of it is read
from the grid of the few pixels, which is turned with the digit.
"""

from vit_jax.errors import choose
from vit_jax.training.config import default_config


def of_images(config):
    """Return the configuration with a checkpoint's model and a table of one's own images in place of the digits."""
    config.duration = "20 epochs"
    config.model = {"checkpoint": ""}  # to be given on the command line, with data.path
    config.data.source = "table"
    # Leave flip_lr out where a value, such as an angle, is another in the mirror.
    crop = "random_resized_crop({size}, scale=(0.6, 1.0), interpolation={interpolation})"
    config.data.train_transforms = f"decode({{channels}})|{crop}|flip_lr"
    config.data.update(batch_size=32, eval_batch_size=0)
    config.optimizer.update(learning_rate=1e-4, layer_decay=0.75)
    config.ema.decay = 0.0
    return config


def get_config(arg="digits"):
    """Return the configuration for `digits`, or for `images` of one's own."""
    choose(arg, ("digits", "images"), "the argument of regression.py")
    config = default_config()
    config.duration = "1500 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.image_size = 16
    config.model.in_channels = 1
    config.model.stem = (32, 32)
    config.model.patch_size = 4
    config.model.width = 48
    config.model.depth = 3
    config.model.heads = 4
    config.model.mlp_dim = 96
    config.model.class_token = False
    config.model.pool = "mean"

    config.objective.name = "regression"
    config.objective.loss = "huber"
    config.objective.units = ("degrees",) if arg == "digits" else ()

    config.data.source = "turned_digits"
    config.data.size = 8000
    config.data.batch_size = 64
    config.data.eval_batch_size = 250

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"
    config.ema.decay = 0.99

    config.evaluation.illustrate = 12
    return of_images(config) if arg == "images" else config
