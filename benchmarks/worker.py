"""Both ends of a worker: a process that does the work of one side (ours, torch eager, ...) when told to.

The far end runs in the peer's Python too, so jax, torch and vit_jax are imported only where they are used.
"""

import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any
from unittest import mock

Task = dict[str, Any]

EAGER, COMPILED = "torch eager", "torch compile"
PEERS: tuple[str, ...] = (EAGER, COMPILED)
# Several processes share a GPU, one at a time: none may take all of its memory at its start.
SETTINGS = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "gpu": {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}
PRODUCT = (3152, 384, 1536)  # m, k, n: an MLP layer of ViT-S/16 on 16 images of 197 tokens

# What timm imports for transforms, data sets and feature extraction, none of which is measured.
_UNUSED_BY_MODELS = (
    "PIL",
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class Worker:
    """The driver's end: the process of one side, which runs `serve`."""

    def __init__(self, side: str, command: Sequence[str], environment: Mapping[str, str]):
        self.side = side
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.process.kill()
        self.process.communicate()  # closes its stdin, at which it ends

    def send(self, request: Any) -> None:
        """Send a request; whether the process still lives is seen when the answer is read."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self.process.stdin, flush=True)

    def receive(self, missing: dict[str, str]) -> Any:
        """Return the answer; None if the process has ended, which `missing` then says of its side."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        reason = f"its process ended with status {self.process.wait()}; its own words are on stderr"
        if self.side == "ours":
            sys.exit(f"ours could not be measured: {reason}")
        missing[self.side] = reason
        return None


def serve(side: str, build: Callable[[Task], Callable[[], Any]]) -> None:
    """Be the far end: prepare the tasks in the first line of stdin, then time one for each further line.

    Args:
      side: which side this process is.
      build: `build(task) -> run`; `run()` does the work of one round and waits for its end.
    """
    # What libraries print must not get between the answers: it goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    product = _torch_product if side in PEERS else _jax_product
    runs, prepared = {}, {}
    for index, task in json.loads(sys.stdin.readline()):
        start = time.perf_counter()
        runs[index] = build(task) if task["model"] else product(task)
        for _ in range(2):  # compile, and warm up
            runs[index]()
        prepared[index] = time.perf_counter() - start
    packages = (
        ("torch", "timm", "transformers", "lightly") if side in PEERS else ("jax", "jaxlib", "flax", "optax")
    )
    versions = {"python": platform.python_version()}
    versions |= {name: version(name) for name in packages if importlib.util.find_spec(name)}
    print(json.dumps({"versions": versions, "prepare_seconds": prepared}), file=answers)
    for line in sys.stdin:
        index, repeats = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            runs[index]()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps({"wall": wall / repeats, "cpu": cpu / repeats}), file=answers)


def batch(task: Task) -> tuple[Any, Any]:
    """Return a batch as a data pipeline ships it: uint8 images `(b, h, w, 3)`, int32 labels `(b,)`, NumPy."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (task["batch_size"], *options(task)["image_size"], 3), np.uint8)
    return images, rng.integers(0, task["classes"], task["batch_size"], np.int32)


def options(task: Task) -> dict[str, Any]:
    """Return what a task says of its model: size `(h, w)`, classes, and depth where the model has one."""
    size, depth = task["image_size"], task["depth"]
    found = {"image_size": tuple(size) if isinstance(size, list) else (size, size)}
    return found | {"num_classes": task["classes"]} | ({} if depth is None else {"depth": depth})


def objective(task: Task) -> Any:
    """Return our classification objective of the task's model."""
    from vit_jax.models.registry import model_config
    from vit_jax.objectives.base import DataInfo
    from vit_jax.objectives.classification import build
    from vit_jax.objectives.classification.options import ClassificationOptions

    model = model_config(task["model"], dtype=task["dtype"], **options(task))
    return build(model, ClassificationOptions(), DataInfo(model.num_classes))


def torch_model(task: Task) -> tuple[Any, Any, Any]:
    """Return the peers' model, from normalised images to logits, and a batch as tensors (uint8 images `b c h w`).

    Its weights are float32.
    """
    import torch

    torch.set_num_threads(cores())
    library = task["peer"]["library"]
    model = {"timm": _timm_model, "transformers": _transformers_model}[library](task)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != task["parameters"]:
        raise RuntimeError(f"{library}'s {task['model']} has {count} parameters, ours {task['parameters']}.")
    images, labels = (torch.from_numpy(array).to(torch_device(task)) for array in batch(task))
    return model.to(torch_device(task)), images.permute(0, 3, 1, 2).contiguous(), labels.long()


def _timm_model(task: Task) -> Any:
    given = options(task)
    given["img_size"] = given.pop("image_size")
    return import_timm().create_model(task["model"], pretrained=False, **given)


def _transformers_model(task: Task) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = AutoConfig.for_model(**task["peer"]["config"])
            self.model = AutoModelForImageClassification.from_config(config)

        def forward(self, images: Any) -> Any:
            return self.model(images).logits

    return Logits()


def torch_device(task: Task) -> str:
    """Return what torch calls the task's device."""
    return "cuda" if task["device"] == "gpu" else "cpu"


def synchronise(task: Task) -> None:
    """Return when torch has done its work."""
    import torch

    if task["device"] == "gpu":
        torch.cuda.synchronize()


def torch_logits(model: Any, images: Any, task: Task) -> Any:
    """Return float32 logits of uint8 images, normalised as ours are; bfloat16 means autocast."""
    import torch

    with torch.autocast(torch_device(task), torch.bfloat16, enabled=task["dtype"] == "bfloat16"):
        return model((images.float() / 255 - 0.5) / 0.5).float()


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_timm() -> Any:
    """Return timm; where torchvision and Pillow are not installed, empty stand-ins let it be imported."""
    absent = [name for name in _UNUSED_BY_MODELS if importlib.util.find_spec(name.split(".")[0]) is None]
    sys.modules.update({name: mock.MagicMock(__version__="0.0") for name in absent})
    import timm
    import timm.optim

    for name in absent:  # nobody else shall think that they are there
        del sys.modules[name]
    return timm


def _jax_product(task: Task) -> Callable[[], Any]:
    import jax

    from vit_jax.compiler_options import jit, training_options

    m, k, n = PRODUCT
    a = jax.random.normal(jax.random.key(0), (m, k), task["dtype"])
    b = jax.random.normal(jax.random.key(1), (k, n), task["dtype"])
    options = training_options(jax.default_backend(), task["dtype"], n)
    product = jit(jax.numpy.matmul, options)
    return lambda: product(a, b).block_until_ready()


def _torch_product(task: Task) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(cores())
    m, k, n = PRODUCT
    dtype = getattr(torch, task["dtype"])
    a, b = (torch.randn(shape).to(torch_device(task), dtype) for shape in ((m, k), (k, n)))

    def product() -> Any:
        result = a @ b
        synchronise(task)
        return result

    return product
