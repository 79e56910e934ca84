"""Fine-tuning of any published checkpoint on your own images; conservative defaults for small data.

    vit-jax train --config configs/finetune.py:METHOD --workdir DIR --config.data.path=IMAGES \\
        --config.model.checkpoint=timm/vit_small_patch16_224.augreg_in21k_ft_in1k

METHOD is one of METHODS below. IMAGES holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (other names:
--config.data.eval_split=val), or just `CLASS/*.jpg`, of which a tenth is held out; any other source is set with
--config.data.source. Size, channels and preprocessing are the checkpoint's; the head is new and starts at zero.
Hardware: anything; `frozen` and `linear_probe` compute no gradient inside the backbone.
Result: depends on checkpoint and images; this project has measured none yet, the rates are common practice.
Recipe: ours. Layer-wise decay is that of BEiT (arXiv 2106.08254): the final norm learns as fast as the head, in timm
as the last block (`optimizer.layer_decay_rule`). Low-rank adaptation is that of Hu et al. 2021 (arXiv 2106.09685) with
rank and layers as usual for ViTs.
"""

from vit_jax.errors import ConfigError
from vit_jax.training.config import default_config

HEAD = r"^head"
METHODS = {
    # Changes of the configuration below, by key.
    "full": {"optimizer.learning_rate": 3e-5, "model.drop_path_rate": 0.1},
    "layer_decay": {
        "optimizer.learning_rate": 1e-4,
        "optimizer.layer_decay": 0.75,
        "model.drop_path_rate": 0.1,
    },
    "frozen": {"optimizer.learning_rate": 1e-3, "optimizer.trained": (r"^(head|norm/|pool/|pre_logits/)",)},
    "linear_probe": {"optimizer.learning_rate": 3e-3, "optimizer.trained": (HEAD,)},
    "lora": {"optimizer.learning_rate": 5e-4, "lora.rank": 8, "lora.alpha": 16.0},
}


def get_config(arg="layer_decay"):
    """Return the configuration for the method `arg`."""
    if arg not in METHODS:
        raise ConfigError(f"finetune.py:{arg} is no method; choose one of {', '.join(METHODS)}.")
    config = default_config()
    config.duration = "20 epochs"

    config.model = {"checkpoint": ""}  # to be given on the command line

    config.objective.label_smoothing = 0.1

    config.data.source = "folder"
    # Objects stay recognisable: at least a third of the image is seen.
    crop = "random_resized_crop({size}, scale=(0.35, 1.0), interpolation={interpolation})"
    config.data.train_transforms = f"decode({{channels}})|{crop}|flip_lr"
    config.data.batch_size = 32

    config.optimizer.weight_decay = 0.05
    # As BEiT, MAE and timm decay: all but vectors, tokens and positions; so the probe of an attention pool, too.
    config.optimizer.decay = (r"(kernel|pool/probe)$",)
    config.optimizer.layer_decay_rule = "beit"
    config.schedule.warmup = "10%"

    config.evaluation.every = "1 epoch"
    config.evaluation.illustrate = 12
    config.checkpoint.every = "1 epoch"
    for key, value in METHODS[arg].items():
        section, name = key.split(".")
        config[section][name] = value
    return config
