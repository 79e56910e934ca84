"""Compiling the training step of an experiment for devices that need not be here."""

import re
import time
from dataclasses import dataclass
from typing import Any

import jax

from vit_jax.planning.hlo import Schedule, read_schedule
from vit_jax.training.devices.compilation import uncached
from vit_jax.training.experiment import Experiment
from vit_jax.training.guard.memory import peak_bytes
from vit_jax.training.guard.out_of_memory import fast_memory_error, is_of_fast_memory
from vit_jax.training.step import compile_step

# On GPUs, products are cuBLAS's: without a card the compiler cannot try whether its own kernels are faster, takes them
# unseen, and in jax 0.10 fails on some shapes. What cuBLAS wants for itself is in the temporary arrays.
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False}


@dataclass(frozen=True)
class Program:
    """A compiled step.

    Attributes:
      temporary: bytes on a chip for activations, gradients and gathered parameters, at their peak.
      peak: bytes on a chip in all: arguments, what is not written over them, temporary arrays and code.
      schedule: what it executes.
      seconds: that compiling took, here.
    """

    temporary: int
    peak: int
    schedule: Schedule
    seconds: float


@dataclass(frozen=True)
class TooLarge:
    """A step that the compiler refused.

    Attributes:
      needed: bytes on a chip, where the compiler says.
      largest: its largest arrays, `(bytes, what)`.
    """

    needed: int | None
    largest: tuple[tuple[int, str], ...]


def compile_program(experiment: Experiment) -> Program | TooLarge:
    """Return the compiled step of an experiment, or why it does not fit."""
    shardings = experiment.devices.state_shardings
    options, frozen = experiment.devices.step_options, experiment.devices.constants
    lowered = compile_step(experiment.step, shardings, None, options, frozen.shardings).lower(
        experiment.abstract_state, experiment.abstract_batch(), *frozen.abstract_arguments
    )
    gpu = experiment.devices.first.platform == "gpu"
    began = time.monotonic()
    try:
        with uncached():
            compiled: Any = lowered.compile(compiler_options=GPU_OPTIONS if gpu else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        if is_of_fast_memory(str(error)):
            raise fast_memory_error(str(error)) from error
        return _too_large(str(error))
    memory = compiled.memory_analysis()
    schedule = read_schedule(compiled.as_text(), experiment.devices.mesh.size)
    return Program(memory.temp_size_in_bytes, peak_bytes(compiled), schedule, time.monotonic() - began)


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def _too_large(text: str) -> TooLarge:
    needed = re.search(r"(?:Used|HLO temporaries \(|required[^(]*\()\s*([\d.]+)([KMGT]?)", text)
    largest = []
    for size, rest in re.findall(r"Size: ([\d.]+[KMGT]?)\n(.*?)(?=\n\s*=====|\Z)", text, re.DOTALL):
        match = re.fullmatch(r"([\d.]+)([KMGT]?)", size)
        shape = re.search(r"Shape: (\S+?)\{", rest)
        source = re.search(r'op_name="([^"]*)"', rest)
        if match:
            what = " ".join(part[1] for part in (shape, source) if part)
            largest.append((_bytes(match[1], match[2]), what or "an array"))
    return TooLarge(
        _bytes(needed[1], needed[2]) if needed else None,
        tuple(sorted(set(largest), reverse=True)[:3]),
    )
