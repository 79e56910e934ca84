"""Images that keep their aspect ratio: handwritten digits in frames up to four times as long as they are high.

Recipe: ours. Sequences of patches with a budget, a mask, and positions resized to each image's grid are those of
SigLIP 2 NaFlex (Tschannen et al. 2025, arXiv 2502.14786) and NaViT (Dehghani et al. 2023, arXiv 2307.06304).

    vit-jax train --config configs/naflex_digits.py --workdir runs/naflex
    vit-jax train --config configs/naflex_digits.py:square --workdir runs/square

`square` is the same model on the same images squashed to 32 by 32 pixels, which are as many patches.

Hardware: two CPU cores, minutes. Result of `benchmarks/naflex.py`, which trains both by turns: accuracy 0.878, and
0.851 squashed to squares, with 0.93 of the tokens; a step takes 1.02 times as long.
"""

from vit_jax.errors import choose
from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; `arg` is `naflex` (the default) or `square`."""
    choose(arg or "naflex", ("naflex", "square"), "the argument of naflex_digits.py")
    config = default_config()
    config.duration = "2000 steps"

    config.model.name = "vit_mu_patch4_32"
    config.model.width = 48
    config.model.depth = 3
    config.model.heads = 4
    config.model.mlp_dim = 96
    config.model.class_token = False
    config.model.pool = "mean"
    config.model.drop_path_rate = 0.1
    config.model.max_patches = 64 if arg != "square" else 0

    config.data.source = "framed_digits"
    config.data.size = 16_000
    config.data.eval_split = "test[:1000]"
    config.data.cache = "decoded"
    last = (
        "naflex({patches}, {patch}, {interpolation})"
        if arg != "square"
        else "resize({size}, {interpolation})"
    )
    config.data.train_transforms = config.data.eval_transforms = f"decode|{last}"
    config.data.batch_size = 64
    config.data.eval_batch_size = 250

    config.optimizer.name = "muon"
    config.optimizer.momentum = 0.95
    config.optimizer.nesterov = True
    config.optimizer.learning_rate = 1e-2
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup = "10%"
    config.ema.decay = 0.99

    config.evaluation.illustrate = 12
    return config
