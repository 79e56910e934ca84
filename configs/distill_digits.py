"""Distillation at toy size: a student of 10,546 parameters learns scikit-learn's digits from a larger classifier.

    vit-jax train --config configs/digits.py --workdir runs/digits
    vit-jax train --config configs/distill_digits.py --workdir runs/student --config.objective.teacher=runs/digits

After Hinton et al. 2015 (arXiv 1503.02531) and, for the mixing, Beyer et al. 2021 (arXiv 2106.05237). Recipe: ours.
Hardware: two CPU cores. Result: see docs/distillation.md; `benchmarks/distillation.py` measures it.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "1000 steps"

    config.model.name = "vit_mu_patch2_8"
    config.model.in_channels = 1
    config.model.width = 24
    config.model.depth = 2
    config.model.heads = 2
    config.model.mlp_dim = 48
    config.model.class_token = False
    config.model.pool = "mean"

    config.objective.name = "distillation"
    config.objective.teacher = ""  # to be given on the command line
    config.objective.teacher_weight = 0.9
    config.objective.temperature = 2.0
    config.objective.mixup = 0.5

    config.data.source = "digits"
    config.data.batch_size = 64
    config.data.eval_batch_size = 360

    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = "10%"
    return config
