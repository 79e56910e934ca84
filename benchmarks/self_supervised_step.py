"""Time one step of DINO and of MAE, and of the same with lightly in PyTorch on the same cores.

A step is the whole update of the published recipe on views that are there already: two crops of 224 pixels and eight
of 96, a head of 65536 prototypes and a teacher that follows; or three quarters of the patches hidden, and a decoder of
eight blocks 512 wide. Backbones are timm's on lightly's side. Ours is the run's own step, so its gradient norm and its
check for finite numbers are in the time. See benchmarks/README.md.
"""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import worker

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = {"dino": "dino.py:100", "mae": "mae_i1k.py:base"}
MOMENTUM = 0.996  # of the teacher


def experiment(task: worker.Task) -> Any:
    """Return our run of a task's recipe on made-up images."""
    import vit_jax
    from vit_jax.training.experiment import build

    told = {
        "model.name": task["backbone"],
        "model.drop_path_rate": 0.0,
        "data.source": "synthetic",
        "data.size": 2**17,  # more than prototypes
        "data.train_split": "train",
        "data.eval_split": "test",
        "data.batch_size": task["batch_size"],
        "data.eval_batch_size": task["batch_size"],
        "data.num_workers": 0,
        "compute_dtype": task["dtype"],
        "optimizer.clip_norm": 0.0,
        "optimizer.clip_per_tensor": False,
    }
    words = [f"{key}={value}" for key, value in told.items()]
    return build(vit_jax.load_config(f"{CONFIGS}/{RECIPES[task['method']]}", words))


def ours(task: worker.Task) -> Callable[[], Any]:
    """Return our step on one batch that is on the device already."""
    import jax

    from vit_jax.training.step import compile_step

    made = experiment(task)
    devices = made.devices
    step = compile_step(made.step, devices.state_shardings, None, devices.step_options)
    state = made.init()
    batch = devices.put(next(made.data.train_batches(0)))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    return run


def peer(task: worker.Task, compiled: bool) -> Callable[[], Any]:
    """Return lightly's step: eager, or with networks and loss compiled as far as they can be."""
    import torch

    torch.set_num_threads(worker.cores())
    model, loss, after = {"dino": _dino, "mae": _mae}[task["method"]](task)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if count != task["parameters"]:
        raise RuntimeError(f"lightly's {task['method']} has {count} parameters, ours {task['parameters']}.")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.04, fused=True)
    chosen = torch.compile(loss, dynamic=False) if compiled else loss
    rng = torch.Generator().manual_seed(0)
    views = [
        torch.randint(0, 256, (task["batch_size"], 3, *size), dtype=torch.uint8, generator=rng)
        for size, count in task["views"]
        for _ in range(count)
    ]

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=task["dtype"] == "bfloat16"):
            value = chosen([(view.float() / 255 - 0.5) / 0.5 for view in views])
        value.backward()
        optimizer.step()
        after()

    return run


def _backbone(task: worker.Task) -> Any:
    size = task["views"][0][0][0]
    create = worker.import_timm().create_model
    return create(task["backbone"], num_classes=0, img_size=size, dynamic_img_size=True)


def _dino(task: worker.Task) -> tuple[Any, Callable[[list[Any]], Any], Callable[[], None]]:
    import torch
    from lightly.loss import DINOLoss
    from lightly.models.modules.heads import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    hidden, bottleneck, prototypes = task["head"]

    def network() -> Any:
        backbone = _backbone(task)
        head = DINOProjectionHead(backbone.embed_dim, hidden, bottleneck, prototypes)
        return torch.nn.Sequential(backbone, head)

    student, teacher = network(), network()
    teacher.load_state_dict(student.state_dict())
    deactivate_requires_grad(teacher)
    criterion = DINOLoss(prototypes)
    large = task["views"][0][1]

    def loss(views: list[Any]) -> Any:
        with torch.no_grad():
            targets = [teacher(view) for view in views[:large]]
        return criterion(targets, [student(view) for view in views])

    return student, loss, lambda: update_momentum(student, teacher, MOMENTUM)


