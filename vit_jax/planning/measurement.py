"""What a model costs on this machine, measured: images a second by batch size, latency of one image, memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.compiler_options import jit, prediction_options, training_options
from vit_jax.errors import ResourceError
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_flops, training_flops
from vit_jax.models.storage import stored
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.training.config.defaults import default_config
from vit_jax.training.devices.hardware import peak_flops
from vit_jax.training.guard.memory import peak_bytes
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.state import TrainState
from vit_jax.training.step import compile_step, make_step

FEWEST_RUNS, FEWEST_FOR_LATENCY = 5, 100


@dataclass(frozen=True)
class Measured:
    """What one batch size costs.

    Attributes:
      batch_size: images at once.
      runs: how many were timed.
      compile_seconds: of tracing and compiling.
      milliseconds: median of a run.
      p99_milliseconds: what 99 of 100 runs take at most; None with fewer than `FEWEST_FOR_LATENCY` runs, which one
        image at a time gets up to six times the seconds for.
      images_per_second: at the median.
      flops_per_second: analytic operations by the median.
      mfu: these as a share of the device's peak, or None if that is not known.
      bytes: that the compiled program holds on the device at most, parameters included.
      accessed: bytes that its operations read and write, as XLA counts them, or None where it does not.
    """

    batch_size: int
    runs: int
    compile_seconds: float
    milliseconds: float
    p99_milliseconds: float | None
    images_per_second: float
    flops_per_second: float
    mfu: float | None
    bytes: int
    accessed: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def measure_prediction(
    config: Any, batch_sizes: Sequence[int], *, storage: str = "float32", seconds: float = 5.0
) -> list[Measured]:
    """Return what the forward pass costs, from uint8 images in this process' memory to float32 results there.

    Args:
      config: the model; its `dtype` is that of computing. Parameters are random.
      batch_sizes: each at least 1.
      storage: of the parameters, see `models.storage`.
      seconds: for how long each batch size is timed, and for at least `FEWEST_RUNS` runs.

    Raises:
      ResourceError: a batch is too large for the device's memory.
    """
    objective = _classifier(config)
    buffers = plain_buffers(objective)
    params = jax.device_put(stored(random_parameters(objective), storage))
    images = {size: _images(config, size) for size in batch_sizes}
    options = prediction_options(jax.default_backend(), config.dtype)
    predict = jit(objective.logits, options)

    def prepare(size: int) -> tuple[Any, Callable[[], Any]]:
        program = predict.lower(params, buffers, images[size]).compile()
        return program, lambda: np.asarray(program(params, buffers, jax.device_put(images[size])))

    return [_measured(size, prepare, forward_flops(config), seconds) for size in batch_sizes]


def measure_training(config: Any, batch_sizes: Sequence[int], *, seconds: float = 5.0) -> list[Measured]:
    """Return what a training step costs, of one device: normalising, forward, backward, AdamW, all checks.

    Args:
      config, batch_sizes, seconds: see `measure_prediction`.

    Raises:
      ResourceError: a batch is too large for the device's memory.
    """
    objective = _classifier(config)

    def schedule(step: Any) -> jax.Array:
        return jnp.float32(1e-3)

    optimizer = make_optimizer(default_config().optimizer, schedule, _shapes(objective), objective.network)
    step = make_step(objective, optimizer, schedule, seed=0)
    options = training_options(jax.default_backend(), config.dtype, family_of(config).widest(config))

    def prepare(size: int) -> tuple[Any, Callable[[], Any]]:
        params = jax.device_put(random_parameters(objective))
        state = TrainState(jnp.int32(0), params, plain_buffers(objective), optimizer.init(params), None)
        batch = {**_images(config, size), "label": np.zeros(size, np.int32)}
        program = compile_step(step, options=options).lower(state, batch).compile()

        def run() -> None:
            nonlocal state
            state, metrics = program(state, jax.device_put(batch))
            jax.block_until_ready((state, metrics))

        return program, run

    return [_measured(size, prepare, training_flops(config), seconds) for size in batch_sizes]


def _measured(
    size: int, prepare: Callable[[int], tuple[Any, Callable[[], Any]]], flops: int, seconds: float
) -> Measured:
    try:
        began = time.perf_counter()
        program, run = prepare(size)
        compiled = time.perf_counter() - began
        run()  # The first touches memory for the first time.
        times = _timed(run, seconds, 6 * seconds if size == 1 else 0.0)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise ResourceError(
            f"batch size {size} is too large for this device's memory; choose a smaller one."
        ) from None
    middle = median(times)
    rate, peak = size * flops / middle, peak_flops(jax.devices()[0])
    return Measured(
        size,
        len(times),
        compiled,
        middle * 1e3,
        quantiles(times, n=100)[-1] * 1e3 if len(times) >= FEWEST_FOR_LATENCY else None,
        size / middle,
        rate,
        None if peak is None else rate / peak,
        peak_bytes(program),
        _accessed(program),
    )


def _accessed(program: Any) -> int | None:
    count = (program.cost_analysis() or {}).get("bytes accessed")
    return None if count is None else int(count)


def _timed(run: Callable[[], Any], seconds: float, for_latency: float) -> list[float]:
    """Return the seconds of runs: for some time, at least a few; and up to another time, enough for a percentile."""
    times: list[float] = []
    spent = 0.0
    while (
        spent < seconds
        or len(times) < FEWEST_RUNS
        or (len(times) < FEWEST_FOR_LATENCY and spent < for_latency)
    ):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
        spent += times[-1]
    return times


def _classifier(config: Any) -> Classification:
    return Classification(config, ClassificationOptions(), DataInfo(config.num_classes))


def _shapes(objective: Classification) -> Any:
    return jax.eval_shape(objective.init, jax.random.key(0))[0]


def plain_buffers(objective: Classification) -> Any:
    """Return batch statistics with which nothing is divided by zero; none for most models."""
    shapes = jax.eval_shape(objective.init, jax.random.key(0))[1]
    return jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)


def random_parameters(objective: Classification) -> Any:
    """Return small random parameters: compiling their proper start takes longer than what is measured."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.02, x.shape), x.dtype), _shapes(objective))


def _images(config: Any, size: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (size, *config.input_shape), np.uint8)
    if family_of(config).budget(config) is None:
        return {"image": images}
    return {"image": images, "grid": np.full((size, 2), (1, config.max_patches), np.int32)}
