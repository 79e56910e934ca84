"""DINO of a ViT-S/16 on ImageNet-1k: Caron et al. 2021 (arXiv 2104.14294).

    vit-jax train --config configs/dino.py:100 --workdir DIR --config.data.path=TFDS_DIR

The argument is the number of epochs, 100 (default) or 300, each with its recipe.
Hardware: published, 1.75 days on 8 V100 GPUs (100), 2.6 days on 16 (300).
Result: published top-1 of the teacher's features, k-NN and linear: 69.3 and 74.0 % (100), 73.3 and 76.0 % (300); not
reproduced by this project.
Published: everything below; of the objective what differs from its defaults. Other than there, the teacher's
temperature changes with every step and not every epoch, and moments of the last layer are kept while it waits.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

EPOCHS = ("100", "300")


def get_config(arg="100"):
    """Return the configuration for a number of epochs."""
    if arg not in EPOCHS:
        raise ConfigError(f"dino.py:{arg} is no recipe; choose one of {', '.join(EPOCHS)}.")
    config = default_config()
    config.duration = f"{arg} epochs"

    config.model.name = "vit_small_patch16_224.dino"
    config.model.init = "trunc_normal"
    config.model.drop_path_rate = 0.1
    config.model.resample_antialias = False
    config.model.resample_offset = 0.1

    config.objective.name = "dino"
    if arg == "300":
        config.objective.teacher_temperature = 0.07
        config.objective.temperature_epochs = 30
        config.objective.norm_last_layer = False

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.train_transforms = "decode|multi_crop({size}, 96, local_count=8)"
    config.data.batch_size = 512 if arg == "100" else 1024
    config.data.num_workers = 16

    rate = 5e-4 * config.data.batch_size / 256
    config.optimizer.learning_rate = rate
    config.optimizer.clip_norm = 3.0
    config.optimizer.clip_per_tensor = True
    config.optimizer.weight_decay = 0.04
    config.optimizer.weight_decay_schedule = "cosine"
    config.optimizer.weight_decay_end = 0.4
    # Everything but biases and norms; torch has lengths of prototypes as a matrix.
    lengths = (r"prototypes/scale$",) if arg == "300" else ()
    config.optimizer.decay = (r"kernel$", r"(class_token|pos_embed)$", *lengths)
    config.optimizer.delay = ((r"^head/prototypes", "1 epoch", None),)
    config.schedule.warmup = "10 epochs"
    config.schedule.final = 1e-6 / rate

    config.evaluation.probes = ("knn", "rank")
    config.evaluation.every = "10 epochs"
    config.evaluation.illustrate = 12
    config.checkpoint.every = "1 epoch"
    return config
