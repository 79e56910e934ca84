"""LeJEPA of a ViT-S/16 on Imagenette: Balestriero & LeCun 2025 (arXiv 2511.08544), by the recipe of stable-pretraining.

    vit-jax train --config configs/lejepa_imagenette.py --workdir DIR --config.data.path=TFDS_DIR

The argument is the method, `lejepa` (default) or `visreg` (Wu et al. 2026, arXiv 2606.02572).
Hardware: published, one A100 GPU.
Result: published top-1 after 200 epochs, k-NN (k = 20) and linear: 85.4 and 87.1 % (lejepa), 86.5 and 90.2 % (visreg)
(stable-pretraining, benchmarks/imagenet10/RESULTS.md); not reproduced by this project.
Published: model, epochs, learning rate, weight decay, crops and their scales, of lejepa weight and number of
directions. Ours, where the table is silent: batch, warmup, the widths of the projector, and all of visreg but its
published defaults for small sets.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

METHODS = ("lejepa", "visreg")


def get_config(arg="lejepa"):
    """Return the configuration for a method."""
    if arg not in METHODS:
        raise ConfigError(f"lejepa_imagenette.py:{arg} is no recipe; choose one of {', '.join(METHODS)}.")
    config = default_config()
    config.duration = "200 epochs"

    config.model.name = "vit_small_patch16_224"
    config.model.init = "trunc_normal"

    config.objective.name = arg
    if arg == "lejepa":
        config.objective.directions = 1024
    else:
        config.objective.weight = 0.6

    config.data.source = "tfds"
    config.data.name = "imagenette/full-size-v2"
    config.data.eval_split = "validation"
    crops = "local_count=6, global_scale=(0.3, 1.0), local_scale=(0.05, 0.3)"
    config.data.train_transforms = f"decode|multi_crop({{size}}, 96, {crops})"
    config.data.batch_size = 256
    config.data.num_workers = 16

    config.optimizer.learning_rate = 4e-4
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10 epochs"

    config.evaluation.probes = ("knn", "rank")
    config.evaluation.every = "10 epochs"
    config.evaluation.illustrate = 12
    config.checkpoint.every = "5 epochs"
    return config
