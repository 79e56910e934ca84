"""I-JEPA on ImageNet-1k: Assran et al. 2023 (arXiv 2301.08243), ViT-H/14 for 300 epochs.

    vit-jax train --config configs/ijepa_i1k.py --workdir DIR --config.data.path=TFDS_DIR

Hardware: published, 16 A100 GPUs of 80 GB, less than 72 hours.
Result: published top-1 of a linear probe on ImageNet-1k, 79.3 %; not reproduced by this project. The loss rises by
nature; probes tell how a run goes. Features are those of the moving encoder, its patches' mean.
Published: everything below, from the authors' configuration file; blocks, predictor (384 wide, 12 blocks) and momentum
are the objective's defaults.
Ours: the context has a fixed number of patches, 27 % of all, where the authors' collator takes the smallest of a
device's batch, which is as many on average; and the weights of later blocks do not start smaller.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "300 epochs"

    config.model.name = "vit_huge_patch14_gap_224.in1k_ijepa"
    config.model.position = "sincos2d_mae"

    config.objective.name = "ijepa"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.train_transforms = "decode|random_resized_crop({size}, scale=(0.3, 1.0))"
    config.data.batch_size = 2048
    config.data.num_workers = 16

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.04
    config.optimizer.weight_decay_schedule = "cosine"
    config.optimizer.weight_decay_end = 0.4
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup = "40 epochs"
    config.schedule.warmup_start = 2e-4 / config.optimizer.learning_rate
    config.schedule.final = 1e-6 / config.optimizer.learning_rate

    config.mesh.fsdp = 16
    config.evaluation.every = "10 epochs"
    config.evaluation.probes = ("knn",)
    config.checkpoint.every = "1 epoch"
    return config
