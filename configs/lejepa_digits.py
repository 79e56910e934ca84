"""LeJEPA (Balestriero & LeCun 2025, arXiv 2511.08544) and its siblings at toy size, on scikit-learn's digits.

    vit-jax train --config configs/lejepa_digits.py:lejepa --workdir runs/lejepa_digits

The argument is the method: lejepa (default), visreg, vicreg, barlow_twins, simclr, simsiam, byol or moco_v3.
Hardware: two CPU cores. Recipe: ours. The losses of different methods cannot be compared; `knn20_accuracy`,
`linear_accuracy` and the effective rank say how good the features are.
"""

from vit_jax.training.config import default_config


def get_config(arg="lejepa"):
    """Return the configuration for a method."""
    config = default_config()
    config.duration = "2000 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.width = 64
    config.model.depth = 4
    config.model.heads = 4
    config.model.mlp_dim = 256
    config.model.pool = "cls"

    config.objective.name = arg
    config.objective.hidden_dim = 256
    config.objective.output_dim = 32 if arg in ("lejepa", "visreg") else 128
    if arg in ("simsiam", "byol", "moco_v3"):
        config.objective.predictor_dim = 128
    if arg in ("byol", "moco_v3"):
        config.objective.momentum = 0.98  # a short run's teacher follows sooner

    config.data.source = "digits"
    # A digit is what it is neither mirrored nor in other colours. The others compare two views of the same size.
    local = 4 if arg in ("lejepa", "visreg") else 0
    crops = f"local_count={local}, global_scale=(0.4, 1.0), local_scale=(0.2, 0.5)"
    config.data.train_transforms = f"multi_crop(8, 4, {crops}, global_transforms='', local_transforms='')"
    config.data.batch_size = 128
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"

    config.evaluation.probes = ("knn", "linear:100%", "rank")
    config.evaluation.every = "20%"
    config.evaluation.illustrate = 12
    return config
