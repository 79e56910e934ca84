"""DINOv2 of a ViT-L/14 in three stages: Oquab et al. 2023 (arXiv 2304.07193), Simeoni et al. 2025 (arXiv 2508.10104).

    vit-jax train --config configs/dinov2.py:pretrain --workdir P --config.data.path=TFDS_DIR
    vit-jax train --config configs/dinov2.py:gram --workdir G --config.model.checkpoint=P --config.data.path=TFDS_DIR
    vit-jax train --config configs/dinov2.py:high_resolution --workdir H --config.model.checkpoint=P (or G) ...

The argument is the stage: `pretrain` (default), `gram` (DINOv3's anchoring, to the teacher that it starts with) or
`high_resolution`. The later ones go on from all that an earlier run has learned.
Hardware: published, 3.3 days on 96 A100 GPUs (pretrain, on ImageNet-22k).
Result: published top-1 of the teacher's features, k-NN and linear, on ImageNet-1k: 82.0 and 84.5 % (pretrain); not
reproduced by this project.
Published: `pretrain`, but for registers (Darcet et al. 2023, arXiv 2309.16588), where that run has a gated MLP, for
clipping, there of each network by itself, and for drop path by samples; the weight of Gram anchoring, and that its
teacher sees crops twice as large. Lengths and rates of the later stages are ours.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

STAGES = ("pretrain", "gram", "high_resolution")


def get_config(arg="pretrain"):
    """Return the configuration of a stage."""
    if arg not in STAGES:
        raise ConfigError(f"dinov2.py:{arg} is no stage; choose one of {', '.join(STAGES)}.")
    config = default_config()
    config.duration = "625000 steps" if arg == "pretrain" else "10000 steps"

    first, large = arg == "pretrain", arg == "high_resolution"
    if first:
        config.model.name = "vit_large_patch14_reg4_dinov2"
    else:
        config.model.checkpoint = ""  # the workdir of an earlier stage
        config.model.weights = "all"
    config.model.image_size = 518 if large else 224
    config.model.drop_path_rate = 0.4
    config.model.drop_path_schedule = "constant"

    config.objective.name = "dino"
    config.objective.prototypes = 131072
    config.objective.bottleneck_dim = 384
    config.objective.targets = "sinkhorn"
    config.objective.teacher_temperature = 0.07
    config.objective.temperature_epochs = 10 if first else 0  # 37,500 steps
    config.objective.first_temperature = 0.04 if first else 0.07
    config.objective.momentum = 0.994
    config.objective.patch_weight = 1.0
    config.objective.patch_prototypes = 131072
    config.objective.koleo_weight = 0.1
    if arg == "gram":
        config.objective.gram_weight = 2.0
        config.objective.gram_teacher = config.model.get_oneway_ref("checkpoint")
        config.objective.gram_size = 448

    config.data.source = "tfds"
    config.data.name = "imagenet21k_resized"
    config.data.train_split = "train[:99%]"
    config.data.eval_split = "train[99%:]"
    crops = "global_scale=(0.32, 1.0), local_scale=(0.05, 0.32)"
    sizes = "448, 98" if arg == "gram" else "518, 224" if large else "224, 98"
    config.data.train_transforms = f"decode|multi_crop({sizes}, {crops})"
    config.data.batch_size = 3072
    config.data.num_workers = 16

    rate = 2e-4 * (config.data.batch_size / 1024) ** 0.5 * (1 if first else 0.1)
    config.optimizer.learning_rate = rate
    config.optimizer.clip_norm = 3.0
    config.optimizer.weight_decay = 0.04 if first else 0.2
    config.optimizer.weight_decay_schedule = "cosine"
    config.optimizer.weight_decay_end = 0.2
    config.optimizer.decay = (r"kernel$", r"(class_token|pos_embed|mask_token|register_tokens)$")
    config.optimizer.learning_rate_multipliers = ((r"^encoder/patch_embed", 0.2),)
    if first:
        config.optimizer.delay = ((r"prototypes", "1250 steps", None),)
    config.schedule.warmup = "100000 steps" if first else "1000 steps"
    config.schedule.final = 1e-6 / rate
    config.mesh.fsdp = 8

    config.evaluation.probes = ("knn", "rank")
    config.evaluation.every = "10%"
    config.checkpoint.every = "2500 steps"
    return config
