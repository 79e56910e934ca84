"""One small ViT on CIFAR-10's 32 pixels, without labels, by every method that this library has; and with them.

    vit-jax train --config configs/cifar10_self_supervised.py:dino --workdir DIR --config.data.path=TFDS_DIR

The argument is the method: dino (default), ibot, lejepa, visreg, vicreg, barlow_twins, simclr, simsiam, byol, moco_v3,
mae, simmim, ijepa, vq_tokenizer, beit (whose tokenizer is a run of the one before:
--config.objective.tokenizer=WORKDIR) or supervised; or, to learn from a teacher, feature_distillation
(--config.objective.teachers=WORKDIR), distillation (--config.objective.teacher=WORKDIR; a model half as wide) or
student, the same with labels alone. Images as arrays: --config.data.source=arrays and --config.data.path=FOLDER, which
has `train.npz` and `test.npz` of `images` and `labels`.
Hardware: two CPU cores. Recipe: ours. `python benchmarks/self_supervised.py` gives each method as many operations.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

PROTOTYPES = ("dino", "ibot")
PAIRS = ("vicreg", "barlow_twins", "simclr", "simsiam", "byol", "moco_v3")
VIEWS = ("lejepa", "visreg", *PAIRS)
MASKED = ("mae", "simmim", "ijepa", "vq_tokenizer", "beit")
LABELLED = ("supervised", "student", "distillation")
METHODS = (*PROTOTYPES, *VIEWS, *MASKED, "feature_distillation", *LABELLED)

# Weaker than photographs get: there is no blur, and crops are larger.
COLOURS = "flip_lr|color_jitter(0.4, 0.4, 0.2, 0.1, probability=0.8)|grayscale(0.2)"


def get_config(arg="dino"):
    """Return the configuration for a method."""
    if arg not in METHODS:
        raise ConfigError(
            f"cifar10_self_supervised.py:{arg} is no method; choose one of {', '.join(METHODS)}."
        )
    config = default_config()
    config.duration = "20 epochs"

    config.model.name = "vit_mu_patch4_32"
    config.model.update(width=64, depth=4, heads=2, mlp_dim=128)
    config.model.preprocessing = dict(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    # No loss reaches a class token where patches are predicted; features are then the patches' mean.
    config.model.class_token = arg in (*PROTOTYPES, *VIEWS, "mae", *LABELLED)
    config.model.pool = "mean"

    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.eval_transforms = "decode"
    config.data.batch_size = 64
    config.data.eval_batch_size = 1000

    config.optimizer.learning_rate = 3e-3 if arg in ("mae", *VIEWS) else 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"
    config.schedule.final = 0.01

    config.evaluation.probes = ("knn", "linear", "fewshot", "rank")
    config.evaluation.shots = (1, 10)
    config.evaluation.every = "100%"

    if arg in LABELLED:
        config.data.train_transforms = "decode|pad_crop({size}, 4)|flip_lr"
        if arg != "supervised":
            config.model.update(width=32, mlp_dim=64)
        if arg == "distillation":
            config.objective.update(name=arg, teacher="", teacher_weight=0.9, temperature=2.0)
    else:
        config.objective.name = "dino" if arg == "ibot" else arg
        (_crops if arg in (*PROTOTYPES, *VIEWS) else _whole)(config, arg)
    return config


def _crops(config, method):
    """Set what objectives that compare views of an image need."""
    local = 4 if method in PROTOTYPES else 2 if method in ("lejepa", "visreg") else 0
    crops = f"local_count={local}, global_scale=(0.3, 1.0), local_scale=(0.1, 0.3)"
    config.data.train_transforms = (
        f"decode|multi_crop(32, 16, {crops}, global_transforms={COLOURS!r}, local_transforms={COLOURS!r})"
    )
    options = config.objective
    if method in PROTOTYPES:
        options.update(prototypes=1024, hidden_dim=512, bottleneck_dim=128)
        options.momentum = 0.99  # a short run's teacher follows sooner
        if method == "ibot":
            options.update(patch_weight=1.0, patch_prototypes=1024, patch_bottleneck_dim=128)
        config.optimizer.update(clip_norm=3.0, clip_per_tensor=True, weight_decay=0.04)
        config.optimizer.update(weight_decay_schedule="cosine", weight_decay_end=0.4)
        config.optimizer.delay = ((r"^head/prototypes", "2%", None),)
        return
    options.update(hidden_dim=512, output_dim=64 if method in ("lejepa", "visreg") else 256)
    if method in ("simsiam", "byol", "moco_v3"):
        options.predictor_dim = 256
    if method in ("byol", "moco_v3"):
        options.momentum = 0.99


def _whole(config, method):
    """Set what objectives that predict patches need."""
    options = config.objective
    crop = "decode|random_resized_crop({size}, scale=(0.5, 1.0))|flip_lr"
    if method == "mae":
        options.update(decoder_width=64, decoder_depth=2, decoder_heads=2)
        config.optimizer.b2 = 0.95
    elif method == "simmim":
        options.mask_size = 4
    elif method == "ijepa":
        config.model.position = "sincos2d_mae"
        options.update(predictor_width=64, predictor_depth=2, momentum=0.99)
    elif method == "vq_tokenizer":
        config.model.depth = 2
        config.model.position = "sincos2d_mae"
        options.update(vocabulary=512, code_width=16, decoder_width=128, decoder_depth=2, decoder_heads=4)
        config.evaluation.probes = ()
    elif method == "feature_distillation":
        options.teachers = ""
    else:
        options.tokenizer = ""
        hidden = "token_image({size})|block_mask(8, most=26, min_area=4)"
        crop = f"decode|random_resized_crop({{size}}, scale=(0.5, 1.0))|flip_lr|{hidden}"
        config.data.eval_transforms = f"decode|resize({{size}})|{hidden}"
    config.data.train_transforms = crop
