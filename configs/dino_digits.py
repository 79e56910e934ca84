"""DINO (Caron et al. 2021, arXiv 2104.14294) at toy size, on scikit-learn's digits.

    vit-jax train --config configs/dino_digits.py --workdir runs/dino_digits

Hardware: two CPU cores, eight minutes beside other work. Recipe: ours. The loss says little; `knn20_accuracy` and
`rankme` say how good the teacher's features are. Result (measured by this project, one seed): k-NN 84.7 %, linear
90.8 %.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "2000 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.width = 64
    config.model.depth = 4
    config.model.heads = 4
    config.model.mlp_dim = 256
    config.model.pool = "cls"

    config.objective.name = "dino"
    config.objective.prototypes = 256
    config.objective.hidden_dim = 128
    config.objective.bottleneck_dim = 128
    # Sharper targets leave the uniform ones, where training begins, after some 100 steps instead of 1000.
    config.objective.teacher_temperature = 0.03
    config.objective.first_temperature = 0.03
    config.objective.momentum = 0.98  # a short run's teacher follows sooner

    config.data.source = "digits"
    # A digit is what it is neither mirrored nor in other colours.
    crops = "local_count=4, global_scale=(0.6, 1.0), local_scale=(0.4, 0.7)"
    config.data.train_transforms = f"multi_crop(8, 6, {crops}, global_transforms='', local_transforms='')"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 3.0
    config.optimizer.clip_per_tensor = True
    config.optimizer.weight_decay = 0.04
    config.optimizer.weight_decay_schedule = "cosine"
    config.optimizer.weight_decay_end = 0.4
    config.optimizer.delay = ((r"^head/prototypes", "1 epoch", None),)
    config.schedule.warmup = "10%"

    config.evaluation.probes = ("knn", "rank")
    config.evaluation.every = "20%"
    config.evaluation.illustrate = 12
    return config