def _mae(task: worker.Task) -> tuple[Any, Callable[[list[Any]], Any], Callable[[], None]]:
    import torch
    from lightly.models import utils
    from lightly.models.modules.masked_vision_transformer_decoder_timm import (
        MaskedVisionTransformerDecoderTIMM,
    )
    from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM

    vit, (width, depth, heads) = _backbone(task), task["decoder"]
    patch = vit.patch_embed.patch_size[0]
    encoder = MaskedVisionTransformerTIMM(vit=vit)
    encoder.mask_token.requires_grad_(False)  # the decoder has its own
    tokens = encoder.sequence_length
    whole = torch.nn.ModuleDict(
        {
            "encoder": encoder,
            "embed": torch.nn.Linear(vit.embed_dim, width),
            "decoder": MaskedVisionTransformerDecoderTIMM(tokens - 1, width, depth, heads),
            "predict": torch.nn.Linear(width, 3 * patch**2),
        }
    )

    def loss(views: list[Any]) -> Any:
        (images,) = views
        size = len(images), tokens
        kept, hidden = utils.random_token_mask(size=size, mask_ratio=task["mask_ratio"])
        x = whole["embed"](encoder.encode(images=images, idx_keep=kept))
        filled = utils.repeat_token(whole["decoder"].mask_token, size).to(x.dtype)
        decoded = whole["decoder"](utils.set_at_index(filled, kept, x))
        predicted = whole["predict"](utils.get_at_index(decoded, hidden))
        target = utils.get_at_index(utils.patchify(images, patch), hidden - 1)
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        return torch.nn.functional.mse_loss(predicted, (target - mean) / (variance + 1e-6).sqrt())

    return whole, loss, lambda: None


SIDES = {
    "ours": ours,
    worker.EAGER: partial(peer, compiled=False),
    worker.COMPILED: partial(peer, compiled=True),
}


def _task(method: str, backbone: str, dtype: str, arguments: Any) -> worker.Task:
    """Return what a step of a method is: of what views and sizes, with how many parameters and operations."""
    from vit_jax.trees import flatten

    task: worker.Task = {
        "model": f"{method} {backbone}",
        "method": method,
        "backbone": backbone,
        "device": arguments.device,
        "dtype": dtype,
        "batch_size": arguments.batch_size,
        "repeats": 1,
    }
    made = experiment(task)
    objective = made.task.objective
    options = objective.options
    params = flatten(made.abstract_state.params)
    if method == "dino":
        task["head"] = [options.hidden_dim, options.bottleneck_dim, options.prototypes]
        task["views"] = [[list(crops.size), crops.count] for crops in objective.crops]
    else:
        task["decoder"] = [options.decoder_width, options.decoder_depth, options.decoder_heads]
        task["mask_ratio"] = options.mask_ratio
        task["views"] = [[list(objective.model.image_size), 1]]
    return task | {
        "image_size": objective.model.image_size[0],
        "parameters": sum(leaf.size for leaf in params.values()),
        "flops": arguments.batch_size * objective.train_flops,
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES), help="default: all"
    )
    parser.set_defaults(models=["vit_small_patch16_224"], dtypes=["float32"], batch_size=8)
    arguments = parser.parse_args()
    if arguments.worker:
        worker.serve(arguments.worker, SIDES[arguments.worker])
        return
    for name in ("image_size", "depth"):
        if getattr(arguments, name):
            parser.error(
                f"--{name.replace('_', '-')} is no option of this benchmark; sizes are published ones"
            )
    if arguments.device != "cpu":
        parser.error(
            f"--device is {arguments.device}, but lightly's step is made for the CPU alone; leave it out"
        )
    from vit_jax.errors import ConfigError

    tasks = common.products(arguments)
    try:
        for words in itertools.product(arguments.methods, arguments.models, arguments.dtypes):
            tasks.append(_task(*words, arguments))
    except ConfigError as error:
        parser.error(str(error))
    common.measure(parser, arguments, "one step of training without labels", ("ours",), tasks=tasks)


if __name__ == "__main__":
    main()
