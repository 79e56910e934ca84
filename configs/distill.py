"""Distillation: a student of any family from a checkpoint of any family, on your own images.

    vit-jax train --config configs/distill.py:features --workdir DIR --config.data.path=IMAGES \\
        --config.objective.teachers=facebook/dinov2-base
    vit-jax train --config configs/distill.py:patient --workdir DIR --config.data.path=IMAGES \\
        --config.objective.teacher=CLASSIFIER

The argument is one of

- `features` (default), the recommended way for few images or few labels: the features of DINOv2, DINOv3, CLIP or
  another encoder, of images and of their patches; no label is used. Fine-tune what comes out with configs/finetune.py.
- `patient`: a classifier of the same classes (configs/finetune.py makes one) says what is learned, instead of labels:
  the function matching of Beyer et al. 2021 (arXiv 2106.05237), with much mixing, which takes long and keeps getting
  better.

IMAGES holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or just `CLASS/*.jpg`, see configs/finetune.py; `features` uses
classes only for the probes that tell how good the student is.
Hardware: anything; the teacher's forward pass is part of each step.
Result: published for `patient`, ResNet-50 on ImageNet-1k: 82.8 % top-1 (9,600 epochs); not reproduced by this project.
Recipe: ours in rates and lengths, in what is matched the papers'.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

WAYS = ("features", "patient")


def get_config(arg="features"):
    """Return the configuration for one of WAYS."""
    if arg not in WAYS:
        raise ConfigError(f"distill.py:{arg} is no way to distil; choose one of {', '.join(WAYS)}.")
    config = default_config()
    config.duration = "300 epochs"

    config.model.name = "deit_small_patch16_224"
    config.model.drop_path_rate = 0.0  # the student has enough to do

    config.data.source = "folder"
    crop = "random_resized_crop({size}, scale=(0.35, 1.0), interpolation={interpolation})"
    config.data.train_transforms = f"decode({{channels}})|{crop}|flip_lr"
    config.data.batch_size = 256

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.02
    config.schedule.warmup = "5 epochs"

    config.evaluation.every = "5 epochs"
    config.checkpoint.every = "1 epoch"
    if arg == "features":
        config.objective = {"name": "feature_distillation", "teachers": ""}  # to be given on the command line
        config.evaluation.probes = ("knn", "linear:20 epochs")
        return config
    config.objective.name = "distillation"
    config.objective.teacher = ""  # to be given on the command line
    config.objective.teacher_weight = 1.0
    config.objective.temperature = 2.0
    config.objective.mixup = 1.0
    return config
