"""A folder in which the commands of the documents run as they are printed, at toy size."""

from pathlib import Path

import cv2
import numpy as np

import vit_jax
from tests.inference.texts import checkpoint, clip_tokenizer
from tests.runs import CONFIG, run
from vit_jax.training.config import load_config

CONFIGS = Path(__file__).parent.parent / "configs"
TOY = """
from tests.stage import shrunk

def get_config(arg=None):
    return shrunk("{name}", arg)
"""
# Repositories of the hub that the documents name, and what stands for them: a model of 32 pixels, and its format.
HUB = {
    "timm/vit_small_patch16_224.augreg_in21k_ft_in1k": ("vit_tiny_patch16_224", "timm"),
    "facebook/dinov2-small": ("facebook/dinov2-small", "hf"),
    "google/vit-base-patch16-224": ("google/vit-base-patch16-224", "hf"),
}

SIZES = {"folder": 32, "digits": 8}  # of images by source; others keep the configuration's


def shrunk(name, arg):
    """A configuration of the repository with small models, few records and two steps."""
    # What has no default is on the command line, and is not known here yet.
    given = ["model.checkpoint=?", "data.path=?"]
    unknown = name in ("finetune.py", "segmentation_folder.py") or arg == "images"
    config = load_config(str(CONFIGS / (f"{name}:{arg}" if arg else name)), given if unknown else [])
    config.duration = "2 steps"
    config.schedule.update(name="constant", warmup=0, cooldown=0)
    config.data.update(batch_size=8, eval_batch_size=8, num_workers=0)
    config.evaluation.update(every="2 steps", baselines=(), illustrate=0)
    config.checkpoint.every = "2 steps"
    config.log.update(tensorboard=False, progress=False)
    if config.model.get("name"):
        size = SIZES.get(config.data.source) or config.model.get("image_size", 128)
        config.model.update(image_size=size, width=16, depth=1, heads=2, mlp_dim=32)
    elif config.model.get("image_size"):
        config.model.image_size = 32
    if config.data.source == "digit_scenes":
        config.optimizer.learning_rate_multipliers = ()
        # Convolutions of whole images take long unoptimised.
        config.model.update(stem=(), stem_strides=(), patch_size=8)
        config.objective.detail = False
        config.data.update(size=16, eval_split="test[:8]")
    return config


def set_up(folder):
    """Make configurations, images and stand-ins for checkpoints in a folder."""
    (folder / "configs").mkdir()
    for path in CONFIGS.glob("*.py"):
        (folder / "configs" / path.name).write_text(TOY.format(name=path.name))
    (folder / "configs" / "digits.py").write_text(CONFIG.replace("illustrate=2", "illustrate=1"))
    rng = np.random.default_rng(0)
    for images in ("IMAGES", "OTHER"):
        for split, count in (("train", 12), ("test", 3)):
            for label, name in enumerate(("cat", "dog")):
                (folder / images / split / name).mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 128, (40, 36, 3)) + 127 * label
                    cv2.imwrite(
                        str(folder / images / split / name / f"{number}.png"), pixels.astype(np.uint8)
                    )
    tables(folder)
    scenes(folder / "SCENES", rng)
    cv2.imwrite(str(folder / "image.jpg"), rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))
    small = {"image_size": 32, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
    for repository, (name, kind) in HUB.items():
        patch = {"patch_size": 8}
        vit_jax.save(vit_jax.create_model(name, **small, **patch), folder / "hub" / repository, kind)
    (folder / "hub" / "openai").mkdir()
    checkpoint("clip_hf", folder / "hub" / "openai/clip-vit-base-patch32", clip_tokenizer())
    # What the pages that begin with a trained model take for theirs.
    command = [
        "train",
        "--config",
        "configs/finetune.py",
        "--workdir",
        "runs/mine",
        "--config.data.path=IMAGES",
    ]
    outcome = run(*command, "--config.model.checkpoint=timm/vit_small_patch16_224.augreg_in21k_ft_in1k")
    assert outcome.status == 0, outcome.err


def tables(folder):
    """Write a table of labels and one of values about the images of a folder."""
    labels, values = ["path,label,split"], ["path,age,split"]
    for number, path in enumerate(sorted((folder / "IMAGES").rglob("*.png"))):
        name, split = path.relative_to(folder), path.parent.parent.name
        labels.append(f"{name},{'cat|dog' if number % 2 else path.parent.name},{split}")
        values.append(f"{name},{number / 2},{split}")
    for table, lines in (("labels.csv", labels), ("values.csv", values)):
        (folder / table).write_text("\n".join(lines) + "\n")


def scenes(folder, rng):
    """Write images whose bright pixels are things, and masks that say so."""
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            mask = rng.integers(0, 2, (40, 36), dtype=np.uint8)
            cv2.imwrite(str(folder / "masks" / split / f"{number}.png"), mask)
            cv2.imwrite(
                str(folder / "images" / split / f"{number}.png"), np.repeat(200 * mask[..., None], 3, 2)
            )
    (folder / "classes.txt").write_text("ground\nthing\n")
