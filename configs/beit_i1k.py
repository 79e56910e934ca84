"""BEiT on ImageNet-1k: Bao et al. 2021 (arXiv 2106.08254), ViT-B/16 for 800 epochs.

    vit-jax train --config configs/beit_i1k.py --workdir DIR --config.data.path=TFDS_DIR \
        --config.objective.tokenizer=FILE

FILE is `encoder.pkl`, the tokenizer of DALL-E (see docs/self-supervised.md), or the workdir of a tokenizer trained by
`objective.name=vq_tokenizer` for 14x14 codes of 112 pixels.
Hardware: published, 16 V100 GPUs of 32 GB.
Result: published top-1 after fine-tuning, 83.2 % (with the tokenizer of DALL-E); not reproduced by this project.
Published: everything below: an image and its half-sized twin of the same crop, blocks of at most 75 of 196 patches.
Ours: the weights of later blocks do not start smaller, as the authors' do.
"""

from vit_jax.training.config import default_config


def get_config(arg=None):
    """Return the configuration; takes no argument."""
    config = default_config()
    config.duration = "800 epochs"

    config.model.name = "beit_base_patch16_224"
    config.model.position_bias = "shared"
    config.model.pool_norm = "before"
    config.model.drop_path_rate = 0.1

    config.objective.name = "beit"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    hidden = "block_mask(14, most=75, min_area=16)"
    crop = "color_jitter(0.4, 0.4, 0.4)|flip_lr|token_crop({size}, 112)"
    config.data.train_transforms = f"decode|{crop}|{hidden}"
    config.data.eval_transforms = (
        f"decode|resize_short(256, 'bicubic')|center_crop({{size}})|token_image(112)|{hidden}"
    )
    config.data.batch_size = 2048
    config.data.num_workers = 16

    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 3.0
    config.schedule.warmup = "10 epochs"
    config.schedule.warmup_start = 1e-6 / config.optimizer.learning_rate
    config.schedule.final = 1e-5 / config.optimizer.learning_rate

    config.evaluation.every = "10 epochs"
    config.checkpoint.every = "1 epoch"
    return config
