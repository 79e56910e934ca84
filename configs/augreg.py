"""ViT pretraining as in "How to train your ViT?", Steiner et al. 2021 (arXiv 2106.10270).

    vit-jax train --config configs/augreg.py:B/16,i21k,medium1 --workdir DIR --config.data.path=TFDS_DIR

The argument is MODEL,DATA,AUGMENTATION: a model of the paper (Ti/16, S/32, S/16, B/32, B/16, L/16), `i1k` or
`i21k`, and `none`, `light1`, `light2`, `medium1`, `medium2`, `strong1` or `strong2`.
Hardware: TPU slices; 300 epochs of ImageNet-21k are not for one machine.
Result: published, after fine-tuning from i21k to i1k at 384 px: Ti/16 78.22, S/16 83.73, B/16 85.49, L/16 85.59
% top-1; not reproduced by this project.
Published: everything below. RandAugment mixes with a grey that depends on the image's size instead of its mean, as
big_vision's did; mixup leaves every image the larger share of itself. Evaluation in the paper resizes by area, here
bilinear with antialiasing.
Weight decay: the paper's 0.03 and 0.1, in units of the learning rate, as here.
"""

from vit_jax.training.config import default_config

# Magnitude of RandAugment (two operations; None is off, 0 is not) and alpha of mixup, of the paper's levels.
LEVELS = {
    "none": (None, 0.0),
    "light1": (0, 0.0),
    "light2": (10, 0.2),
    "medium1": (15, 0.2),
    "medium2": (15, 0.5),
    "strong1": (20, 0.5),
    "strong2": (20, 0.8),
}
DATA = {
    # tfds name, training split, evaluation split, initial bias of the head
    "i1k": ("imagenet2012", "train[:99%]", "validation", -6.9),
    "i21k": ("imagenet21k_resized", "train[:99%]", "train[99%:]", -10.0),
}


def get_config(arg="B/16,i21k,medium1"):
    """Return the configuration for `MODEL,DATA,AUGMENTATION`."""
    model, data, level = arg.split(",")
    name, train_split, eval_split, head_bias = DATA[data]
    small = model.startswith(("Ti", "S"))
    config = default_config()
    config.duration = "300 epochs"

    config.model.name = model
    config.model.activation = "gelu_tanh"
    config.model.preprocessing = dict(interpolation="bilinear", crop=0.875, crop_rounding="down")
    config.model.head_bias_init = head_bias
    # The paper regularises with dropout and stochastic depth of 0.1, both or neither.
    config.model.dropout_rate = config.model.drop_path_rate = 0.0 if small else 0.1

    config.objective.loss = "sigmoid"
    magnitude, config.objective.mixup = LEVELS[level]
    config.objective.mix_dominant = True

    config.data.source = "tfds"
    config.data.name = name
    config.data.train_split = train_split
    config.data.eval_split = eval_split
    config.data.train_transforms = "decode|inception_crop({size}, antialias='none')|flip_lr"
    if magnitude is not None:
        config.data.train_transforms += f"|randaug(2, {magnitude})"
    config.data.batch_size = 4096
    config.data.num_workers = 16

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.03 if small else 0.1
    config.optimizer.first_moment_dtype = "bfloat16"
    config.schedule.warmup = "10000 steps"

    config.evaluation.every = "10 epochs"
    config.checkpoint.every = "1 epoch"
    return config
